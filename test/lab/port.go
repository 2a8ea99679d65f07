package lab

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// port waits until the program listens on a TCP port and returns it. Programs are started with port 0, so the kernel
// chooses: there is no moment at which somebody else could take the port, and no other server to be mistaken for it.
func (p *Process) port(ctx context.Context) (int, error) {
	var found int
	err := p.await(ctx, func(context.Context) error {
		port, err := listeningPort(p.pid)
		found = port
		return err
	})
	return found, err
}

var errNotListening = errors.New("it listens on no TCP port")

// listeningPort returns a TCP port on which a process of the given process group listens.
func listeningPort(group int) (int, error) {
	ports, err := listeners()
	if err != nil {
		return 0, err
	}
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return 0, err
	}
	for _, stat := range stats {
		if !inGroup(stat, group) {
			continue
		}
		descriptors, err := filepath.Glob(filepath.Join(filepath.Dir(stat), "fd", "*"))
		if err != nil {
			return 0, err
		}
		for _, fd := range descriptors {
			// A descriptor may be closed, and a process may end, between the listing and this line.
			target, err := os.Readlink(fd)
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
			if err != nil {
				return 0, err
			}
			if port, ok := ports[target]; ok {
				return port, nil
			}
		}
	}
	return 0, errNotListening
}

// inGroup reads field 5 (pgrp) of /proc/pid/stat, proc_pid_stat(5). The second field is the program's name in
// parentheses and may itself hold spaces and parentheses.
func inGroup(statFile string, group int) bool {
	stat, err := os.ReadFile(statFile)
	if err != nil {
		return false
	}
	_, rest, _ := strings.Cut(string(stat[strings.LastIndexByte(string(stat), ')')+1:]), " ")
	fields := strings.Fields(rest)
	return len(fields) > 2 && fields[2] == strconv.Itoa(group)
}

// listeners maps "socket:[inode]", as /proc/pid/fd shows it, to the port of each listening TCP socket.
func listeners() (map[string]int, error) {
	const listen = "0A" // TCP_LISTEN in the kernel's include/net/tcp_states.h
	ports := map[string]int{}
	for _, table := range []string{"/proc/self/net/tcp", "/proc/self/net/tcp6"} {
		content, err := os.ReadFile(table)
		if errors.Is(err, fs.ErrNotExist) {
			continue // a kernel without IPv6
		}
		if err != nil {
			return nil, err
		}
		for line := range strings.Lines(string(content)) {
			fields := strings.Fields(line)
			if len(fields) < 10 || fields[3] != listen {
				continue
			}
			_, hexPort, _ := strings.Cut(fields[1], ":")
			port, err := strconv.ParseUint(hexPort, 16, 16)
			if err != nil {
				return nil, fmt.Errorf("read %s: %w", table, err)
			}
			ports["socket:["+fields[9]+"]"] = int(port)
		}
	}
	return ports, nil
}
