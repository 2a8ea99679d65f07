package secret

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"sort"
	"strings"
	"syscall"
	"time"
)

const (
	dataLink    = "..data"     // Kubernetes' name for it; programs that watch mounted secrets know to watch this one
	newDataLink = "..data_new" // what becomes dataLink by a rename

	// dirMode lets the service's user, who may be anyone, pass through to files whose own mode then decides. The
	// store's root is 0700, so on the host only root gets as far as here.
	dirMode fs.FileMode = 0o755
)

// File is one secret as a service is given it.
type File struct {
	// Name of the file below /run/secrets: a single path element that doesn't begin with two dots.
	Name string
	// Value is the content. The zero Value, an absent secret, is refused; an empty one is an empty file.
	Value Value
	// UID and GID own the file, as numbers inside the container. Zero is root; negative ones are refused.
	UID, GID int
	// Mode is used as it stands, so 0 shuts everyone but root out. Only permission bits (0777) are allowed.
	Mode fs.FileMode
}

// Apply makes files the whole content of the service's directory and returns the sorted names whose file changed,
// appeared or vanished. A change of content, owner or mode counts. When there is none, nothing is written.
//
// All files change in one step: whoever resolves ..data once sees either all old files or all new ones, never a mix
// and never a part. A file that stayed the same keeps its inode and times, so that nobody who watches it wakes up.
// The old files are removed right after the step; an open by path that was under way at that very instant may find
// nothing and has to be tried again, as with Kubernetes' own secret volumes.
//
// On an error everything is as it was before. The one exception is an error after the step, which comes together
// with the changed names: the new files are in place then, and the next Apply or OpenStore finishes the cleaning.
// Errors wrap ErrStoreFull and ErrUnmounted, and never hold a secret.
func (s *Store) Apply(service string, files []File) (changed []string, err error) {
	if err := checkName("service", service); err != nil {
		return nil, err
	}
	files, err = checkFiles(files)
	if err != nil {
		return nil, fmt.Errorf("secrets of %s: %w", service, err)
	}
	unlock, err := s.lock()
	if err != nil {
		return nil, fmt.Errorf("secrets of %s: %w", service, err)
	}
	defer unlock()
	if err := s.checkMounted(); err != nil {
		return nil, fmt.Errorf("secrets of %s: %w", service, err)
	}
	changed, err = s.apply(service, files)
	if errors.Is(err, syscall.ENOSPC) {
		err = fmt.Errorf("%w: make it larger, for example with mount -o remount,size=128M %s, or remove secrets: %w", ErrStoreFull, s.dir, err)
	}
	if err != nil {
		err = fmt.Errorf("secrets of %s: %w", service, err)
	}
	return changed, err
}

// checkFiles returns files in order of names, or what is wrong with one of them.
func checkFiles(files []File) ([]File, error) {
	files = slices.SortedFunc(slices.Values(files), func(a, b File) int { return strings.Compare(a.Name, b.Name) })
	for i, f := range files {
		if err := checkName("file", f.Name); err != nil {
			return nil, err
		}
		switch {
		case i > 0 && files[i-1].Name == f.Name:
			return nil, fmt.Errorf("two secrets want the file name %q: give one of them another target", f.Name)
		case f.Value.IsZero():
			return nil, fmt.Errorf("file %q has no value", f.Name)
		case f.UID < 0 || f.GID < 0:
			return nil, fmt.Errorf("file %q: owner %d:%d is negative: use the numbers the container's user has", f.Name, f.UID, f.GID)
		case f.Mode&^fs.ModePerm != 0:
			return nil, fmt.Errorf("file %q: mode %v has more than permission bits: use one such as 0440", f.Name, f.Mode)
		}
	}
	return files, nil
}

func (s *Store) apply(service string, files []File) (changed []string, err error) {
	made, err := s.makeRoom(service)
	if err != nil {
		return nil, err
	}
	room, err := s.root.OpenRoot(service)
	if err != nil {
		return nil, err
	}
	defer room.Close()
	old, err := sweep(room)
	if err != nil {
		return nil, err
	}
	changed, err = old.compare(room, files)
	if err != nil || len(changed) == 0 {
		return nil, err
	}
	if err := old.replace(room, files, changed); err != nil {
		if made {
			err = errors.Join(err, s.root.Remove(service))
		}
		return nil, err
	}
	return changed, old.discard(room, files)
}

// makeRoom makes the service's directory, or sees to it that the one which is there can be passed through.
func (s *Store) makeRoom(service string) (made bool, err error) {
	err = s.root.Mkdir(service, dirMode)
	made = err == nil
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return false, err
	}
	info, err := s.root.Lstat(service)
	switch {
	case err != nil:
		return made, err
	case !info.IsDir():
		return false, fmt.Errorf("%s is not a directory: remove it", s.Path(service))
	case info.Mode().Perm() != dirMode: // the umask took bits away
		return made, s.root.Chmod(service, dirMode)
	}
	return made, nil
}

// generation is the set of files that ..data leads to. The zero generation is that of a service without one.
type generation struct {
	dir   string                 // name of its directory; "" when there is none
	files map[string]fs.FileInfo // those that can be reached by their visible name
}

// sweep finds the generation in force and removes everything else, which only a killed process or a stranger left.
func sweep(room *os.Root) (generation, error) {
	g, err := inForce(room)
	if err != nil {
		return g, err
	}
	reachable := map[string]fs.FileInfo{}
	entries, err := readDir(room, ".")
	if err != nil {
		return g, err
	}
	for _, e := range entries {
		name := e.Name()
		if g.dir != "" && (name == g.dir || name == dataLink) {
			continue
		}
		if info, found := g.files[name]; found && linksTo(room, name, visibleTarget(name)) {
			reachable[name] = info
			continue
		}
		if err := room.RemoveAll(name); err != nil {
			return g, err
		}
	}
	g.files = reachable
	return g, nil
}

// inForce reads where ..data leads. A link that leads to no generation counts as none.
func inForce(room *os.Root) (generation, error) {
	dir, err := room.Readlink(dataLink)
	if err != nil || !strings.HasPrefix(dir, "..") || strings.ContainsRune(dir, '/') || dir == ".." {
		return generation{}, nil
	}
	if info, err := room.Lstat(dir); err != nil || !info.IsDir() {
		return generation{}, nil
	}
	entries, err := readDir(room, dir)
	if err != nil {
		return generation{}, err
	}
	g := generation{dir: dir, files: map[string]fs.FileInfo{}}
	for _, e := range entries {
		info, err := room.Lstat(dir + "/" + e.Name()) // the entry's own Info would go by the path, not by the pinned mount
		if err != nil {
			return generation{}, err
		}
		g.files[e.Name()] = info
	}
	return g, nil
}

func linksTo(room *os.Root, name, target string) bool {
	got, err := room.Readlink(name)
	return err == nil && got == target
}

func visibleTarget(name string) string { return dataLink + "/" + name }

// compare returns the sorted names that differ between g and files.
func (g generation) compare(room *os.Root, files []File) ([]string, error) {
	var changed []string
	wanted := map[string]bool{}
	for _, f := range files {
		wanted[f.Name] = true
		same, err := g.holds(room, f)
		if err != nil {
			return nil, err
		}
		if !same {
			changed = append(changed, f.Name)
		}
	}
	for name := range g.files {
		if !wanted[name] {
			changed = append(changed, name)
		}
	}
	sort.Strings(changed)
	return changed, nil
}

// holds tells whether f is there already, in content, owner and mode.
func (g generation) holds(room *os.Root, f File) (bool, error) {
	info, found := g.files[f.Name]
	if !found || info.Mode() != f.Mode || info.Size() != int64(len(f.Value.Reveal())) {
		return false, nil
	}
	owner, ok := info.Sys().(*syscall.Stat_t)
	if !ok || int64(owner.Uid) != int64(f.UID) || int64(owner.Gid) != int64(f.GID) {
		return false, nil
	}
	content, err := room.ReadFile(g.dir + "/" + f.Name)
	if err != nil {
		return false, err
	}
	return f.Value.Equal(NewValue(content)), nil
}

// replace puts the next generation in force. Everything that can run out of room is made before the one step that
// counts, and removed again when any of it fails; links of new names lead nowhere until then.
func (g generation) replace(room *os.Root, files []File, changed []string) (err error) {
	// The time is for people who look; the random part makes it unique.
	dir := ".." + time.Now().UTC().Format("2006_01_02_15_04_05") + "." + rand.Text()
	var made []string
	defer func() {
		if err == nil {
			return
		}
		for _, name := range made {
			err = errors.Join(err, room.RemoveAll(name))
		}
	}()

	if err := room.Mkdir(dir, 0o700); err != nil {
		return err
	}
	made = append(made, dir)
	for _, f := range files {
		path := dir + "/" + f.Name
		if slices.Contains(changed, f.Name) {
			err = writeFile(room, path, f)
		} else {
			err = room.Link(g.dir+"/"+f.Name, path)
		}
		if err != nil {
			return err
		}
	}
	if err := room.Chmod(dir, dirMode); err != nil {
		return err
	}
	for _, f := range files {
		if _, there := g.files[f.Name]; there {
			continue
		}
		if err := room.Symlink(visibleTarget(f.Name), f.Name); err != nil {
			return err
		}
		made = append(made, f.Name)
	}
	if err := room.Symlink(dir, newDataLink); err != nil {
		return err
	}
	made = append(made, newDataLink)
	return room.Rename(newDataLink, dataLink)
}

// discard removes what the swap left behind: visible names without a file, and g's own directory.
func (g generation) discard(room *os.Root, files []File) error {
	var failed []error
	for name := range g.files {
		if !slices.ContainsFunc(files, func(f File) bool { return f.Name == name }) {
			failed = append(failed, room.Remove(name))
		}
	}
	if g.dir != "" {
		failed = append(failed, room.RemoveAll(g.dir))
	}
	return errors.Join(failed...)
}

// writeFile makes a file that is root's alone until its content is whole, and gives it its owner before its mode, so
// that no wider mode ever meets the wrong owner. The mode is set apart from the creation because of the umask.
func writeFile(room *os.Root, path string, f File) (err error) {
	out, err := room.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	if _, err := out.Write(f.Value.Reveal()); err != nil {
		return err
	}
	if err := out.Chown(f.UID, f.GID); err != nil {
		return err
	}
	return out.Chmod(f.Mode)
}
