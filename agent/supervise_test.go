package agent

import (
	"context"
	"log/slog"
	"net"
	"path/filepath"
	"slices"
	"testing"
	"testing/synctest"
	"time"

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
	synctest.Test(t, func(t *testing.T) {
		a, conn := watched(t)
		// Nothing here looks after checks again, so the monitor made progress last when it was made.
		a.update(func(p *parts) { p.monitor = health.NewMonitor(a.endpoint, nil, health.Options{}) })
		for _, step := range []struct {
			what     string
			do       func()
			after    time.Duration
			stopping bool
			want     []string
		}{
			{"the boot begins", func() { a.endpoint.Set(health.Starting, "images") }, 0, false, []string{"STATUS=starting: images", "EXTEND_TIMEOUT_USEC=30000000"}},
			{"it goes on", nil, time.Second, false, []string{"EXTEND_TIMEOUT_USEC=30000000"}},
			{"it is over", func() { a.supervisor.ready.Store(true); a.endpoint.Set(health.Ready, "ready") }, time.Second, false,
				[]string{"STATUS=ready", "WATCHDOG=1"}},
			{"nothing is new", nil, time.Second, false, []string{"WATCHDOG=1"}},
			{"nobody looks after the checks any more", nil, time.Minute, false, nil},
			{"the agent is asked to stop", func() { a.endpoint.Set(health.Draining, "spot notice") }, 0, true,
				[]string{"STATUS=draining: spot notice", "EXTEND_TIMEOUT_USEC=30000000"}},
		} {
			time.Sleep(step.after)
			if step.do != nil {
				step.do()
			}
			a.tell(step.stopping)
			if got := told(t, a.supervisor.notifier, conn); !slices.Equal(got, step.want) {
				t.Errorf("%s: systemd was told %q, want %q", step.what, got, step.want)
			}
		}
	})
}

func TestSupervise_TellsWhatIsNewAtOnceAndWhyItEnds(t *testing.T) {
	a, conn := watched(t)
	servers, stop := context.WithCancel(t.Context())
	defer stop()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		a.supervise(t.Context(), servers)
	}()
	next := func(want string) {
		t.Helper()
		for buffer := make([]byte, 4096); ; {
			n, err := conn.Read(buffer)
			if err != nil {
				t.Fatal(err)
			}
			if string(buffer[:n]) == want {
				return
			}
		}
	}
	next("STATUS=starting")
	a.endpoint.Set(health.Starting, "images") // without waiting for the next extension
	next("STATUS=starting: images")
	a.endpoint.Set(health.Failing, "boot failed: no such image")
	stop()
	next("STATUS=failing: boot failed: no such image")
	<-ended
}
