package image

import (
	"errors"
	"fmt"
	"strings"

	"github.com/distribution/reference"

	"github.com/flowviz/flowagent/agent/config"
	"github.com/moby/moby/api/types/image"
)

// wanted is one image that the workload names.
type wanted struct {
	ref    string          // as given
	named  reference.Named // normalised: docker.io and :latest spelled out, no tag beside a digest
	digest string          // "sha256:…" of the manifest, "" when the reference is a tag
}

func (w wanted) host() string { return reference.Domain(w.named) }

// name is what the engine and people call it: docker.io/library/ left out.
func (w wanted) name() string { return reference.FamiliarString(w.named) }

// parseWanted normalises a reference as the engine does. A tag beside a digest says nothing: the digest decides.
func parseWanted(ref string) (wanted, error) {
	named, err := reference.ParseDockerRef(ref)
	if err != nil {
		return wanted{}, fmt.Errorf("image %q: %w; write it like registry.example.com/name:tag or name@sha256:…", ref, err)
	}
	w := wanted{ref: ref, named: named}
	if digested, ok := named.(reference.Digested); ok {
		w.digest = digested.Digest().String()
	}
	return w, nil
}

// Host returns the registry's host of an image reference, as [Credentials] knows it: docker.io for Docker Hub.
func Host(ref string) (string, error) {
	w, err := parseWanted(ref)
	if err != nil {
		return "", err
	}
	return w.host(), nil
}

// parseAll normalises every reference, and reports every one that can't be.
func parseAll(refs []string) ([]wanted, error) {
	all := make([]wanted, 0, len(refs))
	var errs []error
	for _, ref := range refs {
		w, err := parseWanted(ref)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		all = append(all, w)
	}
	return all, errors.Join(errs...)
}

// Check refuses, all at once, references that can't be pulled as pin wants: those that are none, and under pin: digest
// those without one.
func Check(refs []string, pin config.Pin) error {
	all, err := parseAll(refs)
	if err != nil || pin != config.PinDigest {
		return err
	}
	return checkPinned(all)
}

// checkPinned refuses, all at once, what isn't named by a SHA-256 digest.
func checkPinned(all []wanted) error {
	var loose []string
	for _, w := range all {
		if !strings.HasPrefix(w.digest, "sha256:") {
			loose = append(loose, w.ref)
		}
	}
	if len(loose) == 0 {
		return nil
	}
	return fmt.Errorf("%w: %s; write each as name@sha256:…, or set workload.pull.pin to none", ErrUnpinned, strings.Join(loose, ", "))
}

// repoDigests are the digests under which the engine knows an image in w's repository.
func repoDigests(found image.InspectResponse, w wanted) []string {
	var digests []string
	for _, repoDigest := range found.RepoDigests {
		named, err := reference.ParseNormalizedNamed(repoDigest)
		if err != nil || named.Name() != w.named.Name() {
			continue // "<none>@<none>", or another repository's
		}
		if digested, ok := named.(reference.Digested); ok {
			digests = append(digests, digested.Digest().String())
		}
	}
	return digests
}

// pinned is the reference with w's name and the given digest.
func pinned(w wanted, digest string) string {
	return reference.FamiliarName(w.named) + "@" + digest
}
