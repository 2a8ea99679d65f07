package lab

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"syscall"

	"github.com/moby/moby/client"
)

// AppArchive returns a `docker save` archive of an image under the given reference: the program of test/lab/app as its
// entry point, and files (content by absolute path) in a layer above it. The same reference and files give the same image
// id, another reference another one.
func AppArchive(ref string, files map[string][]byte) ([]byte, error) {
	app, err := appProgram()
	if err != nil {
		return nil, err
	}
	base := slices.Concat(baseEntries, []tarEntry{{name: "app", mode: 0o755, content: app}})
	layers := [][]byte{tarball(base)}
	if len(files) > 0 {
		var top []tarEntry
		for _, name := range slices.Sorted(maps.Keys(files)) {
			if !path.IsAbs(name) {
				return nil, fmt.Errorf("file %q of image %s: the path is not absolute", name, ref)
			}
			top = append(top, tarEntry{name: path.Clean(name)[1:], mode: 0o644, content: files[name]})
		}
		layers = append(layers, tarball(top))
	}
	return dockerArchive(ref, layers)
}

// baseEntries is what a program expects to find: a place for temporary files, and names for the users of tests.
var baseEntries = []tarEntry{
	{name: "tmp/", mode: 0o1777},
	{name: "etc/", mode: 0o755},
	{name: "etc/passwd", mode: 0o644, content: []byte("root:x:0:0::/:\napp:x:1000:1000::/:\nnobody:x:65534:65534::/:\n")},
	{name: "etc/group", mode: 0o644, content: []byte("root:x:0:\napp:x:1000:\nnogroup:x:65534:\n")},
}

// dockerArchive writes the format of `docker save`: manifest.json, one configuration, uncompressed layers. The reference is
// in the configuration, too: while an image gets a reference, nobody else's removal of its last one may remove it.
func dockerArchive(ref string, layers [][]byte) ([]byte, error) {
	type object = map[string]any
	var digests, names []string
	var entries []tarEntry
	for _, layer := range layers {
		sum := fmt.Sprintf("%x", sha256.Sum256(layer))
		digests, names = append(digests, "sha256:"+sum), append(names, sum+".tar")
		entries = append(entries, tarEntry{name: sum + ".tar", mode: 0o644, content: layer})
	}
	config, err := json.Marshal(object{
		"architecture": runtime.GOARCH,
		"os":           "linux",
		"config":       object{"Entrypoint": []string{"/app"}, "WorkingDir": "/", "Labels": object{"lab": ref}},
		"rootfs":       object{"type": "layers", "diff_ids": digests},
	})
	if err != nil {
		return nil, err
	}
	configName := fmt.Sprintf("%x.json", sha256.Sum256(config))
	manifest, err := json.Marshal([]object{{"Config": configName, "RepoTags": []string{ref}, "Layers": names}})
	if err != nil {
		return nil, err
	}
	return tarball(append(entries,
		tarEntry{name: configName, mode: 0o644, content: config},
		tarEntry{name: "manifest.json", mode: 0o644, content: manifest},
	)), nil
}

type tarEntry struct {
	name    string // relative; a directory ends in a slash
	mode    int64
	content []byte
}

// tarball writes to memory, which can't fail; owners are root and times the epoch.
func tarball(entries []tarEntry) []byte {
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, e := range entries {
		header := &tar.Header{Name: e.name, Mode: e.mode, Size: int64(len(e.content)), Typeflag: tar.TypeReg}
		if e.name[len(e.name)-1] == '/' {
			header.Typeflag = tar.TypeDir
		}
		if err := w.WriteHeader(header); err != nil {
			panic(fmt.Sprintf("tar header of %q: %v", e.name, err)) // only a name or size that this package chose
		}
		_, _ = w.Write(e.content)
	}
	_ = w.Close()
	return buf.Bytes()
}

// appProgram builds test/lab/app from source, once a process; go build itself knows when the file on disk is current.
var appProgram = sync.OnceValues(func() ([]byte, error) {
	root, err := ProjectDir()
	if err != nil {
		return nil, err
	}
	// One directory a user: what root made in a lab, nobody else could replace.
	dir := filepath.Join(root, ".build", fmt.Sprintf("app-%d", os.Getuid()))
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	// The test processes of several packages come here at once, and go build writes its output in place.
	lock, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	defer lock.Close()
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		return nil, fmt.Errorf("lock %s: %w", lock.Name(), err)
	}
	file := filepath.Join(dir, "app")
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", file, "./test/lab/app")
	cmd.Dir = root
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH="+runtime.GOARCH)
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("build test/lab/app: %w\n%s", err, out)
	}
	return os.ReadFile(file)
})

// LoadImage loads an archive of `docker save` into the engine.
func LoadImage(ctx context.Context, engine *client.Client, archive io.Reader) error {
	result, err := engine.ImageLoad(ctx, archive, client.ImageLoadWithQuiet(true))
	if err != nil {
		return fmt.Errorf("load image: %w", err)
	}
	defer result.Close()
	// The engine answers 200 before it reads the archive; what went wrong stands in the stream.
	for decoder := json.NewDecoder(result); ; {
		var message struct {
			Error string `json:"error"`
		}
		if err := decoder.Decode(&message); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return fmt.Errorf("load image: %w", err)
		}
		if message.Error != "" {
			return fmt.Errorf("load image: %s", message.Error)
		}
	}
}
