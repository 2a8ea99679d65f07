package verify

import (
	"os"

	"golang.org/x/sys/unix"
)

// notOnDisk are the types of file systems (statfs(2)) that live in memory, in the kernel, on another machine, or show again
// what lies elsewhere. Any other is searched.
var notOnDisk = map[int64]bool{
	unix.PROC_SUPER_MAGIC: true, unix.SYSFS_MAGIC: true, unix.TMPFS_MAGIC: true, unix.RAMFS_MAGIC: true,
	unix.DEVPTS_SUPER_MAGIC: true, unix.CGROUP_SUPER_MAGIC: true, unix.CGROUP2_SUPER_MAGIC: true, unix.DEBUGFS_MAGIC: true,
	unix.TRACEFS_MAGIC: true, unix.SECURITYFS_MAGIC: true, unix.BPF_FS_MAGIC: true, unix.PSTOREFS_MAGIC: true,
	unix.EFIVARFS_MAGIC: true, unix.HUGETLBFS_MAGIC: true, unix.NSFS_MAGIC: true, unix.BINFMTFS_MAGIC: true,
	unix.AUTOFS_SUPER_MAGIC: true, unix.OVERLAYFS_SUPER_MAGIC: true, unix.NFS_SUPER_MAGIC: true, unix.V9FS_MAGIC: true,
	unix.SMB2_SUPER_MAGIC: true,
	0x19800202:            true, // mqueue (ipc/mqueue.c)
	0x62656570:            true, // configfs (fs/configfs/mount.c)
	0x65735543:            true, // fusectl (fs/fuse/control.c)
}

// isDisk tells whether a directory on another device than the one above it is on a disk of this machine.
func isDisk(dir *os.Root) (bool, error) {
	f, err := dir.Open(".")
	if err != nil {
		return false, err
	}
	defer f.Close()
	raw, err := f.SyscallConn()
	if err != nil {
		return false, err
	}
	var stat unix.Statfs_t
	var statErr error
	if err := raw.Control(func(fd uintptr) { statErr = unix.Fstatfs(int(fd), &stat) }); err != nil {
		return false, err
	}
	return !notOnDisk[int64(stat.Type)], statErr
}
