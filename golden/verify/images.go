package verify

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
)

// inspectTimeout is far above the milliseconds that the engine takes, for one that is busy.
const inspectTimeout = time.Minute

// images looks for the images that the Compose files name, the digest of each included.
func (v *verifier) images() (string, error) {
	if v.project == nil {
		return "", errors.New("not checked: the configuration doesn't say which")
	}
	find, err := v.imageStore()
	if err != nil {
		return "", err
	}
	var bad, there []string
	for _, ref := range v.project.Images() {
		digest, err := find(ref)
		if err != nil {
			bad = append(bad, fmt.Sprintf("%s: %v", ref, err))
			continue
		}
		there = append(there, fmt.Sprintf("%s (%s)", ref, digest))
	}
	if len(bad) > 0 {
		return "", &findings{fmt.Sprintf("%d of %s missing: pull them into the image", len(bad), counted(len(bad)+len(there), "image")), bad}
	}
	return fmt.Sprintf("%s: %s", counted(len(there), "image"), strings.Join(there, ", ")), nil
}

var errNoImage = errors.New("it isn't there")

// imageStore is a way to ask for images: the engine where it answers, else what it has written down. What it returns finds
// the digest under which an image is known, or the image's own id where it came from no registry.
func (v *verifier) imageStore() (func(ref string) (string, error), error) {
	address := v.engineSocket()
	conn, err := net.DialTimeout("unix", address, inspectTimeout)
	if err != nil {
		return v.imageFiles()
	}
	_ = conn.Close()
	engine, err := client.New(client.WithHost("unix://" + address))
	if err != nil {
		return nil, err
	}
	return func(ref string) (string, error) {
		ctx, cancel := context.WithTimeout(v.ctx, inspectTimeout)
		defer cancel()
		named, err := reference.ParseDockerRef(ref)
		if err != nil {
			return "", err
		}
		found, err := engine.ImageInspect(ctx, named.String())
		if cerrdefs.IsNotFound(err) {
			return "", errNoImage
		}
		if err != nil {
			return "", fmt.Errorf("the engine doesn't tell: %w", err)
		}
		return pick(named, found.RepoDigests, found.ID), nil
	}, nil
}

// engineSocket is where the engine of this system listens, as a path of this machine.
func (v *verifier) engineSocket() string {
	socket, ok := strings.CutPrefix(string(v.loaded.Config.Workload.Engine), "unix://")
	if !ok {
		return ""
	}
	if !v.running {
		socket = strings.Replace(socket, "/var/run/", "/run/", 1) // a link, which would lead out of the root directory
	}
	return filepath.Join(v.path, socket)
}

// pick is the digest of named's own repository among those that the engine knows, or the id.
func pick(named reference.Named, repoDigests []string, id string) string {
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
	return "loaded, id " + id
}

// repositoriesFile is where an engine with its own store (not containerd's) writes which images it has.
const repositoriesFile = "var/lib/docker/image/overlay2/repositories.json"

func (v *verifier) imageFiles() (func(ref string) (string, error), error) {
	content, err := v.root.ReadFile(repositoriesFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("not checked: the engine isn't running, and has no list of its images in /%s; start it and verify again", repositoriesFile)
	}
	if err != nil {
		return nil, fmt.Errorf("not checked: the engine isn't running, and the list of its images can't be read: %w", err)
	}
	var list struct {
		// By repository, then by reference with tag or digest: the id.
		Repositories map[string]map[string]string
	}
	if err := json.Unmarshal(content, &list); err != nil {
		return nil, fmt.Errorf("not checked: the engine isn't running, and the list of its images is damaged: /%s: %w", repositoriesFile, err)
	}
	return func(ref string) (string, error) {
		named, err := reference.ParseDockerRef(ref)
		if err != nil {
			return "", err
		}
		known := list.Repositories[reference.FamiliarName(named)]
		id, ok := known[reference.FamiliarString(named)]
		if !ok {
			return "", errNoImage
		}
		// The id is that of a file which the engine reads the image from.
		hash := strings.TrimPrefix(id, "sha256:")
		if _, err := v.root.Stat("var/lib/docker/image/overlay2/imagedb/content/sha256/" + hash); err != nil {
			return "", fmt.Errorf("the engine lists it, and has lost it: %w", err)
		}
		var digests []string
		for name, other := range known {
			if other == id && strings.Contains(name, "@") {
				digests = append(digests, name)
			}
		}
		slices.Sort(digests)
		return pick(named, digests, id), nil
	}, nil
}
