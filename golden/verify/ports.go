package verify

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
)

// Port is one that something may listen on.
type Port struct {
	Number   uint16
	Protocol string // tcp or udp
}

func (p Port) String() string { return fmt.Sprintf("%d/%s", p.Number, p.Protocol) }

// ParsePort reads 22, 22/tcp or 68/udp.
func ParsePort(text string) (Port, error) {
	number, protocol, given := strings.Cut(text, "/")
	if !given {
		protocol = "tcp"
	}
	n, err := strconv.ParseUint(number, 10, 16)
	if err != nil || n == 0 || (protocol != "tcp" && protocol != "udp") {
		return Port{}, fmt.Errorf("%q is not a port: write it like 22 or 68/udp", text)
	}
	return Port{uint16(n), protocol}, nil
}

// BuilderPorts are what a machine listens on while an image is built on it over SSH: SSH and its DHCP clients.
func BuilderPorts() []Port { return []Port{{22, "tcp"}, {68, "udp"}, {546, "udp"}} }

// listener is a socket that waits for whoever comes.
type listener struct {
	Port
	address netip.Addr
	inode   uint64
}

// ports asks the kernel who listens where others can reach it. What listens on this machine's own address only is counted.
func (v *verifier) ports() (string, error) {
	if !v.Running {
		return "", skip("nothing listens on a disk: verify the running system to see its ports")
	}
	allowed := slices.Clone(v.opts.AllowPorts)
	if v.node != nil {
		if _, port, err := net.SplitHostPort(string(v.node.Config.Health.Listen)); err == nil {
			if p, err := ParsePort(port); err == nil {
				allowed = append(allowed, p)
			}
		}
	}
	all, err := listeners()
	if err != nil {
		return "", fmt.Errorf("not checked: %w", err)
	}
	return judgePorts(all, allowed, owners())
}

// judgePorts decides on what listens. who names the program of a socket's inode, where it is known.
func judgePorts(all []listener, allowed []Port, who map[uint64]string) (string, error) {
	var bad, named []string
	local := 0
	for _, l := range all {
		place := l.Port.String()
		if name := who[l.inode]; name != "" {
			place += " (" + name + ")"
		}
		switch {
		case l.address.IsLoopback():
			local++
		case slices.Contains(allowed, l.Port):
			named = append(named, place)
		default:
			bad = append(bad, fmt.Sprintf("%s on %s", place, l.address))
		}
	}
	if len(bad) > 0 {
		slices.Sort(bad)
		return "", &findings{"something listens that wasn't named: stop and disable it, or name it with --allow-port", slices.Compact(bad)}
	}
	slices.Sort(named)
	named = slices.Compact(named)
	reason := "nothing listens"
	if len(named) > 0 {
		reason = "only " + strings.Join(named, ", ")
	}
	if local > 0 {
		reason += fmt.Sprintf("; on the loopback address, %d more", local)
	}
	return reason, nil
}

// States of a socket in the kernel's include/net/tcp_states.h. UDP uses the second for a socket without a peer.
const (
	tcpListen      = 0x0a
	udpUnconnected = 0x07
)

// listeners reads the kernel's tables of this network namespace. Containers have their own.
func listeners() ([]listener, error) {
	var all []listener
	var errs []error
	for _, table := range []struct {
		name     string
		protocol string
		state    uint64
	}{{"tcp", "tcp", tcpListen}, {"tcp6", "tcp", tcpListen}, {"udp", "udp", udpUnconnected}, {"udp6", "udp", udpUnconnected}} {
		content, err := os.ReadFile("/proc/net/" + table.name)
		if errors.Is(err, fs.ErrNotExist) && strings.HasSuffix(table.name, "6") {
			continue // a kernel without IPv6
		}
		if err == nil {
			err = parseSockets(string(content), func(l listener, state uint64) {
				if state == table.state {
					l.Protocol = table.protocol
					all = append(all, l)
				}
			})
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("/proc/net/%s: %w", table.name, err))
		}
	}
	return all, errors.Join(errs...)
}

var errSocket = errors.New("it has a line that is no socket")

// parseSockets reads a table of the kernel's Documentation/networking/proc_net_tcp.rst.
func parseSockets(table string, found func(l listener, state uint64)) error {
	for i, line := range strings.Split(strings.TrimSpace(table), "\n") {
		if i == 0 {
			continue // names of the columns
		}
		fields := strings.Fields(line)
		if len(fields) < 10 {
			return errSocket
		}
		host, port, _ := strings.Cut(fields[1], ":")
		raw, err := hex.DecodeString(host)
		if err != nil {
			return errSocket
		}
		// Words of four bytes, each in the machine's own order.
		for word := range slices.Chunk(raw, 4) {
			if len(word) == 4 {
				binary.NativeEndian.PutUint32(word, binary.BigEndian.Uint32(word))
			}
		}
		address, ok := netip.AddrFromSlice(raw)
		number, portErr := strconv.ParseUint(port, 16, 16)
		state, stateErr := strconv.ParseUint(fields[3], 16, 8)
		inode, inodeErr := strconv.ParseUint(fields[9], 10, 64)
		if !ok || portErr != nil || stateErr != nil || inodeErr != nil {
			return errSocket
		}
		found(listener{Port{Number: uint16(number)}, address.Unmap(), inode}, state)
	}
	return nil
}

// owners names the programs of all sockets that may be looked at, by inode. It only helps people, so that what can't be
// read is left out.
func owners() map[uint64]string {
	who := map[uint64]string{}
	links, err := fs.Glob(os.DirFS("/proc"), "[0-9]*/fd/*")
	if err != nil {
		return who
	}
	for _, link := range links {
		target, err := os.Readlink("/proc/" + link)
		if err != nil {
			continue
		}
		number, ok := strings.CutPrefix(target, "socket:[")
		if !ok {
			continue
		}
		inode, err := strconv.ParseUint(strings.TrimSuffix(number, "]"), 10, 64)
		if err != nil {
			continue
		}
		pid, _, _ := strings.Cut(link, "/")
		if name, err := os.ReadFile("/proc/" + pid + "/comm"); err == nil {
			who[inode] = strings.TrimSpace(string(name))
		}
	}
	return who
}
