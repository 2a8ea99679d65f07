package target

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"time"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/distribution/reference"
	"github.com/moby/moby/client"

	"github.com/flowviz/flowagent/agent/config"
)

// ErrNoImage says that the system doesn't have an image.
var ErrNoImage = errors.New("it isn't there")

// Image is one that the system's engine has.
type Image struct {
	// Ref is the reference that was asked for.
	Ref string
	// Digest of the manifest, as sha256:…; empty for an image that came from no registry.
	Digest string
	// ID is the engine's own name for it.
	ID string
}

// inspectTimeout is far above the milliseconds that the engine takes, for one that is busy.
const inspectTimeout = time.Minute

// Images is a way to ask for images: the engine where it answers at its address, else what it has written down. What it
// returns looks for one image by its reference; the error wraps [ErrNoImage] for one that isn't there.
func (t *Target) Images(ctx context.Context, engine config.EngineAddress) (func(ref string) (Image, error), error) {
	socket, ok := strings.CutPrefix(string(engine), "unix://")
	if !ok {
		return nil, fmt.Errorf("the engine's address %s is no socket of this system", engine)
	}
	if !t.Running {
		socket = strings.Replace(socket, "/var/run/", "/run/", 1) // a link, which would lead out of the root directory
	}
	socket = filepath.Join(t.Path, socket)
	conn, err := (&net.Dialer{Timeout: inspectTimeout}).DialContext(ctx, "unix", socket)
	if err != nil {
		return t.imageFiles()
	}
	_ = conn.Close()
	asked, err := client.New(client.WithHost("unix://" + socket))
	if err != nil {
		return nil, err
	}
	return func(ref string) (Image, error) {
		ctx, cancel := context.WithTimeout(ctx, inspectTimeout)
		defer cancel()
		named, err := reference.ParseDockerRef(ref)
		if err != nil {
			return Image{}, err
		}
		found, err := asked.ImageInspect(ctx, named.String())
		if cerrdefs.IsNotFound(err) {
			return Image{}, ErrNoImage
		}
		if err != nil {
			return Image{}, fmt.Errorf("the engine doesn't tell: %w", err)
		}
		return Image{ref, pick(named, found.RepoDigests), found.ID}, nil
	}, nil
}

// pick is the digest of named's own repository among those that the engine knows.
func pick(named reference.Named, repoDigests []string) string {
	if digested, ok := named.(reference.Digested); ok {
		return digested.Digest().String()
	}
	for _, known := range repoDigests {
		other, err := reference.ParseNormalizedNamed(known)
		if err != nil || other.Name() != named.Name() {
			continue
		}
		if digested, ok := other.(reference.Digested); ok {
			return digested.Digest().String()
		}
	}
	return ""
}

// repositoriesFile is where an engine with its own store (not containerd's) writes which images it has.
const repositoriesFile = "var/lib/docker/image/overlay2/repositories.json"

func (t *Target) imageFiles() (func(ref string) (Image, error), error) {
	content, err := t.Root.ReadFile(repositoriesFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("the engine isn't running, and has no list of its images in /%s; start it and verify again", repositoriesFile)
	}
	if err != nil {
		return nil, fmt.Errorf("the engine isn't running, and the list of its images can't be read: %w", err)
	}
	var list struct {
		// By repository, then by reference with tag or digest: the id.
		Repositories map[string]map[string]string
	}
	if err := json.Unmarshal(content, &list); err != nil {
		return nil, fmt.Errorf("the engine isn't running, and the list of its images is damaged: /%s: %w", repositoriesFile, err)
	}
	return func(ref string) (Image, error) {
		named, err := reference.ParseDockerRef(ref)
		if err != nil {
			return Image{}, err
		}
		known := list.Repositories[reference.FamiliarName(named)]
		id, ok := known[reference.FamiliarString(named)]
		if !ok {
			return Image{}, ErrNoImage
		}
		// The id is that of a file which the engine reads the image from.
		hash := strings.TrimPrefix(id, "sha256:")
		if _, err := t.Root.Stat("var/lib/docker/image/overlay2/imagedb/content/sha256/" + hash); err != nil {
			return Image{}, fmt.Errorf("the engine lists it, and has lost it: %w", err)
		}
		var digests []string
		for name, other := range known {
			if other == id && strings.Contains(name, "@") {
				digests = append(digests, name)
			}
		}
		slices.Sort(digests)
		return Image{ref, pick(named, digests), id}, nil
	}, nil
}
