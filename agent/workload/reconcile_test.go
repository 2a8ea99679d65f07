package workload

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/moby/moby/client"

	"github.com/flowviz/flowagent/agent/config"
)

const keptUp = `
services:
  web: {image: "workload-test/app:1", command: [serve], network_mode: none, restart: always}
  worker: {image: "workload-test/app:1", command: [trap], network_mode: none, restart: always}
`

// running is a project that has come up.
func running(t *testing.T, compose string, labels map[string]string) (*site, *Runner) {
	t.Helper()
	t.Parallel()
	s := newSite(t, compose)
	r := s.runner(labels)
	s.start(r)
	return s, r
}

// watch is a reconciliation that runs beside a test.
type watch struct {
	t       *testing.T
	reports chan Recovery
	asks    chan chan struct{} // each wish to change containers, which may go on once it is closed
	ended   chan error
}

// keepUp reconciles until the test ends. With asks, whoever wants to change containers waits to be let.
func keepUp(t *testing.T, r *Runner, asks bool) *watch {
	w := &watch{
		t: t, reports: make(chan Recovery, 100), // more than any test makes
		asks: make(chan chan struct{}), ended: make(chan error, 1),
	}
	lock := func(ctx context.Context) (func(), error) {
		may := make(chan struct{})
		if asks {
			select {
			case w.asks <- may:
			case <-ctx.Done():
				return nil, context.Cause(ctx)
			}
		} else {
			close(may)
		}
		select {
		case <-may:
			return func() {}, nil
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		w.ended <- r.Reconcile(ctx, Reconciliation{
			Settings: func() (config.Reconcile, config.Ready) {
				return config.Reconcile{Tries: 3, UnhealthyAfter: config.Duration(time.Millisecond)}, ready
			},
			Lock: lock, Random: func() float64 { return 0.5 },
			Report: func(r Recovery) { w.reports <- r },
		})
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-w.ended; !errors.Is(err, context.Canceled) {
			t.Errorf("got %v, want that it ended with its context", err)
		}
	})
	return w
}

// want takes the next reports, which must be these.
func (w *watch) want(service string, steps ...RecoveryStep) {
	w.t.Helper()
	for _, step := range steps {
		select {
		case got := <-w.reports:
			if got.Service != service || got.Step != step {
				w.t.Fatalf("got the report %+v, want that %s is %s", got, service, step)
			}
		case <-time.After(time.Minute): // much longer than any of this takes
			w.t.Fatalf("no report that %s is %s", service, step)
		}
	}
}

func (s *site) removeContainer(c ContainerState) {
	s.t.Helper()
	if _, err := s.engine.ContainerRemove(s.t.Context(), c.ID, client.ContainerRemoveOptions{Force: true}); err != nil {
		s.t.Fatal(err)
	}
}

func TestReconcileLooksAgainOnceItMayAct(t *testing.T) {
	s, r := running(t, keptUp, nil)
	w := keepUp(t, r, true)
	s.removeContainer(s.containerOf(r, "web"))
	may := <-w.asks
	s.start(s.runner(nil)) // somebody else brings it back meanwhile
	close(may)
	s.removeContainer(s.containerOf(r, "worker"))
	close(<-w.asks)
	w.want("worker", RecoveryBegun, RecoveryDone)
}

func TestReconcileRemembersWhatWasStoppedWhenTheEventStreamEnds(t *testing.T) {
	s, r := running(t, keptUp, nil)
	proxy, address := newCuttable(t, string(s.cfg.Engine))
	engine, err := client.New(client.WithHost(address))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = engine.Close() })
	r.engine = engine
	w := keepUp(t, r, false)
	// Stopped as the agent isn't there to see it, and seen afterwards.
	stopped := s.containerOf(r, "worker")
	proxy.cut()
	if _, err := s.engine.ContainerStop(t.Context(), stopped.ID, client.ContainerStopOptions{}); err != nil {
		t.Fatal(err)
	}
	w.want("worker", RecoveryUnwelcome)
	proxy.cut()
	s.removeContainer(s.containerOf(r, "web"))
	w.want("web", RecoveryBegun, RecoveryDone)
	if c := s.containerOf(r, "worker"); c.ID != stopped.ID || c.Status != "exited" {
		t.Errorf("got container %s, which is %s, want the one that was stopped", c.ID, c.Status)
	}
}

func TestReconcileLeavesAloneWhatWasStoppedBeforeItBegan(t *testing.T) {
	s, r := running(t, keptUp, nil)
	stopped := s.containerOf(r, "worker")
	if _, err := s.engine.ContainerStop(t.Context(), stopped.ID, client.ContainerStopOptions{}); err != nil {
		t.Fatal(err)
	}
	// As an agent is late that waited for its machine.
	if err := pause(t.Context(), 2*eventOverlap); err != nil {
		t.Fatal(err)
	}
	w := keepUp(t, r, false)
	w.want("worker", RecoveryUnwelcome)
	s.removeContainer(s.containerOf(r, "web"))
	w.want("web", RecoveryBegun, RecoveryDone)
	if c := s.containerOf(r, "worker"); c.ID != stopped.ID || c.Status != "exited" {
		t.Errorf("got container %s, which is %s, want the one that was stopped", c.ID, c.Status)
	}
}

func TestReconcileUsesTheOverrideThatTheServicesRunWith(t *testing.T) {
	s, r := running(t, keptUp, map[string]string{"web": "version-1"})
	w := keepUp(t, r, false)
	if err := os.Remove(filepath.Join(s.dir, "run", "compose.override.yaml")); err != nil {
		t.Fatal(err)
	}
	s.removeContainer(s.containerOf(r, "web"))
	w.want("web", RecoveryBegun, RecoveryDone)
	if got := s.containerOf(r, "web").ContentVersion; got != "version-1" {
		t.Errorf("got the version %q, want that of the one before", got)
	}
}

// Engine 20.10 never restarts a container again that got a signal by its API, whatever the policy and the signal.
func TestReconcileBringsBackWhatASignalOfOursEnded(t *testing.T) {
	s, r := running(t, keptUp, nil)
	s.awaitHeedful(r, "worker")
	w := keepUp(t, r, false)
	if err := r.Signal(t.Context(), []string{"worker"}, "SIGTERM"); err != nil {
		t.Fatal(err)
	}
	w.want("worker", RecoveryBegun, RecoveryDone)
}

func TestReconcileRestartsAServiceWithHooksThroughCompose(t *testing.T) {
	s, r := running(t, `
services:
  web:
    image: workload-test/app:1
    command: [serve, -unhealthy-file, /mood/bad]
    network_mode: none
    tmpfs: [/mood]
    healthcheck: {test: [CMD, /app, healthcheck, "http://127.0.0.1:8080/health"], interval: 1s, retries: 3} # one slow check is no reason to restart
    volumes: ["./data:/data"]
    pre_stop: [{command: [/app, write, /data/stopping, ran]}]
    post_start: [{command: [/app, write, /data/started, ran]}]
`, nil)
	started := filepath.Join(s.dir, "data", "started")
	if err := os.Remove(started); err != nil {
		t.Fatal(err)
	}
	w := keepUp(t, r, false)
	before := s.containerOf(r, "web")
	s.exec(before, "write", "/mood/bad", "")
	w.want("web", RecoveryBegun, RecoveryDone)
	for _, file := range []string{filepath.Join(s.dir, "data", "stopping"), started} {
		if _, err := os.Stat(file); err != nil {
			t.Errorf("a hook didn't run: %v", err)
		}
	}
	if after := s.containerOf(r, "web"); after.ID != before.ID || !after.StartedAt.After(before.StartedAt) {
		t.Errorf("got container %s started %s, want %s started after %s", after.ID, after.StartedAt, before.ID, before.StartedAt)
	}
}

func TestReconcileEndsWhenItMayNotChangeAnythingAnyMore(t *testing.T) {
	s, r := running(t, keptUp, nil)
	s.removeContainer(s.containerOf(r, "web"))
	leaving := errors.New("the node leaves")
	err := r.Reconcile(t.Context(), Reconciliation{
		Settings: func() (config.Reconcile, config.Ready) { return config.Reconcile{Tries: 1}, ready },
		Random:   func() float64 { return 0 },
		Lock:     func(context.Context) (func(), error) { return nil, leaving },
		Report:   func(got Recovery) { t.Errorf("got the report %+v, want none", got) },
	})
	if !errors.Is(err, leaving) {
		t.Errorf("got %v, want %v", err, leaving)
	}
}
