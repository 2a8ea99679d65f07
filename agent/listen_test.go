package agent

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/flowviz/flowagent/agent/config"
	"github.com/flowviz/flowagent/agent/systemd"
)

func TestListenHealth_TakesWhatSystemdHoldsAndOpensTheRestItself(t *testing.T) {
	open := func() *net.TCPListener {
		t.Helper()
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = l.Close() })
		return l.(*net.TCPListener)
	}
	a, conn := watched(t)
	unit, stored := open(), open()
	a.opts.Listeners = []systemd.Listener{{TCPListener: unit}}
	got, held, err := a.listenHealth(t.Context(), config.ListenAddress(unit.Addr().String()))
	if err != nil || len(got) != 1 || held {
		t.Errorf("a socket unit's: got %v, held %t, %v; want what was passed, and that nobody waits in it", got, held, err)
	}
	a.opts.Listeners = append(a.opts.Listeners, systemd.Listener{TCPListener: stored, Stored: true})
	got, held, err = a.listenHealth(t.Context(), config.ListenAddress(stored.Addr().String()))
	if err != nil || len(got) != 2 || !held {
		t.Errorf("a stored one: got %v, held %t, %v; want both, and that clients may wait", got, held, err)
	}
	if messages := told(t, a.supervisor.notifier, conn); len(messages) > 0 {
		t.Errorf("systemd was told %q, want nothing: it has them", messages)
	}

	got, held, err = a.listenHealth(t.Context(), "127.0.0.1:0")
	if err != nil || len(got) != 2 || held {
		t.Fatalf("another address: got %v, held %t, %v; want the unit's and a new one", got, held, err)
	}
	t.Cleanup(func() { _ = got[1].Close() })
	want := []string{"FDSTOREREMOVE=1\nFDNAME=flowagent-stored", "FDSTORE=1\nFDNAME=flowagent-stored"}
	if messages := told(t, a.supervisor.notifier, conn); !slices.Equal(messages, want) {
		t.Errorf("systemd was told %q, want %q", messages, want)
	}
	if _, err := stored.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("the stored listener that isn't wanted: got %v, want it closed", err)
	}
	_, _, err = a.listenHealth(t.Context(), config.ListenAddress(got[1].Addr().String()))
	if err == nil || !strings.Contains(err.Error(), "free the port, or set health.listen") {
		t.Errorf("an address that is taken: got %v, want what to do", err)
	}
}

func TestCovers_KnowsEveryInterfaceAndBothFamilies(t *testing.T) {
	for _, c := range []struct {
		socket, configured string
		want               bool
	}{
		{"[::]:9180", ":9180", true},
		{"0.0.0.0:9180", ":9180", true}, // a machine without IPv6
		{"[::]:9180", "10.0.0.1:9180", true},
		{"0.0.0.0:9180", "10.0.0.1:9180", true},
		{"0.0.0.0:9180", "[::1]:9180", false},
		{"[::]:9180", "localhost:9180", true},
		{"127.0.0.1:9180", "127.0.0.1:9180", true},
		{"127.0.0.1:9180", ":9180", false},
		{"127.0.0.1:9180", "127.0.0.2:9180", false},
		{"[::]:9180", ":9181", false},
	} {
		if got := covers(c.socket, c.configured); got != c.want {
			t.Errorf("%s for %s: got %t, want %t", c.socket, c.configured, got, c.want)
		}
	}
}

func TestServe_AnswersWhoeverIsConnectedWhenItEnds(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var group errgroup.Group
	accepted := make(chan struct{}, 1)
	server := &http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ready") }),
		ConnState: func(_ net.Conn, state http.ConnState) {
			if state == http.StateNew {
				accepted <- struct{}{}
			}
		},
	}
	serve(ctx, &group, server, time.Minute, listener)
	conn, err := net.Dial("tcp", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	<-accepted
	stop()
	if _, err := io.WriteString(conn, "GET / HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	response, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatalf("a client that was connected got %v, want its answer", err)
	}
	defer response.Body.Close()
	if body, err := io.ReadAll(response.Body); err != nil || string(body) != "ready" {
		t.Errorf("got %q and %v, want ready", body, err)
	}
	if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("after the answer: got %v, want the connection's end", err)
	}
	if err := group.Wait(); err != nil {
		t.Error(err)
	}
}

func TestServe_WaitsForNobodyWhoNeverAsks(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	var group errgroup.Group
	serve(ctx, &group, &http.Server{}, 5*time.Millisecond, listener)
	conn, err := net.Dial("tcp", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	stop()
	if err := group.Wait(); err != nil { // the test's own limit ends one that waits for ever
		t.Error(err)
	}
}
