package workload

import (
	"context"
	"maps"
	"slices"
	"strings"

	"github.com/compose-spec/compose-go/v2/types"
)

// nothingToDo tells whether every service is as the files and the override want it: what is to run runs, and one-shots, such as
// migrations, have done their work, which `compose up` would have them do again. Networks and volumes are made what the files
// want on the way. Where it can't be told, the answer is no.
func (r *Runner) nothingToDo(ctx context.Context) bool {
	before, err := r.containers(ctx)
	if err != nil || !r.settled(before) || !r.upToDate(ctx, before) {
		return false
	}
	// It makes what is missing, and starts nothing. `up` for some services alone would be no way: to older versions of compose
	// (2.26) a service without its dependencies is another one, which they recreate.
	if err := r.compose(ctx, "create", "--no-build", "--pull", "never"); err != nil {
		return false // `up` meets the same error, and says so
	}
	after, err := r.containers(ctx)
	if err != nil || len(after) != len(before) || !r.settled(after) {
		return false
	}
	for id := range before {
		if _, same := after[id]; !same {
			return false
		}
	}
	return true
}

// settled tells whether all services have their containers, and each of those runs, or has ended with 0 where that is what others
// wait for.
func (r *Runner) settled(containers map[string]ContainerState) bool {
	groups := byNumber(containers)
	for _, service := range r.project.Services() {
		if len(groups[service]) != r.project.replicas(service) {
			return false
		}
		for _, c := range groups[service] {
			done := r.project.awaitedEnd(service) && c.ended() && c.ExitCode == 0 && c.Error == ""
			if !c.running() && !done {
				return false
			}
		}
	}
	return true
}

// awaitedEnd tells whether an active service waits for this one's success. Without that, one that has ended may as well have
// been stopped: many that are to run for ever have no restart policy.
func (p *Project) awaitedEnd(service string) bool {
	return p.oneShot(service) && slices.ContainsFunc(p.Services(), func(other string) bool {
		return p.model.Services[other].DependsOn[service].Condition == types.ServiceConditionCompletedSuccessfully
	})
}

// upToDate tells whether containers of active services were made of what the files and the override say now, by compose's own
// hashes, and of the images that their references mean now.
func (r *Runner) upToDate(ctx context.Context, containers map[string]ContainerState) bool {
	said, err := r.composeLines(ctx, "config", "--hash", "*")
	if err != nil {
		return false
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
