// Package install puts a node's files in their places: the agent's binary and what package ansiblefree holds, on this machine
// or below a directory that is to become a machine's disk.
//
// What enters are a root, profiles and the binary; what leaves are the files, the units' links, and a [Result] that says of
// each what was done. Nothing is started, stopped or reloaded: a machine heeds the files at its next boot, and the result
// names the commands for those who can't wait. No symbolic link is followed out of the root.
//
// # Files that a person changed
//
// What is below /usr is flowagent's, and replaced. What is below /etc is the operator's as well: a file there that isn't what
// this package wrote last is kept, and the new version is put beside it as NAME.flowagent-new, which nothing reads. What was
// written last is known from /usr/lib/flowagent/installed.sha256, a file as sha256sum writes it. Overwrite replaces these, too.
package install

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	ansiblefree "github.com/flowviz/flowagent/ansible-free"
	"github.com/flowviz/flowagent/internal/atomicfile"
)

// BinaryPath is where units expect the agent.
const BinaryPath = "/usr/bin/flowagent"

// newSuffix is on no name that a program reads: sshd, chronyd, cloud-init and modprobe want endings of their own, apt none
// that it doesn't know, and dockerd one name.
const newSuffix = ".flowagent-new"

// Options say what to install and where.
type Options struct {
	Root      string                // "/" for this machine
	Profiles  []ansiblefree.Profile // as ParseProfiles returns them
	Binary    string                // the program to install as BinaryPath; empty for none
	Enable    bool                  // make the group and the directories, and have units start at boot
	Overwrite bool                  // replace files that a person changed
	DryRun    bool                  // say what would be done
}

// State says how a file was found, which is also what was done about it.
type State string

// The states of a file.
const (
	New     State = "new"     // wasn't there
	Changed State = "changed" // was there in another version, or with another mode
	Same    State = "same"    // was as it should be
	Kept    State = "kept"    // was changed by a person, and left; the new version is beside it
)

// File is one file of a result.
type File struct {
	Path    string              `json:"path"` // on the machine
	State   State               `json:"state"`
	Profile ansiblefree.Profile `json:"profile"`
	Mode    string              `json:"mode"` // as chmod takes it
	// Beside is where the new version is, of a file that was kept.
	Beside string `json:"beside,omitempty"`
}

// Missing is a file that nothing reads yet.
type Missing struct {
	ansiblefree.Program
	Path string `json:"for"` // the file
}

// Result says what was done, or in a dry run would have been.
type Result struct {
	Root    string    `json:"root"`
	DryRun  bool      `json:"dryRun"`
	Files   []File    `json:"files"`
	Steps   []Step    `json:"steps"`
	Missing []Missing `json:"missing"`
	// Activate are the commands by which a running machine heeds what is new or changed, in order, but for programs and units
	// that it doesn't have; none for a root elsewhere.
	Activate []string `json:"activate"`
}

// Install installs. An error leaves whole files only, and the same call again goes on where it failed; the result says how
// far it came.
func Install(ctx context.Context, o Options) (*Result, error) {
	o.Root = filepath.Clean(o.Root)
	result := &Result{Root: o.Root, DryRun: o.DryRun, Files: []File{}, Steps: []Step{}, Missing: []Missing{}, Activate: []string{}}
	root, err := os.OpenRoot(o.Root)
	if err != nil {
		return result, fmt.Errorf("install below %s: %w: it has to be a directory", o.Root, err)
	}
	defer root.Close()
	in := &installer{Options: o, root: root, result: result}
	if err := in.files(); err != nil {
		return result, err
	}
	in.lookForReaders()
	if o.Enable {
		err = in.enable(ctx)
	}
	return result, err
}

type installer struct {
	Options
	root    *os.Root
	result  *Result
	digests digests
}

func (in *installer) files() error {
	var err error
	if in.digests, err = readDigests(in.root); err != nil {
		return err
	}
	err = in.all()
	if in.DryRun {
		return err
	}
	return errors.Join(err, in.digests.write(in.root)) // what was written is ours, however far this came
}

func (in *installer) all() error {
	if in.Binary != "" {
		if err := in.binary(); err != nil {
			return err
		}
	}
	for _, f := range ansiblefree.Files(in.Profiles...) {
		if err := in.install(f.Path, f.Content(), f.Mode, f.Profile); err != nil {
			return err
		}
		state := in.result.Files[len(in.result.Files)-1].State
		if in.onRunningSystem() && (state == New || state == Changed) && f.Activate != "" && !slices.Contains(in.result.Activate, f.Activate) {
			in.result.Activate = append(in.result.Activate, f.Activate)
		}
	}
	in.result.Activate = slices.DeleteFunc(in.result.Activate, func(command string) bool { return !in.possible(command) })
	return nil
}

// possible tells whether the machine has what a command is about. Where it lacks, it will read the files when it is installed.
func (in *installer) possible(command string) bool {
	words := strings.Fields(command)
	if words[0] != "systemctl" {
		return path.IsAbs(words[0]) || in.has(words[0])
	}
	unit := words[len(words)-1]
	for _, dir := range []string{"etc/systemd/system", "usr/lib/systemd/system"} {
		name := path.Join(dir, unit)
		if _, err := in.root.Lstat(name); err == nil {
			target, _ := in.root.Readlink(name)
			return target != "/dev/null" // a masked one can't be restarted
		}
		if slices.ContainsFunc(in.result.Files, func(f File) bool { return f.Path == "/"+name }) {
			return true // in a dry run
		}
	}
	return false
}

// binary installs the program, unless it is the installed one that runs.
func (in *installer) binary() error {
	content, err := os.ReadFile(in.Binary)
	if err != nil {
		return fmt.Errorf("read the program to install: %w", err)
	}
	return in.install(BinaryPath, content, 0o755, ansiblefree.Agent)
}

func (in *installer) install(path string, content []byte, mode fs.FileMode, profile ansiblefree.Profile) error {
	name := strings.TrimPrefix(path, "/")
	digest := digestOf(content)
	file := File{Path: path, Profile: profile, Mode: fmt.Sprintf("%04o", mode)}
	found, err := in.look(name, digest, mode)
	if err != nil {
		return fmt.Errorf("look at %s: %w%s", in.outside(path), err, hint(err))
	}
	file.State = found
	if found == Kept {
		file.Beside = path + newSuffix
	}
	if !in.DryRun {
		if err := in.put(file, name, content, mode, digest); err != nil {
			return fmt.Errorf("install %s: %w%s", in.outside(path), err, hint(err))
		}
	}
	in.result.Files = append(in.result.Files, file)
	return nil
}

// look decides what a file is, without changing anything.
func (in *installer) look(name, digest string, mode fs.FileMode) (State, error) {
	info, err := in.root.Lstat(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return New, nil
	case err != nil:
		return "", err
	case info.IsDir():
		return "", errors.New("it is a directory: move it away and run this again")
	}
	is := "" // of a link or a device
	if info.Mode().IsRegular() {
		content, err := in.root.ReadFile(name)
		if err != nil {
			return "", err
		}
		is = digestOf(content)
	}
	switch {
	case is == digest && info.Mode().Perm() == mode:
		return Same, nil
	case is != digest && !in.ours(name, is) && !in.Overwrite:
		return Kept, nil
	}
	return Changed, nil
}

// ours tells whether a file with this digest may be replaced: nobody but this package wrote it, or nobody else should have.
func (in *installer) ours(name, digest string) bool {
	return !strings.HasPrefix(name, "etc/") || digest != "" && in.digests["/"+name] == digest
}

func (in *installer) put(file File, name string, content []byte, mode fs.FileMode, digest string) error {
	target := name
	if file.State == Kept {
		target = name + newSuffix
	} else {
		in.digests[file.Path] = digest
		// A person who merged a new version has no use for it any longer.
		if err := in.root.Remove(name + newSuffix); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	if file.State == Same {
		return nil
	}
	if err := in.makeDirectories(path.Dir(target)); err != nil {
		return err
	}
	return atomicfile.WriteIn(in.root, target, content, mode)
}

// makeDirectories makes what lacks of a path, readable by all whatever the umask. Directories that are there stay as they are.
func (in *installer) makeDirectories(dir string) error {
	if dir == "." {
		return nil
	}
	err := in.root.Mkdir(dir, 0o755)
	if errors.Is(err, fs.ErrNotExist) {
		if err := in.makeDirectories(path.Dir(dir)); err != nil {
			return err
		}
		err = in.root.Mkdir(dir, 0o755)
	}
	switch {
	case errors.Is(err, fs.ErrExist):
		return nil
	case err != nil:
		return err
	}
	return in.root.Chmod(dir, 0o755)
}

// lookForReaders notes programs that aren't installed, each once.
func (in *installer) lookForReaders() {
	seen := map[ansiblefree.Program]bool{{}: true}
	for _, f := range ansiblefree.Files(in.Profiles...) {
		if seen[f.Reader] {
			continue
		}
		seen[f.Reader] = true
		if !in.has(f.Reader.Name) {
			in.result.Missing = append(in.result.Missing, Missing{f.Reader, f.Path})
		}
	}
}

// has tells whether the machine has a program. A link that leads to another place inside counts, wherever that is.
func (in *installer) has(program string) bool {
	for _, dir := range []string{"usr/bin", "usr/sbin"} {
		if _, err := in.root.Lstat(path.Join(dir, program)); err == nil {
			return true
		}
	}
	return false
}

// outside is a file's path as the caller sees it.
func (in *installer) outside(path string) string { return filepath.Join(in.Options.Root, path) }

func hint(err error) string {
	switch {
	case errors.Is(err, fs.ErrPermission):
		return ": run this as root"
	case strings.Contains(err.Error(), "path escapes from parent"): // os has no value for it
		return ": a symbolic link on the way leads out of the root, or is absolute: make it a directory, or a relative link"
	}
	return ""
}

func digestOf(content []byte) string {
	sum := sha256.Sum256(content)
	return hex.EncodeToString(sum[:])
}
