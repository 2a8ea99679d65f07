package e2e

import (
	"context"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/flowviz/flowagent/internal/awsfake"
)

// stop is a place at which something waits until it may go on.
type stop struct {
	t       *testing.T
	what    string
	once    sync.Once
	arrived chan struct{} // closed when something waits here
	open    chan struct{} // closed when it may go on
}

func newStop(t *testing.T, what string) *stop {
	s := &stop{t: t, what: what, arrived: make(chan struct{}), open: make(chan struct{})}
	t.Cleanup(s.release)
	return s
}

// awaitArrival returns when something waits here. It fails when the agent, which is to cause that, ends before.
func (s *stop) awaitArrival(a *process) {
	s.t.Helper()
	timeout := time.NewTimer(patience)
	defer timeout.Stop()
	select {
	case <-s.arrived:
	case <-a.done:
		s.t.Fatalf("the agent ended with %d before this: %s", a.code, s.what)
	case <-timeout.C:
		s.t.Fatalf("not seen in %s: %s", patience, s.what)
	}
}

// release lets everything go on, now and later. Only the test's own goroutine calls it.
func (s *stop) release() {
	select {
	case <-s.open:
	default:
		close(s.open)
	}
}

// wait is false when ctx ended first.
func (s *stop) wait(ctx context.Context) bool {
	s.once.Do(func() { close(s.arrived) })
	select {
	case <-s.open:
		return true
	case <-ctx.Done():
		return false
	}
}

// gate is an HTTP server in front of another one, where requests can be made to wait.
type gate struct {
	proxy *httputil.ReverseProxy

	mu    sync.Mutex
	stops []gateStop
}

type gateStop struct {
	match func(*http.Request) bool
	stop  *stop
}

func (g *gate) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	g.mu.Lock()
	stops := g.stops
	g.mu.Unlock()
	for _, s := range stops {
		if s.match(r) && !s.stop.wait(r.Context()) {
			panic(http.ErrAbortHandler)
		}
	}
	g.proxy.ServeHTTP(w, r)
}

// hold makes requests that match wait.
func (g *gate) hold(t *testing.T, what string, match func(*http.Request) bool) *stop {
	s := newStop(t, what)
	g.mu.Lock()
	defer g.mu.Unlock()
	g.stops = append(g.stops, gateStop{match, s})
	return s
}

// quiet drops what servers have to say about clients that hang up: agents are killed here all the time.
var quiet = log.New(io.Discard, "", 0)

// serve runs a handler on a listener for the length of the test.
func serve(t *testing.T, listener net.Listener, handler http.Handler) {
	server := &http.Server{Handler: handler, ReadHeaderTimeout: patience, ErrorLog: quiet}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = server.Serve(listener) // until it is closed
	}()
	t.Cleanup(func() {
		_ = server.Close()
		<-done
	})
}

// gateEngine puts a gate between the node and its engine, for the agent and for compose.
func (n *node) gateEngine() *gate {
	n.t.Helper()
	engine := n.socket
	n.socket = filepath.Join(n.dir, "engine.sock")
	listener, err := net.Listen("unix", n.socket)
	if err != nil {
		n.t.Fatal(err)
	}
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", engine)
	}}
	n.t.Cleanup(transport.CloseIdleConnections)
	g := &gate{proxy: &httputil.ReverseProxy{
		Rewrite:       func(r *httputil.ProxyRequest) { r.SetURL(&url.URL{Scheme: "http", Host: "engine"}) },
		Transport:     transport,
		ErrorLog:      quiet,
		FlushInterval: -1, // events are wanted when they happen
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, err error) {
			http.Error(w, fmt.Sprintf(`{"message": %q}`, err), http.StatusBadGateway)
		},
	}}
	serve(n.t, listener, g)
	n.settle()
	return g
}

// gateMetadata puts a gate between the node and its metadata service.
func (n *node) gateMetadata() *gate {
	n.t.Helper()
	target, err := url.Parse(n.env["AWS_EC2_METADATA_SERVICE_ENDPOINT"])
	if err != nil {
		n.t.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		n.t.Fatal(err)
	}
	g := &gate{proxy: &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(target) }, ErrorLog: quiet}}
	serve(n.t, listener, g)
	n.env["AWS_EC2_METADATA_SERVICE_ENDPOINT"] = "http://" + listener.Addr().String()
	return g
}

// holdAWS makes calls of an action wait.
func (n *node) holdAWS(action string) *stop {
	s := newStop(n.t, action)
	n.aws.Heal(action) // an earlier one would go first
	n.aws.Inject(action, awsfake.Always, func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if !s.wait(r.Context()) {
				panic(http.ErrAbortHandler)
			}
			next.ServeHTTP(w, r)
		})
	})
	return s
}

// narrow is a TCP relay to a registry whose answers stop in the middle of something large.
type narrow struct {
	address string
	target  string

	mu   sync.Mutex
	stop *stop
}

// largeAnswer is more than any manifest and less than the layers that tests hold, in bytes.
const largeAnswer = 64 << 10

func newNarrow(t *testing.T, target string) *narrow {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	n := &narrow{address: listener.Addr().String(), target: target}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	var relays sync.WaitGroup
	relays.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			relays.Go(func() { n.relay(ctx, conn) })
		}
	})
	t.Cleanup(func() {
		cancel()
		_ = listener.Close()
		relays.Wait()
	})
	return n
}

// hold makes every connection wait in the middle of the next large answer.
func (n *narrow) hold(t *testing.T) *stop {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.stop = newStop(t, "a large answer of the registry")
	return n.stop
}

func (n *narrow) relay(ctx context.Context, client net.Conn) {
	defer client.Close()
	server, err := (&net.Dialer{}).DialContext(ctx, "tcp", n.target)
	if err != nil {
		return
	}
	defer server.Close()
	// Whoever hangs up, or the end of the test, ends both ways.
	ctx, cancel := context.WithCancel(ctx)
	defer context.AfterFunc(ctx, func() { _ = client.Close(); _ = server.Close() })()
	var up sync.WaitGroup
	up.Go(func() { defer cancel(); _, _ = io.Copy(server, client) })
	_, _ = io.Copy(&limited{ctx: ctx, n: n, to: client}, server)
	cancel()
	up.Wait()
}

// limited passes on what it is given and waits, where it has to, after largeAnswer bytes.
type limited struct {
	ctx    context.Context
	n      *narrow
	to     net.Conn
	passed int
}

func (l *limited) Write(p []byte) (int, error) {
	l.n.mu.Lock()
	s := l.n.stop
	l.n.mu.Unlock()
	if s != nil && l.passed > largeAnswer && !s.wait(l.ctx) {
		return 0, l.ctx.Err()
	}
	l.passed += len(p)
	return l.to.Write(p)
}
