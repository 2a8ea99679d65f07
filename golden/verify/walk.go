package verify

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/flowviz/flowagent/golden/dpkg"
	"github.com/flowviz/flowagent/golden/leak"
)

// walk is one way through every file of a system, for all checks that look at files.
type walk struct {
	files   int
	bytes   int64
	skipped []string // what isn't on the disk: other file systems by their directories

	writable   []string // findings of each check
	programs   []string
	leaks      []string
	allowed    int      // findings that are known to be harmless
	unreadable []string // what could not be looked at, and fails each of the three
}

// file is one to be looked into.
type file struct {
	*os.File
	path string
	info fs.FileInfo
}

// walk looks at every file and into it, once for all checks.
func (v *verifier) walk() (*walk, error) {
	if v.walked != nil {
		return v.walked, nil
	}
	owned, err := dpkg.Owned(v.Root)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(v.ctx)
	defer cancel()
	w := &walker{
		verifier: v, ctx: ctx, walk: &walk{}, owned: owned,
		// Files wait in it opened: a few, so that no worker waits for the next.
		queue: make(chan file, 4*runtime.GOMAXPROCS(0)),
		seen:  map[inode]bool{},
	}
	var workers sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		workers.Go(w.work)
	}
	info, err := v.Root.Stat(".")
	if err == nil {
		w.directory(v.Root, "", info)
	}
	close(w.queue)
	workers.Wait()
	if err == nil && v.ctx.Err() != nil {
		err = context.Cause(v.ctx)
	}
	if err != nil {
		return nil, fmt.Errorf("not checked: %w", err)
	}
	for _, list := range []*[]string{&w.writable, &w.programs, &w.leaks, &w.unreadable, &w.skipped} {
		slices.Sort(*list)
	}
	v.walked = w.walk
	return v.walked, nil
}

type inode struct {
	device, number uint64
}

// walker walks. Its directories are read by one goroutine, its files by several.
type walker struct {
	*verifier
	*walk
	ctx   context.Context
	owned map[string]bool // files of packages
	queue chan file

	mu   sync.Mutex // for walk
	seen map[inode]bool
}

// directory goes through a directory that is open. What disappears meanwhile isn't on the disk.
func (w *walker) directory(dir *os.Root, at string, info fs.FileInfo) {
	w.permissions(at, info)
	f, err := dir.Open(".")
	if err != nil {
		w.cannot(at, err)
		return
	}
	names, err := f.Readdirnames(-1)
	_ = f.Close()
	if err != nil {
		w.cannot(at, err)
		return
	}
	slices.Sort(names)
	for _, name := range names {
		if w.ctx.Err() != nil {
			return
		}
		w.entry(dir, name, path.Join(at, name), info)
	}
}

func (w *walker) entry(dir *os.Root, name, at string, above fs.FileInfo) {
	info, err := dir.Lstat(name)
	if err != nil {
		w.cannot(at, err)
		return
	}
	switch {
	case info.IsDir():
		sub, err := dir.OpenRoot(name)
		if err != nil {
			w.cannot(at, err)
			return
		}
		defer sub.Close()
		here, err := sub.Stat(".")
		if err != nil || !os.SameFile(here, info) {
			w.cannot(at, errReplaced)
			return
		}
		if device(info) != device(above) {
			onDisk, err := isDisk(sub)
			if err != nil {
				w.cannot(at, err)
				return
			}
			if !onDisk {
				w.skipped = append(w.skipped, "/"+at)
				return
			}
		}
		w.directory(sub, at, info)
	case info.Mode().IsRegular():
		w.permissions(at, info)
		if w.again(info) {
			return
		}
		// A file that turns into a pipe meanwhile must not be waited for.
		f, err := dir.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
		if err != nil {
			w.cannot(at, err)
			return
		}
		select {
		case w.queue <- file{f, at, info}:
		case <-w.ctx.Done():
			_ = f.Close()
		}
	}
}

var errReplaced = errors.New("it was replaced by something else meanwhile; verify again when nothing changes")

// again tells whether a file was met under another name.
func (w *walker) again(info fs.FileInfo) bool {
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok || stat.Nlink < 2 {
		return false
	}
	id := inode{uint64(stat.Dev), stat.Ino}
	met := w.seen[id]
	w.seen[id] = true
	return met
}

func device(info fs.FileInfo) uint64 {
	if stat, ok := info.Sys().(*syscall.Stat_t); ok {
		return uint64(stat.Dev)
	}
	return 0
}

// cannot notes what could not be looked at.
func (w *walker) cannot(at string, err error) {
	if errors.Is(err, fs.ErrNotExist) {
		return // gone in between
	}
	var known *fs.PathError
	if errors.As(err, &known) {
		err = fmt.Errorf("%s: %w", known.Op, known.Err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.unreadable = append(w.unreadable, fmt.Sprintf("/%s: %v", at, err))
}

func (w *walker) work() {
	scanner := leak.NewScanner()
	for f := range w.queue {
		w.look(scanner, f)
		_ = f.Close()
	}
}

// look looks into a file.
func (w *walker) look(scanner *leak.Scanner, f file) {
	info, err := f.Stat()
	if err == nil && !os.SameFile(info, f.info) {
		err = errReplaced
	}
	var found []leak.Finding
	if err == nil {
		err = scanner.File(w.ctx, f.path, f, func(l leak.Finding) { found = append(found, l) })
	}
	if err != nil {
		if w.ctx.Err() == nil {
			w.cannot(f.path, err)
		}
		return
	}
	capable := info.Mode().Perm()&0o111 != 0 && hasCapabilities(f.File)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.files++
	w.bytes += info.Size()
	if capable && !w.ofContainers(f.path) && capabilityFiles[usrMerged(f.path)] == "" {
		w.programs = append(w.programs, fmt.Sprintf("/%s has file capabilities: setcap -r it, if its package doesn't need them", f.path))
	}
	for _, l := range found {
		if w.harmless(f.path, l) {
			w.allowed++
			continue
		}
		place := "/" + f.path
		if l.Inside != "" {
			place += ", in it " + l.Inside
		}
		w.leaks = append(w.leaks, fmt.Sprintf("%s: %s at byte %d", place, l.Rule, l.Offset))
	}
}

// hasCapabilities tells whether a program gets privileges from its file (capabilities(7)).
func hasCapabilities(f *os.File) bool {
	raw, err := f.SyscallConn()
	if err != nil {
		return true
	}
	n := 0
	if err := raw.Control(func(fd uintptr) { n, err = unix.Fgetxattr(int(fd), "security.capability", nil) }); err != nil {
		return true
	}
	return err == nil && n > 0
}

// ofContainers tells whether a path is in what the engine keeps of images and containers: nobody but root gets there, so
// that modes mean something to the containers alone.
func (w *walker) ofContainers(at string) bool {
	return strings.HasPrefix(at, "var/lib/docker/") || strings.HasPrefix(at, "var/lib/containerd/")
}

// permissions looks at who may write to a file, and as whom a program runs.
func (w *walker) permissions(at string, info fs.FileInfo) {
	if w.ofContainers(at) {
		return
	}
	mode := info.Mode()
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case mode.Perm()&0o002 == 0:
	case mode.IsRegular():
		w.writable = append(w.writable, fmt.Sprintf("/%s: everybody may change it: chmod o-w it", at))
	case mode&fs.ModeSticky == 0:
		w.writable = append(w.writable, fmt.Sprintf("/%s: everybody may change what is in it: chmod o-w it", at))
	case !stickyDirs().MatchString(at):
		w.writable = append(w.writable, fmt.Sprintf("/%s: everybody may write to it, which only temporary directories are for: chmod o-w it", at))
	}
	if mode.IsRegular() && mode&(fs.ModeSetuid|fs.ModeSetgid) != 0 && !isKnownSetuid(at, mode) {
		w.programs = append(w.programs, fmt.Sprintf("/%s has mode %v: whoever runs it does so as user %d: chmod ug-s it, if its package doesn't need that", at, mode, owner(info)))
	}
}

// report turns what the walk found into the outcome of one check.
func (w *walk) report(found []string, bad, good string) (string, error) {
	places := slices.Concat(found, w.unreadable)
	if len(found) == 0 && len(w.unreadable) > 0 {
		bad = "not checked: not everything can be read"
	}
	if len(places) > 0 {
		return "", &findings{bad, places}
	}
	return good, nil
}

func (v *verifier) worldWritable() (string, error) {
	w, err := v.walk()
	if err != nil {
		return "", err
	}
	return w.report(w.writable, "others than their owners may change files", "only temporary directories may be written to by everybody")
}

func (v *verifier) privileged() (string, error) {
	w, err := v.walk()
	if err != nil {
		return "", err
	}
	return w.report(w.programs, "programs have privileges that aren't known", "only the distribution's own programs run as somebody else")
}

func (v *verifier) credentials() (string, error) {
	w, err := v.walk()
	if err != nil {
		return "", err
	}
	good := fmt.Sprintf("none in %s with %d MB", counted(w.files, "file"), w.bytes/1e6)
	if w.allowed > 0 {
		good += fmt.Sprintf(", but for %d known to be harmless", w.allowed)
	}
	if len(w.skipped) > 0 {
		good += "; not on the disk: " + strings.Join(w.skipped, ", ")
	}
	return w.report(w.leaks, "there are credentials on the disk: remove them and build the image anew, for a removed file still lies in free blocks", good)
}
