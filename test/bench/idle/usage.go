package main

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// memory is what a process has in RAM, in bytes, as /proc/PID/smaps_rollup says it.
type memory struct {
	resident     int64
	proportional int64 // where a page that several processes have counts for a part
	anonymous    int64 // its own: heap, stacks, the runtime
	file         int64 // the rest: pages of the binary, which the kernel may drop and read again
}

// memoryOf reads the process's memory. proc is its directory under /proc.
func memoryOf(proc string) (memory, error) {
	content, err := os.ReadFile(filepath.Join(proc, "smaps_rollup"))
	if err != nil {
		return memory{}, err
	}
	values := map[string]int64{}
	lines := bufio.NewScanner(bytes.NewReader(content))
	for lines.Scan() {
		name, rest, found := strings.Cut(lines.Text(), ":")
		fields := strings.Fields(rest)
		if !found || len(fields) != 2 || fields[1] != "kB" {
			continue // the first line, which is the range of addresses
		}
		kibibytes, err := strconv.ParseInt(fields[0], 10, 64)
		if err != nil {
			return memory{}, fmt.Errorf("read %s of %s: %w", name, proc, err)
		}
		values[name] = kibibytes << 10 // the kernel's kB
	}
	for _, name := range []string{"Rss", "Pss", "Anonymous"} {
		if values[name] == 0 {
			return memory{}, fmt.Errorf("%s/smaps_rollup has no %s", proc, name)
		}
	}
	return memory{
		resident: values["Rss"], proportional: values["Pss"], anonymous: values["Anonymous"],
		file: values["Rss"] - values["Anonymous"],
	}, nil
}

// processorTime is what all threads of a process have used, ended ones included, to the nanosecond; /proc/PID/stat has
// it in hundredths of a second, of which an idle agent uses one in ten seconds. The number is that of
// clock_getcpuclockid(3): the process's complement, and CPUCLOCK_SCHED in the lowest bits.
func processorTime(pid int) (time.Duration, error) {
	const sched = 2
	var used unix.Timespec
	if err := unix.ClockGettime(int32(^pid)<<3|sched, &used); err != nil {
		return 0, fmt.Errorf("read the processor time of process %d: %w", pid, err)
	}
	return time.Duration(used.Nano()), nil
}
