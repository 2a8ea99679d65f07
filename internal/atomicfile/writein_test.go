package atomicfile

import (
	"os"
	"path/filepath"
	"testing"
)

func TestWriteInReplacesALinkAndFollowsNoneOutOfTheRoot(t *testing.T) {
	top := t.TempDir()
	dir, elsewhere := filepath.Join(top, "root"), filepath.Join(top, "elsewhere")
	if err := os.MkdirAll(filepath.Join(dir, "etc"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(elsewhere, 0o755); err != nil {
		t.Fatal(err)
	}
	for link, target := range map[string]string{"etc/file": "../../elsewhere/file", "out": "../elsewhere"} {
		if err := os.Symlink(target, filepath.Join(dir, link)); err != nil {
			t.Fatal(err)
		}
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()

	if err := WriteIn(root, "etc/file", []byte("whole"), 0o640); err != nil {
		t.Fatal(err)
	}
	info, err := os.Lstat(filepath.Join(dir, "etc/file"))
	if err != nil || info.Mode() != 0o640 {
		t.Errorf("got %v, %v; want a file of its own with mode 0640", info.Mode(), err)
	}
	if err := WriteIn(root, "out/file", []byte("whole"), 0o644); err == nil {
		t.Error("no error for a directory that is a link out of the root")
	}
	if entries, err := os.ReadDir(elsewhere); err != nil || len(entries) != 0 {
		t.Errorf("outside of the root: got %v, %v; want nothing", entries, err)
	}
	// A directory can't be replaced by a file, and nothing is left beside it.
	if err := root.MkdirAll("taken/child", 0o755); err != nil {
		t.Fatal(err)
	}
	if err := WriteIn(root, "taken", []byte("whole"), 0o644); err == nil {
		t.Error("no error for a directory in the file's place")
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 3 {
		t.Errorf("in the root: got %v, %v; want etc, out and taken", entries, err)
	}
}
