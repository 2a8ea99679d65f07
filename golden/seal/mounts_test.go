package seal

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/flowviz/flowagent/golden/internal/disk"
	"github.com/flowviz/flowagent/test/lab"
)

func TestWhatIsMountedIsLeftAlone(t *testing.T) {
	lab.Root(t)
	d := disk.New(t)
	out := outside(t, d)
	for _, dir := range []string{"tmp/a dir", "var/lib/flowagent/images", "run/flowagent/secrets"} {
		d.Directory(dir, 0o755)
		if err := unix.Mount(out, d.Path(dir), "", unix.MS_BIND, ""); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = unix.Unmount(d.Path(dir), unix.MNT_DETACH) })
	}
	d.File("run/flowagent/compose.override.yaml", "x")
	_, err := Seal(t.Context(), Options{Root: d.Root})
	// In /tmp and /run such mounts are usual. What the agent has on its disk should be the disk's.
	if err == nil || !strings.Contains(err.Error(), "/var/lib/flowagent/images: another file system is mounted there") {
		t.Errorf("got %v, want an error about the mount in /var/lib/flowagent", err)
	}
	if d.Has("run/flowagent/compose.override.yaml") {
		t.Error("what is beside the mount was left")
	}
	for _, dir := range []string{"tmp/a dir", "var/lib/flowagent/images", "run/flowagent/secrets"} {
		if _, err := os.Stat(filepath.Join(d.Path(dir), "file")); err != nil {
			t.Errorf("what is mounted at %s: %v", dir, err)
		}
	}
}
