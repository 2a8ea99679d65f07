package drain

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/flowviz/flowagent/agent/config"
	"github.com/flowviz/flowagent/agent/drain/inflight"
)

// ran is one step as it was run.
type ran struct {
	name string
	at   time.Duration // since the drain began
	left time.Duration // of its own context; 0 for no limit
}

// account writes down each step that it makes.
type account struct {
	began time.Time
	steps []ran
}

// step takes so long, or until its context ends.
func (a *account) step(name string, weight int, takes time.Duration, err error) Step {
	return Step{Name: name, Weight: weight, Run: func(ctx context.Context) error {
		r := ran{name: name, at: time.Since(a.began)}
		if deadline, limited := ctx.Deadline(); limited {
			r.left = time.Until(deadline)
		}
		a.steps = append(a.steps, r)
		select {
		case <-time.After(takes):
			return err
		case <-ctx.Done():
			return errors.Join(err, context.Cause(ctx))
		}
	}}
}

func (a *account) names() []string {
	var names []string
	for _, s := range a.steps {
		names = append(names, s.name)
	}
	return names
}

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

func TestDrain_SharesWhatIsLeftByWeight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := &account{began: time.Now()}
		d := New(quiet(), Request{Reason: "test"}, 100*time.Second)
		err := d.Run(t.Context(), []Step{a.step("edge", 1, 10*time.Second, nil), a.step("requests", 1, 5*time.Second, nil), a.step("services", 2, time.Hour, nil), a.step("hooks", 1, time.Second, nil), a.step("secrets", 0, 0, nil)})
		want := []ran{
			{"edge", 0, 100 * time.Second / 5},
			{"requests", 10 * time.Second, 90 * time.Second / 4},
			{"services", 15 * time.Second, 85 * time.Second * 2 / 3}, // what the one before left is shared anew
		}
		want = append(want, ran{"hooks", want[2].at + want[2].left, 0})
		want[3].left = 100*time.Second - want[3].at
		want = append(want, ran{"secrets", want[3].at + time.Second, want[3].left - time.Second})
		for i, got := range a.steps {
			if got.name != want[i].name || (got.at-want[i].at).Abs() > time.Millisecond || (got.left-want[i].left).Abs() > time.Millisecond {
				t.Errorf("step %d: got %+v, want %+v", i, got, want[i])
			}
		}
		if len(a.steps) != len(want) {
			t.Errorf("got %d steps, want %d", len(a.steps), len(want))
		}
		if want := "services: the time for it is over"; err == nil || err.Error() != want {
			t.Errorf("got %v, want %q: the others had time enough", err, want)
		}
	})
}

func TestDrain_AFailedStepKeepsNoOtherFromRunning(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := &account{began: time.Now()}
		var log bytes.Buffer
		d := New(slog.New(slog.NewTextHandler(&log, nil)), Request{Reason: "spot notice", Trigger: "spot"}, time.Minute)
		err := d.Run(t.Context(), []Step{a.step("services", 1, 0, errors.New("worker would not stop")), a.step("secrets", 0, 0, errors.New("mount is busy"))})
		if got := a.names(); !slices.Equal(got, []string{"services", "secrets"}) {
			t.Errorf("steps: got %v, want both", got)
		}
		for _, want := range []string{"services: worker would not stop", "secrets: mount is busy"} {
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("got %v, want %q in it", err, want)
			}
		}
		status := d.Status()
		if status.Ended.IsZero() || status.Error != err.Error() || status.Trigger != "spot" || len(status.Steps) != 2 || status.Steps[0].Error != "worker would not stop" {
			t.Errorf("status: got %+v", status)
		}
		for _, event := range []string{`msg="drain started" reason="spot notice" trigger=spot budget=1m0s`, `msg="stage failed" phase=drain.services`, `msg="drain ended with failures"`} {
			if strings.Count(log.String(), event) != 1 {
				t.Errorf("want once %s in:\n%s", event, log.String())
			}
		}
	})
}

// The last step's own time ends with the budget: which of the two is first mustn't be seen.
func TestDrain_TheEndOfTheBudgetHasOneName(t *testing.T) {
	for range 100 {
		d := New(quiet(), Request{}, time.Millisecond)
		err := d.Run(t.Context(), []Step{{Name: "hooks", Weight: 1, Run: func(ctx context.Context) error {
			<-ctx.Done()
			return ctx.Err()
		}}})
		if want := "hooks: the time for it is over"; err == nil || err.Error() != want || d.Status().Error != want {
			t.Fatalf("got %v and status %+v, want %q", err, d.Status(), want)
		}
	}
}

func TestDrain_WhatMustHappenHappensAfterTheBudget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := &account{began: time.Now()}
		last := a.step("secrets", 0, time.Second, nil)
		last.Always = true
		ctx, cancel := context.WithCancel(t.Context())
		d := New(quiet(), Request{}, 10*time.Second)
		time.AfterFunc(2*time.Second, cancel) // the agent is told to stop as well
		err := d.Run(ctx, []Step{a.step("services", 1, time.Hour, nil), last})
		if want := []ran{{"services", 0, 10 * time.Second}, {"secrets", 2 * time.Second, 0}}; !slices.Equal(a.steps, want) {
			t.Errorf("got %+v, want %+v", a.steps, want)
		}
		if err == nil || strings.Contains(err.Error(), "secrets") {
			t.Errorf("got %v, want the services' error alone", err)
		}
	})
}

func TestDrain_TheEarliestDeadlineHolds(t *testing.T) {
	for _, c := range []struct {
		what   string
		wishes func(now time.Time) []Request
		want   time.Duration
	}{
		{"later ones change nothing", func(now time.Time) []Request {
			return []Request{{Until: now.Add(time.Hour)}, {Budget: config.Duration(time.Hour)}, {}}
		}, time.Minute},
		{"a spot notice", func(now time.Time) []Request { return []Request{{Until: now.Add(20 * time.Second)}} }, 20 * time.Second},
		{"an operator in a hurry", func(time.Time) []Request { return []Request{{Budget: config.Duration(10 * time.Second)}} }, 10 * time.Second},
		{"one that has passed", func(now time.Time) []Request { return []Request{{Until: now.Add(-time.Hour)}} }, 0},
		{"both", func(now time.Time) []Request {
			return []Request{{Until: now.Add(30 * time.Second), Budget: config.Duration(40 * time.Second)}}
		}, 30 * time.Second},
	} {
		synctest.Test(t, func(t *testing.T) {
			a := &account{began: time.Now()}
			d := New(quiet(), Request{}, time.Minute)
			ended := make(chan error)
			go func() { ended <- d.Run(t.Context(), []Step{a.step("services", 1, time.Hour, nil)}) }()
			synctest.Wait() // the step is under way
			for _, wish := range c.wishes(time.Now()) {
				d.Hasten(wish)
			}
			if err := <-ended; err == nil {
				t.Errorf("%s: got no error of a step that was cut", c.what)
			}
			if took := time.Since(a.began); took != c.want {
				t.Errorf("%s: the drain took %s, want %s", c.what, took, c.want)
			}
		})
	}
}

func TestDrain_BeginsWithTheTimeThatASpotInstanceHasLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := New(quiet(), Request{Until: time.Now().Add(110 * time.Second)}, 10*time.Minute)
		if got := time.Until(d.Deadline()); got != 110*time.Second {
			t.Errorf("got %s, want 1m50s", got)
		}
		if err := d.Run(t.Context(), nil); err != nil {
			t.Error(err)
		}
	})
}

func TestDrain_AStepThatNeedsLittleHasItAfterTheBudget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := &account{began: time.Now()}
		services := a.step("services", 4, time.Hour, nil)
		run := services.Run
		services.Run = func(ctx context.Context) error { // what it does when its time is up takes longer than what is left
			_ = run(ctx)
			time.Sleep(10 * time.Second)
			return nil
		}
		hooks := a.step("hooks", 1, time.Hour, nil)
		hooks.Least = 2 * time.Second
		d := New(quiet(), Request{}, 10*time.Second)
		if err := d.Run(t.Context(), []Step{services, hooks}); err == nil || !strings.Contains(err.Error(), "hooks: ") {
			t.Errorf("got %v, want that the hooks were cut off", err)
		}
		want := []ran{{"services", 0, 8 * time.Second}, {"hooks", 18 * time.Second, 2 * time.Second}}
		if !slices.Equal(a.steps, want) || time.Since(a.began) != 20*time.Second {
			t.Errorf("got %+v after %s, want %+v after 20s", a.steps, time.Since(a.began), want)
		}
	})
}

func TestDrain_IsTakenBackBeforeWhatCantBeUndone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := &account{began: time.Now()}
		d := New(quiet(), Request{Reason: "test"}, time.Minute)
		final := a.step("services", 1, time.Second, nil)
		final.Final = true
		time.AfterFunc(5*time.Second, func() {
			if err := d.TakeBack(); err != nil {
				t.Error(err)
			}
		})
		err := d.Run(t.Context(), []Step{a.step("edge", 0, time.Hour, nil), a.step("requests", 1, time.Second, nil), final})
		if err != ErrTakenBack || !slices.Equal(a.names(), []string{"edge"}) || time.Since(a.began) != 5*time.Second {
			t.Errorf("got %v after %v and %s, want it taken back in its first step", err, a.names(), time.Since(a.began))
		}
		if status := d.Status(); !status.TakenBack || status.Error != "" || status.Ended.IsZero() {
			t.Errorf("got status %+v, want it ended, taken back and without an error", status)
		}
		if err := d.TakeBack(); err != nil {
			t.Errorf("once more: got %v, want none", err)
		}
	})
}

func TestDrain_IsNotTakenBackTooLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := &account{began: time.Now()}
		d := New(quiet(), Request{Reason: "test"}, time.Minute)
		final := a.step("services", 1, 10*time.Second, nil)
		final.Final = true
		for _, when := range []struct {
			at   time.Duration
			says string
		}{{5 * time.Second, "services"}, {15 * time.Second, "services"}, {30 * time.Second, "ended"}} {
			time.AfterFunc(when.at, func() {
				if err := d.TakeBack(); !errors.Is(err, ErrTooLate) || !strings.Contains(err.Error(), when.says) {
					t.Errorf("after %s: got %v, want that it is too late for %q", when.at, err, when.says)
				}
			})
		}
		if err := d.Run(t.Context(), []Step{final, a.step("hooks", 1, 10*time.Second, nil)}); err != nil {
			t.Error(err)
		}
		if !slices.Equal(a.names(), []string{"services", "hooks"}) {
			t.Errorf("got %v, want both steps", a.names())
		}
		time.Sleep(time.Minute)
	})
}

func TestDrain_KeepsHowManyRequestsWereCountedLast(t *testing.T) {
	d := New(quiet(), Request{Reason: "test"}, time.Minute)
	if got := d.Status().Requests; got != nil {
		t.Errorf("before anybody counted: got %v, want nothing", got)
	}
	err := d.Run(t.Context(), []Step{
		{Name: "requests", Weight: 1, Run: func(context.Context) error {
			d.Requests(inflight.Counts{Services: []inflight.ServiceCount{
				{Service: "api", Tally: inflight.Tally{Busy: 2, Idle: 1}}, {Service: "web", Tally: inflight.Tally{Busy: 1}},
			}})
			if s := d.Status(); s.Waiting != "api: 2 busy, 1 idle; web: 1 busy" || *s.Requests != (inflight.Tally{Busy: 3, Idle: 1}) {
				t.Errorf("while it counts: got %q and %v", s.Waiting, s.Requests)
			}
			return nil
		}},
		{Name: "services", Weight: 1, Run: func(context.Context) error {
			if s := d.Status(); s.Waiting != "" || s.Requests.Busy != 3 {
				t.Errorf("in the next step: got %q and %v, want no wait and the last count", s.Waiting, s.Requests)
			}
			return nil
		}},
	})
	if err != nil {
		t.Fatal(err)
	}
}
