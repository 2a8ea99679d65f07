package agent

import (
	"errors"
	"log/slog"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/flowviz/flowagent/agent/config"
	"github.com/flowviz/flowagent/agent/health"
	"github.com/flowviz/flowagent/agent/systemd"
)

// watched is an agent whose service manager is conn.
func watched(t *testing.T) (*Agent, *net.UnixConn) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	t.Setenv("NOTIFY_SOCKET", path)
	t.Setenv("WATCHDOG_USEC", "30000000")
	a := &Agent{log: slog.New(slog.DiscardHandler), endpoint: health.NewEndpoint()}
	a.supervisor.notifier = systemd.NewNotifier(a.log)
	return a, conn
}

// told is what arrived since the last time. The notifier sends the mark that ends it.
func told(t *testing.T, n *systemd.Notifier, conn *net.UnixConn) []string {
	t.Helper()
	n.Status("mark")
	var messages []string
	for buffer := make([]byte, 4096); ; {
		count, err := conn.Read(buffer)
		if err != nil {
			t.Fatal(err)
		}
		message := string(buffer[:count])
		if message == "STATUS=mark" {
			return messages
		}
		messages = append(messages, message)
	}
}

func TestSupervise_ExtendsABootAndFeedsTheWatchdogAfterIt(t *testing.T) {
	a, conn := watched(t)
	// Nothing here looks after checks again, so the monitor made progress last when it was made.
	a.update(func(p *parts) { p.monitor = health.NewMonitor(a.endpoint, nil, health.Options{}) })
	now := a.parts().monitor.Progress()
	for _, step := range []struct {
		what string
		do   func()
		at   time.Duration
		want []string
	}{
		{"the boot begins", func() { a.endpoint.Set(health.Starting, "images") }, 0, []string{"STATUS=starting: images", "EXTEND_TIMEOUT_USEC=30000000"}},
		{"a second later", nil, time.Second, nil},
		{"it goes on", nil, 10 * time.Second, []string{"EXTEND_TIMEOUT_USEC=30000000"}},
		{"it is over", func() { a.supervisor.ready.Store(true); a.endpoint.Set(health.Ready, "ready") }, 10 * time.Second,
			[]string{"STATUS=ready", "WATCHDOG=1"}},
		{"a second after", nil, 11 * time.Second, nil},
		{"nobody looked after the checks", nil, 21 * time.Second, nil},
		{"the agent is asked to stop", func() { a.endpoint.Set(health.Draining, "spot notice") }, 22 * time.Second,
			[]string{"STATUS=draining: spot notice", "EXTEND_TIMEOUT_USEC=30000000"}},
	} {
		if step.do != nil {
			step.do()
		}
		a.tell(now.Add(step.at), strings.Contains(step.what, "asked to stop"))
		if got := told(t, a.supervisor.notifier, conn); !slices.Equal(got, step.want) {
			t.Errorf("%s: systemd was told %q, want %q", step.what, got, step.want)
		}
	}
}

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
