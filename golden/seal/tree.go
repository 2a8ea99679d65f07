package seal

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"syscall"
)

// place is an entry of a directory that is held open: whatever happens to the names above it, the entry is in that directory.
type place struct {
	dir  *os.Root
	name string
	path string // from the root directory, for people
	info fs.FileInfo
}

// tally counts what is removed.
type tally struct {
	files int
	bytes int64
}

func (t *tally) add(info fs.FileInfo) {
	if !info.IsDir() {
		t.files++
	}
	if info.Mode().IsRegular() {
		t.bytes += info.Size()
	}
}

var errReplaced = errors.New("it was replaced by something else meanwhile; seal again")

// expand visits what a pattern names, in the order of names. Each part of the pattern is as in [path.Match]. A directory
// that is a symbolic link is followed within the root, or is a problem where links must not be followed.
func (s *sealer) expand(pattern string, noLinks bool, visit func(place)) {
	s.descend(s.root, "", strings.Split(pattern, "/"), noLinks, visit)
}

func (s *sealer) descend(dir *os.Root, at string, parts []string, noLinks bool, visit func(place)) {
	names := []string{parts[0]}
	if strings.ContainsAny(parts[0], "*?[") {
		entries, err := list(dir)
		if err != nil {
			s.problem(at, err)
			return
		}
		names = slices.DeleteFunc(entries, func(name string) bool {
			matched, err := path.Match(parts[0], name)
			return err != nil || !matched // the patterns are this package's own
		})
	}
	for _, name := range names {
		here := path.Join(at, name)
		info, err := dir.Lstat(name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			s.problem(here, err)
			continue
		}
		if len(parts) == 1 {
			visit(place{dir, name, here, info})
			continue
		}
		if info.Mode()&fs.ModeSymlink != 0 && noLinks {
			s.problem(here, errors.New("it is a symbolic link, which is not followed in a home: remove it or what it leads to"))
			continue
		}
		s.enter(place{dir, name, here, info}, func(sub *os.Root) { s.descend(sub, here, parts[1:], noLinks, visit) })
	}
}

// enter opens a directory and calls visit with it; a symbolic link is followed within the root. Anything but a directory
// has nothing to visit.
func (s *sealer) enter(p place, visit func(*os.Root)) {
	var sub *os.Root
	var err error
	switch {
	case p.info.IsDir():
		sub, err = p.open()
	case p.info.Mode()&fs.ModeSymlink != 0:
		if sub, err = s.root.OpenRoot(p.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			err = fmt.Errorf("its symbolic link is not followed out of the system: %w", err)
		}
	default:
		return
	}
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) {
		return
	}
	if err != nil {
		s.problem(p.path, err)
		return
	}
	defer sub.Close()
	visit(sub)
}

// open opens the directory that was found, and nothing that took its place.
func (p place) open() (*os.Root, error) {
	sub, err := p.dir.OpenRoot(p.name)
	if err != nil {
		return nil, err
	}
	info, err := sub.Stat(".")
	if err == nil && !os.SameFile(info, p.info) {
		err = errReplaced
	}
	if err != nil {
		_ = sub.Close()
		return nil, err
	}
	return sub, nil
}

func list(dir *os.Root) ([]string, error) {
	f, err := dir.Open(".")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	names, err := f.Readdirnames(-1)
	slices.Sort(names)
	return names, err
}

// remove removes an entry with all below it.
func remove(s *sealer, p place) {
	var count tally
	err := s.removeAll(p, &count)
	if err != nil {
		s.problem(p.path, err)
	}
	if err == nil || count.files > 0 {
		s.did(p.path, "removed", count)
	}
}

// empty removes what is in a directory, and leaves the directory.
func empty(s *sealer, p place) {
	var count tally
	var entries int
	s.enter(p, func(sub *os.Root) {
		names, err := list(sub)
		if err != nil {
			s.problem(p.path, err)
			return
		}
		for _, name := range names {
			if err := s.removeName(sub, name, path.Join(p.path, name), &count); err != nil {
				s.problem(path.Join(p.path, name), err)
				continue
			}
			entries++
		}
	})
	if entries > 0 {
		s.did(p.path, "emptied", count)
	}
}

func (s *sealer) removeName(dir *os.Root, name, at string, count *tally) error {
	info, err := dir.Lstat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return s.removeAll(place{dir, name, at, info}, count)
}

var errMounted = errors.New("another file system is mounted there and was left alone: unmount it and seal again")

// removeAll removes an entry. Directories are opened one below the other and entries removed from the open directory, so
// that a name which turns into a link leads nowhere. What is mounted is left with a problem.
func (s *sealer) removeAll(p place, count *tally) error {
	if s.mounts[p.path] {
		return errMounted
	}
	if p.info.IsDir() {
		sub, err := p.open()
		if err != nil {
			return err
		}
		defer sub.Close()
		names, err := list(sub)
		if err != nil {
			return err
		}
		var errs []error
		for _, name := range names {
			at := path.Join(p.path, name)
			if err := s.removeName(sub, name, at, count); err != nil {
				errs = append(errs, fmt.Errorf("%s: %w", name, err))
			}
		}
		if err := errors.Join(errs...); err != nil {
			return err
		}
	}
	count.add(p.info)
	if s.dry {
		return nil
	}
	if err := p.dir.Remove(p.name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// truncate empties a regular file that a program may hold open, and leaves its owner and mode.
func truncate(s *sealer, p place) {
	if !p.info.Mode().IsRegular() || p.info.Size() == 0 {
		return
	}
	if err := s.cut(p); err != nil {
		s.problem(p.path, err)
		return
	}
	s.did(p.path, "emptied", tally{1, p.info.Size()})
}

func (s *sealer) cut(p place) error {
	if s.dry {
		return nil
	}
	f, err := p.dir.OpenFile(p.name, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if !os.SameFile(info, p.info) {
		return errReplaced
	}
	return f.Truncate(0)
}
