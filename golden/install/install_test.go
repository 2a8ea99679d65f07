package install_test

import (
	"crypto/sha256"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	ansiblefree "github.com/flowviz/flowagent/ansible-free"
	"github.com/flowviz/flowagent/golden/install"
)

var profiles = []ansiblefree.Profile{ansiblefree.Agent, ansiblefree.Base, ansiblefree.Hardening}

// One file of each sort: the operator's as well, and flowagent's alone.
var (
	operators = fileBelow("/etc/")
	own       = fileBelow("/usr/")
)

func fileBelow(dir string) ansiblefree.File {
	for _, f := range ansiblefree.Files(profiles...) {
		if strings.HasPrefix(f.Path, dir) {
			return f
		}
	}
	panic("no file below " + dir)
}

// put installs below root and fails the test where it can't.
func put(t *testing.T, root string, change func(*install.Options)) *install.Result {
	t.Helper()
	o := install.Options{Root: root, Profiles: profiles}
	if change != nil {
		change(&o)
	}
	result, err := install.Install(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	return result
}

func stateOf(r *install.Result, path string) install.State {
	for _, f := range r.Files {
		if f.Path == path {
			return f.State
		}
	}
	return "not in the result"
}

// entry is what a test compares of a file.
type entry struct {
	Mode    fs.FileMode
	Content string // of a link, where it leads
}

// tree is everything below root but directories, by path.
func tree(t *testing.T, root string) map[string]entry {
	t.Helper()
	found := map[string]entry{}
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		e := entry{Mode: info.Mode()}
		if info.Mode().IsRegular() {
			content, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			e.Content = string(content)
		} else if e.Content, err = os.Readlink(path); err != nil {
			return err
		}
		found[strings.TrimPrefix(path, root)] = e
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func write(t *testing.T, path, content string, mode fs.FileMode) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), mode); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil { // whatever the umask
		t.Fatal(err)
	}
}

func TestAnEmptyRootGetsEveryFileAndASecondTimeNothing(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	program := filepath.Join(t.TempDir(), "flowagent")
	write(t, program, "a program", 0o600)
	withProgram := func(o *install.Options) { o.Binary = program }

	first := put(t, root, withProgram)
	want := map[string]entry{install.BinaryPath: {0o755, "a program"}}
	for _, f := range ansiblefree.Files(profiles...) {
		want[f.Path] = entry{f.Mode, string(f.Content())}
	}
	for _, f := range first.Files {
		if f.State != install.New {
			t.Errorf("%s: got %s, want new", f.Path, f.State)
		}
	}
	got := tree(t, root)
	digests := got["/usr/lib/flowagent/installed.sha256"]
	delete(got, "/usr/lib/flowagent/installed.sha256")
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("files (-want +got):\n%s", diff)
	}
	if lines := strings.Count(digests.Content, "\n"); lines != len(want) {
		t.Errorf("digests of %d files, want %d", lines, len(want))
	}

	for _, f := range put(t, root, withProgram).Files {
		if f.State != install.Same {
			t.Errorf("the second time: %s: got %s, want same", f.Path, f.State)
		}
	}
}

func TestAFileThatAPersonChangedIsKeptAndAnOlderVersionReplaced(t *testing.T) {
	t.Parallel()
	const mine = "# mine\n"
	overwrite := func(o *install.Options) { o.Overwrite = true }
	for name, c := range map[string]struct {
		file    ansiblefree.File
		prepare func(t *testing.T, root, path string) // after a first installation
		change  func(*install.Options)
		want    install.State
		content string // "" for flowagent's
		beside  bool   // the new version is beside it
	}{
		"changed": {
			file: operators, want: install.Kept, content: mine, beside: true,
			prepare: func(t *testing.T, _, path string) { write(t, path, mine, operators.Mode) },
		},
		"changed, and to be replaced": {
			file: operators, want: install.Changed, change: overwrite,
			prepare: func(t *testing.T, root, path string) {
				write(t, path, mine, operators.Mode)
				put(t, root, nil) // which leaves a new version beside it
			},
		},
		"merged": {
			file: operators, want: install.Same,
			prepare: func(t *testing.T, root, path string) {
				write(t, path, mine, operators.Mode)
				put(t, root, nil)
				write(t, path, string(operators.Content()), operators.Mode)
			},
		},
		"another mode": {
			file: operators, want: install.Changed,
			prepare: func(t *testing.T, _, path string) { write(t, path, string(operators.Content()), 0o666) },
		},
		"removed": {
			file: operators, want: install.New,
			prepare: func(t *testing.T, _, path string) {
				if err := os.Remove(path); err != nil {
					t.Fatal(err)
				}
			},
		},
		"a link in its place": {
			file: operators, want: install.Kept, content: "/dev/null", beside: true,
			prepare: func(t *testing.T, _, path string) { link(t, "/dev/null", path) },
		},
		"an older version of ours": {
			file: operators, want: install.Changed,
			prepare: func(t *testing.T, root, path string) {
				write(t, path, "older", operators.Mode)
				noteAsOurs(t, root, operators.Path, "older")
			},
		},
		"changed where it is flowagent's alone": {
			file: own, want: install.Changed,
			prepare: func(t *testing.T, _, path string) { write(t, path, mine, own.Mode) },
		},
		"a link where it is flowagent's alone": {
			file: own, want: install.Changed,
			prepare: func(t *testing.T, _, path string) { link(t, "/dev/null", path) },
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			root := t.TempDir()
			put(t, root, nil)
			c.prepare(t, root, filepath.Join(root, c.file.Path))
			before := tree(t, root)

			dry := put(t, root, func(o *install.Options) {
				if c.change != nil {
					c.change(o)
				}
				o.DryRun = true
			})
			if diff := cmp.Diff(before, tree(t, root)); diff != "" {
				t.Errorf("a dry run changed (-before +after):\n%s", diff)
			}
			result := put(t, root, c.change)
			if got := [2]install.State{stateOf(dry, c.file.Path), stateOf(result, c.file.Path)}; got != [2]install.State{c.want, c.want} {
				t.Errorf("got %s, want %s, in the dry run as well", got, c.want)
			}
			after := tree(t, root)
			want := c.content
			if want == "" {
				want = string(c.file.Content())
				if got := after[c.file.Path].Mode; got != c.file.Mode {
					t.Errorf("mode: got %v, want %v", got, c.file.Mode)
				}
			}
			if got := after[c.file.Path].Content; got != want {
				t.Errorf("content: got %q, want %q", got, want)
			}
			beside, found := after[c.file.Path+".flowagent-new"]
			if found != c.beside || found && beside.Content != string(c.file.Content()) {
				t.Errorf("a new version beside it: %v, %q, want %v, and flowagent's", found, beside.Content, c.beside)
			}
		})
	}
}

func link(t *testing.T, target, path string) {
	t.Helper()
	if err := os.Remove(path); err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	if err := os.Symlink(target, path); err != nil {
		t.Fatal(err)
	}
}

// noteAsOurs has an installation know this content as what it wrote last.
func noteAsOurs(t *testing.T, root, path, content string) {
	t.Helper()
	list := filepath.Join(root, "usr/lib/flowagent/installed.sha256")
	text, err := os.ReadFile(list)
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for line := range strings.Lines(string(text)) {
		if strings.HasSuffix(line, "  "+path+"\n") {
			line = fmt.Sprintf("%x  %s\n", sha256.Sum256([]byte(content)), path)
		}
		lines = append(lines, line)
	}
	write(t, list, strings.Join(lines, ""), 0o644)
}

func TestWhatCannotBeInstalledIsSaidAndTheSameCallGoesOn(t *testing.T) {
	t.Parallel()
	files := ansiblefree.Files(profiles...)
	last := files[len(files)-1]
	for name, c := range map[string]struct {
		spoil, mend func(t *testing.T, root string)
		says        []string
	}{
		"a directory in a file's place": {
			spoil: func(t *testing.T, root string) { write(t, filepath.Join(root, last.Path, "x"), "x", 0o644) },
			mend: func(t *testing.T, root string) {
				if err := os.RemoveAll(filepath.Join(root, last.Path)); err != nil {
					t.Fatal(err)
				}
			},
			says: []string{last.Path, "it is a directory: move it away"},
		},
		"a link out of the root": {
			spoil: func(t *testing.T, root string) {
				dir := filepath.Join(root, filepath.Dir(last.Path))
				if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
					t.Fatal(err)
				}
				outside := t.TempDir()
				link(t, outside, dir)
				t.Cleanup(func() {
					if left := tree(t, outside); len(left) > 0 {
						t.Errorf("got %v outside of the root, want nothing", left)
					}
				})
			},
			mend: func(t *testing.T, root string) {
				if err := os.Remove(filepath.Join(root, filepath.Dir(last.Path))); err != nil {
					t.Fatal(err)
				}
			},
			says: []string{"a symbolic link on the way leads out of the root"},
		},
		"a list that sha256sum didn't write": {
			spoil: func(t *testing.T, root string) {
				write(t, filepath.Join(root, "usr/lib/flowagent/installed.sha256"), "what?\n", 0o644)
			},
			mend: func(t *testing.T, root string) {
				if err := os.Remove(filepath.Join(root, "usr/lib/flowagent/installed.sha256")); err != nil {
					t.Fatal(err)
				}
			},
			says: []string{"installed.sha256", "what?", "remove the file"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			root := t.TempDir()
			c.spoil(t, root)
			far, err := install.Install(t.Context(), install.Options{Root: root, Profiles: profiles})
			if err == nil {
				t.Fatal("got no error")
			}
			for _, part := range c.says {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("got %q, want %q in it", err, part)
				}
			}
			list := tree(t, root)["/usr/lib/flowagent/installed.sha256"].Content
			c.mend(t, root)
			again := put(t, root, nil)
			for _, f := range far.Files { // what was done is known to be ours
				if !strings.Contains(list, "  "+f.Path+"\n") {
					t.Errorf("%s was installed and not noted", f.Path)
				}
				if got := stateOf(again, f.Path); got != install.Same {
					t.Errorf("%s: got %s the second time, want same", f.Path, got)
				}
			}
			for _, f := range put(t, root, nil).Files {
				if f.State != install.Same {
					t.Errorf("%s: got %s the third time, want same", f.Path, f.State)
				}
			}
		})
	}
	_, err := install.Install(t.Context(), install.Options{Root: filepath.Join(t.TempDir(), "no"), Profiles: profiles})
	if err == nil || !strings.Contains(err.Error(), "it has to be a directory") {
		t.Errorf("a root that isn't there: got %v", err)
	}
}
