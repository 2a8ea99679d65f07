package faults

import (
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"testing"

	"github.com/flowviz/flowagent/internal/awsfake"
)

// quiet drops what servers have to say of clients that hang up: agents are killed here all the time.
var quiet = log.New(io.Discard, "", 0)

// door is the way to the metadata service. Faults are put into it by path.
type door struct {
	t       *testing.T
	address string
	service http.Handler

	mu     sync.Mutex
	faults []doorFault
}

type doorFault struct {
	path  string // what the request's path begins with
	left  int    // awsfake.Always for ever
	fault awsfake.Fault
}

// Paths of the metadata service.
const (
	tokenPath        = "/latest/api/token"
	announcementPath = "/latest/meta-data/"
)

func newDoor(t *testing.T, address, service string) *door {
	t.Helper()
	target, err := url.Parse(service)
	if err != nil {
		t.Fatal(err)
	}
	return &door{t: t, address: address, service: &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(target) }, ErrorLog: quiet,
	}}
}

// open lets requests in, for the rest of the test.
func (d *door) open() {
	d.t.Helper()
	listener, err := net.Listen("tcp", d.address)
	if err != nil {
		d.t.Fatal(err)
	}
	serve(d.t, listener, d)
}

// inject has a fault in the next so many requests for what is below a path.
func (d *door) inject(path string, times int, fault awsfake.Fault) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.faults = append(d.faults, doorFault{path, times, fault})
}

func (d *door) heal() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.faults = nil
}

func (d *door) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	answer := d.service
	d.mu.Lock()
	for i := range d.faults {
		f := &d.faults[i]
		if !strings.HasPrefix(r.URL.Path, f.path) || f.left == 0 {
			continue
		}
		if f.left > 0 {
			f.left--
		}
		answer = f.fault(answer)
		break
	}
	d.mu.Unlock()
	answer.ServeHTTP(w, r)
}

// status has the service answer with a bare status code.
func status(code int) awsfake.Fault {
	return func(http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(code) })
	}
}

// serve runs a handler on a listener until the test ends.
func serve(t *testing.T, listener net.Listener, handler http.Handler) {
	server := &http.Server{Handler: handler, ReadHeaderTimeout: patience, ErrorLog: quiet}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = server.Serve(listener) // until it is closed
	}()
	t.Cleanup(func() {
		_ = server.Close()
		<-ended
	})
}
