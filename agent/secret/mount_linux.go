package secret

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// mountOptions are the filesystem's own. 64 MiB holds 500 secrets of 64 KiB, the most that Secrets Manager takes, in
// the old and the new version that exist side by side during a swap. It is a limit, not an allocation.
const mountOptions = "mode=0700,size=64M"

// protections are the flags that a store's mount must have: nothing on it is a program or a device.
const protections = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC

// stNosymfollow is ST_NOSYMFOLLOW of Linux's include/linux/statfs.h, which x/sys/unix doesn't have.
const stNosymfollow = 0x2000

// openMount returns the tmpfs mounted at dir, after mounting it where there was none.
func openMount(dir string) (root *os.Root, maySwap bool, err error) {
	// Parents keep the usual mode: the control socket beside the store is open to a group.
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, false, err
	}
	if err := mountOnce(dir); err != nil {
		return nil, false, err
	}
	root, err = os.OpenRoot(dir)
	if err != nil {
		return nil, false, err
	}
	f, err := root.Open(".")
	if err == nil {
		maySwap, err = verify(f, dir)
		_ = f.Close()
	}
	if err != nil {
		_ = root.Close()
		return nil, false, err
	}
	return root, maySwap, nil
}

// mountOnce mounts a tmpfs at dir unless something is mounted there.
func mountOnce(dir string) error {
	below, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer below.Close()
	// Held by whoever mounts, so that of two processes that start at the same moment one mounts and the other finds it.
	if err := flock(below); err != nil {
		return err
	}
	now, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer now.Close()
	mounted, err := isMountPoint(now)
	if err != nil || mounted {
		return err
	}
	if err := mountTmpfs(dir); err != nil {
		return fmt.Errorf("%w: mount one: %w: run flowagent as root, or mount it first (mount -t tmpfs -o nosuid,nodev,noexec,noswap,%s tmpfs %s)",
			ErrNotTmpfs, err, mountOptions, dir)
	}
	return nil
}

// mountTmpfs leaves noswap out where the kernel refuses it: before Linux 6.3 the option is unknown, and inside a user
// namespace it is not allowed. Both answer EINVAL.
func mountTmpfs(dir string) error {
	err := unix.Mount("tmpfs", dir, "tmpfs", protections, mountOptions+",noswap")
	if errors.Is(err, unix.EINVAL) {
		err = unix.Mount("tmpfs", dir, "tmpfs", protections, mountOptions)
	}
	return err
}

// isMountPoint compares a directory's filesystem with that of its parent. A directory bind-mounted from the parent's
// own filesystem doesn't count, which is right: it is no filesystem of its own.
func isMountPoint(dir *os.File) (bool, error) {
	var here, above unix.Stat_t
	if err := unix.Fstat(int(dir.Fd()), &here); err != nil {
		return false, &fs.PathError{Op: "stat", Path: dir.Name(), Err: err}
	}
	if err := unix.Fstatat(int(dir.Fd()), "..", &above, 0); err != nil {
		return false, &fs.PathError{Op: "stat parent of", Path: dir.Name(), Err: err}
	}
	return here.Dev != above.Dev, nil
}

// verify refuses a mount that isn't in memory or lacks a protection, and closes its root to everyone but its owner.
func verify(mount *os.File, dir string) (maySwap bool, err error) {
	var st unix.Statfs_t
	if err := unix.Fstatfs(int(mount.Fd()), &st); err != nil {
		return false, &fs.PathError{Op: "statfs", Path: dir, Err: err}
	}
	magic := uint32(st.Type) // sign-extended on 32-bit machines
	if magic != unix.TMPFS_MAGIC && magic != unix.RAMFS_MAGIC {
		return false, fmt.Errorf("%w: the filesystem mounted there has magic %#x and may be on a disk: unmount it (umount %s) and start flowagent again, which mounts a tmpfs",
			ErrNotTmpfs, magic, dir)
	}
	if remount := repairs(uint64(st.Flags)); len(remount) > 0 {
		options := strings.Join(remount, ",")
		return false, fmt.Errorf("%w: mount it with %s (mount -o remount,%s %s)", ErrMountOptions, options, options, dir)
	}
	if info, err := mount.Stat(); err != nil {
		return false, err
	} else if info.Mode().Perm() != 0o700 {
		if err := mount.Chmod(0o700); err != nil {
			return false, err
		}
	}
	return magic == unix.TMPFS_MAGIC && !hasOption(mount, "noswap"), nil
}

// repairs lists the options with which a mount would have to be mounted again to be fit for secrets.
func repairs(flags uint64) []string {
	var options []string
	for _, o := range []struct {
		flag   uint64
		set    bool
		option string
	}{
		{unix.ST_NOSUID, true, "nosuid"},
		{unix.ST_NODEV, true, "nodev"},
		{unix.ST_NOEXEC, true, "noexec"},
		{unix.ST_RDONLY, false, "rw"},
		{stNosymfollow, false, "symfollow"}, // ..data is a symbolic link
	} {
		if (flags&o.flag != 0) != o.set {
			options = append(options, o.option)
		}
	}
	return options
}

// hasOption looks a mount up in mountinfo by its id, which stays right when mounts are stacked or hidden. What can't
// be read counts as not there.
func hasOption(mount *os.File, option string) bool {
	info, err := os.ReadFile("/proc/self/fdinfo/" + strconv.Itoa(int(mount.Fd())))
	if err != nil {
		return false
	}
	var id string
	for line := range strings.Lines(string(info)) {
		if value, found := strings.CutPrefix(line, "mnt_id:"); found {
			id = strings.TrimSpace(value)
		}
	}
	table, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(table)) {
		// proc_pid_mountinfo(5): the first field is the id, the last the filesystem's own options.
		fields := strings.Fields(line)
		if len(fields) == 0 || fields[0] != id {
			continue
		}
		for have := range strings.SplitSeq(fields[len(fields)-1], ",") {
			if have == option {
				return true
			}
		}
	}
	return false
}
