package inflight

import (
	"bytes"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// timeouts are those that the kernel may have given an entry of an established connection at its last packet: the usual
// one, and shorter ones while data isn't confirmed, or is sent again, or the receiver has no room for it.
type timeouts []time.Duration

// timeoutNames are their settings, in the kernel's Documentation/networking/nf_conntrack-sysctl.rst.
var timeoutNames = []string{"established", "unacknowledged", "max_retrans"}

// defaultTimeouts are the kernel's own, in net/netfilter/nf_conntrack_proto_tcp.c. A new network namespace begins with
// them, whatever the machine's are, and those of another namespace can't be read.
var defaultTimeouts = timeouts{5 * 24 * time.Hour, 5 * time.Minute, 5 * time.Minute}

// hostTimeouts are those of the network namespace that the agent is in.
func (c *Counter) hostTimeouts() (timeouts, error) {
	var t timeouts
	for _, name := range timeoutNames {
		file := filepath.Join(c.options.ProcRoot, "sys/net/netfilter/nf_conntrack_tcp_timeout_"+name)
		text, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		seconds, err := strconv.ParseUint(strings.TrimSpace(string(text)), 10, 32)
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", file, err)
		}
		t = append(t, time.Duration(seconds)*time.Second)
	}
	return t, nil
}

// since is the shortest time since the last packet that explains what is left of an entry; false if none of them does.
// The kernel cuts the fraction of the seconds left, so up to a second less has passed.
func (t timeouts) since(left time.Duration) (passed time.Duration, ok bool) {
	for _, timeout := range t {
		if p := timeout - left; p >= 0 && (!ok || p < passed) {
			passed, ok = p, true
		}
	}
	return max(0, passed-time.Second), ok
}

// movements tell when a packet was last seen of a connection, or a moment shortly after.
type movements map[endpoints]time.Time

// parseConntrack reads /proc/net/nf_conntrack, of which lines look like
//
//	ipv4 2 tcp 6 431994 ESTABLISHED src=A dst=B sport=1 dport=2 src=C dst=D sport=3 dport=4 [ASSURED] mark=0 zone=0 use=2
//
// with the seconds until the entry expires. Every packet sets them back to a timeout, so what lacks is the time since the
// last one. A line that tells nothing, or can't be read, is left out: its connection is unknown then, not idle.
//
// C:3 is the service and D:4 its client, with no address changed any more. An entry that the kernel made while the
// connection was open already may have it the other way round, so both directions are kept.
func parseConntrack(table []byte, now time.Time, t timeouts) movements {
	seen := make(movements)
	for line := range bytes.Lines(table) {
		fields := strings.Fields(string(line))
		if len(fields) < 14 || fields[2] != "tcp" || fields[5] != "ESTABLISHED" {
			continue // flows in hardware have no seconds, and no state
		}
		seconds, err := strconv.ParseUint(fields[4], 10, 31)
		if err != nil {
			continue
		}
		passed, ok := t.since(time.Duration(seconds) * time.Second)
		if !ok {
			continue // its timeout is another one
		}
		moved := now.Add(-passed)
		tuples := fields[6:]
		for range 2 {
			if len(tuples) > 0 && strings.HasPrefix(tuples[0], "[") {
				tuples = tuples[1:] // [UNREPLIED]
			}
			key, ok := parseTuple(tuples)
			if !ok {
				break
			}
			if moved.After(seen[key]) {
				seen[key] = moved
			}
			tuples = tuples[4:]
		}
	}
	return seen
}

// parseTuple reads src=, dst=, sport= and dport=, in this order, which is the kernel's.
func parseTuple(fields []string) (e endpoints, ok bool) {
	if len(fields) < 4 {
		return e, false
	}
	var addresses [2]netip.Addr
	var ports [2]uint64
	for i, name := range []string{"src=", "dst="} {
		value, found := strings.CutPrefix(fields[i], name)
		address, err := netip.ParseAddr(value)
		if !found || err != nil {
			return e, false
		}
		addresses[i] = address.Unmap()
	}
	for i, name := range []string{"sport=", "dport="} {
		value, found := strings.CutPrefix(fields[2+i], name)
		port, err := strconv.ParseUint(value, 10, 16)
		if !found || err != nil {
			return e, false
		}
		ports[i] = port
	}
	return endpoints{netip.AddrPortFrom(addresses[0], uint16(ports[0])), netip.AddrPortFrom(addresses[1], uint16(ports[1]))}, true
}

// conntrack reads the table in dir, the machine's or a container's. Without one nothing is known: the kernel was built
// without it, the module isn't loaded, or nothing in that namespace asked for it.
func conntrack(dir string, now time.Time, t timeouts) (movements, error) {
	table, err := os.ReadFile(filepath.Join(dir, "nf_conntrack"))
	if gone(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return parseConntrack(table, now, t), nil
}
