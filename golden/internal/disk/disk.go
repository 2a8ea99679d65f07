// Package disk makes root directories of systems for tests: small, complete as far as the packages of golden look, and below
// the test's temporary directory.
package disk

import (
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// Disk is the root directory of a system.
type Disk struct {
	// Root is its path, without symbolic links.
	Root string
	t    testing.TB
}

// New makes an empty root directory with the accounts root and deploy.
func New(t testing.TB) *Disk {
	t.Helper()
	root, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	d := &Disk{Root: filepath.Join(root, "disk"), t: t}
	d.must(os.Mkdir(d.Root, 0o755))
	d.must(os.Chmod(d.Root, 0o755)) // an umask would change the modes that a check looks at
	d.File("etc/passwd", "root:x:0:0:root:/root:/bin/bash\ndaemon:x:1:1:daemon:/usr/sbin:/usr/sbin/nologin\ndeploy:x:1000:1000::/home/deploy:/bin/bash\n")
	d.Directory("root", 0o700)
	d.Directory("home/deploy", 0o755)
	d.Directory("tmp", 0o777|fs.ModeSticky)
	d.Directory("var/tmp", 0o777|fs.ModeSticky)
	return d
}

// Path is where a file of the system is.
func (d *Disk) Path(name string) string { return filepath.Join(d.Root, name) }

// File writes a file of mode 0644.
func (d *Disk) File(name, content string) { d.t.Helper(); d.FileMode(name, content, 0o644) }

// FileMode writes a file of a mode.
func (d *Disk) FileMode(name, content string, mode fs.FileMode) {
	d.t.Helper()
	d.parents(name)
	d.must(os.WriteFile(d.Path(name), []byte(content), 0o600))
	d.must(os.Chmod(d.Path(name), mode))
}

// Directory makes a directory of a mode.
func (d *Disk) Directory(name string, mode fs.FileMode) {
	d.t.Helper()
	d.parents(name)
	if err := os.Mkdir(d.Path(name), 0o700); err != nil && !os.IsExist(err) {
		d.t.Fatal(err)
	}
	d.must(os.Chmod(d.Path(name), mode))
}

// Link makes a symbolic link.
func (d *Disk) Link(name, target string) {
	d.t.Helper()
	d.parents(name)
	d.must(os.Symlink(target, d.Path(name)))
}

// Read returns what a file holds.
func (d *Disk) Read(name string) string {
	d.t.Helper()
	content, err := os.ReadFile(d.Path(name))
	d.must(err)
	return string(content)
}

// Has tells whether there is something under a name, be it a link that leads nowhere.
func (d *Disk) Has(name string) bool {
	d.t.Helper()
	_, err := os.Lstat(d.Path(name))
	if err != nil && !os.IsNotExist(err) {
		d.t.Fatal(err)
	}
	return err == nil
}

// Snapshot is all that is on the disk: for each path its mode, and what a file holds or a link leads to.
func (d *Disk) Snapshot() map[string]string {
	d.t.Helper()
	all := map[string]string{}
	err := filepath.WalkDir(d.Root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(d.Root, path)
		if err != nil {
			return err
		}
		content := ""
		switch {
		case info.Mode().IsRegular():
			content = d.Read(rel)
		case info.Mode()&fs.ModeSymlink != 0:
			content, err = os.Readlink(path)
		}
		all[rel] = info.Mode().String() + " " + content
		return err
	})
	d.must(err)
	return all
}

// Program builds the Go program in a directory, for what reads what Go writes into its programs.
func Program(dir string) (content string, err error) {
	to, err := os.MkdirTemp("", "program")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(to)
	file := filepath.Join(to, "program")
	cmd := exec.Command("go", "build", "-ldflags", "-s -w", "-o", file, ".")
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build %s: %w: %s", dir, err, out)
	}
	program, err := os.ReadFile(file)
	return string(program), err
}

// parents makes the directories above a file, with the mode that distributions give them, whatever the umask.
func (d *Disk) parents(name string) {
	d.t.Helper()
	dir := filepath.Dir(d.Path(name))
	if _, err := os.Stat(dir); err == nil || dir == filepath.Dir(dir) {
		return
	}
	if rel, err := filepath.Rel(d.Root, dir); err == nil && rel != "." {
		d.parents(rel)
	}
	d.must(os.Mkdir(dir, 0o755))
	d.must(os.Chmod(dir, 0o755))
}

func (d *Disk) must(err error) {
	d.t.Helper()
	if err != nil {
		d.t.Fatal(err)
	}
}
