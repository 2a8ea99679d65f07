package agent

import (
	"log/slog"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"testing"
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
