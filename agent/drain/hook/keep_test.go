package hook_test

import (
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/flowviz/flowagent/agent/drain/hook"
	"github.com/flowviz/flowagent/internal/awsfake"
)

func TestHeartbeatsBeginAtOnceAndComeEveryThirdOfTheTimeout(t *testing.T) {
	for name, c := range map[string]struct {
		share float64 // of the jitter
		want  []time.Duration
	}{
		"without jitter":  {0, []time.Duration{0, 100 * time.Second, 200 * time.Second, 300 * time.Second}},
		"a little before": {0.5, []time.Duration{0, 95 * time.Second, 190 * time.Second, 285 * time.Second, 380 * time.Second}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := stage(t, []awsfake.LifecycleHook{terminate}, always(c.share))
				k := s.find(t, hook.Terminating)
				s.Begin(instance, terminate.Transition)
				stop := keep(t, k, time.Time{})
				pass(399 * time.Second)
				stop()
				pass(time.Hour)
				if diff := cmp.Diff(c.want, since(s.Action(instance, terminate.Name))); diff != "" {
					t.Errorf("heartbeats (-want +got):\n%s", diff)
				}
				if a := s.Action(instance, terminate.Name); !a.TimedOut {
					t.Errorf("got %+v, want an action that timed out once the heartbeats stopped", a)
				}
			})
		})
	}
}

func TestHeartbeatsStopAtTheirLimit(t *testing.T) {
	short, long := terminate, terminate
	short.Timeout, long.Timeout = 30*time.Second, 2*time.Hour
	for name, c := range map[string]struct {
		hook       awsfake.LifecycleHook
		until      time.Duration // 0 for none
		heartbeats int
		ended      time.Duration // the action
	}{
		"the drain's budget":      {terminate, 250 * time.Second, 3, 200*time.Second + terminate.Timeout},
		"a hundred timeouts":      {short, 0, 300, 50 * time.Minute},
		"a budget longer than it": {short, 2 * time.Hour, 300, 50 * time.Minute},
		"two days":                {long, 0, 72, 48 * time.Hour},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := stage(t, []awsfake.LifecycleHook{c.hook}, always(0))
				k := s.find(t, hook.Terminating)
				s.Begin(instance, c.hook.Transition)
				until := time.Time{}
				if c.until > 0 {
					until = time.Now().Add(c.until)
				}
				keep(t, k, until)
				pass(c.ended - time.Second)
				if got := s.State(instance); got != "Terminating:Wait" {
					t.Errorf("a second before the end: got state %q", got)
				}
				pass(time.Second)
				if got := s.State(instance); got != "Terminating:Proceed" {
					t.Errorf("at the end: got state %q", got)
				}
				pass(time.Hour)
				if got := len(s.Action(instance, c.hook.Name).Heartbeats); got != c.heartbeats {
					t.Errorf("got %d heartbeats, want %d", got, c.heartbeats)
				}
				if got := s.aws.Calls(heartbeat); got != c.heartbeats {
					t.Errorf("got %d calls, want %d: none after the limit", got, c.heartbeats)
				}
			})
		})
	}
}

// faults are what may happen to any call, some times and then no more.
var faults = map[string]struct {
	fault   awsfake.Fault
	refused bool
}{
	"throttled":           {awsfake.Throttled(), false},
	"unavailable":         {awsfake.Unavailable(), false},
	"contended":           {awsfake.Refuse(http.StatusInternalServerError, "ResourceContention", "You already have a pending update"), false},
	"denied":              {awsfake.AccessDenied(), true},
	"hanging":             {awsfake.Hang(), false},
	"slow":                {awsfake.Delay(2 * time.Second), false},
	"lost replies":        {awsfake.LoseReply(), false},
	"a damaged answer":    {damaged, false},
	"a clock that is off": {signature, false},
}

func TestAFailedHeartbeatIsTriedAgainSoon(t *testing.T) {
	for name, f := range faults {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := terminate
				h.Timeout = 30 * time.Second // the least there is
				s := stage(t, []awsfake.LifecycleHook{h})
				k := s.find(t, hook.Terminating)
				s.Begin(instance, h.Transition)
				s.aws.Inject(heartbeat, 2, f.fault)
				keep(t, k, time.Time{})
				pass(5 * time.Minute)
				if got := s.State(instance); got != "Terminating:Wait" {
					t.Errorf("got state %q, want the action to live", got)
				}
				want := 1
				if name == "slow" {
					want = 0
				}
				if fails, works := s.log.count("hook heartbeat fails"), s.log.count("hook heartbeat works again"); fails != want || works != want {
					t.Errorf("got %d events of failing and %d of working again, want %d of each:\n%s", fails, works, want, s.log)
				}
				s.wantWords(t, f.refused, heartbeat)
			})
		})
	}
}

func TestRefusedHeartbeatsAreTriedSlowly(t *testing.T) {
	for name, c := range map[string]struct {
		fault       awsfake.Fault
		least, most int
	}{
		"refused":   {awsfake.AccessDenied(), 10, 15},
		"throttled": {awsfake.Throttled(), 30, 50},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := stage(t, []awsfake.LifecycleHook{terminate}, always(0.5))
				k := s.find(t, hook.Terminating)
				s.Begin(instance, terminate.Transition)
				s.aws.Inject(heartbeat, awsfake.Always, c.fault)
				keep(t, k, time.Time{})
				pass(terminate.Timeout - time.Second)
				if got := s.aws.Calls(heartbeat); got < c.least || got > c.most {
					t.Errorf("got %d calls, want %d to %d", got, c.least, c.most)
				}
				if got := s.log.count("hook heartbeat fails"); got != 1 {
					t.Errorf("got %d events of failing, want one:\n%s", got, s.log)
				}
			})
		})
	}
}

func TestHeartbeatsEndQuietlyWithTheAction(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := stage(t, []awsfake.LifecycleHook{terminate})
		k := s.find(t, hook.Terminating)
		s.Begin(instance, terminate.Transition)
		ended := make(chan struct{})
		go func() { defer close(ended); k.Keep(t.Context(), time.Time{}) }()
		pass(time.Second)
		if outcome, err := k.Complete(t.Context(), hook.Continue); outcome != hook.Completed || err != nil {
			t.Errorf("got %v, %v, want completed", outcome, err)
		}
		<-ended
		if s.log.count("heartbeat") > 0 {
			t.Errorf("got events of heartbeats, want none:\n%s", s.log)
		}
		if got := s.aws.Calls(heartbeat); got != 2 {
			t.Errorf("got %d heartbeats, want the one that hears of the end to be the last", got)
		}
	})
}

func TestHeartbeatsWaitForAnInstanceOnItsWayIntoTheWaitState(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := stage(t, []awsfake.LifecycleHook{launch})
		s.Place(instance, group, "Pending")
		k := s.find(t, hook.Launching)
		keep(t, k, time.Time{})
		pass(20 * time.Second)
		s.Begin(instance, launch.Transition)
		pass(time.Hour)
		if got := s.State(instance); got != "Pending:Wait" {
			t.Errorf("got state %q, want the action to live", got)
		}
	})
}
