package probe

import (
	"context"
	"fmt"
	"math"

	"golang.org/x/sys/unix"
)

// Disk watches the room on a file system, in bytes and in inodes. Room is what is left to programs other than root, as
// df shows it.
type Disk struct {
	// Path is a file or directory on the file system.
	Path string
	// Warn and Fail are the least room to be left; the zero values stand for [DefaultDiskWarn] and [DefaultDiskFail].
	Warn, Fail Room
	// WarnInodes and FailInodes are the same for inodes, in percent; 0 stands for [DefaultInodesWarn] and
	// [DefaultInodesFail]. File systems that make inodes as they need them (btrfs, some network ones) have no number.
	WarnInodes, FailInodes float64

	pending stuck // not to be copied
}

// Room is an amount of a disk: so many bytes or so many percent of it, or whichever is more if both are set.
type Room struct {
	Bytes   uint64
	Percent float64
}

// The warnings are where a kubelet begins to evict (nodefs.available<10%, nodefs.inodesFree<5%,
// https://kubernetes.io/docs/concepts/scheduling-eviction/node-pressure-eviction/); failing at half of that leaves room
// for the logs and the database of a node that still serves.
const (
	DefaultDiskWarn   = 10.0
	DefaultDiskFail   = 5.0
	DefaultInodesWarn = 5.0
	DefaultInodesFail = 2.5
)

// of returns the amount on a disk of a total size.
func (r Room) of(total uint64, percent float64) uint64 {
	if r.Bytes == 0 && r.Percent == 0 {
		r.Percent = percent
	}
	return max(r.Bytes, uint64(float64(total)*r.Percent/100))
}

// Probe's value is the number of free bytes. On a network file system that doesn't answer it fails when ctx ends; the
// kernel's own call goes on waiting then, at most one of them whatever the number of probes.
func (p *Disk) Probe(ctx context.Context) Result {
	var s unix.Statfs_t
	if err := p.pending.call(ctx, func() (err error) { s, err = statfs(p.Path); return err }); err != nil {
		return failed("room on %s: %v", p.Path, plain(ctx, err))
	}
	return p.judge(s)
}

func statfs(path string) (unix.Statfs_t, error) {
	for {
		var s unix.Statfs_t
		if err := unix.Statfs(path, &s); err != unix.EINTR { // signal(7): by a signal handler, as Go's own preemption is
			return s, err
		}
	}
}

func (p *Disk) judge(s unix.Statfs_t) Result {
	block := uint64(s.Frsize) // statfs(2): the unit of the counts; old file systems leave it 0
	if block == 0 {
		block = uint64(s.Bsize)
	}
	used, free := (s.Blocks-s.Bfree)*block, s.Bavail*block
	total := used + free
	result := passed("%s has %s free (%s)", p.Path, bytesText(free), percentText(free, total)).measured(float64(free), "By")
	worsen := func(to Status, why string) {
		if to < result.Status {
			result.Status = to
		}
		result.Output += why
	}
	switch fail, warn := p.Fail.of(total, DefaultDiskFail), p.Warn.of(total, DefaultDiskWarn); {
	case free < fail:
		worsen(Fail, fmt.Sprintf(", less than %s: make room", bytesText(fail)))
	case free < warn:
		worsen(Warn, fmt.Sprintf(", less than %s: make room", bytesText(warn)))
	}
	if s.Files == 0 {
		return result
	}
	inodes := percentText(s.Ffree, s.Files)
	switch least := float64(s.Files) / 100; {
	case float64(s.Ffree) < least*orElse(p.FailInodes, DefaultInodesFail):
		worsen(Fail, fmt.Sprintf("; only %d inodes (%s) are free: remove files", s.Ffree, inodes))
	case float64(s.Ffree) < least*orElse(p.WarnInodes, DefaultInodesWarn):
		worsen(Warn, fmt.Sprintf("; only %d inodes (%s) are free: remove files", s.Ffree, inodes))
	}
	return result
}

func orElse(value, instead float64) float64 {
	if value == 0 {
		return instead
	}
	return value
}

func percentText(part, whole uint64) string {
	if whole == 0 {
		return "0%"
	}
	// Rounded down, so that 100% and a limit are only named when they are reached.
	return fmt.Sprintf("%g%%", math.Floor(float64(part)/float64(whole)*1000)/10)
}

func bytesText(n uint64) string {
	const unit = 1024
	if n < unit {
		return fmt.Sprintf("%d B", n)
	}
	value, prefix := float64(n)/unit, 0
	for value >= unit && prefix < len("KMGTPE")-1 {
		value /= unit
		prefix++
	}
	return fmt.Sprintf("%.1f %ciB", value, "KMGTPE"[prefix])
}
