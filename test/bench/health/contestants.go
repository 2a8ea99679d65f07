package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"time"

	"github.com/flowviz/flowagent/agent/config"
	"github.com/flowviz/flowagent/agent/health"
	"github.com/flowviz/flowagent/agent/health/probe"
	"github.com/flowviz/flowagent/test/bench/command"
)

const (
	flowagent = "flowagent"
	bare      = "bare net/http"
)

var contestants = []string{bare, flowagent}

// serve is one contestant. It writes the address of its answer to out once it listens.
func serve(ctx context.Context, contestant string, out io.Writer) error {
	var server *http.Server
	switch contestant {
	case flowagent:
		endpoint, err := watched(ctx)
		if err != nil {
			return err
		}
		server = health.NewServer(endpoint, slog.New(slog.DiscardHandler))
	case bare:
		ready, err := readyMade()
		if err != nil {
			return err
		}
		server = &http.Server{Handler: ready} // without a limit on anything
	default:
		return fmt.Errorf("no contestant is called %q: %w", contestant, command.ErrUsage)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	defer context.AfterFunc(ctx, func() { _ = server.Close() })()
	if _, err := fmt.Fprintf(out, "http://%s/health\n", listener.Addr()); err != nil {
		return err
	}
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// finding is a probe that finds the same each time. What probes cost is the idle bench's to say.
type finding probe.Result

func (f finding) Probe(context.Context) probe.Result { return probe.Result(f) }

// watched is a ready node's endpoint, with ten checks of which one warns, in their default rhythm until ctx ends.
func watched(ctx context.Context) (*health.Endpoint, error) {
	gibibytes, days, seconds := 8.2, 61.0, 0.004
	var checks []health.Check
	for _, c := range []struct {
		name, kind string
		scope      config.Scope
		result     probe.Result
	}{
		{"database", "postgres", config.ScopeShared, probe.Result{Output: "db.internal:5432 accepts connections"}},
		{"queue", "redis", config.ScopeShared, probe.Result{Output: "valkey.internal:6379 answers PONG"}},
		{"api", "http", config.ScopeNode, probe.Result{Output: "http://127.0.0.1:8000/health answers 200"}},
		{"web", "http", config.ScopeNode, probe.Result{Output: "http://127.0.0.1:8080/ answers 200"}},
		{"scales", "tcp", config.ScopeShared, probe.Result{Output: "scales.internal:4001 is open"}},
		{"certificate", "tls", config.ScopeNode, probe.Result{Output: "valid for 61 more days", Value: &days, Unit: "d"}},
		{"worker", "container", config.ScopeNode, probe.Result{Output: "2 of 2 containers run"}},
		{"disk", "disk", config.ScopeNode, probe.Result{Status: probe.Warn, Output: "8.2 GiB free of 40 GiB", Value: &gibibytes, Unit: "GiB"}},
		{"backup", "file", config.ScopeNode, probe.Result{Output: "/var/backups/stamp is 3 h old"}},
		{"clock", "clock", config.ScopeNode, probe.Result{Output: "4 ms off", Value: &seconds, Unit: "s"}},
	} {
		if c.name != "disk" {
			c.result.Status = probe.Pass
		}
		checks = append(checks, health.Check{
			Name: c.name, Kind: c.kind, Probe: finding(c.result), Scope: c.scope, Gate: config.GateAuto,
			Interval: 5 * time.Second, Timeout: 3 * time.Second, Rise: 2, Fall: 3,
		})
	}
	endpoint := health.NewEndpoint()
	monitor := health.NewMonitor(endpoint, checks, health.Options{})
	go monitor.Run(ctx)
	endpoint.Set(health.Ready, "ready")
	tick := time.NewTicker(startPoll)
	defer tick.Stop()
	for endpoint.State() != health.Ready {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
	return endpoint, nil
}

// answer is one that was made before anybody asked: the least that a net/http server can do.
type answer struct {
	code   int
	header []field
	body   []byte
}

// field is a header's name and value as net/http keeps them, so that a request makes neither.
type field struct {
	name  string
	value []string
}

// ServeHTTP gives the answer to whatever is asked.
func (a *answer) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	header := w.Header()
	for _, f := range a.header {
		header[f.name] = f.value
	}
	w.WriteHeader(a.code)
	_, _ = w.Write(a.body) // a client that left is no concern of this
}

// readyMade is what flowagent answers, byte for byte, with nothing of flowagent behind it any more.
func readyMade() (*answer, error) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	endpoint, err := watched(ctx)
	if err != nil {
		return nil, err
	}
	recorder := httptest.NewRecorder()
	endpoint.ServeHTTP(recorder, httptest.NewRequest(http.MethodGet, "/health", nil))
	if recorder.Code != http.StatusOK {
		return nil, fmt.Errorf("a ready node answers %d", recorder.Code)
	}
	a := &answer{code: recorder.Code, body: slices.Clone(recorder.Body.Bytes())}
	for name, value := range recorder.Header() {
		a.header = append(a.header, field{name, value})
	}
	return a, nil
}
