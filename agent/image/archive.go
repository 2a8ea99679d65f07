package image

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/moby/moby/api/types/jsonstream"
	"github.com/moby/moby/client"
)

// LoadArchives loads images from the archives (.tar, .tar.gz; `docker save` or OCI layout) of the configured directory,
// in name order, and returns the names of those it loaded. Only refs are loaded, by name or by the digest of their
// manifest; nil means every image that any archive holds. An archive whose images the engine already has is not loaded
// again. A name means what the directory says, whatever the engine knew by it before; when several archives hold the
// same name, the last one decides. A damaged archive doesn't keep the others from being loaded; the error joins what is
// wrong with each, by file name.
//
// Call it before [Puller.Ensure], on every start: a reference by digest is found in the engine, which forgets the
// registry digests of loaded images, only because LoadArchives has seen the archive.
func (p *Puller) LoadArchives(ctx context.Context, refs []string) ([]string, error) {
	if p.cfg.Archives == "" {
		return nil, nil
	}
	all, err := parseAll(refs)
	if err != nil {
		return nil, err
	}
	files, err := archiveFiles(p.cfg.Archives)
	if err != nil || len(files) == 0 {
		return nil, err
	}
	version, err := p.engine.ServerVersion(ctx, client.ServerVersionOptions{})
	if err != nil {
		return nil, engineError(ctx, "load image archives", err)
	}
	var errs []error
	var archives []archive
	for _, file := range files {
		a, err := readArchive(ctx, file, platform{OS: version.Os, Architecture: version.Arch})
		if ctx.Err() != nil {
			return nil, fmt.Errorf("read image archive %s: %w", file, context.Cause(ctx))
		}
		if err != nil {
			errs = append(errs, archiveError(file, err))
			continue
		}
		p.remember(a)
		archives = append(archives, a)
	}

	needs := selectImages(archives, all, refs == nil)
	var loaded []string
	for i, a := range archives {
		names, err := p.loadArchive(ctx, a, needs[i])
		loaded = append(loaded, names...)
		if err != nil {
			errs = append(errs, err)
		}
		if ctx.Err() != nil {
			break
		}
	}
	return loaded, errors.Join(errs...)
}

// archiveFiles lists what LoadArchives reads, in name order.
func archiveFiles(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("look for image archives: %w; create the directory, or correct workload.pull.archives", err)
	}
	var files []string
	for _, entry := range entries {
		if name := entry.Name(); !entry.IsDir() && (strings.HasSuffix(name, ".tar") || strings.HasSuffix(name, ".tar.gz")) {
			files = append(files, filepath.Join(dir, name))
		}
	}
	return files, nil
}

func archiveError(file string, err error) error {
	return fmt.Errorf("image archive %s can't be used: %w; copy it to this node again", file, err)
}

// remember notes the digests that an archive vouches for.
func (p *Puller) remember(a archive) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, image := range a.images {
		for _, digest := range image.digests {
			p.archive[digest] = image.ids()
		}
	}
}

// need is one image of an archive that has to be in the engine, under certain names.
type need struct {
	archived
	names []string // those of its names that this archive decides on
}

// selectImages finds, for each archive, the images of it that are wanted. The last archive that holds a name gets it.
func selectImages(archives []archive, all []wanted, everything bool) [][]need {
	names, digests := map[string]bool{}, map[string]bool{}
	for _, w := range all {
		names[w.named.String()] = true
		digests[w.digest] = w.digest != ""
	}
	taken := map[string]bool{}
	needs := make([][]need, len(archives))
	for i := len(archives) - 1; i >= 0; i-- {
		for _, image := range archives[i].images {
			n := need{archived: image}
			for _, name := range image.names {
				if !taken[name] && (everything || names[name]) {
					taken[name] = true
					n.names = append(n.names, name)
				}
			}
			pinned := slices.ContainsFunc(image.digests, func(digest string) bool { return digests[digest] })
			nameless := everything && len(image.names) == 0
			if len(n.names) > 0 || pinned || nameless {
				needs[i] = append(needs[i], n)
			}
		}
	}
	return needs
}

// loadArchive gives the engine what it lacks of an archive's needed images, and returns the names that it loaded.
func (p *Puller) loadArchive(ctx context.Context, a archive, needs []need) ([]string, error) {
	var missing []need
	for _, n := range needs {
		_, ok, err := p.engineID(ctx, n.archived)
		if err != nil {
			return nil, err
		}
		if !ok {
			missing = append(missing, n)
		}
	}
	if len(missing) > 0 {
		if err := p.load(ctx, a); err != nil {
			return nil, err
		}
	}
	var loaded []string
	for _, n := range missing {
		loaded = append(loaded, n.label())
	}
	for _, n := range needs {
		id, ok, err := p.engineID(ctx, n.archived)
		if err != nil {
			return loaded, err
		}
		if !ok {
			return loaded, archiveError(a.path, fmt.Errorf("the engine has no %s after loading it", n.label()))
		}
		for _, name := range n.names {
			if err := p.name(ctx, id, name); err != nil {
				return loaded, err
			}
		}
	}
	return loaded, nil
}

// engineID looks for an archive's image in the engine. An engine with the containerd store gives an image from a
// `docker save` archive an id that isn't in the archive; there the name leads to it, and its layers and birth tell
// whether it is the same.
func (p *Puller) engineID(ctx context.Context, image archived) (string, bool, error) {
	for _, id := range image.ids() {
		found, ok, err := inspect(ctx, p.engine, id)
		if err != nil || ok {
			return found.ID, ok, err
		}
	}
	for _, name := range image.names {
		found, ok, err := inspect(ctx, p.engine, name)
		if err != nil {
			return "", false, err
		}
		created, timeErr := time.Parse(time.RFC3339Nano, found.Created)
		if ok && timeErr == nil && created.Equal(image.content.Created) && slices.Equal(found.RootFS.Layers, image.content.RootFS.DiffIDs) {
			return found.ID, true, nil
		}
	}
	return "", false, nil
}

// name makes a name mean an image, where it doesn't already.
func (p *Puller) name(ctx context.Context, id, name string) error {
	found, ok, err := inspect(ctx, p.engine, name)
	if err != nil || (ok && found.ID == id) {
		return err
	}
	if _, err := p.engine.ImageTag(ctx, client.ImageTagOptions{Source: id, Target: name}); err != nil {
		return engineError(ctx, "name image "+name, err)
	}
	return nil
}

// load sends one archive to the engine.
func (p *Puller) load(ctx context.Context, a archive) error {
	label := filepath.Base(a.path)
	p.progress.Started(label)
	started := time.Now()
	size, err := p.sendArchive(ctx, a, label)
	p.progress.Finished(label, Image{Ref: label, Bytes: size, Elapsed: time.Since(started)}, err)
	return err
}

func (p *Puller) sendArchive(ctx context.Context, a archive, label string) (int64, error) {
	info, err := os.Stat(a.path)
	if err != nil {
		return 0, archiveError(a.path, err)
	}
	var readErr error
	done := make(chan struct{})
	from, to := io.Pipe()
	go func() {
		defer close(done)
		readErr = a.write(ctx, to, func(n int64) {
			p.progress.Moved(label, State{Doing: "loading", Current: n, Total: info.Size()})
		})
		to.CloseWithError(readErr)
	}()
	err = p.send(ctx, from)
	_ = from.Close()
	<-done
	switch {
	case ctx.Err() != nil:
		return 0, fmt.Errorf("load image archive %s: %w", a.path, context.Cause(ctx))
	case readErr != nil && !errors.Is(readErr, io.ErrClosedPipe): // what the engine says then is only a consequence
		return 0, archiveError(a.path, readErr)
	case err == nil:
		return info.Size(), nil
	case client.IsErrConnectionFailed(err):
		return 0, engineError(ctx, "load image archive "+a.path, err)
	case judge(err) == noSpace:
		return 0, fmt.Errorf("load image archive %s: %s; free space on the engine's disk", a.path, tidy(err.Error()))
	default:
		return 0, archiveError(a.path, errors.New(tidy(err.Error())))
	}
}

// send has the engine load a stream. Errors come as a status or as a message in the answer.
func (p *Puller) send(ctx context.Context, archive io.Reader) error {
	answer, err := p.engine.ImageLoad(ctx, archive, client.ImageLoadWithQuiet(true))
	if err != nil {
		return err
	}
	defer answer.Close()
	messages := json.NewDecoder(answer)
	for {
		var message jsonstream.Message
		switch err := messages.Decode(&message); {
		case err == io.EOF:
			return nil
		case err != nil:
			return err
		case message.Error != nil:
			return (*streamError)(message.Error)
		}
	}
}
