// Package footprint makes a process small again that needed more to start than it needs to run.
//
// What enters is nothing and what leaves is memory, to the kernel: what only the start had on the heap, and the pages of
// the program that only the start ran through. Nothing is lost: the kernel brings a page of the program back when it is
// used, from its cache, as after a moment of memory pressure.
package footprint

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"strings"

	"golang.org/x/sys/unix"
)

// heapGrowth is by how much, in percent, the heap may grow between two collections once the start is over. Go's own 100
// would let garbage lie until it is as much as all that is in use; a process that makes little of it is collected once
// in a minute or so with half of that, which is no time at all.
const heapGrowth = 50

// Shrink gives back what the start used and what the process holds from then on is smaller. It takes some milliseconds
// and is called once, when the start is over. An error says that pages of the program could not be given back, which
// costs memory and nothing else.
func Shrink() error {
	if os.Getenv("GOGC") == "" { // else somebody knows better
		debug.SetGCPercent(heapGrowth)
	}
	debug.FreeOSMemory()
	program, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return err
	}
	file, err := os.Open("/proc/self/smaps")
	if err != nil {
		return err
	}
	defer file.Close()
	ranges, err := droppable(file, program)
	if err != nil {
		return fmt.Errorf("read %s: %w", file.Name(), err)
	}
	for _, r := range ranges {
		if _, _, errno := unix.Syscall(unix.SYS_MADVISE, r.start, r.end-r.start, unix.MADV_DONTNEED); errno != 0 {
			err = errors.Join(err, fmt.Errorf("give back the program's pages at %x: %w", r.start, errno))
		}
	}
	return err
}

// addresses are one mapping's.
type addresses struct{ start, end uintptr }

// droppable finds in smaps, proc_pid_smaps(5), the mappings of the program that are as they are in its file: read-only,
// and without a page of its own, as a debugger or the relocations of a position-independent program make one.
func droppable(smaps io.Reader, program string) ([]addresses, error) {
	var found []addresses
	var current addresses
	candidate := false
	lines := bufio.NewScanner(smaps)
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		switch {
		case len(fields) >= 5 && strings.Contains(fields[0], "-"):
			// start-end perms offset device inode path; the path may hold spaces.
			_, path, _ := strings.Cut(lines.Text(), fields[4]+" ")
			candidate = strings.TrimSpace(path) == program && (fields[1] == "r-xp" || fields[1] == "r--p")
			if _, err := fmt.Sscanf(fields[0], "%x-%x", &current.start, &current.end); err != nil {
				return nil, fmt.Errorf("mapping %q: %w", fields[0], err)
			}
		case candidate && len(fields) == 3 && fields[0] == "Anonymous:" && fields[1] == "0":
			found = append(found, current)
		}
	}
	return found, lines.Err()
}
