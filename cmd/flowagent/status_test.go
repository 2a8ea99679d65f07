package main

import (
	"bytes"
	"context"
	"log/slog"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/flowviz/flowagent/agent/control"
	"github.com/flowviz/flowagent/agent/report"
)

// readyAgent is an agent that only answers that the node is ready.
type readyAgent struct{ control.Agent }

func (readyAgent) Status(context.Context) report.Status { return report.Status{State: "ready"} }

// dropping closes the connection with this number, from one, as an agent does that ends just then.
type dropping struct {
	net.Listener
	number, accepted int
}

func (d *dropping) Accept() (net.Conn, error) {
	for {
		conn, err := d.Listener.Accept()
		d.accepted++
		if err != nil || d.accepted != d.number {
			return conn, err
		}
		_ = conn.Close()
	}
}

// dropOnce serves an agent that is ready. Each question comes on a connection of its own, and the one with this number,
// from one, gets no answer.
func dropOnce(t *testing.T, number int) *control.Client {
	t.Helper()
	path := filepath.Join(t.TempDir(), "agent.sock")
	listener, err := control.Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	server := control.NewServer(readyAgent{}, slog.New(slog.DiscardHandler))
	server.SetKeepAlivesEnabled(false)
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = server.Serve(&dropping{Listener: listener, number: number}) // always ends with ErrServerClosed here
	}()
	t.Cleanup(func() {
		_ = server.Close()
		<-done
	})
	return control.NewClient(path)
}

func TestWaitReady_WaitsForTheAgentAfterOneThatEndedWhileItWasAsked(t *testing.T) {
	status, err := waitReady(t.Context(), dropOnce(t, 1), time.Minute)
	if err != nil || status.State != "ready" {
		t.Errorf("got state %q and error %v, want ready", status.State, err)
	}
}

// lines ends a watch after its third line.
type lines struct {
	bytes.Buffer
	end context.CancelFunc
}

func (l *lines) Write(p []byte) (int, error) {
	defer func() {
		if strings.Count(l.String(), "\n") == 3 {
			l.end()
		}
	}()
	return l.Buffer.Write(p)
}

func TestWatcher_GoesOnAfterAnAgentThatEndedWhileItWasAsked(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	out := &lines{end: cancel}
	if err := newWatcher(out, dropOnce(t, 2), false).run(ctx); err != nil {
		t.Fatal(err)
	}
	if got := strings.Split(strings.TrimSpace(out.String()), "\n"); len(got) != 3 || !strings.Contains(got[0], "ready") ||
		!strings.Contains(got[1], "no agent answers") || !strings.Contains(got[2], "ready") {
		t.Errorf("got %q, want that it was ready, didn't answer, and was ready", got)
	}
}
