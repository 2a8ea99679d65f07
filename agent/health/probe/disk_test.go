package probe

import (
	"context"
	"errors"
	"testing"

	"golang.org/x/sys/unix"
)

func TestDisk_LooksAtARealFileSystem(t *testing.T) {
	got := (&Disk{Path: t.TempDir(), Fail: Room{Bytes: 1}, Warn: Room{Bytes: 1}, FailInodes: 1e-9, WarnInodes: 1e-9}).Probe(t.Context())
	expect(t, got, Pass, "iB free (")
	if got.Value == nil || *got.Value <= 0 || got.Unit != "By" {
		t.Errorf("got value %v %s, want free bytes", got.Value, got.Unit)
	}
	expect(t, (&Disk{Path: t.TempDir(), Fail: Room{Percent: 101}}).Probe(t.Context()), Fail, "make room")
	expect(t, (&Disk{Path: "/nonexistent"}).Probe(t.Context()), Fail, "room on /nonexistent: no such file or directory")
}

func TestDisk_BytesAndInodesDecide(t *testing.T) {
	const block = 4096
	// 1000 blocks, 100 of which are root's own; free counts what root has left as well.
	fs := func(available, inodes uint64) unix.Statfs_t {
		return unix.Statfs_t{Bsize: 1 << 20, Frsize: block, Blocks: 1000, Bfree: available + 100, Bavail: available, Files: 1000, Ffree: inodes}
	}
	tests := map[string]struct {
		disk   *Disk
		fs     unix.Statfs_t
		status Status
		output string
	}{
		"plenty":                         {&Disk{}, fs(450, 900), Pass, "/data has 1.8 MiB free (50%)"},
		"below the default warning":      {&Disk{}, fs(89, 900), Warn, "(9.8%), less than 360.0 KiB: make room"},
		"below the default failure":      {&Disk{}, fs(44, 900), Fail, "(4.8%), less than 180.0 KiB"},
		"at a limit":                     {&Disk{Warn: Room{Percent: 50}}, fs(450, 900), Pass, "(50%)"},
		"fewer bytes than asked for":     {&Disk{Fail: Room{Bytes: 450*block + 1}}, fs(450, 900), Fail, "make room"},
		"enough bytes, little in all":    {&Disk{Fail: Room{Bytes: block}, Warn: Room{Bytes: block}}, fs(2, 900), Pass, "8.0 KiB free"},
		"whichever is more":              {&Disk{Warn: Room{Bytes: block, Percent: 60}}, fs(450, 900), Warn, "make room"},
		"few inodes":                     {&Disk{}, fs(450, 49), Warn, "; only 49 inodes (4.9%) are free: remove files"},
		"hardly an inode":                {&Disk{}, fs(450, 24), Fail, "; only 24 inodes (2.4%) are free: remove files"},
		"fewer inodes than asked for":    {&Disk{FailInodes: 95}, fs(450, 900), Fail, "; only 900 inodes"},
		"no room, few inodes":            {&Disk{}, fs(0, 49), Fail, "(0%), less than 180.0 KiB: make room; only 49 inodes"},
		"a file system without a number": {&Disk{}, unix.Statfs_t{Bsize: block, Blocks: 10, Bfree: 10, Bavail: 10}, Pass, "40.0 KiB free (100%)"},
		"a file system without blocks":   {&Disk{}, unix.Statfs_t{Bsize: block}, Pass, "0 B free (0%)"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			test.disk.Path = "/data"
			expect(t, test.disk.judge(test.fs), test.status, test.output)
		})
	}
}

func TestStuck_OnlyOneCallHangs(t *testing.T) {
	var s stuck
	ctx, cancel := context.WithCancel(t.Context())
	started, finish := make(chan struct{}), make(chan struct{})
	result := make(chan error)
	go func() {
		result <- s.call(ctx, func() error {
			close(started)
			<-finish
			return nil
		})
	}()
	<-started
	cancel()
	if err := <-result; !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want the context's end", err)
	}
	again := func() error { return nil }
	if err := s.call(t.Context(), again); !errors.Is(err, errStuck) {
		t.Errorf("while it hangs: got %v, want %v", err, errStuck)
	}
	close(finish)
	for errors.Is(s.call(t.Context(), again), errStuck) {
		if t.Context().Err() != nil {
			t.Fatal("it stays stuck")
		}
	}
}
