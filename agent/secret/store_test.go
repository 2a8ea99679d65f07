package secret_test

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/flowviz/flowagent/agent/secret"
)

func file(name, content string) secret.File {
	return secret.File{Name: name, Value: secret.NewValue([]byte(content)), Mode: 0o444}
}

func apply(t *testing.T, s *secret.Store, service string, files ...secret.File) []string {
	t.Helper()
	changed, err := s.Apply(service, files)
	if err != nil {
		t.Fatalf("Apply(%s): %v", service, err)
	}
	return changed
}

func read(t *testing.T, dir, name string) string {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}

// tree describes everything below dir down to inodes and times, so that two equal trees mean that nothing was touched.
func tree(t *testing.T, dir string) map[string]string {
	t.Helper()
	all := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := os.Lstat(path)
		if err != nil {
			return err
		}
		st := info.Sys().(*syscall.Stat_t)
		what := fmt.Sprintf("%v %d:%d inode %d", info.Mode(), st.Uid, st.Gid, st.Ino)
		switch {
		case info.Mode().IsRegular():
			content, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			what += fmt.Sprintf(" %d %d %q", st.Mtim.Nano(), st.Ctim.Nano(), content)
		case info.Mode()&fs.ModeSymlink != 0:
			target, err := os.Readlink(path)
			if err != nil {
				return err
			}
			what += " -> " + target
		}
		all[strings.TrimPrefix(path, dir)] = what
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func inode(t *testing.T, path string) uint64 {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	return info.Sys().(*syscall.Stat_t).Ino
}

func names(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	all := []string{}
	for _, e := range entries {
		all = append(all, e.Name())
	}
	return all
}

func TestFilesGetTheDeclaredContentOwnerAndModeWhateverTheUmask(t *testing.T) {
	defer syscall.Umask(syscall.Umask(0o077))
	s := openStore(t, t.TempDir())
	files := []secret.File{
		{Name: "binary", Value: secret.NewValue([]byte{0, 255, '\n'}), UID: 70, GID: 70, Mode: 0o400},
		{Name: "empty", Value: secret.NewValue(nil), Mode: 0o444},
		{Name: "shared", Value: secret.NewValue([]byte("x")), UID: 1000, GID: 2000, Mode: 0o666},
	}
	if diff := cmp.Diff([]string{"binary", "empty", "shared"}, apply(t, s, "api", files...)); diff != "" {
		t.Errorf("changed (-want +got):\n%s", diff)
	}
	for _, f := range files {
		path := filepath.Join(s.Path("api"), f.Name)
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		st := info.Sys().(*syscall.Stat_t)
		got := fmt.Sprintf("%v %d:%d %q", info.Mode(), st.Uid, st.Gid, read(t, s.Path("api"), f.Name))
		want := fmt.Sprintf("%v %d:%d %q", f.Mode, f.UID, f.GID, f.Value.Reveal())
		if got != want {
			t.Errorf("%s = %s, want %s", f.Name, got, want)
		}
	}
	data, err := filepath.EvalSymlinks(filepath.Join(s.Path("api"), "..data"))
	if err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{s.Path("api"), data} {
		info, err := os.Stat(dir)
		if err != nil {
			t.Fatal(err)
		}
		if got, want := info.Mode().Perm(), os.FileMode(0o755); got != want {
			t.Errorf("mode of %s = %v, want %v: the container's user passes through it", dir, got, want)
		}
	}
}

func TestNothingIsWrittenWhenNothingChanged(t *testing.T) {
	s := openStore(t, t.TempDir())
	files := []secret.File{file("b", "2"), file("a", "1")}
	apply(t, s, "api", files...)
	before := tree(t, s.Path("api"))
	files[0], files[1] = files[1], files[0]
	if got := apply(t, s, "api", files...); got != nil {
		t.Errorf("changed = %v, want none", got)
	}
	if diff := cmp.Diff(before, tree(t, s.Path("api"))); diff != "" {
		t.Errorf("the store was touched (-before +after):\n%s", diff)
	}
}

func TestEveryKindOfChangeIsAppliedAndNamed(t *testing.T) {
	base := secret.File{Name: "key", Value: secret.NewValue([]byte("one")), UID: 1, GID: 2, Mode: 0o440}
	change := func(edit func(*secret.File)) []secret.File {
		f := base
		edit(&f)
		return []secret.File{f, file("steady", "s")}
	}
	for _, tt := range []struct {
		name  string
		after []secret.File
		want  []string
	}{
		{"content of the same length", change(func(f *secret.File) { f.Value = secret.NewValue([]byte("two")) }), []string{"key"}},
		{"content of another length", change(func(f *secret.File) { f.Value = secret.NewValue([]byte("three")) }), []string{"key"}},
		{"user", change(func(f *secret.File) { f.UID = 7 }), []string{"key"}},
		{"group", change(func(f *secret.File) { f.GID = 7 }), []string{"key"}},
		{"mode", change(func(f *secret.File) { f.Mode = 0o400 }), []string{"key"}},
		{"renamed", change(func(f *secret.File) { f.Name = "clef" }), []string{"clef", "key"}},
		{"appeared", []secret.File{base, file("steady", "s"), file("new", "n")}, []string{"new"}},
		{"vanished", []secret.File{file("steady", "s")}, []string{"key"}},
		{"all gone", nil, []string{"key", "steady"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := openStore(t, t.TempDir())
			apply(t, s, "api", base, file("steady", "s"))
			room := inode(t, s.Path("api"))
			if diff := cmp.Diff(tt.want, apply(t, s, "api", tt.after...)); diff != "" {
				t.Errorf("changed (-want +got):\n%s", diff)
			}
			if got := inode(t, s.Path("api")); got != room {
				t.Errorf("inode of the service's directory = %d, want %d as before: it is mounted into containers", got, room)
			}
			if again := apply(t, s, "api", tt.after...); again != nil {
				t.Errorf("applied again, changed = %v, want none", again)
			}
			visible, generations := 0, 0
			for _, name := range names(t, s.Path("api")) {
				switch {
				case name == "..data":
				case strings.HasPrefix(name, ".."):
					generations++
				default:
					visible++
				}
			}
			if visible != len(tt.after) || generations != 1 {
				t.Errorf("%d visible files and %d generations, want %d and 1", visible, generations, len(tt.after))
			}
		})
	}
}

func TestAnUnchangedFileKeepsItsInodeAndTimeBesideAChangedOne(t *testing.T) {
	s := openStore(t, t.TempDir())
	apply(t, s, "api", file("steady", "s"), file("key", "one"))
	steady := filepath.Join(s.Path("api"), "steady")
	before, err := os.Stat(steady)
	if err != nil {
		t.Fatal(err)
	}
	apply(t, s, "api", file("steady", "s"), file("key", "two"))
	after, err := os.Stat(steady)
	if err != nil {
		t.Fatal(err)
	}
	if !os.SameFile(before, after) || !before.ModTime().Equal(after.ModTime()) {
		t.Errorf("unchanged file: inode %d of %v, want %d of %v", inode(t, steady), after.ModTime(),
			before.Sys().(*syscall.Stat_t).Ino, before.ModTime())
	}
	if got := read(t, s.Path("api"), "key"); got != "two" {
		t.Errorf("changed file = %q, want %q", got, "two")
	}
}

// As a container sees it: a read-only bind mount made once, read by a user who is not root.
func TestARotationIsSeenThroughABindMount(t *testing.T) {
	s := openStore(t, t.TempDir())
	key := secret.File{Name: "key", Value: secret.NewValue([]byte("one")), UID: 4242, GID: 4242, Mode: 0o400}
	other := secret.File{Name: "other", Value: secret.NewValue([]byte("x")), UID: 4343, GID: 4343, Mode: 0o400}
	apply(t, s, "api", key, other)

	inside, err := os.MkdirTemp("", "flowagent-secret") // unlike t.TempDir, right below a directory everyone can enter
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.Remove(inside) })
	if err := os.Chmod(inside, 0o755); err != nil {
		t.Fatal(err)
	}
	unmountAfter(t, inside)
	if err := unix.Mount(s.Path("api"), inside, "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("", inside, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	cat := func(name string) (string, error) {
		cmd := exec.CommandContext(t.Context(), "cat", filepath.Join(inside, name))
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 4242, Gid: 4242}}
		out, err := cmd.Output()
		return string(out), err
	}
	if got, err := cat("key"); got != "one" || err != nil {
		t.Errorf("before the rotation: %q (%v), want %q", got, err, "one")
	}
	if got, err := cat("other"); err == nil {
		t.Errorf("a file of another user with mode 0400 could be read: %q", got)
	}
	key.Value = secret.NewValue([]byte("two"))
	late := key
	late.Name = "late"
	apply(t, s, "api", key, late)
	for _, name := range []string{"key", "late"} {
		if got, err := cat(name); got != "two" || err != nil {
			t.Errorf("%s after the rotation: %q (%v), want %q", name, got, err, "two")
		}
	}
	if got := names(t, inside); len(got) != 4 {
		t.Errorf("the container sees %q, want ..data, its directory, key and late", got)
	}
}

func TestReadersNeverSeeAMixOrAPart(t *testing.T) {
	s := openStore(t, t.TempDir())
	pair := func(i int) []secret.File {
		text := strings.Repeat(fmt.Sprintf("%06d\n", i), 2000) // more than a page, so that a part could be seen
		return []secret.File{file("user", text), file("password", text)}
	}
	apply(t, s, "api", pair(0)...)

	const rotations = 300
	done := make(chan struct{})
	var readers sync.WaitGroup
	readers.Go(func() { // resolves ..data once, as a careful program does
		for whole := 0; ; {
			select {
			case <-done:
				if whole == 0 {
					t.Error("the reader never got a whole generation")
				}
				return
			default:
			}
			room, err := os.OpenRoot(filepath.Join(s.Path("api"), "..data"))
			if errors.Is(err, fs.ErrNotExist) {
				continue // the documented instant
			}
			if err != nil {
				t.Errorf("..data can't be opened: %v", err)
				return
			}
			user, userErr := room.ReadFile("user")
			password, passwordErr := room.ReadFile("password")
			_ = room.Close()
			if errors.Is(userErr, fs.ErrNotExist) || errors.Is(passwordErr, fs.ErrNotExist) {
				continue // replaced meanwhile
			}
			if userErr != nil || passwordErr != nil {
				t.Errorf("read: %v, %v", userErr, passwordErr)
				return
			}
			if string(user) != string(password) {
				t.Errorf("one generation holds %.6q and %.6q", user, password)
				return
			}
			whole++
		}
	})
	readers.Go(func() { // opens the visible name, as most programs do
		last := ""
		for {
			select {
			case <-done:
				return
			default:
			}
			content, err := os.ReadFile(filepath.Join(s.Path("api"), "password"))
			if errors.Is(err, fs.ErrNotExist) {
				continue // the documented instant
			}
			if err != nil || len(content) != 14000 || strings.Count(string(content), string(content[:7])) != 2000 {
				t.Errorf("the visible file holds %d bytes from %.7q (%v), want 14000 equal lines", len(content), content, err)
				return
			}
			if now := string(content[:7]); now < last {
				t.Errorf("the visible file went back from %q to %q", last, now)
				return
			} else {
				last = now
			}
		}
	})
	for i := range rotations {
		apply(t, s, "api", pair(i+1)...)
	}
	close(done)
	readers.Wait()
}

func TestAFullStoreKeepsWhatItHad(t *testing.T) {
	const canary = "canary-7f3a"
	dir := t.TempDir()
	mountAt(t, "tmpfs", dir, storeFlags, "size=256k")
	s := openStore(t, dir)
	apply(t, s, "api", file("key", "one"), file("steady", "s"))
	before := tree(t, dir)

	big := file("key", strings.Repeat(canary, 1<<15))
	_, err := s.Apply("api", []secret.File{big, file("steady", "s"), file("new", "n")})
	if !errors.Is(err, secret.ErrStoreFull) {
		t.Fatalf("Apply on a full tmpfs = %v, want ErrStoreFull", err)
	}
	if !strings.Contains(err.Error(), "remount,size=") || strings.Contains(err.Error(), canary) {
		t.Errorf("error %q: want what to do and no secret", err)
	}
	_, err = s.Apply("worker", []secret.File{big})
	if !errors.Is(err, secret.ErrStoreFull) {
		t.Fatalf("Apply for a new service on a full tmpfs = %v, want ErrStoreFull", err)
	}
	after := tree(t, dir)
	// A failed hard link to the unchanged file moves the time of its inode, and nothing else.
	ignoreTimes := cmp.Comparer(func(a, b string) bool { return withoutTimes(a) == withoutTimes(b) })
	if diff := cmp.Diff(before, after, ignoreTimes); diff != "" {
		t.Errorf("a failed Apply left something (-before +after):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"key"}, apply(t, s, "api", file("key", "two"), file("steady", "s"))); diff != "" {
		t.Errorf("changed by one that fits (-want +got):\n%s", diff)
	}
}

func withoutTimes(what string) string {
	fields := strings.Fields(what)
	if len(fields) > 6 {
		fields = append(fields[:4], fields[6:]...)
	}
	return strings.Join(fields, " ")
}

// Each limit makes another one of Apply's steps the one that fails: directory, file, visible link, ..data link.
func TestRunningOutOfInodesAtAnyStepKeepsWhatWasThere(t *testing.T) {
	fullAt, room := 0, false
	for limit := 8; limit < 24; limit++ {
		dir := t.TempDir()
		mountAt(t, "tmpfs", dir, storeFlags, fmt.Sprintf("size=1M,nr_inodes=%d", limit))
		s := openStore(t, dir)
		if _, err := s.Apply("api", []secret.File{file("key", "one")}); err != nil {
			if got := names(t, dir); len(got) != 0 {
				t.Errorf("%d inodes: a failed first Apply left %q", limit, got)
			}
			continue
		}
		before := tree(t, dir)
		_, err := s.Apply("api", []secret.File{file("key", "two"), file("new", "n"), file("newer", "n")})
		if err == nil {
			room = true
			continue
		}
		fullAt++
		if !errors.Is(err, secret.ErrStoreFull) {
			t.Errorf("%d inodes: Apply = %v, want ErrStoreFull", limit, err)
		}
		if diff := cmp.Diff(before, tree(t, dir)); diff != "" {
			t.Errorf("%d inodes: a failed Apply left something (-before +after):\n%s", limit, diff)
		}
	}
	if fullAt < 5 || !room {
		t.Errorf("the limits made Apply fail at %d steps and succeed: %v; want at least 5 and a success", fullAt, room)
	}
}

func TestOpenStoreClearsWhatAKilledProcessLeft(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, dir)
	apply(t, s, "api", file("key", "one"))
	before := tree(t, dir)

	room := s.Path("api")
	orphan := filepath.Join(room, "..2026_01_01_00_00_00.HALF")
	never := filepath.Join(dir, "worker") // killed in its first Apply
	for _, d := range []string{orphan, filepath.Join(never, "..2026_01_01_00_00_00.HALF")} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(d, "key"), []byte("tw"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for name, target := range map[string]string{
		"..data_new":           "..2026_01_01_00_00_00.HALF",
		"new":                  "..data/new",
		"astray":               "/etc/passwd",
		"../worker/..data_new": "..2026_01_01_00_00_00.HALF",
		"../worker/..data":     "../../../etc",
	} {
		if err := os.Symlink(target, filepath.Join(room, name)); err != nil {
			t.Fatal(err)
		}
	}
	openStore(t, dir)
	after := tree(t, dir)
	delete(after, "/worker")
	if diff := cmp.Diff(before, after); diff != "" {
		t.Errorf("after the next open (-before +after):\n%s", diff)
	}
	if got := names(t, never); len(got) != 0 {
		t.Errorf("the service that never had secrets still holds %q", got)
	}
}

func TestAnApplyRepairsWhatSomeoneRemoved(t *testing.T) {
	for _, victim := range []string{"key", "..data", "..data/key"} {
		t.Run(victim, func(t *testing.T) {
			s := openStore(t, t.TempDir())
			apply(t, s, "api", file("key", "one"))
			if err := os.Remove(s.Path("api") + "/" + victim); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff([]string{"key"}, apply(t, s, "api", file("key", "one"))); diff != "" {
				t.Errorf("changed (-want +got):\n%s", diff)
			}
			if got := read(t, s.Path("api"), "key"); got != "one" {
				t.Errorf("content = %q, want %q", got, "one")
			}
		})
	}
}

func TestAProcessKilledAtAnyInstantLeavesAWholeGeneration(t *testing.T) {
	versions := [][]secret.File{
		{file("user", "1"), file("password", "1"), file("first", "1")},
		{file("user", "2"), file("password", "2"), file("second", "2")},
	}
	if dir := os.Getenv(storeDirVariable); dir != "" {
		s, err := secret.OpenStore(dir)
		if err != nil {
			t.Fatal(err)
		}
		for i := 0; ; i++ { // until it is killed
			apply(t, s, "api", versions[i%2]...)
			fmt.Println("applied")
		}
	}
	dir := t.TempDir()
	s := openStore(t, dir)
	apply(t, s, "api", versions[0]...)
	room := inode(t, s.Path("api"))
	for kill := range 20 {
		cmd := again(t, t.Name(), dir, nil)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(out)
		for n := 0; n <= 10+kill && lines.Scan(); n++ {
		}
		_ = cmd.Process.Kill()
		if err := cmd.Wait(); cmd.ProcessState.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
			t.Fatalf("the process ended by itself: %v", err)
		}

		user, password := read(t, s.Path("api"), "user"), read(t, s.Path("api"), "password")
		if user != password {
			t.Fatalf("after kill %d the store holds user %q and password %q", kill, user, password)
		}
		reopened, err := secret.OpenStore(dir)
		if err != nil {
			t.Fatal(err)
		}
		_ = reopened.Close()
		if got := names(t, s.Path("api")); len(got) != 5 {
			t.Fatalf("after kill %d and an open the service holds %q, want ..data, one generation and three files", kill, got)
		}
	}
	if got := inode(t, s.Path("api")); got != room {
		t.Errorf("inode of the service's directory = %d, want %d as before", got, room)
	}
}

func TestImpossibleFilesAreRefusedBeforeAnythingIsWritten(t *testing.T) {
	value := secret.NewValue([]byte("canary"))
	for _, tt := range []struct {
		name    string
		service string
		files   []secret.File
	}{
		{"no name", "api", []secret.File{{Value: value}}},
		{"dot", "api", []secret.File{{Name: ".", Value: value}}},
		{"dot dot", "api", []secret.File{{Name: "..", Value: value}}},
		{"leading dots", "api", []secret.File{{Name: "..data", Value: value}}},
		{"slash", "api", []secret.File{{Name: "a/b", Value: value}}},
		{"absolute", "api", []secret.File{{Name: "/etc/passwd", Value: value}}},
		{"NUL", "api", []secret.File{{Name: "a\x00b", Value: value}}},
		{"too long", "api", []secret.File{{Name: strings.Repeat("a", 256), Value: value}}},
		{"twice", "api", []secret.File{{Name: "a", Value: value}, {Name: "b", Value: value}, {Name: "a", Value: value}}},
		{"no value", "api", []secret.File{{Name: "a"}}},
		{"user unchanged by chown", "api", []secret.File{{Name: "a", Value: value, UID: -1}}},
		{"negative group", "api", []secret.File{{Name: "a", Value: value, GID: -1}}},
		{"set-user-id", "api", []secret.File{{Name: "a", Value: value, Mode: 0o755 | fs.ModeSetuid}}},
		{"a directory", "api", []secret.File{{Name: "a", Value: value, Mode: fs.ModeDir | 0o755}}},
		{"service outside", "../api", []secret.File{{Name: "a", Value: value}}},
		{"service without a name", "", []secret.File{{Name: "a", Value: value}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			s := openStore(t, dir)
			changed, err := s.Apply(tt.service, tt.files)
			if err == nil || changed != nil {
				t.Errorf("Apply = %v, %v; want an error", changed, err)
			} else if strings.Contains(err.Error(), "canary") {
				t.Errorf("the error shows the secret: %v", err)
			}
			if got := names(t, dir); len(got) != 0 {
				t.Errorf("the store holds %q, want nothing", got)
			}
		})
	}
}

func TestTheLongestNameIsServed(t *testing.T) {
	s := openStore(t, t.TempDir())
	name := strings.Repeat("n", 255)
	apply(t, s, "api", file(name, "one"))
	apply(t, s, "api", file(name, "two"))
	if got := read(t, s.Path("api"), name); got != "two" {
		t.Errorf("content = %q, want %q", got, "two")
	}
}

func TestRemoveAndWipeLeaveNothingAndMayBeRepeated(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, dir)
	for _, service := range []string{"worker", "api", "edge"} {
		apply(t, s, service, file("key", service))
	}
	services := func(want ...string) {
		t.Helper()
		got, err := s.Services()
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("services (-want +got):\n%s", diff)
		}
	}
	services("api", "edge", "worker")
	for range 2 {
		if err := s.Remove("edge"); err != nil {
			t.Errorf("Remove: %v", err)
		}
		services("api", "worker")
	}
	if err := s.Remove("../secrets"); err == nil {
		t.Error("Remove went outside the store")
	}
	if err := os.WriteFile(filepath.Join(dir, "stray"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := s.Wipe(); err != nil {
			t.Errorf("Wipe: %v", err)
		}
		if got := names(t, dir); len(got) != 0 {
			t.Errorf("after Wipe the store holds %q", got)
		}
	}
	if got := mountsAt(t, dir); got != 1 {
		t.Errorf("mounts after Wipe = %d, want 1", got)
	}
	apply(t, s, "api", file("key", "again"))
	services("api")
}

func TestSimultaneousAppliesDoNotDisturbEachOther(t *testing.T) {
	dir := t.TempDir()
	stores := []*secret.Store{openStore(t, dir), openStore(t, dir)} // as two processes would have
	var applies sync.WaitGroup
	for worker := range 4 {
		applies.Go(func() {
			for i := range 25 {
				text := fmt.Sprintf("%d/%d", worker, i)
				for _, service := range []string{"shared", fmt.Sprintf("own%d", worker)} {
					if _, err := stores[worker%2].Apply(service, []secret.File{file("user", text), file("password", text)}); err != nil {
						t.Error(err)
						return
					}
				}
			}
		})
	}
	applies.Wait()
	for worker := range 4 {
		want := fmt.Sprintf("%d/24", worker)
		if got := read(t, stores[0].Path(fmt.Sprintf("own%d", worker)), "password"); got != want {
			t.Errorf("own service of %d = %q, want %q", worker, got, want)
		}
	}
	shared := stores[0].Path("shared")
	if user, password := read(t, shared, "user"), read(t, shared, "password"); user != password {
		t.Errorf("shared service holds user %q and password %q", user, password)
	}
	if got := names(t, shared); len(got) != 4 {
		t.Errorf("shared service holds %q, want ..data, one generation, user and password", got)
	}
}
