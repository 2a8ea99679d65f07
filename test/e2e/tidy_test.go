package e2e

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// checkTidy fails when an agent left something half-written: in the store, the run directory or the state directory.
func (n *node) checkTidy() {
	n.t.Helper()
	for dir, known := range map[string][]string{
		n.run():   {"agent.sock", "agent.sock.lock", "compose.lock", "compose.override.yaml", "docker-config", "secrets", "signalled.json", "admitted", "launch.json"},
		n.state(): {"boot.json", "fingerprint.key"},
	} {
		for _, name := range names(n.t, dir) {
			if !slices.Contains(known, name) {
				n.t.Errorf("%s was left in %s", name, dir)
			}
		}
	}
	if record, err := os.ReadFile(filepath.Join(n.state(), "boot.json")); err == nil && !json.Valid(record) {
		n.t.Errorf("boot.json is no JSON: %q", record)
	}
	if key, err := os.ReadFile(filepath.Join(n.state(), "fingerprint.key")); err == nil && len(key) != sha256.Size {
		n.t.Errorf("fingerprint.key has %d bytes, want %d", len(key), sha256.Size)
	}
	for _, service := range names(n.t, n.store()) {
		n.checkRoom(filepath.Join(n.store(), service))
	}
}

// checkRoom looks at one service's directory: one generation, and a name for each file in it.
func (n *node) checkRoom(room string) {
	n.t.Helper()
	generation, err := os.Readlink(filepath.Join(room, "..data"))
	if err != nil {
		n.t.Errorf("%s: %v", room, err)
		return
	}
	files := names(n.t, filepath.Join(room, generation))
	want := append([]string{"..data", generation}, files...)
	slices.Sort(want)
	if got := names(n.t, room); !slices.Equal(got, want) {
		n.t.Errorf("%s: got %q, want %q", room, got, want)
	}
	for _, file := range files {
		if target, err := os.Readlink(filepath.Join(room, file)); err != nil || target != "..data/"+file {
			n.t.Errorf("%s/%s: got a link to %q and %v, want one to ..data/%s", room, file, target, err, file)
		}
	}
}

// names are those of a directory's entries, sorted; none when it isn't there.
func names(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	var found []string
	for _, entry := range entries {
		found = append(found, entry.Name())
	}
	return found
}

// tree describes every file below dir: its mode, and its content, as a sum, or target.
func tree(t *testing.T, dir string) map[string]string {
	t.Helper()
	found := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		name := strings.TrimPrefix(path, dir)
		switch {
		case info.Mode().IsRegular():
			content, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			found[name] = fmt.Sprintf("%v %x", info.Mode(), sha256.Sum256(content))
		case info.Mode()&fs.ModeSymlink != 0:
			target, err := os.Readlink(path)
			if err != nil {
				return err
			}
			found[name] = "-> " + target
		default:
			found[name] = info.Mode().String()
		}
		return nil
	})
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	return found
}

// mountTmpfs mounts a small disk at dir. The node's clean-up unmounts it when dir is its store or its state.
func mountTmpfs(t *testing.T, dir, options string) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", dir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, options); err != nil {
		t.Fatal(err)
	}
}

// fill leaves no room on the filesystem of dir.
func fill(t *testing.T, dir string) {
	t.Helper()
	file, err := os.Create(filepath.Join(dir, "filler"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	page := make([]byte, os.Getpagesize())
	for err == nil {
		_, err = file.Write(page)
	}
	if !errors.Is(err, unix.ENOSPC) {
		t.Fatal(err)
	}
}

// eventually waits for something that nobody announces.
func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	const look = 50 * time.Millisecond // often against what it waits for, seldom against what a look costs
	timeout, tick := time.NewTimer(patience), time.NewTicker(look)
	defer timeout.Stop()
	defer tick.Stop()
	for !is() {
		select {
		case <-tick.C:
		case <-timeout.C:
			t.Fatalf("not seen in %s: %s", patience, what)
		}
	}
}
