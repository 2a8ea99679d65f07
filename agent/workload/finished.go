package workload

import (
	"context"
	"maps"
	"slices"
	"strings"
)

// withoutFinished returns the services for which a start has anything to do where one-shots, such as migrations, have done
// their work already: `compose up` would run each of them again. That holds only while every service is as the files and the
// override want it, and those that are to run do run. In every other case, and where that can't be told, it returns nil,
// which stands for all services.
func (r *Runner) withoutFinished(ctx context.Context) []string {
	containers, err := r.containers(ctx)
	if err != nil || len(containers) == 0 {
		return nil
	}
	groups := byNumber(containers)
	var running, finished []string
	for _, service := range r.project.Services() {
		all := groups[service]
		switch {
		case len(all) != r.project.replicas(service):
			return nil
		case !slices.ContainsFunc(all, func(c ContainerState) bool { return !c.running() }):
			running = append(running, service)
		case r.project.oneShot(service) && !slices.ContainsFunc(all, func(c ContainerState) bool { return !c.ended() || c.ExitCode != 0 || c.Error != "" }):
			finished = append(finished, service)
		default:
			return nil
		}
	}
	if len(running) == 0 || len(finished) == 0 || !r.upToDate(ctx, containers) {
		return nil
	}
	return running
}

// upToDate tells whether containers of active services were made of what the files and the override say now, by compose's own
// hashes, and of the images that their references mean now.
func (r *Runner) upToDate(ctx context.Context, containers map[string]ContainerState) bool {
	said, err := r.composeLines(ctx, "config", "--hash", "*")
	if err != nil {
		return false // `up` meets the same error, and says so
	}
	wanted := map[string]string{}
	for _, line := range said {
		if service, hash, found := strings.Cut(line, " "); found {
			wanted[service] = hash
		}
	}
	images := map[string]string{} // ids by reference
	for c := range maps.Values(containers) {
		if r.active(c.Service) != nil {
			continue
		}
		if c.configHash == "" || c.configHash != wanted[c.Service] {
			return false
		}
		if _, known := images[c.Image]; !known {
			found, err := r.engine.ImageInspect(ctx, c.Image)
			if err != nil {
				return false
			}
			images[c.Image] = found.ID
		}
		if images[c.Image] != c.ImageID {
			return false
		}
	}
	return true
}
