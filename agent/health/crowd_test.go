package health

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

// listen serves a ready node on loopback and returns its address.
func listen(t *testing.T) string {
	t.Helper()
	e := NewEndpoint()
	e.Set(Ready, "ready")
	return strings.TrimPrefix(serve(t, e), "http://")
}

// dialFrom connects from one of loopback's addresses.
func dialFrom(t *testing.T, source, target string) net.Conn {
	t.Helper()
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(source)}}
	conn, err := d.DialContext(t.Context(), "tcp", target)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// ask sends a request on a connection and returns the status line.
func ask(conn net.Conn) (string, error) {
	if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil { // a lost answer must not hang the test
		return "", err
	}
	if _, err := io.WriteString(conn, "GET /health HTTP/1.1\r\nHost: node\r\n\r\n"); err != nil {
		return "", err
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	_, err = io.Copy(io.Discard, resp.Body)
	return resp.Status, err
}

func TestServer_TenThousandIdleConnectionsDoNotKeepALoadBalancerOut(t *testing.T) {
	address := listen(t)
	balancer := dialFrom(t, "127.0.0.2", address)
	if status, err := ask(balancer); status != "200 OK" {
		t.Fatalf("got %q, %v", status, err)
	}
	// Of the ten thousand the latest stay open on the client's side too, more of them than the server has room for.
	const all, open = 10_000, 500
	hostile := make([]net.Conn, 0, open)
	for i := range all {
		conn := dialFrom(t, "127.0.0.3", address)
		if _, err := io.WriteString(conn, "GET /health HT"); err != nil && i < maxConnections/2 {
			t.Fatal(err)
		}
		if len(hostile) == open {
			hostile[0].Close()
			hostile = hostile[1:]
		}
		hostile = append(hostile, conn)
		if i%1000 != 999 {
			continue
		}
		fresh := dialFrom(t, "127.0.0.2", address)
		if status, err := ask(fresh); status != "200 OK" {
			t.Errorf("after %d connections a new probe got %q, %v", i+1, status, err)
		}
		fresh.Close()
		same := dialFrom(t, "127.0.0.3", address)
		if status, err := ask(same); status != "200 OK" {
			t.Errorf("after %d connections a probe from the same address got %q, %v", i+1, status, err)
		}
		same.Close()
		if status, err := ask(balancer); status != "200 OK" { // and it is never idle for long
			t.Errorf("after %d connections the balancer's own was lost: %q, %v", i+1, status, err)
		}
	}
}

func TestServer_HugeHeadersAreRefused(t *testing.T) {
	conn := dialFrom(t, "127.0.0.1", listen(t))
	if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	go func() { // the server stops reading somewhere in it
		_, _ = fmt.Fprintf(conn, "GET /health HTTP/1.1\r\nHost: node\r\nX: %s\r\n\r\n", strings.Repeat("x", 1<<20))
	}()
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
		t.Errorf("got %s, want 431", resp.Status)
	}
}

func TestServer_ASlowHeaderIsCutOff(t *testing.T) {
	server := NewServer(NewEndpoint(), slog.New(slog.DiscardHandler))
	for name, limit := range map[string]time.Duration{
		"ReadHeaderTimeout": server.ReadHeaderTimeout, "ReadTimeout": server.ReadTimeout, "WriteTimeout": server.WriteTimeout,
	} {
		if limit <= 0 || limit > 5*time.Second {
			t.Errorf("%s: got %v, want at most the 5 s after which a balancer gives up", name, limit)
		}
	}
	server.ReadHeaderTimeout = 10 * time.Millisecond // of what net/http does with it
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- server.Serve(listener) }()
	t.Cleanup(func() {
		_ = server.Shutdown(context.WithoutCancel(t.Context()))
		<-done
	})
	conn := dialFrom(t, "127.0.0.1", listener.Addr().String())
	if _, err := io.WriteString(conn, "GET /health HTTP/1.1\r\n"); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadAll(conn); err != nil && !strings.Contains(err.Error(), "reset") {
		t.Errorf("got %v, want to be cut off", err)
	}
}

// pipe is a connection that comes from somewhere.
type pipe struct {
	net.Conn
	from   string
	closed bool
}

func (p *pipe) RemoteAddr() net.Addr {
	addr, err := net.ResolveTCPAddr("tcp", p.from)
	if err != nil {
		panic(err)
	}
	return addr
}
func (p *pipe) Close() error { p.closed = true; return nil }

func TestCrowd_TheLargestSourceLosesWhatIsSilentLongest(t *testing.T) {
	c := newCrowd(4)
	enter := func(from string) *pipe {
		p := &pipe{from: from}
		c.connState(p, http.StateNew)
		return p
	}
	balancer := enter("10.0.0.1:1")
	a, b, d := enter("10.9.9.9:1"), enter("10.9.9.9:2"), enter("10.9.9.9:3")
	c.connState(a, http.StateActive)
	c.connState(a, http.StateIdle) // it was answered, so b is the one that is silent longest
	e := enter("10.9.9.9:4")
	if !b.closed || a.closed || d.closed || e.closed || balancer.closed {
		t.Errorf("closed: balancer %v, a %v, b %v, d %v, e %v; want b alone", balancer.closed, a.closed, b.closed, d.closed, e.closed)
	}
	c.connState(b, http.StateClosed) // its goroutine notices later
	enter("10.0.0.2:1")
	if !d.closed || a.closed || e.closed || balancer.closed {
		t.Errorf("closed: balancer %v, a %v, d %v, e %v; want d", balancer.closed, a.closed, d.closed, e.closed)
	}
	if len(c.members) != 4 {
		t.Errorf("got %d members, want 4", len(c.members))
	}
	for conn := range c.members {
		c.connState(conn, http.StateClosed)
	}
	if len(c.members) != 0 || len(c.sources) != 0 {
		t.Errorf("got %d members of %d sources after all left", len(c.members), len(c.sources))
	}
}

func TestCrowd_OfEqualSourcesTheOldestConnectionGoes(t *testing.T) {
	c := newCrowd(3)
	var all []*pipe
	for i := range 4 {
		p := &pipe{from: fmt.Sprintf("10.0.0.%d:1", i)}
		c.connState(p, http.StateNew)
		all = append(all, p)
	}
	if !all[0].closed || all[1].closed || all[2].closed || all[3].closed {
		t.Errorf("closed: %v %v %v %v, want the first alone", all[0].closed, all[1].closed, all[2].closed, all[3].closed)
	}
}

func TestCrowd_OneIPv6NetworkIsOneSource(t *testing.T) {
	for _, c := range []struct{ addr, want string }{
		{"192.0.2.7:1", "192.0.2.7/32"},
		{"[::ffff:192.0.2.7]:1", "192.0.2.7/32"},
		{"[2001:db8:1:2:3::4]:1", "2001:db8:1:2::/64"},
	} {
		addr, err := net.ResolveTCPAddr("tcp", c.addr)
		if err != nil {
			t.Fatal(err)
		}
		if got := origin(addr).String(); got != c.want {
			t.Errorf("%s: got %s, want %s", c.addr, got, c.want)
		}
	}
}
