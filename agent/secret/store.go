package secret

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// ErrStoreFull is wrapped by an Apply that found no room left on the tmpfs. What was there before is still there.
var ErrStoreFull = errors.New("the secret store is full")

// ErrUnmounted is wrapped when the store's tmpfs was unmounted, or something was mounted over it, while it was open.
// Nothing is written then: what the store's path leads to now may be a disk.
var ErrUnmounted = errors.New("the secret store is no longer mounted")

// Store keeps the secrets of each service in a directory of its own, on a tmpfs that nothing else uses:
//
//	<dir>/<service>/..2026_11_23_18_05_01.<random>/db_password   the file
//	<dir>/<service>/..data -> ..2026_11_23_18_05_01.<random>     swapped by one rename
//	<dir>/<service>/db_password -> ..data/db_password            what the service opens
//
// The service's directory is bind-mounted into its containers, so its inode lives from the first Apply to Remove or
// Wipe, and what Apply swaps inside it is seen by containers that already run.
//
// A Store may be used by several goroutines, and the same directory by several processes. Nothing here calls fsync:
// there is no disk behind a tmpfs, and it vanishes with the kernel that could have lost a write.
type Store struct {
	dir  string
	root *os.Root // pins the mount: whatever happens to dir's path, writes go to this tmpfs and to nothing else

	maySwap bool
}

// OpenStore opens the store at dir, an absolute path, and makes it first where it isn't there: the directory, and a
// tmpfs on it (mode=0700, nosuid, nodev, noexec, and noswap where the kernel knows it). A tmpfs or ramfs already
// mounted at dir itself is used as it is; one that merely covers a parent, as /run does, is not enough, because it
// could be swapped out to a disk and run programs.
//
// It then removes what a killed process left half-done. It changes nothing else: opening twice mounts once.
//
// The mount belongs to the mount namespace of this process. The engine has to share that, which it doesn't with a
// systemd service that has ProtectSystem=, PrivateTmp= or the like: there a mount unit must mount the tmpfs beforehand.
//
// Errors wrap ErrNotTmpfs when the secrets would have ended up on a disk and ErrMountOptions when the mount at dir
// lacks a protection.
func OpenStore(dir string) (*Store, error) {
	if !filepath.IsAbs(dir) {
		return nil, fmt.Errorf("secret store %q: not an absolute path", dir)
	}
	dir = filepath.Clean(dir)
	root, maySwap, err := openMount(dir)
	if err != nil {
		return nil, fmt.Errorf("secret store %s: %w", dir, err)
	}
	s := &Store{dir: dir, root: root, maySwap: maySwap}
	if err := s.sweepAll(); err != nil {
		_ = root.Close()
		return nil, fmt.Errorf("secret store %s: clear what an earlier run left: %w", dir, err)
	}
	return s, nil
}

// Close lets go of the store. The mount and everything on it stay, for the containers and for the next OpenStore.
func (s *Store) Close() error { return s.root.Close() }

// Path is the directory that becomes /run/secrets of the service's containers. It exists after the first Apply.
func (s *Store) Path(service string) string { return filepath.Join(s.dir, service) }

// MaySwap tells whether the kernel may write the store's pages to a swap device: true where it is older than 6.3 and
// so doesn't know noswap, inside a user namespace, or on a tmpfs that someone else mounted without it.
func (s *Store) MaySwap() bool { return s.maySwap }

// Services lists the services that have a directory, in order of their names.
func (s *Store) Services() ([]string, error) {
	entries, err := readDir(s.root, ".")
	if err != nil {
		return nil, fmt.Errorf("secret store %s: %w", s.dir, err)
	}
	var services []string
	for _, e := range entries {
		if e.IsDir() {
			services = append(services, e.Name())
		}
	}
	return services, nil
}

// Remove deletes a service's directory and all its secrets. A service that isn't there is no error. A container that
// still has the directory mounted sees it empty from then on, even after another Apply, and must be recreated.
func (s *Store) Remove(service string) error {
	if err := checkName("service", service); err != nil {
		return err
	}
	unlock, err := s.lock()
	if err != nil {
		return fmt.Errorf("remove secrets of %s: %w", service, err)
	}
	defer unlock()
	if err := s.root.RemoveAll(service); err != nil {
		return fmt.Errorf("remove secrets of %s: %w", service, err)
	}
	return nil
}

// Wipe deletes everything in the store and leaves an empty mount; on an empty one it does nothing. It goes on after
// an error, so that one obstinate file doesn't keep the others, and reports them all.
//
// Files are not overwritten first: a tmpfs has no blocks that outlive a file, and the kernel clears a page before it
// hands it to anyone else.
//
// A process that was stopped in the middle of a change must not keep the secrets of a node that leaves: where the lock
// isn't let go, Wipe goes on without it.
func (s *Store) Wipe() error {
	unlock, err := s.lock()
	if errors.Is(err, errLocked) {
		unlock, err = func() {}, nil
	}
	if err != nil {
		return fmt.Errorf("wipe secret store %s: %w", s.dir, err)
	}
	defer unlock()
	entries, err := readDir(s.root, ".")
	if err != nil {
		return fmt.Errorf("wipe secret store %s: %w", s.dir, err)
	}
	var failed []error
	for _, e := range entries {
		if err := s.root.RemoveAll(e.Name()); err != nil {
			failed = append(failed, fmt.Errorf("wipe secret store %s: %w", s.dir, err))
		}
	}
	return errors.Join(failed...)
}

// sweepAll removes the half-written generations and temporary links of a process that was killed in the middle.
func (s *Store) sweepAll() error {
	unlock, err := s.lock()
	if err != nil {
		return err
	}
	defer unlock()
	services, err := s.Services()
	if err != nil {
		return err
	}
	for _, service := range services {
		if err := s.sweepService(service); err != nil {
			return err
		}
	}
	return nil
}

func (s *Store) sweepService(service string) error {
	room, err := s.root.OpenRoot(service)
	if err != nil {
		return err
	}
	defer room.Close()
	_, err = sweep(room)
	return err
}

// lock waits until no one else changes the store, in this process or another. One lock serves all services, since a
// change takes microseconds; it is on the store's root, because a container that sees a service's directory could
// hold a lock on that forever.
func (s *Store) lock() (unlock func(), err error) {
	f, err := s.root.Open(".")
	if err != nil {
		return nil, err
	}
	if err := flock(f); err != nil {
		_ = f.Close()
		return nil, err
	}
	return func() { _ = f.Close() }, nil // the lock ends with its open file
}

const (
	// lockLimit is far more than a change takes, on a machine that swaps as well.
	lockLimit = 10 * time.Second
	// lockEvery is about as long as a change takes where many files change.
	lockEvery = time.Millisecond
)

// errLocked is somebody who holds the lock for longer than any change takes.
var errLocked = errors.New("another process has been changing it for " + lockLimit.String() + ": see whether an old flowagent was stopped, and end it")

// flock waits by asking again: nothing could end a wait in the kernel for a process that was stopped.
func flock(f *os.File) error {
	late := time.Now().Add(lockLimit)
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		switch {
		case err == nil:
			return nil
		case err == unix.EINTR:
			continue
		case err == unix.EWOULDBLOCK && time.Now().Before(late):
			time.Sleep(lockEvery)
			continue
		case err == unix.EWOULDBLOCK:
			err = errLocked
		}
		return &fs.PathError{Op: "lock", Path: f.Name(), Err: err}
	}
}

// checkMounted makes sure that the path which containers are given still leads to the store.
func (s *Store) checkMounted() error {
	byPath, err := os.Stat(s.dir)
	if err != nil {
		return fmt.Errorf("%w at %s: restart flowagent: %w", ErrUnmounted, s.dir, err)
	}
	pinned, err := s.root.Stat(".")
	if err != nil {
		return err
	}
	if !os.SameFile(byPath, pinned) {
		return fmt.Errorf("%w at %s: restart flowagent, which mounts it again", ErrUnmounted, s.dir)
	}
	return nil
}

// readDir lists a directory below root in order of names.
func readDir(root *os.Root, name string) ([]os.DirEntry, error) {
	f, err := root.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	entries, err := f.ReadDir(-1)
	if err != nil {
		return nil, err
	}
	sort.Slice(entries, func(i, j int) bool { return entries[i].Name() < entries[j].Name() })
	return entries, nil
}

// checkName refuses what can't be, or must not be, a single element of a path in the store. Names that begin with
// two dots are the store's own. What is a service or a file here is named in the error; neither is secret.
func checkName(what, name string) error {
	var why string
	switch {
	case name == "" || name == ".":
		why = "is no name"
	case strings.HasPrefix(name, ".."):
		why = "begins with \"..\", which the store keeps for itself"
	case strings.ContainsRune(name, '/'):
		why = "holds a slash: secrets are files right below /run/secrets"
	case strings.ContainsRune(name, 0):
		why = "holds a NUL byte"
	case len(name) > unix.NAME_MAX:
		why = fmt.Sprintf("is longer than %d bytes, the most a file name may have", unix.NAME_MAX)
	default:
		return nil
	}
	return fmt.Errorf("%s name %q %s: choose another", what, name, why)
}
