package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/ssm"
	"github.com/containerd/errdefs"
	"github.com/moby/moby/client"
)

// Engine returns the address, unix:///path, of a Docker Engine that tests may fill with containers, networks and
// images of their own names. It is the lab's own engine in `make test`, or the one FLOWAGENT_TEST_ENGINE names.
func Engine(t testing.TB) string {
	t.Helper()
	address, _ := connect(t)
	return address
}

// OwnEngine starts an engine without networks, for a test that restarts it. It has the image of test/lab/app as ref, and
// ends with the test.
func OwnEngine(t testing.TB, ref string) *EngineServer {
	t.Helper()
	Root(t)
	// Not t.TempDir: a socket's path has at most 107 bytes (unix(7)).
	dir, err := os.MkdirTemp("", "engine-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(unmountBelow(dir), os.RemoveAll(dir)); err != nil {
			t.Error(err)
		}
	})
	server, err := StartEngine(t.Context(), EngineSpec{
		DataRoot: filepath.Join(dir, "data"), RunDir: dir, CgroupParent: os.Getenv(CgroupVariable), NoNetwork: true,
	})
	need(t, err)
	t.Cleanup(func() {
		server.Stop()
		if t.Failed() {
			t.Logf("log of the test's own engine:\n%s", server.Log())
		}
	})
	engine, err := engineClient(t.Context(), server.Address)
	if err != nil {
		t.Fatal(err)
	}
	defer engine.Close()
	archive, err := AppArchive(ref, nil)
	need(t, err)
	if err := LoadImage(t.Context(), engine, bytes.NewReader(archive)); err != nil {
		t.Fatalf("image %s: %v", ref, err)
	}
	return server
}

// unmountBelow removes the mounts that an engine which was killed left in its directory.
func unmountBelow(dir string) error {
	table, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(table)) {
		if fields := strings.Fields(line); strings.HasPrefix(fields[1], dir+"/") {
			if err := syscall.Unmount(fields[1], syscall.MNT_DETACH); err != nil && !errors.Is(err, syscall.EINVAL) { // gone with one above it
				return fmt.Errorf("unmount %s: %w", fields[1], err)
			}
		}
	}
	return nil
}

// ComposePlugin returns the path of the docker-compose plugin, a program that also runs on its own.
func ComposePlugin(t testing.TB) string {
	t.Helper()
	path, err := ComposePath()
	need(t, err)
	return path
}

// Program returns the path of a program of this machine, such as "systemd-run" or "moto_server".
func Program(t testing.TB, name string) string {
	t.Helper()
	path, err := systemProgram(name)
	need(t, err)
	return path
}

// Root asks that the test runs as root, as mounting and changing owners need.
func Root(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		need(t, missing("root", "run this with sudo"))
	}
}

// Moto starts an empty moto_server that ends with the test, and returns its endpoint URL.
func Moto(t testing.TB) string {
	t.Helper()
	server, err := StartMoto(t.Context())
	need(t, err)
	endWith(t, server.Process)
	return server.URL
}

// MotoParameters is [Moto] with its Parameter Store loaded. moto does that with the first call, and on a busy machine takes
// longer for it than a node waits for a call.
func MotoParameters(t testing.TB) string {
	t.Helper()
	url := Moto(t)
	store := ssm.New(ssm.Options{
		Region: "us-east-1", BaseEndpoint: &url, Credentials: credentials.NewStaticCredentialsProvider("testing", "testing", ""),
	})
	if _, err := store.DescribeParameters(t.Context(), &ssm.DescribeParametersInput{}); err != nil {
		t.Fatal(err)
	}
	return url
}

// MetadataMock starts an EC2 metadata service that ends with the test, and returns its endpoint URL. config is the JSON
// of the mock's configuration file, "" for none. See [StartMetadataMock].
func MetadataMock(t testing.TB, config string) string {
	t.Helper()
	return MetadataService(t, config).URL
}

// MetadataService is [MetadataMock] for a test that changes what is served.
func MetadataService(t testing.TB, config string) *MetadataServer {
	t.Helper()
	server, err := StartMetadataMock(t.Context(), t.TempDir(), config)
	need(t, err)
	endWith(t, server.Process)
	return server
}

// Registry starts an empty registry with TLS and a password on 127.0.0.1 that ends with the test.
func Registry(t testing.TB) *RegistryServer {
	t.Helper()
	server, err := StartRegistry(t.Context(), t.TempDir())
	need(t, err)
	endWith(t, server.Process)
	return server
}

// RegistryAt starts an empty registry under one of [Names] that ends with the test; inside a lab only. Tests that want
// the same name, in whatever package, wait for each other. See [StartRegistryAt].
func RegistryAt(t testing.TB, host string) *RegistryServer {
	t.Helper()
	reserve(t, host)
	server, err := StartRegistryAt(t.Context(), t.TempDir(), host)
	need(t, err)
	endWith(t, server.Process)
	return server
}

// reserve holds a lock for the rest of the test, so that two tests don't fight for one address.
func reserve(t testing.TB, host string) {
	t.Helper()
	dir := os.Getenv(DirectoryVariable)
	if dir == "" {
		return
	}
	lock, err := os.OpenFile(filepath.Join(dir, filepath.Base(host)+".lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = lock.Close() })
	ticker := time.NewTicker(pollEvery)
	defer ticker.Stop()
	for {
		err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) {
			t.Fatalf("lock %s: %v", lock.Name(), err)
		}
		select {
		case <-t.Context().Done():
			t.Fatalf("lock %s: %v", lock.Name(), t.Context().Err())
		case <-ticker.C:
		}
	}
}

// AppImage puts the image of test/lab/app under ref into the engine of [Engine]. The reference is removed when the last
// test of this process that asked for it ends; containers that use it must be gone by then.
func AppImage(t testing.TB, ref string) {
	t.Helper()
	AppImageWith(t, ref, nil)
}

// AppImageWith is [AppImage] with files in the image, content by absolute path. Different files make a different image, and
// so do different references; one reference must not be asked for by two processes that run side by side.
func AppImageWith(t testing.TB, ref string, files map[string][]byte) {
	t.Helper()
	_, engine := connect(t)
	archive, err := AppArchive(ref, files)
	need(t, err)
	t.Cleanup(func() { releaseImage(t, engine, ref) })
	images.Lock()
	defer images.Unlock()
	images.users[ref]++
	if err := LoadImage(t.Context(), engine, bytes.NewReader(archive)); err != nil {
		t.Fatalf("image %s: %v", ref, err)
	}
}

// images counts the tests that use each reference; its lock also keeps a removal from crossing a load of this process.
var images = struct {
	sync.Mutex
	users map[string]int
}{users: map[string]int{}}

func releaseImage(t testing.TB, engine *client.Client, ref string) {
	images.Lock()
	defer images.Unlock()
	images.users[ref]--
	if images.users[ref] > 0 {
		return
	}
	// The test's own context is done by now.
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	_, err := engine.ImageRemove(ctx, ref, client.ImageRemoveOptions{PruneChildren: true})
	if err != nil && !errdefs.IsNotFound(err) {
		t.Errorf("remove image %s (did the test leave a container?): %v", ref, err)
	}
}

// connect is [Engine] with a client that is closed after the test's own clean-ups.
func connect(t testing.TB) (string, *client.Client) {
	t.Helper()
	address, err := engineAddress()
	need(t, err)
	engine, err := engineClient(t.Context(), address)
	if err != nil {
		need(t, missing(err.Error(), "start it, or correct "+EngineVariable))
	}
	t.Cleanup(func() { _ = engine.Close() })
	return address, engine
}

// endWith stops p after the test and shows its log when the test failed.
func endWith(t testing.TB, p *Process) {
	t.Cleanup(func() {
		p.Stop()
		if t.Failed() {
			t.Logf("log of %s:\n%s", p.name, p.Log())
		}
	})
}

// need ends the test when err is not nil: a missing part is a skip on somebody's machine and a failure under CI, where
// nobody would read about it; anything else is a failure everywhere.
func need(t testing.TB, err error) {
	t.Helper()
	switch {
	case err == nil:
	case errors.Is(err, ErrMissing) && os.Getenv("CI") == "":
		t.Skip("not run: " + err.Error())
	default:
		t.Fatal(err)
	}
}
