package health

import (
	"net"
	"net/http"
	"net/netip"
	"sync"
)

// maxConnections is how many clients may be connected at once. An ALB has a handful of addresses, a Prometheus one, a
// person one or two; this many cost about 4 MB.
const maxConnections = 256

// crowd bounds the connections of a server without ever refusing a new one: somebody who opens ten thousand of them and
// sends nothing, or a byte a second, must not keep a load balancer out.
//
// When there are too many, one of those that came from where most came from is closed, the one that has gone longest
// without an answer. So a hostile address displaces its own connections and nobody else's;
// and where the load balancer shares an address with it, its probe, being the newest and answered within a millisecond,
// outlives all the others.
type crowd struct {
	most int

	mu      sync.Mutex
	signs   uint64 // of life, of anybody
	members map[net.Conn]*member
	sources map[netip.Prefix]*source
}

// member is one connection in the list of its source.
type member struct {
	conn        net.Conn
	source      *source
	sign        uint64 // its last sign of life: the larger, the later
	older, next *member
}

// source is where connections come from, with those in the order of their last sign of life, a ring around root.
type source struct {
	prefix netip.Prefix
	root   member
	count  int
}

func newCrowd(most int) *crowd {
	return &crowd{most: most, members: map[net.Conn]*member{}, sources: map[netip.Prefix]*source{}}
}

// connState is a hook for [http.Server]. It is called for a new connection before anything is read from it.
func (c *crowd) connState(conn net.Conn, state http.ConnState) {
	switch state {
	case http.StateNew:
		if victim := c.enter(conn); victim != nil {
			dismiss(victim)
		}
	case http.StateIdle: // it has just been answered
		c.touch(conn)
	case http.StateClosed, http.StateHijacked:
		c.leave(conn)
	}
}

// enter takes a connection in and returns the one that has to go for it, if any.
func (c *crowd) enter(conn net.Conn) (victim net.Conn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.members) >= c.most {
		var largest *source
		for _, s := range c.sources {
			if largest == nil || s.count > largest.count || s.count == largest.count && s.root.next.sign < largest.root.next.sign {
				largest = s
			}
		}
		victim = largest.root.next.conn
		c.remove(victim)
	}
	prefix := origin(conn.RemoteAddr())
	s := c.sources[prefix]
	if s == nil {
		s = &source{prefix: prefix}
		s.root.older, s.root.next = &s.root, &s.root
		c.sources[prefix] = s
	}
	s.count++
	m := &member{conn: conn, source: s}
	c.append(m)
	c.members[conn] = m
	return victim
}

func (c *crowd) touch(conn net.Conn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if m := c.members[conn]; m != nil {
		m.unlink()
		c.append(m)
	}
}

func (c *crowd) leave(conn net.Conn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.remove(conn)
}

func (c *crowd) remove(conn net.Conn) {
	m := c.members[conn]
	if m == nil {
		return // it was sent away before
	}
	delete(c.members, conn)
	m.unlink()
	if m.source.count--; m.source.count == 0 {
		delete(c.sources, m.source.prefix)
	}
}

// append puts the member last in its source, behind the newest.
func (c *crowd) append(m *member) {
	c.signs++
	m.sign = c.signs
	root := &m.source.root
	m.older, m.next = root.older, root
	m.older.next, root.older = m, m
}

func (m *member) unlink() { m.older.next, m.next.older = m.next, m.older }

// origin is the address a connection comes from; of IPv6 the network, of which one host has all 2⁶⁴ addresses.
func origin(addr net.Addr) netip.Prefix {
	tcp, ok := addr.(*net.TCPAddr)
	if !ok {
		return netip.Prefix{}
	}
	ip := tcp.AddrPort().Addr().Unmap().WithZone("")
	bits := 32
	if ip.Is6() {
		bits = 64
	}
	prefix, err := ip.Prefix(bits)
	if err != nil { // an address that is none
		return netip.Prefix{}
	}
	return prefix
}

// dismiss closes a connection without leaving it in TIME_WAIT, since there may be thousands.
func dismiss(conn net.Conn) {
	if tcp, ok := conn.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0) // or else it closes the polite way
	}
	_ = conn.Close() // closed is all it has to be
}
