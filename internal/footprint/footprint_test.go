package footprint

import (
	"bytes"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
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

func TestShrink_GivesBackWhatTheStartRanThrough(t *testing.T) {
	program, err := os.Readlink("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	smaps, err := os.ReadFile("/proc/self/smaps")
	if err != nil {
		t.Fatal(err)
	}
	ranges, err := droppable(bytes.NewReader(smaps), program)
	if err != nil || len(ranges) == 0 {
		t.Fatalf("got %v (%v), want this program's own mappings", ranges, err)
	}
	for _, r := range ranges { // as a start that runs through all of the program would have it
		if _, _, errno := unix.Syscall(unix.SYS_MADVISE, r.start, r.end-r.start, unix.MADV_POPULATE_READ); errno != 0 {
			t.Fatal(errno)
		}
	}
	before := filePages(t)
	if err := Shrink(); err != nil {
		t.Fatal(err)
	}
	// What a test goes on running is a small part of it.
	if after := filePages(t); after > before/2 {
		t.Errorf("got %d kB of files in memory after %d before, want less than half", after, before)
	}
}

// filePages is how much of this process's memory is pages of files, in kB.
func filePages(t *testing.T) int {
	t.Helper()
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(status), "RssFile:")
	number, _, _ := strings.Cut(strings.TrimSpace(rest), " ")
	kibibytes, err := strconv.Atoi(number)
	if err != nil {
		t.Fatal(err)
	}
	return kibibytes
}
