package secret_test

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/flowviz/flowagent/agent/secret"
	"github.com/flowviz/flowagent/test/lab"
)

// storeDirVariable tells a test, run again in a process of its own, which directory to open.
const storeDirVariable = "FLOWAGENT_TEST_STORE_DIR"

const storeFlags = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC

// unmountAfter unmounts whatever a test mounts at dir, however many times.
func unmountAfter(t *testing.T, dir string) {
	t.Helper()
	lab.Root(t)
	t.Cleanup(func() {
		for unix.Unmount(dir, unix.MNT_DETACH) == nil {
		}
	})
}

func mountAt(t *testing.T, fstype, dir string, flags uintptr, options string) {
	t.Helper()
	unmountAfter(t, dir)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount(fstype, dir, fstype, flags, options); err != nil {
		t.Fatalf("mount %s at %s: %v", fstype, dir, err)
	}
}

// openStore opens a store that ends with the test.
func openStore(t *testing.T, dir string) *secret.Store {
	t.Helper()
	unmountAfter(t, dir)
	s, err := secret.OpenStore(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func mountsAt(t *testing.T, dir string) int {
	t.Helper()
	table, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for line := range strings.Lines(string(table)) {
		if fields := strings.Fields(line); fields[4] == dir {
			n++
		}
	}
	return n
}

func TestOpenStoreMountsAProtectedTmpfsWhateverTheUmask(t *testing.T) {
	defer syscall.Umask(syscall.Umask(0o077))
	dir := filepath.Join(t.TempDir(), "run", "secrets")
	s := openStore(t, dir)

	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		t.Fatal(err)
	}
	if st.Type != unix.TMPFS_MAGIC {
		t.Errorf("filesystem magic = %#x, want tmpfs %#x", st.Type, unix.TMPFS_MAGIC)
	}
	if got := st.Flags & storeFlags; got != storeFlags {
		t.Errorf("mount flags = %#x, want nosuid, nodev and noexec (%#x)", got, storeFlags)
	}
	if size := st.Blocks * uint64(st.Bsize); size != 64<<20 {
		t.Errorf("size = %d bytes, want a limit of 64 MiB", size)
	}
	info, err := os.Stat(dir)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := info.Mode().Perm(), os.FileMode(0o700); got != want {
		t.Errorf("mode = %v, want %v", got, want)
	}

	// Whether noswap is to be had depends on the kernel and the namespace, so ask them in the same way.
	probe := t.TempDir()
	unmountAfter(t, probe)
	accepted := unix.Mount("tmpfs", probe, "tmpfs", 0, "noswap") == nil
	if s.MaySwap() == accepted {
		t.Errorf("MaySwap() = %v, and the kernel accepts noswap: %v", s.MaySwap(), accepted)
	}
}

func TestASecondOpenMountsNothing(t *testing.T) {
	dir := t.TempDir()
	first := openStore(t, dir)
	apply(t, first, "api", file("token", "canary"))
	second := openStore(t, dir)
	if got := mountsAt(t, dir); got != 1 {
		t.Errorf("mounts at the store = %d, want 1", got)
	}
	if got := read(t, second.Path("api"), "token"); got != "canary" {
		t.Errorf("content after the second open = %q, want what was there", got)
	}
	if first.MaySwap() != second.MaySwap() {
		t.Errorf("MaySwap() of a found mount = %v, of the same one when made %v", second.MaySwap(), first.MaySwap())
	}
}

func TestSimultaneousOpensMountOnce(t *testing.T) {
	dir := t.TempDir()
	unmountAfter(t, dir)
	var opens sync.WaitGroup
	for range 8 {
		opens.Go(func() {
			s, err := secret.OpenStore(dir)
			if err != nil {
				t.Error(err)
				return
			}
			_ = s.Close()
		})
	}
	opens.Wait()
	if got := mountsAt(t, dir); got != 1 {
		t.Errorf("mounts at the store = %d, want 1", got)
	}
}

func TestATmpfsOverTheParentIsNotEnough(t *testing.T) {
	parent := t.TempDir()
	mountAt(t, "tmpfs", parent, 0, "")
	dir := filepath.Join(parent, "secrets")
	openStore(t, dir)
	if got := mountsAt(t, dir); got != 1 {
		t.Errorf("mounts at the store = %d, want one of its own", got)
	}
}

func TestAMountedDiskIsRefused(t *testing.T) {
	lab.Root(t)
	disk := diskDir(t)
	parent := t.TempDir()
	mountAt(t, "tmpfs", parent, 0, "") // so that the bind mount is of another filesystem than its parent's
	dir := filepath.Join(parent, "secrets")
	unmountAfter(t, dir)
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount(disk, dir, "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	_, err := secret.OpenStore(dir)
	if !errors.Is(err, secret.ErrNotTmpfs) {
		t.Fatalf("OpenStore on a disk = %v, want ErrNotTmpfs", err)
	}
	if want := "umount " + dir; !strings.Contains(err.Error(), want) {
		t.Errorf("error %q doesn't say what to do: want %q in it", err, want)
	}
}

// diskDir returns a directory that is not in memory.
func diskDir(t *testing.T) string {
	t.Helper()
	for _, parent := range []string{t.TempDir(), "/var/tmp", "."} {
		dir, err := os.MkdirTemp(parent, "flowagent-disk")
		if err != nil {
			continue
		}
		t.Cleanup(func() { _ = os.Remove(dir) }) // never RemoveAll: a mount may have gone wrong
		var st unix.Statfs_t
		if err := unix.Statfs(dir, &st); err == nil && st.Type != unix.TMPFS_MAGIC {
			if dir, err = filepath.Abs(dir); err == nil {
				return dir
			}
		}
	}
	t.Fatal("no directory on a disk to test with: set TMPDIR to one")
	return ""
}

func TestAnUnsuitableMountIsRefusedWithWhatItLacks(t *testing.T) {
	for _, tt := range []struct {
		name    string
		flags   uintptr
		options string
	}{
		{"programs may run", unix.MS_NOSUID | unix.MS_NODEV, "remount,noexec "},
		{"nothing is protected", 0, "remount,nosuid,nodev,noexec "},
		{"read-only", storeFlags | unix.MS_RDONLY, "remount,rw "},
		{"symbolic links are not followed", storeFlags | unix.MS_NOSYMFOLLOW, "remount,symfollow "},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			mountAt(t, "tmpfs", dir, tt.flags, "")
			_, err := secret.OpenStore(dir)
			if !errors.Is(err, secret.ErrMountOptions) {
				t.Fatalf("OpenStore = %v, want ErrMountOptions", err)
			}
			if want := tt.options + dir; !strings.Contains(err.Error(), want) {
				t.Errorf("error %q doesn't say what to do: want %q in it", err, want)
			}
		})
	}
}

func TestAMountMadeBeforehandIsUsedAndClosedToOthers(t *testing.T) {
	for _, fstype := range []string{"tmpfs", "ramfs"} {
		t.Run(fstype, func(t *testing.T) {
			dir := t.TempDir()
			mountAt(t, fstype, dir, storeFlags, "mode=0755")
			s := openStore(t, dir)
			if got := mountsAt(t, dir); got != 1 {
				t.Errorf("mounts at the store = %d, want 1", got)
			}
			info, err := os.Stat(dir)
			if err != nil {
				t.Fatal(err)
			}
			if got, want := info.Mode().Perm(), os.FileMode(0o700); got != want {
				t.Errorf("mode = %v, want %v", got, want)
			}
			if got, want := s.MaySwap(), fstype == "tmpfs"; got != want {
				t.Errorf("MaySwap() = %v, want %v: it was mounted without noswap", got, want)
			}
			apply(t, s, "api", file("token", "canary"))
			if got := read(t, s.Path("api"), "token"); got != "canary" {
				t.Errorf("content = %q, want %q", got, "canary")
			}
		})
	}
}

func TestARelativePathIsRefused(t *testing.T) {
	if _, err := secret.OpenStore("run/secrets"); err == nil {
		t.Error("OpenStore of a relative path succeeded")
	}
}

func TestAStoreThatWasUnmountedWritesNothing(t *testing.T) {
	for _, tt := range []struct {
		name string
		hide func(dir string) error
	}{
		{"unmounted", func(dir string) error { return unix.Unmount(dir, unix.MNT_DETACH) }},
		{"covered", func(dir string) error { return unix.Mount("tmpfs", dir, "tmpfs", 0, "") }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			s := openStore(t, dir)
			apply(t, s, "api", file("token", "old"))
			if err := tt.hide(dir); err != nil {
				t.Fatal(err)
			}
			_, err := s.Apply("api", []secret.File{file("token", "new")})
			if !errors.Is(err, secret.ErrUnmounted) {
				t.Errorf("Apply = %v, want ErrUnmounted", err)
			}
			entries, err := os.ReadDir(dir)
			if err != nil || len(entries) != 0 {
				t.Errorf("the path now holds %v (%v), want nothing", entries, err)
			}
			if err := s.Wipe(); err != nil {
				t.Errorf("Wipe of a store that is out of sight: %v", err)
			}
		})
	}
}

// again is a command that runs one test in a process of its own.
func again(t *testing.T, test, dir string, attributes *syscall.SysProcAttr) *exec.Cmd {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+test+"$", "-test.v")
	cmd.Env = append(os.Environ(), storeDirVariable+"="+dir)
	cmd.SysProcAttr = attributes
	return cmd
}

// In a user namespace the kernel refuses noswap with the same EINVAL as a kernel that doesn't know it.
func TestWithoutNoswapTheStoreStillOpensAndSaysSo(t *testing.T) {
	if dir := os.Getenv(storeDirVariable); dir != "" {
		s, err := secret.OpenStore(dir)
		if err != nil {
			t.Fatal(err)
		}
		if !s.MaySwap() {
			t.Error("MaySwap() = false, want true in a user namespace")
		}
		var st unix.Statfs_t
		if err := unix.Statfs(dir, &st); err != nil || st.Flags&storeFlags != storeFlags {
			t.Errorf("mount flags = %#x (%v), want nosuid, nodev and noexec", st.Flags, err)
		}
		return
	}
	lab.Root(t)
	root := []syscall.SysProcIDMap{{ContainerID: 0, HostID: 0, Size: 1}}
	cmd := again(t, t.Name(), t.TempDir(), &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS, UidMappings: root, GidMappings: root,
	})
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("in a user namespace: %v\n%s", err, out)
	}
}

func TestWithoutPrivilegesTheStoreIsRefused(t *testing.T) {
	if dir := os.Getenv(storeDirVariable); dir != "" {
		_, err := secret.OpenStore(dir)
		if !errors.Is(err, secret.ErrNotTmpfs) || !errors.Is(err, unix.EPERM) {
			t.Errorf("OpenStore = %v, want ErrNotTmpfs and EPERM", err)
		} else if !strings.Contains(err.Error(), "run flowagent as root") {
			t.Errorf("error %q doesn't say what to do", err)
		}
		return
	}
	lab.Root(t)
	// In a user namespace of its own but not a mount namespace, a process may write here and mount nothing.
	nobody := []syscall.SysProcIDMap{{ContainerID: 65534, HostID: 0, Size: 1}}
	cmd := again(t, t.Name(), t.TempDir(), &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWUSER, UidMappings: nobody, GidMappings: nobody,
	})
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("without privileges: %v\n%s", err, out)
	}
}
