package image

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/distribution/reference"
	"github.com/moby/moby/api/types/image"
	"github.com/moby/moby/client"
	"golang.org/x/sync/errgroup"

	"github.com/flowviz/flowagent/agent/config"
)

// Image is one image that is on the node.
type Image struct {
	// The reference as it was asked for.
	Ref string
	// The engine's id of the image, sha256:…
	ID string
	// Digest of the manifest in the registry, sha256:…; "" for an image that no registry gave.
	Digest string
	// The reference to run: name@sha256:… when a registry's digest is known; the image's id when it was asked for by
	// digest and came from an archive, since engines know no registry digest of those; else the name and tag.
	Pinned string
	// Whether it was pulled just now.
	Pulled bool
	// How many bytes that took, as compressed by the registry.
	Bytes int64
	// How long it took, all tries together.
	Elapsed time.Duration
}

// Puller brings images onto the node. It may be used by several goroutines at once.
type Puller struct {
	engine   *client.Client
	cfg      config.Pull
	creds    *Credentials
	progress Progress
	log      *slog.Logger
	pulse    *pulse

	mu      sync.Mutex
	archive map[string][]string // ids that an image may have in the engine, by each manifest digest seen in an archive
}

// NewPuller takes an engine with a negotiated API version of 1.40 or later, and where progress and retries are
// reported; progress and log may be nil.
func NewPuller(engine *client.Client, cfg config.Pull, creds *Credentials, progress Progress, log *slog.Logger) *Puller {
	if progress == nil {
		progress = silent{}
	}
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &Puller{
		engine: engine, cfg: cfg, creds: creds, progress: progress, log: log,
		pulse: &pulse{}, archive: map[string][]string{},
	}
}

// Ensure makes sure that every image is on the node, as the pull policy says, several at once. The results stand in the
// order of refs; an image that is named twice is fetched once. When something failed they are nil, the images that did
// arrive stay in the engine, and the error joins what went wrong with each of the others: after an error that more
// tries can't mend, images under way are finished but none is tried again.
//
// Under pin: digest, references without a digest are refused together before anything is pulled.
func (p *Puller) Ensure(ctx context.Context, refs []string) ([]Image, error) {
	all, err := parseAll(refs)
	if err != nil {
		return nil, err
	}
	if p.cfg.Pin == config.PinDigest {
		if err := checkPinned(all); err != nil {
			return nil, err
		}
	}
	if len(all) == 0 {
		return nil, nil
	}
	if _, err := p.engine.Ping(ctx, client.PingOptions{NegotiateAPIVersion: true}); err != nil {
		return nil, engineError(ctx, "pull images", err)
	}

	// retries ends when trying again makes no sense any more, for whichever image.
	retries, stopRetries := context.WithCancel(ctx)
	defer stopRetries()
	var group errgroup.Group
	group.SetLimit(max(1, p.cfg.Parallel))
	results := make([]Image, len(all))
	errs := make([]error, len(all))
	first := map[string]int{}
	for i, w := range all {
		if _, seen := first[w.named.String()]; seen {
			continue
		}
		first[w.named.String()] = i
		group.Go(func() error {
			results[i], errs[i] = p.ensure(ctx, retries, w)
			if errs[i] != nil {
				stopRetries()
			}
			return nil
		})
	}
	_ = group.Wait() // each image's error is in errs
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	for i, w := range all {
		results[i] = results[first[w.named.String()]]
		results[i].Ref = w.ref
	}
	return results, nil
}

func (p *Puller) ensure(ctx, retries context.Context, w wanted) (Image, error) {
	if p.cfg.Policy != config.PullAlways {
		found, ok, err := p.find(ctx, w)
		if err != nil || ok {
			return found, err
		}
	}
	if p.cfg.Policy == config.PullNever {
		return Image{}, fmt.Errorf("image %s: %w and workload.pull.policy is never; load it with `docker load`, put its archive into workload.pull.archives, or use policy missing", w.ref, ErrMissing)
	}
	p.progress.Started(w.name())
	started := time.Now()
	result, err := p.pull(ctx, retries, w)
	result.Elapsed = time.Since(started)
	if err != nil {
		err = fmt.Errorf("pull %s: %w", w.ref, err)
	}
	p.progress.Finished(w.name(), result, err)
	return result, err
}

// find looks for the image in the engine.
func (p *Puller) find(ctx context.Context, w wanted) (Image, bool, error) {
	found, ok, err := inspect(ctx, p.engine, w.named.String())
	if err != nil || ok {
		return describe(found.InspectResponse, w, ""), ok, err
	}
	if w.digest == "" {
		return Image{}, false, nil
	}
	p.mu.Lock()
	ids := slices.Clone(p.archive[w.digest])
	p.mu.Unlock()
	for _, id := range ids {
		found, ok, err := inspect(ctx, p.engine, id)
		if err != nil || ok {
			return Image{Ref: w.ref, ID: found.ID, Pinned: found.ID}, ok, err
		}
	}
	return Image{}, false, nil
}

// inspect asks the engine for an image by reference or id; false when there is none.
func inspect(ctx context.Context, engine *client.Client, ref string) (client.ImageInspectResult, bool, error) {
	found, err := engine.ImageInspect(ctx, ref)
	switch {
	case err == nil:
		return found, true, nil
	case cerrdefs.IsNotFound(err):
		return found, false, nil
	default:
		return found, false, engineError(ctx, "look for image "+ref, err)
	}
}

// describe is the result for an image that the engine has. pulled is the digest that a pull just reported, or "".
func describe(found image.InspectResponse, w wanted, pulled string) Image {
	digests := repoDigests(found, w)
	result := Image{Ref: w.ref, ID: found.ID, Pinned: reference.FamiliarString(w.named)}
	switch {
	case w.digest != "" && slices.Contains(digests, w.digest):
		result.Digest = w.digest
	case slices.Contains(digests, pulled):
		result.Digest = pulled
	case w.digest == "" && len(digests) > 0:
		result.Digest = digests[0] // several: the same content under several manifests
	}
	if result.Digest != "" {
		result.Pinned = pinned(w, result.Digest)
	}
	return result
}
