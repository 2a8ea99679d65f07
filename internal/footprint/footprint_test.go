package footprint

import (
	"encoding/binary"
	"os"
	"slices"
	"strings"
	"testing"
	"unsafe"

	"github.com/google/go-cmp/cmp"
)

// entry is a mapping as smaps shows it, with the lines that matter.
func entry(head, anonymous string) string {
	return head + "\nSize:               2048 kB\nRss:                1024 kB\nAnonymous:          " + anonymous + " kB\nVmFlags: rd ex mr mw me\n"
}

func TestDroppable_IsWhatTheProgramsFileHolds(t *testing.T) {
	const program = "/opt/flow agent/flowagent"
	smaps := strings.Join([]string{
		entry("00400000-00d6b000 r-xp 00000000 fe:00 10011663                           "+program, "0"),
		entry("00d6b000-01767000 r--p 0096b000 fe:00 10011663                           "+program, "0"),
		entry("01767000-01812000 rw-p 01367000 fe:00 10011663                           "+program, "0"),
		entry("01812000-01913000 r--p 01412000 fe:00 10011663                           "+program, "4"), // relocated
		entry("7f0000000000-7f0000100000 r-xp 00000000 fe:00 77                         /lib/libc.so.6", "0"),
		entry("7f0000200000-7f0000300000 r--p 00000000 fe:00 78                         "+program+" (deleted)", "0"),
		entry("7f0000400000-7f0000500000 r--p 00000000 00:00 0", "0"),
		entry("7ffd00000000-7ffd00001000 r-xp 00000000 00:00 0                          [vdso]", "0"),
	}, "")
	got, err := droppable(strings.NewReader(smaps), program)
	if err != nil {
		t.Fatal(err)
	}
	want := []addresses{{0x400000, 0xd6b000}, {0xd6b000, 0x1767000}}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(addresses{})); diff != "" {
		t.Errorf("mappings (-want +got):\n%s", diff)
	}
}

func TestDroppable_RefusesWhatItCantRead(t *testing.T) {
	if got, err := droppable(strings.NewReader("zz-00d6b000 r-xp 00000000 fe:00 1 /x\n"), "/x"); err == nil {
		t.Errorf("got %v, want an error", got)
	}
}

// ballast are 4 MiB of the program's constants, which nothing but the test below reads.
const (
	ballast0 = "once at the boot"
	ballast1 = ballast0 + ballast0 + ballast0 + ballast0 + ballast0 + ballast0 + ballast0 + ballast0
	ballast2 = ballast1 + ballast1 + ballast1 + ballast1 + ballast1 + ballast1 + ballast1 + ballast1
	ballast3 = ballast2 + ballast2 + ballast2 + ballast2 + ballast2 + ballast2 + ballast2 + ballast2
	ballast4 = ballast3 + ballast3 + ballast3 + ballast3 + ballast3 + ballast3 + ballast3 + ballast3
	ballast5 = ballast4 + ballast4 + ballast4 + ballast4 + ballast4 + ballast4 + ballast4 + ballast4
	ballast6 = ballast5 + ballast5 + ballast5 + ballast5 + ballast5 + ballast5 + ballast5 + ballast5
)

func TestShrink_GivesBackWhatOnlyTheStartRead(t *testing.T) {
	ballast := ballast6
	sum := 0
	for i := 0; i < len(ballast); i += os.Getpagesize() {
		sum += int(ballast[i])
	}
	if present, all := inMemory(t, ballast); present < all {
		t.Fatalf("%d of %d pages are in memory after all were read (sum %d)", present, all, sum)
	}
	if err := Shrink(); err != nil {
		t.Fatal(err)
	}
	// The kernel brings some neighbours back with each page that is still used.
	if present, all := inMemory(t, ballast); present > all/10 {
		t.Errorf("%d of %d pages are still in memory, want next to none", present, all)
	}
	if !strings.HasPrefix(ballast, ballast0) {
		t.Error("what was given back doesn't come again")
	}
}

// inMemory counts the pages of a text that are mapped to memory: bit 63 of each entry in proc_pid_pagemap(5).
func inMemory(t *testing.T, text string) (present, all int) {
	t.Helper()
	pagemap, err := os.Open("/proc/self/pagemap")
	if err != nil {
		t.Fatal(err)
	}
	defer pagemap.Close()
	size := uintptr(os.Getpagesize())
	begin := uintptr(unsafe.Pointer(unsafe.StringData(text)))
	first, last := begin/size+1, (begin+uintptr(len(text)))/size // whole pages only
	entries := make([]byte, 8*(last-first))
	if _, err := pagemap.ReadAt(entries, int64(first)*8); err != nil {
		t.Fatal(err)
	}
	for entry := range slices.Chunk(entries, 8) {
		if binary.NativeEndian.Uint64(entry)>>63 == 1 {
			present++
		}
	}
	return present, int(last - first)
}
