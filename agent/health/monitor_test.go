package health

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/flowviz/flowagent/agent/config"
	"github.com/flowviz/flowagent/agent/health/probe"
)

// scripted is a probe that a test writes.
type scripted func(ctx context.Context) probe.Result

func (f scripted) Probe(ctx context.Context) probe.Result { return f(ctx) }

// lever is a probe that passes until it is broken.
type lever struct{ broken atomic.Bool }

func (l *lever) Probe(context.Context) probe.Result {
	if l.broken.Load() {
		return probe.Result{Status: probe.Fail, Output: "broken"}
	}
	return probe.Result{Status: probe.Pass, Output: "fine"}
}

func with(c Check, p probe.Probe) Check { c.Probe = p; return c }

func shared(name string) Check { c := checked(name); c.Scope = config.ScopeShared; return c }

// watch runs a monitor until the test ends, in a bubble of its own.
func watch(t *testing.T, e *Endpoint, o Options, checks ...Check) *Monitor {
	t.Helper()
	m := NewMonitor(e, checks, o)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { defer close(ended); m.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-ended })
	return m
}

// pass lets so much time pass, and all that happens in it happen.
func pass(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

func TestMonitor_ANewNodeIsReadySoonAfterWhatItWaitsForIs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		database := &lever{}
		database.broken.Store(true)
		e := NewEndpoint()
		m := watch(t, e, Options{}, with(shared("database"), database))
		e.Set(Ready, "ready")
		pass(time.Second)
		if got := e.State(); got != Starting {
			t.Fatalf("got %v while the database is away, want starting", got)
		}
		if got := m.Waiting(); len(got) != 1 || !strings.Contains(got[0], "database: ") || !strings.Contains(got[0], "broken") {
			t.Errorf("Waiting: got %q", got)
		}
		database.broken.Store(false)
		came := time.Now()
		<-m.Admitted()
		if took := time.Since(came); took > eagerInterval+confirmInterval+burst {
			t.Errorf("admitted %v after the database came, want at most %v", took, eagerInterval+confirmInterval)
		}
		synctest.Wait()
		if got := e.State(); got != Ready {
			t.Errorf("got %v, want ready", got)
		}
	})
}

func TestMonitor_ADatabaseThatNeverAnswersKeepsTheNodeStarting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var probes atomic.Int64
		e := NewEndpoint()
		watch(t, e, Options{}, with(shared("database"), scripted(func(context.Context) probe.Result {
			probes.Add(1)
			return probe.Result{Output: "refused"}
		})))
		e.Set(Ready, "ready")
		pass(time.Minute)
		if got := e.Snapshot(); got.State != Starting || got.Detail != "waiting for database: refused" {
			t.Errorf("got %v %q", got.State, got.Detail)
		}
		eagerly := probes.Load()
		pass(10 * time.Minute)
		if got := e.State(); got != Starting {
			t.Errorf("after ten minutes: got %v, want starting", got)
		}
		// Twice a second for a minute, then as configured.
		if later := probes.Load() - eagerly; eagerly < 110 || eagerly > 122 || later < 100 || later > 140 {
			t.Errorf("got %d probes in the first minute and %d in ten more, want about 120 and 120", eagerly, later)
		}
	})
}

func TestMonitor_ASharedOutageWarnsAndAGateThatIsAlwaysFails(t *testing.T) {
	for _, c := range []struct {
		gate  config.Gate
		state State
		word  probe.Status
	}{{config.GateAuto, Ready, probe.Warn}, {config.GateAlways, Failing, probe.Fail}} {
		t.Run(string(c.gate), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				database := &lever{}
				check := shared("database")
				check.Gate = c.gate
				e := NewEndpoint()
				m := watch(t, e, Options{}, with(check, database))
				e.Set(Ready, "ready")
				<-m.Admitted()
				pass(10 * time.Second)

				database.broken.Store(true)
				broke := time.Now()
				for e.Snapshot().Status == probe.Pass {
					pass(100 * time.Millisecond)
				}
				got := e.Snapshot()
				if got.State != c.state || got.Status != c.word || got.Detail != "database: broken" {
					t.Errorf("during the outage: got %v %v %q, want %v %v", got.State, got.Status, got.Detail, c.state, c.word)
				}
				// The third failure comes two to three intervals after the database went.
				if took := time.Since(broke); took < 9*time.Second || took > 17*time.Second {
					t.Errorf("noticed after %v, want after 3 probes 5 s apart", took)
				}
				database.broken.Store(false)
				mended := time.Now()
				for e.Snapshot().Status != probe.Pass {
					pass(100 * time.Millisecond)
				}
				if took := time.Since(mended); took < 4*time.Second || took > 11*time.Second {
					t.Errorf("back after %v, want after 2 probes 5 s apart", took)
				}
			})
		})
	}
}

func TestMonitor_AFailureOrTwoOfANodesOwnCheckAreForgiven(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var n atomic.Int64
		e := NewEndpoint()
		m := watch(t, e, Options{}, with(checked("api"), scripted(func(context.Context) probe.Result {
			if n.Add(1)%3 == 0 { // every third fails, so never two in a row
				return probe.Result{Output: "blip"}
			}
			return probe.Result{Status: probe.Pass}
		})))
		e.Set(Ready, "ready")
		<-m.Admitted()
		for range 600 {
			pass(time.Second)
			if got := e.Snapshot(); got.State != Ready || got.Status != probe.Pass {
				t.Fatalf("got %v %v %q, want ready pass", got.State, got.Status, got.Detail)
			}
		}
	})
}

func TestMonitor_AProbeThatIgnoresItsContextIsAloneCountedAndStale(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		var hang atomic.Bool
		var running, most atomic.Int64
		e := NewEndpoint()
		m := watch(t, e, Options{}, with(checked("api"), scripted(func(context.Context) probe.Result {
			most.Store(max(most.Load(), running.Add(1)))
			defer running.Add(-1)
			if hang.Load() {
				<-release
			}
			return probe.Result{Status: probe.Pass}
		})))
		e.Set(Ready, "ready")
		<-m.Admitted()
		pass(20 * time.Second)
		hang.Store(true)
		hung := time.Now()
		for e.State() == Ready {
			pass(time.Second)
		}
		if took := time.Since(hung); took > 22*time.Second {
			t.Errorf("failing after %v, want within an interval and the 15 s of silence", took)
		}
		pass(time.Hour)
		status := m.Checks()[0]
		if status.Abandoned != 1 || status.Failed != 1 || most.Load() != 1 || running.Load() != 1 {
			t.Errorf("got %d abandoned, %d failed, %d at once; want 1 each", status.Abandoned, status.Failed, most.Load())
		}
		if got := e.Snapshot(); got.State != Failing || !strings.Contains(got.Detail, "the probe hangs") {
			t.Errorf("got %v %q, want failing", got.State, got.Detail)
		}
		hang.Store(false)
		close(release)
		pass(20 * time.Second)
		if got := e.State(); got != Ready {
			t.Errorf("after the probe came back: got %v %q, want ready", got, e.Snapshot().Detail)
		}
	})
}

func TestMonitor_AProbeIsCancelledAtItsTimeoutAndWhenTheMonitorEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		check := checked("api")
		causes := make(chan error, 10)
		starts := make(chan time.Time, 10)
		check.Probe = scripted(func(ctx context.Context) probe.Result {
			starts <- time.Now()
			<-ctx.Done()
			causes <- ctx.Err()
			return probe.Result{Output: ctx.Err().Error()}
		})
		m := NewMonitor(NewEndpoint(), []Check{check}, Options{})
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		ended := make(chan struct{})
		go func() { defer close(ended); m.Run(ctx) }()
		began := <-starts
		if err := <-causes; err != context.DeadlineExceeded {
			t.Errorf("got %v, want the deadline", err)
		}
		if took := time.Since(began); took != check.Timeout {
			t.Errorf("cancelled after %v, want %v", took, check.Timeout)
		}
		<-starts
		cancel()
		if err := <-causes; err != context.Canceled {
			t.Errorf("got %v, want to be cancelled", err)
		}
		<-ended
		before := m.Checks()[0]
		pass(time.Minute)
		if after := m.Checks()[0]; after.Failed != before.Failed || before.Failed != 1 {
			t.Errorf("failures: got %d, later %d; want 1: what a cancelled probe says is of no use", before.Failed, after.Failed)
		}
	})
}

func TestMonitor_APanicIsAFailureOfItsCheckAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := NewEndpoint()
		fine := checked("fine")
		watch(t, e, Options{}, with(checked("api"), scripted(func(context.Context) probe.Result { panic("hunter2") })), with(fine, &lever{}))
		e.Set(Ready, "ready")
		pass(10 * time.Second)
		snapshot := e.Snapshot()
		if !strings.Contains(snapshot.Detail, "api: the probe panicked") || strings.Contains(snapshot.Detail, "hunter2") {
			t.Errorf("got %q", snapshot.Detail)
		}
		if got := snapshot.Checks[1].Phase; got != "up" {
			t.Errorf("the other check: got %s, want up", got)
		}
	})
}

func TestMonitor_ARestartedAgentDoesNotTakeItsNodeOutDuringASharedOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		database, api := &lever{}, &lever{}
		database.broken.Store(true)
		called := 0
		e := NewEndpoint()
		watch(t, e, Options{Admitted: true, OnAdmitted: func() { called++ }}, with(shared("database"), database), with(checked("api"), api))
		e.Set(Ready, "ready")
		if got := e.State(); got != Starting {
			t.Errorf("before its own check answered: got %v, want starting", got)
		}
		pass(2 * time.Second)
		if got := e.State(); got != Ready {
			t.Errorf("got %v, want ready", got)
		}
		pass(20 * time.Second)
		if got := e.Snapshot(); got.State != Ready || got.Status != probe.Warn {
			t.Errorf("got %v %v, want ready with a warning", got.State, got.Status)
		}
		if called != 1 {
			t.Errorf("OnAdmitted was called %d times, want once", called)
		}
	})
}

func TestMonitor_FirstProbesAreSpreadAndAlwaysTheSame(t *testing.T) {
	firsts := func() map[string]time.Duration {
		first := map[string]time.Duration{}
		synctest.Test(t, func(t *testing.T) {
			var mu sync.Mutex
			began := time.Now()
			var checks []Check
			for i := range 1000 {
				c := shared(fmt.Sprintf("check-%d", i))
				checks = append(checks, with(c, scripted(func(context.Context) probe.Result {
					mu.Lock()
					defer mu.Unlock()
					if _, found := first[c.Name]; !found {
						first[c.Name] = time.Since(began)
					}
					return probe.Result{Status: probe.Pass}
				})))
			}
			watch(t, NewEndpoint(), Options{Admitted: true}, checks...)
			pass(6 * time.Second)
		})
		return first
	}
	first := firsts()
	var slots [50]int // of 100 ms
	for name, at := range first {
		if at >= 5*time.Second {
			t.Errorf("%s starts after %v, beyond its interval", name, at)
			continue
		}
		slots[at/(100*time.Millisecond)]++
	}
	if busiest, laziest := slices.Max(slots[:]), slices.Min(slots[:]); len(first) != 1000 || busiest > 45 || laziest < 5 {
		t.Errorf("%d checks over 5 s: between %d and %d in 100 ms, want about 20", len(first), laziest, busiest)
	}
	if again := firsts(); fmt.Sprint(again) != fmt.Sprint(first) {
		t.Error("the second run started them at other moments")
	}
}

func TestMonitor_AThousandGatesDoNotStartAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var checks []Check
		for i := range 1000 {
			checks = append(checks, with(checked(fmt.Sprintf("check-%d", i)), &lever{}))
		}
		began := time.Now()
		m := watch(t, NewEndpoint(), Options{}, checks...)
		<-m.Admitted()
		if took := time.Since(began); took < eagerInterval/2 || took > eagerInterval+confirmInterval+burst {
			t.Errorf("admitted after %v, want the eager spread and one confirmation", took)
		}
	})
}

func TestMonitor_TheRhythmJittersAroundTheInterval(t *testing.T) {
	for _, c := range []struct {
		random float64
		want   time.Duration
	}{{0, 4500 * time.Millisecond}, {0.5, 5 * time.Second}, {1, 5500 * time.Millisecond}} {
		synctest.Test(t, func(t *testing.T) {
			var mu sync.Mutex
			var starts []time.Time
			m := watch(t, NewEndpoint(), Options{Random: func() float64 { return c.random }}, with(checked("a"), scripted(func(context.Context) probe.Result {
				mu.Lock()
				starts = append(starts, time.Now())
				mu.Unlock()
				<-time.After(time.Second) // the rhythm goes from start to start
				return probe.Result{Status: probe.Pass}
			})))
			<-m.Admitted()
			pass(30 * time.Second)
			mu.Lock()
			defer mu.Unlock()
			for i := 3; i < len(starts); i++ {
				if got := starts[i].Sub(starts[i-1]); got != c.want {
					t.Errorf("random %v: got %v between two starts, want %v", c.random, got, c.want)
				}
			}
		})
	}
}

func TestMonitor_ReplacedChecksKeepWhatIsKnownAndNewOnesDoNotTakeTheNodeOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := NewEndpoint()
		kept := checked("kept")
		m := watch(t, e, Options{}, with(kept, &lever{}), with(checked("old"), &lever{}))
		e.Set(Ready, "ready")
		<-m.Admitted()
		pass(time.Minute)
		passed := m.Checks()[0].Passed

		broken := &lever{}
		broken.broken.Store(true)
		m.Replace([]Check{with(kept, &lever{}), with(checked("new"), broken)})
		if got := e.State(); got != Ready {
			t.Errorf("right after: got %v, want ready", got)
		}
		if now := m.Checks(); len(now) != 2 || now[0].Phase != "up" || now[0].Passed != passed || now[1].Phase != "pending" {
			t.Errorf("got %+v", now)
		}
		pass(20 * time.Second)
		if got := e.Snapshot(); got.State != Failing || got.Detail != "new: broken" {
			t.Errorf("got %v %q, want failing for the new check", got.State, got.Detail)
		}
		if m.Checks()[0].Passed <= passed {
			t.Error("the check that was kept is no longer asked")
		}
	})
}

func TestMonitor_IsAliveWhateverProbesDo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		m := watch(t, NewEndpoint(), Options{}, with(checked("a"), scripted(func(context.Context) probe.Result {
			<-release
			return probe.Result{}
		})))
		pass(time.Minute)
		if !m.Alive() {
			t.Error("the monitor isn't alive, and only a probe hangs")
		}
		close(release)
	})
}
