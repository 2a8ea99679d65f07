package inflight

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"time"
)

// States of a socket in the kernel's include/net/tcp_states.h. The others are connections that nobody has been answered
// on yet (SYN_RECV), or that the service itself has closed (FIN_WAIT, TIME_WAIT).
const (
	stateEstablished = 0x01
	stateCloseWait   = 0x08 // the client has said all it will; its answer may be on the way
)

// timerKeepalive is timer_active of a socket that will ask its peer whether it is still there.
const timerKeepalive = 0x02

// clockTick is the unit of the timer in /proc/net/tcp: USER_HZ is 100 on every architecture that Go knows.
const clockTick = 10 * time.Millisecond

// endpoints tell one connection from all others in a network namespace, as the service sees it.
type endpoints struct{ local, remote netip.AddrPort }

// socket is one line of /proc/net/tcp or tcp6.
type socket struct {
	endpoints
	state uint8
	// queued is what was sent and not confirmed, or received and not read.
	queued bool
	// keepalive tells that the next probe is due in probeIn.
	keepalive bool
	probeIn   time.Duration
}

var errTable = errors.New("not a line of /proc/net/tcp")

// parseSockets reads a table of the kernel's Documentation/networking/proc_net_tcp.rst. A line that can't be read is an
// error: to leave it out would end a drain too early.
func parseSockets(table []byte) ([]socket, error) {
	var sockets []socket
	first := true
	for line := range bytes.Lines(table) {
		if first {
			first = false // names of the columns
			continue
		}
		s, err := parseSocket(line)
		if err != nil {
			return nil, fmt.Errorf("%w: %q", err, bytes.TrimSpace(line[:min(len(line), 160)])) // longer than the kernel's
		}
		sockets = append(sockets, s)
	}
	return sockets, nil
}

func parseSocket(line []byte) (s socket, err error) {
	fields := bytes.Fields(line)
	if len(fields) < 6 { // sl, local, remote, st, queues, timer; the rest isn't read
		return s, errTable
	}
	var ok [4]bool
	s.local, ok[0] = parseEndpoint(fields[1])
	s.remote, ok[1] = parseEndpoint(fields[2])
	state, stateErr := strconv.ParseUint(string(fields[3]), 16, 8)
	var sent, received, timer, left uint64
	sent, received, ok[2] = parsePair(fields[4])
	timer, left, ok[3] = parsePair(fields[5])
	if ok != [4]bool{true, true, true, true} || stateErr != nil {
		return s, errTable
	}
	s.state = uint8(state)
	s.queued = sent != 0 || received != 0
	if timer == timerKeepalive {
		s.keepalive = true
		s.probeIn = time.Duration(left) * clockTick // 32 bits of ticks: 497 days
	}
	return s, nil
}

// parseEndpoint reads an address, each 32 bits of which are a number in this machine's byte order, and a port.
func parseEndpoint(text []byte) (netip.AddrPort, bool) {
	address, port, found := bytes.Cut(text, []byte(":"))
	raw := make([]byte, hex.DecodedLen(len(address)))
	if _, err := hex.Decode(raw, address); err != nil || !found {
		return netip.AddrPort{}, false
	}
	for word := raw; len(word) >= 4; word = word[4:] {
		binary.NativeEndian.PutUint32(word, binary.BigEndian.Uint32(word))
	}
	ip, ok := netip.AddrFromSlice(raw)
	number, err := strconv.ParseUint(string(port), 16, 16)
	if !ok || err != nil {
		return netip.AddrPort{}, false
	}
	// A service that listens on :: has its IPv4 clients in tcp6, as ::ffff:192.0.2.1; conntrack knows them by 192.0.2.1.
	return netip.AddrPortFrom(ip.Unmap(), uint16(number)), true
}

// parsePair reads two hexadecimal numbers with a colon between them.
func parsePair(text []byte) (a, b uint64, ok bool) {
	left, right, found := bytes.Cut(text, []byte(":"))
	a, errA := strconv.ParseUint(string(left), 16, 32)
	b, errB := strconv.ParseUint(string(right), 16, 32)
	return a, b, found && errA == nil && errB == nil
}

// namespace is what tells one network namespace from another without being allowed to look at /proc/PID/ns, which needs
// CAP_SYS_PTRACE: each has files of its own below /proc/PID/net.
type namespace struct{ device, inode uint64 }

// netDir is where the process's network namespace is described.
func (c *Counter) netDir(pid int) string {
	return filepath.Join(c.options.ProcRoot, strconv.Itoa(pid), "net")
}

// namespaceOf says found = false for a process that is gone.
func (c *Counter) namespaceOf(pid int) (n namespace, found bool, err error) {
	info, err := os.Stat(filepath.Join(c.netDir(pid), "tcp"))
	if gone(err) {
		return n, false, c.hidden(pid)
	}
	if err != nil {
		return n, false, err
	}
	stat := info.Sys().(*syscall.Stat_t)
	return namespace{device: uint64(stat.Dev), inode: stat.Ino}, true, nil
}

var errHidden = errors.New("the process runs but proc doesn't show it: mount proc without hidepid")

// hidden is an error for a process that runs although there is nothing of it: without CAP_SYS_PTRACE that is how those of
// others look when hidepid is set, and to take them for gone would end every drain at once.
func (c *Counter) hidden(pid int) error {
	dir := filepath.Dir(c.netDir(pid))
	if _, err := os.Lstat(dir); !errors.Is(err, fs.ErrNotExist) {
		return nil // it has ended, and its parent doesn't know yet
	}
	if err := syscall.Kill(pid, 0); errors.Is(err, syscall.ESRCH) {
		return nil
	}
	return fmt.Errorf("%s: %w", dir, errHidden)
}

// sockets reads both tables of a process's network namespace. A kernel without IPv6 has no tcp6, and of a process that
// is gone there are none.
func (c *Counter) sockets(pid int) ([]socket, error) {
	var all []socket
	for _, name := range []string{"tcp", "tcp6"} {
		file := filepath.Join(c.netDir(pid), name)
		table, err := os.ReadFile(file)
		if gone(err) {
			continue
		}
		if err != nil {
			return nil, err
		}
		sockets, err := parseSockets(table)
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", file, err)
		}
		all = append(all, sockets...)
	}
	return all, nil
}

// gone tells that there is no such process any more: before it was opened, or (ESRCH, ENXIO) between that and reading.
func gone(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ESRCH) || errors.Is(err, syscall.ENXIO)
}
