package image

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/distribution/reference"
	"github.com/moby/moby/api/types/image"
	"github.com/moby/moby/client"
	"golang.org/x/sys/unix"

	"github.com/flowviz/flowagent/agent/config"
)

// CleanUp removes superseded images of the repositories that refs name, the oldest first, while the file system of the
// engine's data has less free space than cfg.MinFree. refs, every image that a container uses (running or stopped), and
// the newest cfg.Keep others of each repository stay; names in other repositories are never touched, and nothing is
// forced. diskFree returns the free bytes of the file system that holds a path, as [DiskFree] does. It returns the
// references that it removed, also beside an error.
func CleanUp(
	ctx context.Context,
	engine *client.Client,
	cfg config.CleanUp,
	refs []string,
	diskFree func(path string) (int64, error),
	log *slog.Logger,
) (removed []string, err error) {
	if cfg.MinFree <= 0 {
		return nil, nil
	}
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	all, err := parseAll(refs)
	if err != nil {
		return nil, err
	}
	info, err := engine.Info(ctx, client.InfoOptions{})
	if err != nil {
		return nil, engineError(ctx, "clean up images", err)
	}
	enough := func() (bool, error) {
		free, err := diskFree(info.Info.DockerRootDir)
		if err != nil {
			return false, fmt.Errorf("free space at %s: %w", info.Info.DockerRootDir, err)
		}
		return free >= int64(cfg.MinFree), nil
	}
	if done, err := enough(); done || err != nil {
		return nil, err
	}
	old, err := superseded(ctx, engine, cfg.Keep, all)
	if err != nil {
		return nil, err
	}
	var errs []error
	for _, candidate := range old {
		for _, ref := range candidate.refs {
			_, err := engine.ImageRemove(ctx, ref, client.ImageRemoveOptions{PruneChildren: true})
			switch {
			case err == nil:
				removed = append(removed, ref)
				log.Info("superseded image removed", "image", ref, "id", candidate.id)
			case cerrdefs.IsNotFound(err): // the engine drops an image's digests together with its last tag
			case cerrdefs.IsConflict(err): // a container or another image came to need it since
				log.Info("superseded image is in use", "image", ref, "reason", tidy(err.Error()))
			default:
				errs = append(errs, engineError(ctx, "remove image "+ref, err))
			}
		}
		if done, err := enough(); done || err != nil {
			return removed, errors.Join(append(errs, err)...)
		}
		if ctx.Err() != nil {
			break
		}
	}
	return removed, errors.Join(errs...)
}

// DiskFree returns how many bytes an unprivileged process could still write to the file system that holds path.
func DiskFree(path string) (int64, error) {
	var stat unix.Statfs_t
	if err := unix.Statfs(path, &stat); err != nil {
		return 0, err
	}
	return int64(stat.Bavail) * int64(stat.Bsize), nil // Linux has the size in 64 bits, macOS in 32
}

// removable is one image that nothing needs, and its references in the workload's repositories.
type removable struct {
	id      string
	created time.Time
	tagged  time.Time // when it got its newest name on this node
	refs    []string  // tags, then digests
}

// superseded lists the images that may go, the oldest first.
func superseded(ctx context.Context, engine *client.Client, keep int, all []wanted) ([]removable, error) {
	needed, err := neededImages(ctx, engine, all)
	if err != nil {
		return nil, err
	}
	listed, err := engine.ImageList(ctx, client.ImageListOptions{})
	if err != nil {
		return nil, engineError(ctx, "list images", err)
	}
	repositories := map[string]bool{}
	for _, w := range all {
		repositories[w.named.Name()] = true
	}
	// An image with names in two repositories counts in each, and goes when it may go in both.
	images := map[string]*removable{}
	byRepository := map[string][]*removable{}
	for _, summary := range listed.Items {
		if needed[summary.ID] {
			continue
		}
		candidate, names, err := candidateOf(ctx, engine, summary, repositories)
		if err != nil {
			return nil, err
		}
		if candidate == nil {
			continue
		}
		images[summary.ID] = candidate
		for _, name := range names {
			byRepository[name] = append(byRepository[name], candidate)
		}
	}
	for _, candidates := range byRepository {
		slices.SortFunc(candidates, func(a, b *removable) int { return byAge(b, a) })
		for _, kept := range candidates[:min(keep, len(candidates))] {
			delete(images, kept.id)
		}
	}
	old := make([]removable, 0, len(images))
	for _, candidate := range images {
		old = append(old, *candidate)
	}
	slices.SortFunc(old, func(a, b removable) int { return byAge(&a, &b) })
	return old, nil
}

// byAge orders by when the image was built. Reproducible builds may all claim the same second: then by when the node
// got it.
func byAge(a, b *removable) int {
	return cmp.Or(a.created.Compare(b.created), a.tagged.Compare(b.tagged), cmp.Compare(a.id, b.id))
}

// neededImages are the ids that containers use or the workload wants.
func neededImages(ctx context.Context, engine *client.Client, all []wanted) (map[string]bool, error) {
	containers, err := engine.ContainerList(ctx, client.ContainerListOptions{All: true})
	if err != nil {
		return nil, engineError(ctx, "list containers", err)
	}
	needed := map[string]bool{}
	for _, container := range containers.Items {
		needed[container.ImageID] = true
	}
	for _, w := range all {
		found, ok, err := inspect(ctx, engine, w.named.String())
		if err != nil {
			return nil, err
		}
		if ok {
			needed[found.ID] = true
		}
	}
	return needed, nil
}

// candidateOf collects an image's references in the given repositories, and which repositories those are; nil when it
// has none. An image that lost its tag to a newer one is still known by its repository's digest.
func candidateOf(ctx context.Context, engine *client.Client, summary image.Summary, repositories map[string]bool) (*removable, []string, error) {
	candidate := &removable{id: summary.ID, created: time.Unix(summary.Created, 0)} // whole seconds
	var names []string
	for _, ref := range slices.Concat(summary.RepoTags, summary.RepoDigests) {
		named, err := reference.ParseNormalizedNamed(ref)
		if err != nil || !repositories[named.Name()] {
			continue // "<none>:<none>", or none of the workload's business
		}
		candidate.refs = append(candidate.refs, ref)
		if !slices.Contains(names, named.Name()) {
			names = append(names, named.Name())
		}
	}
	if len(candidate.refs) == 0 {
		return nil, nil, nil
	}
	found, ok, err := inspect(ctx, engine, summary.ID)
	if err != nil || !ok {
		return nil, nil, err
	}
	if created, err := time.Parse(time.RFC3339Nano, found.Created); err == nil {
		candidate.created = created
	}
	candidate.tagged = found.Metadata.LastTagTime
	return candidate, names, nil
}
