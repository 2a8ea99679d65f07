package image

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/moby/moby/client"

	"github.com/flowviz/flowagent/agent/config"
)

// The tests' images from archives are called agent-image-archive/…
const archiveRepository = "agent-image-archive/"

type object = map[string]any

// layout builds an OCI image layout.
type layout struct {
	t       *testing.T
	files   []file
	entries []any
}

func newLayout(t *testing.T) *layout {
	return &layout{t: t, files: []file{{"oci-layout", []byte(`{"imageLayoutVersion":"1.0.0"}`)}}}
}

func (l *layout) blob(content []byte) (digest string) {
	digest = digestOf(content)
	l.files = append(l.files, file{"blobs/sha256/" + strings.TrimPrefix(digest, "sha256:"), content})
	return digest
}

func (l *layout) document(mediaType string, document object) object {
	l.t.Helper()
	content, err := json.Marshal(document)
	if err != nil {
		l.t.Fatal(err)
	}
	return object{"mediaType": mediaType, "digest": l.blob(content), "size": len(content)}
}

// image adds the blobs of an image with one random layer and returns the descriptor of its manifest and its id.
func (l *layout) image(architecture string) (entry object, id string) {
	l.t.Helper()
	content := make([]byte, 2000)
	_, _ = rand.Read(content)
	layer := tarOf(l.t, file{"content", content})
	var zipped bytes.Buffer
	w := gzip.NewWriter(&zipped)
	_, _ = w.Write(layer)
	_ = w.Close()
	config := l.document("application/vnd.oci.image.config.v1+json", object{
		"architecture": architecture, "os": "linux", "created": "2026-11-01T06:00:00Z", "config": object{},
		"rootfs": object{"type": "layers", "diff_ids": []string{digestOf(layer)}},
	})
	entry = l.document("application/vnd.oci.image.manifest.v1+json", object{
		"schemaVersion": 2, "config": config,
		"layers": []any{object{"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", "digest": l.blob(zipped.Bytes()), "size": zipped.Len()}},
	})
	return entry, config["digest"].(string)
}

// add puts a descriptor into index.json, under a name unless that is empty.
func (l *layout) add(entry object, annotation, name string) {
	entry = cloneObject(entry)
	if name != "" {
		entry["annotations"] = object{annotation: name}
	}
	l.entries = append(l.entries, entry)
}

func cloneObject(o object) object {
	clone := object{}
	for key, value := range o {
		clone[key] = value
	}
	return clone
}

func (l *layout) tar() []byte {
	l.t.Helper()
	index, err := json.Marshal(object{"schemaVersion": 2, "manifests": l.entries})
	if err != nil {
		l.t.Fatal(err)
	}
	return tarOf(l.t, append(slices.Clone(l.files), file{"index.json", index})...)
}

const (
	refName        = "org.opencontainers.image.ref.name"
	containerdName = "io.containerd.image.name"
)

// loader is a Puller on a directory of archives, which counts what is sent to the engine.
type loader struct {
	*Puller
	engine *client.Client
	dir    string
	sent   *[]string
}

func newLoader(t *testing.T) loader {
	t.Helper()
	l := loader{engine: connectEngine(t), dir: t.TempDir(), sent: &[]string{}}
	cfg := pulls()
	cfg.Policy, cfg.Archives = config.PullNever, l.dir
	l.Puller = NewPuller(l.engine, cfg, NewCredentials(nil, nil, nil, time.Now), sentArchives{names: l.sent}, nil)
	t.Cleanup(func() { removeAll(t, l.engine, archiveRepository) })
	return l
}

type sentArchives struct {
	silent
	names *[]string
}

func (s sentArchives) Started(name string) { *s.names = append(*s.names, name) }

func (l loader) write(t *testing.T, name string, content []byte) {
	t.Helper()
	if strings.HasSuffix(name, ".gz") {
		var zipped bytes.Buffer
		w := gzip.NewWriter(&zipped)
		_, _ = w.Write(content)
		_ = w.Close()
		content = zipped.Bytes()
	}
	if err := os.WriteFile(filepath.Join(l.dir, name), content, 0o600); err != nil {
		t.Fatal(err)
	}
}

func (l loader) wantID(t *testing.T, ref, id string) {
	t.Helper()
	found, _, err := inspect(t.Context(), l.engine, ref)
	if err != nil || found.ID != id {
		t.Errorf("%s: got image %q, %v, want %s", ref, found.ID, err, id)
	}
}

// save exports an image as `docker save` does.
func (l loader) save(t *testing.T, ref string) []byte {
	t.Helper()
	answer, err := l.engine.ImageSave(t.Context(), []string{ref})
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Close()
	content, err := io.ReadAll(answer)
	if err != nil {
		t.Fatal(err)
	}
	return content
}

func TestAnOCILayoutIsLoadedIntoAnEngineThatOnlyKnowsDockerSave(t *testing.T) {
	for _, suffix := range []string{".tar", ".tar.gz"} {
		t.Run(suffix, func(t *testing.T) {
			l := newLoader(t)
			oci := newLayout(t)
			entry, id := oci.image(runtime.GOARCH)
			oci.add(entry, containerdName, "docker.io/"+archiveRepository+"oci:1")
			l.write(t, "oci"+suffix, oci.tar())

			loaded, err := l.LoadArchives(t.Context(), nil)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff([]string{"docker.io/" + archiveRepository + "oci:1"}, loaded); diff != "" {
				t.Errorf("loaded (-want +got):\n%s", diff)
			}
			l.wantID(t, archiveRepository+"oci:1", id)

			if loaded, err = l.LoadArchives(t.Context(), nil); err != nil || len(loaded) > 0 || len(*l.sent) != 1 {
				t.Errorf("second time: got %v, %v and archives %v sent, want nothing more", loaded, err, *l.sent)
			}
		})
	}
}

func TestADockerSaveArchiveIsLoadedOnce(t *testing.T) {
	for _, suffix := range []string{".tar", ".tar.gz"} {
		t.Run(suffix, func(t *testing.T) {
			l := newLoader(t)
			const ref = archiveRepository + "saved:1"
			importImage(t, l.engine, ref, 5000)
			found, _, err := inspect(t.Context(), l.engine, ref)
			if err != nil {
				t.Fatal(err)
			}
			l.write(t, "saved"+suffix, l.save(t, ref))
			if loaded, err := l.LoadArchives(t.Context(), nil); err != nil || len(loaded) > 0 || len(*l.sent) > 0 {
				t.Errorf("while it is there: got %v, %v and archives %v sent, want nothing", loaded, err, *l.sent)
			}
			removeAll(t, l.engine, ref)
			if loaded, err := l.LoadArchives(t.Context(), []string{ref}); err != nil || len(loaded) != 1 {
				t.Errorf("got %v, %v, want one image loaded", loaded, err)
			}
			l.wantID(t, ref, found.ID)
		})
	}
}

func TestAPinnedImageIsSatisfiedByAnArchive(t *testing.T) {
	l := newLoader(t)
	l.cfg.Pin = config.PinDigest
	oci := newLayout(t)
	entry, id := oci.image(runtime.GOARCH)
	other, _ := oci.image("s390x")
	attestation, _ := oci.image("unknown")
	entry["platform"] = object{"os": "linux", "architecture": runtime.GOARCH}
	other["platform"] = object{"os": "linux", "architecture": "s390x"}
	attestation["platform"] = object{"os": "unknown", "architecture": "unknown"}
	index := oci.document("application/vnd.oci.image.index.v1+json", object{
		"schemaVersion": 2, "manifests": []any{other, attestation, entry},
	})
	oci.add(index, refName, "registry.example/"+archiveRepository+"multi:1")
	l.write(t, "multi.tar", oci.tar())
	t.Cleanup(func() { removeAll(t, l.engine, "registry.example/"+archiveRepository) })

	// By the digest of the index, as registries give it out, and by that of this platform's manifest.
	for _, digest := range []string{index["digest"].(string), entry["digest"].(string)} {
		ref := "registry.example/" + archiveRepository + "multi@" + digest
		if _, err := l.LoadArchives(t.Context(), []string{ref}); err != nil {
			t.Fatal(err)
		}
		got, err := l.Ensure(t.Context(), []string{ref})
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff([]Image{{Ref: ref, ID: id, Pinned: id}}, got); diff != "" {
			t.Errorf("image from an archive (-want +got):\n%s", diff)
		}
	}
	_, err := l.Ensure(t.Context(), []string{"registry.example/" + archiveRepository + "multi@" + digestOf(nil)})
	if !errors.Is(err, ErrMissing) {
		t.Errorf("another digest: got %v, want ErrMissing", err)
	}
}

// Engines since 25 write both: manifest.json, which every engine loads, and the index, which tells the digests.
func TestAPinnedImageIsSatisfiedByADockerSaveArchiveWithAnIndex(t *testing.T) {
	l := newLoader(t)
	oci := newLayout(t)
	entry, id := oci.image(runtime.GOARCH)
	oci.add(entry, containerdName, "docker.io/"+archiveRepository+"hybrid:1")
	var layers []string
	for _, f := range oci.files {
		if strings.HasPrefix(f.name, "blobs/") && f.content[0] != '{' {
			layers = append(layers, f.name)
		}
	}
	list, err := json.Marshal([]saved{{Config: blobPath(id), RepoTags: []string{archiveRepository + "hybrid:1"}, Layers: layers}})
	if err != nil {
		t.Fatal(err)
	}
	oci.files = append(oci.files, file{"manifest.json", list})
	l.write(t, "hybrid.tar", oci.tar())

	ref := archiveRepository + "hybrid@" + entry["digest"].(string)
	if _, err := l.LoadArchives(t.Context(), []string{ref, archiveRepository + "hybrid:1"}); err != nil {
		t.Fatal(err)
	}
	got, err := l.Ensure(t.Context(), []string{ref})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]Image{{Ref: ref, ID: id, Pinned: id}}, got); diff != "" {
		t.Errorf("image from an archive (-want +got):\n%s", diff)
	}
	l.wantID(t, archiveRepository+"hybrid:1", id)
}

func TestOnlyWantedImagesAreLoaded(t *testing.T) {
	l := newLoader(t)
	for _, name := range []string{"a", "b"} {
		oci := newLayout(t)
		entry, _ := oci.image(runtime.GOARCH)
		oci.add(entry, refName, archiveRepository+name+":1")
		l.write(t, name+".tar", oci.tar())
	}
	if _, err := l.LoadArchives(t.Context(), []string{archiveRepository + "b:1"}); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"b.tar"}, *l.sent); diff != "" {
		t.Errorf("archives sent (-want +got):\n%s", diff)
	}
}

func TestTheLastArchiveDecidesWhatANameMeans(t *testing.T) {
	l := newLoader(t)
	const ref = archiveRepository + "twice:1"
	importImage(t, l.engine, ref, 10) // what the node had by that name before
	before, _, err := inspect(t.Context(), l.engine, ref)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute) // the test's own context is done by now
		defer cancel()
		_, _ = l.engine.ImageRemove(ctx, before.ID, client.ImageRemoveOptions{}) // it has lost its name
	})
	var ids []string
	for _, name := range []string{"2026-10.tar", "2026-11.tar"} {
		oci := newLayout(t)
		entry, id := oci.image(runtime.GOARCH)
		oci.add(entry, refName, ref)
		l.write(t, name, oci.tar())
		ids = append(ids, id)
	}
	for range 2 {
		if _, err := l.LoadArchives(t.Context(), nil); err != nil {
			t.Fatal(err)
		}
		l.wantID(t, ref, ids[1])
	}
	if diff := cmp.Diff([]string{"2026-11.tar"}, *l.sent); diff != "" {
		t.Errorf("archives sent (-want +got):\n%s", diff)
	}
}

func TestDamagedArchivesAreNamedAndTheOthersLoaded(t *testing.T) {
	l := newLoader(t)
	oci := newLayout(t)
	entry, _ := oci.image(runtime.GOARCH)
	oci.add(entry, refName, archiveRepository+"damaged:1")
	whole := oci.tar()
	l.write(t, "1-cut.tar", whole[:len(whole)/2])
	l.write(t, "2-cut.tar.gz", whole)
	zipped, err := os.ReadFile(filepath.Join(l.dir, "2-cut.tar.gz"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(l.dir, "2-cut.tar.gz"), zipped[:len(zipped)-6], 0o600); err != nil {
		t.Fatal(err)
	}
	l.write(t, "3-no-gzip.tar.gz", nil)
	if err := os.WriteFile(filepath.Join(l.dir, "3-no-gzip.tar.gz"), whole, 0o600); err != nil {
		t.Fatal(err)
	}
	flipped := newLayout(t)
	entry, flippedID := flipped.image(runtime.GOARCH)
	flipped.add(entry, refName, archiveRepository+"flipped:1")
	layer := flipped.files[len(flipped.files)-2].content // the layer's blob, before the manifest
	layer[len(layer)/2] ^= 1
	l.write(t, "4-flipped.tar", flipped.tar())
	l.write(t, "5-empty.tar", tarOf(t))
	strange := newLayout(t)
	entry, _ = strange.image("s390x")
	strange.add(entry, refName, archiveRepository+"strange:1")
	l.write(t, "6-strange.tar", strange.tar())
	missing := newLayout(t)
	entry, _ = missing.image(runtime.GOARCH)
	missing.add(entry, refName, archiveRepository+"missing:1")
	missing.files = slices.Delete(missing.files, 2, 3)
	l.write(t, "7-missing.tar", missing.tar())
	good := newLayout(t)
	entry, goodID := good.image(runtime.GOARCH)
	good.add(entry, refName, archiveRepository+"good:1")
	l.write(t, "8-good.tar", good.tar())

	loaded, err := l.LoadArchives(t.Context(), nil)
	if diff := cmp.Diff([]string{"docker.io/" + archiveRepository + "good:1"}, loaded); diff != "" {
		t.Errorf("loaded (-want +got):\n%s", diff)
	}
	l.wantID(t, archiveRepository+"good:1", goodID)
	if !errors.Is(err, ErrCorrupt) {
		t.Errorf("got %v, want ErrCorrupt among the errors", err)
	}
	lines := strings.Split(err.Error(), "\n")
	for _, name := range []string{"1-cut.tar", "2-cut.tar.gz", "3-no-gzip.tar.gz", "4-flipped.tar", "5-empty.tar", "6-strange.tar", "7-missing.tar"} {
		n := 0
		for _, line := range lines {
			if strings.Contains(line, filepath.Join(l.dir, name)+" ") {
				n++
			}
		}
		if n != 1 {
			t.Errorf("%s: got %d lines of the error, want 1:\n%v", name, n, err)
		}
	}
	if _, ok, err := inspect(t.Context(), l.engine, flippedID); ok || err != nil {
		t.Errorf("image with a damaged layer: got one in the engine (%v), want none", err)
	}
}

func TestADamagedDockerSaveArchiveLeavesNothing(t *testing.T) {
	l := newLoader(t)
	const ref = archiveRepository + "bad-save:1"
	importImage(t, l.engine, ref, 5000)
	content := l.save(t, ref)
	removeAll(t, l.engine, ref)
	content[bytes.Index(content, []byte("content"))+1024] ^= 1 // in the layer's file
	l.write(t, "bad.tar", content)
	_, err := l.LoadArchives(t.Context(), nil)
	if err == nil || !strings.Contains(err.Error(), "bad.tar") {
		t.Errorf("got %v, want an error naming bad.tar", err)
	}
	if _, ok, err := inspect(t.Context(), l.engine, ref); ok || err != nil {
		t.Errorf("image with a damaged layer: got one in the engine (%v), want none", err)
	}
}

func TestADirectoryThatIsNotThereIsAnErrorAndAnEmptyOneIsNot(t *testing.T) {
	l := newLoader(t)
	if loaded, err := l.LoadArchives(t.Context(), nil); err != nil || len(loaded) > 0 {
		t.Errorf("empty directory: got %v, %v, want nothing", loaded, err)
	}
	l.cfg.Archives = filepath.Join(l.dir, "none")
	if _, err := l.LoadArchives(t.Context(), nil); !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), "workload.pull.archives") {
		t.Errorf("got %v, want an error that names the setting", err)
	}
	l.cfg.Archives = ""
	if loaded, err := l.LoadArchives(t.Context(), nil); err != nil || len(loaded) > 0 {
		t.Errorf("no directory: got %v, %v, want nothing", loaded, err)
	}
}

func FuzzReadArchive(f *testing.F) {
	f.Add([]byte("not a tar"))
	f.Fuzz(func(t *testing.T, content []byte) {
		path := filepath.Join(t.TempDir(), "fuzz.tar")
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		a, err := readArchive(t.Context(), path, platform{OS: "linux", Architecture: "amd64"})
		if err == nil && len(a.images) == 0 && a.added != nil {
			t.Error("an OCI layout without an image was accepted")
		}
	})
}
