package hook_test

import (
	"context"
	"maps"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/flowviz/flowagent/agent/drain/hook"
	"github.com/flowviz/flowagent/internal/awsfake"
)

// signature is how AWS refuses a signature: it quotes the request, and with it the session's token.
var signature = awsfake.Refuse(http.StatusForbidden, "SignatureDoesNotMatch",
	"The Canonical String for this request should have been 'POST\n/\n\nx-amz-security-token:"+token+"'")

// damaged is an answer of something else than AWS. The call has its effect.
func damaged(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() { _ = recover() }()
		next.ServeHTTP(&deaf{}, r)
		_, _ = w.Write([]byte("<html>" + token + " please log in"))
	})
}

// deaf drops an answer.
type deaf struct{}

func (*deaf) Header() http.Header         { return http.Header{} }
func (*deaf) WriteHeader(int)             {}
func (*deaf) Write(p []byte) (int, error) { return len(p), nil }

func TestAnActionIsCompletedExactlyOnceWhateverHappensToTheCalls(t *testing.T) {
	for name, f := range faults {
		for _, c := range []struct {
			hook   awsfake.LifecycleHook
			result hook.Result
			state  string
		}{
			{launch, hook.Continue, "Pending:Proceed"},
			{launch, hook.Abandon, "Pending:Proceed"},
			{terminate, hook.Continue, "Terminating:Proceed"},
		} {
			t.Run(name+" "+c.hook.Name+" "+string(c.result), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					s := stage(t, []awsfake.LifecycleHook{launch, terminate})
					k := s.find(t, hook.Transition(c.hook.Transition))
					s.Begin(instance, c.hook.Transition)
					s.aws.Inject(complete, 3, f.fault)
					outcome, err := k.Complete(t.Context(), c.result)
					if err != nil || outcome == hook.GaveUp {
						t.Errorf("got %v, %v, want an end", outcome, err)
					}
					want := awsfake.LifecycleAction{Began: s.Action(instance, c.hook.Name).Began, Results: []string{string(c.result)}}
					if diff := cmp.Diff(want, s.Action(instance, c.hook.Name)); diff != "" {
						t.Errorf("the action (-want +got):\n%s", diff)
					}
					if got := s.State(instance); got != c.state {
						t.Errorf("got state %q, want %q", got, c.state)
					}
					told := s.log.count("hook completed") + s.log.count("hook was over already")
					if told != 1 || s.log.count("elapsed=") != 1 {
						t.Errorf("got %d events of the end, want one:\n%s", told, s.log)
					}
					s.wantWords(t, f.refused, complete)
				})
			})
		}
	}
}

// Whatever goes wrong with heartbeats and completions in whatever order, a completion that reports success had one effect.
func TestOneEffectUnderFaultsInAnyOrder(t *testing.T) {
	names := slices.Sorted(maps.Keys(faults))
	for seed := range uint64(100) {
		synctest.Test(t, func(t *testing.T) {
			random := rand.New(rand.NewPCG(seed, 0))
			h := terminate
			h.Timeout = time.Duration(30+random.IntN(600)) * time.Second
			s := stage(t, []awsfake.LifecycleHook{h})
			k := s.find(t, hook.Terminating)
			s.Begin(instance, h.Transition)
			var story []string
			for _, action := range []string{heartbeat, complete} {
				for range random.IntN(3) {
					name := names[random.IntN(len(names))]
					story = append(story, action+" "+name)
					s.aws.Inject(action, 1, faults[name].fault)
				}
			}
			stop := keep(t, k, time.Time{})
			pass(time.Duration(random.IntN(3600)) * time.Second) // the drain
			outcome, err := k.Complete(t.Context(), hook.Continue)
			stop()
			a := s.Action(instance, h.Name)
			if err != nil || outcome == hook.GaveUp || len(a.Results) != 1 || a.TimedOut {
				t.Errorf("seed %d, %v: got %v, %v and %+v, want one completion", seed, story, outcome, err, a)
			}
		})
	}
}

func TestACompletionIsTriedAlthoughTheTimeoutSeemsToBeOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := stage(t, []awsfake.LifecycleHook{terminate})
		k := s.find(t, hook.Terminating)
		s.Begin(instance, terminate.Transition)
		s.aws.Inject(heartbeat, awsfake.Always, awsfake.LoseReply())
		s.aws.Inject(complete, 3, awsfake.Throttled())
		keep(t, k, time.Time{})
		pass(time.Hour)
		if outcome, err := k.Complete(t.Context(), hook.Continue); outcome != hook.Completed || err != nil {
			t.Errorf("got %v, %v, want completed: Auto Scaling had the heartbeats", outcome, err)
		}
	})
}

func TestAConfiguredHookThatNothingWaitsForIsDoubted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := stage(t, []awsfake.LifecycleHook{terminate})
		s.aws.Inject(describeHooks, awsfake.Always, awsfake.AccessDenied())
		found, err := s.hooks.Find(t.Context(), hook.Terminating, "terminat")
		if err != nil {
			t.Fatal(err)
		}
		s.Begin(instance, terminate.Transition)
		if outcome, err := found[0].Complete(t.Context(), hook.Continue); outcome != hook.AlreadyOver || err != nil {
			t.Errorf("got %v, %v, want it over", outcome, err)
		}
		if s.log.count("check its name") != 1 {
			t.Errorf("want a warning about the name:\n%s", s.log)
		}
	})
}

func TestCompletingTwiceHasOneEffect(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := stage(t, []awsfake.LifecycleHook{terminate})
		k := s.find(t, hook.Terminating)
		s.Begin(instance, terminate.Transition)
		for i, want := range []hook.Outcome{hook.Completed, hook.AlreadyOver} {
			if got, err := k.Complete(t.Context(), hook.Continue); got != want || err != nil {
				t.Errorf("time %d: got %v, %v, want %v", i+1, got, err, want)
			}
		}
		if got := s.Action(instance, terminate.Name).Results; len(got) != 1 {
			t.Errorf("got results %v, want one", got)
		}
	})
}

func TestACompletionOutlivesItsCaller(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := stage(t, []awsfake.LifecycleHook{terminate})
		k := s.find(t, hook.Terminating)
		s.Begin(instance, terminate.Transition)
		s.aws.Inject(complete, 2, awsfake.Unavailable())
		stopped, stop := context.WithCancel(t.Context())
		stop()
		if outcome, err := k.Complete(stopped, hook.Continue); outcome != hook.Completed || err != nil {
			t.Errorf("got %v, %v, want completed", outcome, err)
		}
	})
}

func TestACompletionGivesUpWhenTheActionHasTimedOut(t *testing.T) {
	for name, c := range map[string]struct {
		fault awsfake.Fault
		beats time.Duration // how long heartbeats go on
		ends  time.Duration
		why   string
	}{
		"without heartbeats":           {awsfake.Unavailable(), 0, 5 * time.Minute, "ServiceUnavailable"},
		"refused":                      {awsfake.AccessDenied(), 0, 5 * time.Minute, "allow autoscaling:CompleteLifecycleAction"},
		"no way there":                 {awsfake.Hang(), 0, 5 * time.Minute, "VPC endpoint"},
		"with heartbeats that went on": {awsfake.Throttled(), 250 * time.Second, 500 * time.Second, "ThrottlingException"},
		"a clock that is off":          {signature, 0, 5 * time.Minute, "SignatureDoesNotMatch"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := stage(t, []awsfake.LifecycleHook{terminate}, always(0.5), inGroup(group))
				k := s.find(t, hook.Terminating)
				s.Begin(instance, terminate.Transition)
				s.aws.Inject(complete, awsfake.Always, c.fault)
				began := time.Now()
				if c.beats > 0 {
					keep(t, k, began.Add(c.beats))
					synctest.Wait()
				}
				outcome, err := k.Complete(t.Context(), hook.Continue)
				if outcome != hook.GaveUp || err == nil {
					t.Fatalf("got %v, %v, want it to have given up", outcome, err)
				}
				// Heartbeats come a twentieth before their time here: the last one at 190 s.
				last := time.Duration(0)
				if c.beats > 0 {
					last = 190 * time.Second
				}
				if got := time.Since(began) - last; got < terminate.Timeout || got > terminate.Timeout+5*time.Second {
					t.Errorf("gave up %v after the last heartbeat, want the hook's timeout and a call more", got)
				}
				for _, want := range []string{terminate.Name, group, c.why, "CONTINUE", "complete-lifecycle-action", instance} {
					if !strings.Contains(err.Error(), want) {
						t.Errorf("got %q, want it to name %q", err, want)
					}
				}
				if strings.Contains(err.Error(), token) {
					t.Errorf("%q holds the session token", err)
				}
				// A refusal is met every 22.5 s here, other failures every 7.5 s at last.
				if got := s.aws.Calls(complete); name == "refused" && got > 15 || name == "without heartbeats" && got < 30 {
					t.Errorf("got %d calls, want few where a person has to act and many where not", got)
				}
				if s.log.count("hook given up") != 1 {
					t.Errorf("want one event of giving up:\n%s", s.log)
				}
				if a := s.Action(instance, terminate.Name); !a.TimedOut || len(a.Results) > 0 {
					t.Errorf("got %+v, want that the default decided", a)
				}
			})
		})
	}
}

func TestANodeThatIsUpBeforeItsWaitStateCompletesInIt(t *testing.T) {
	for _, c := range []struct {
		hook  awsfake.LifecycleHook
		state string
	}{{launch, "Pending"}, {launch, "Warmed:Pending"}, {terminate, "Terminating"}} {
		t.Run(c.state, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := stage(t, []awsfake.LifecycleHook{launch, terminate})
				s.Place(instance, group, c.state)
				k := s.find(t, hook.Transition(c.hook.Transition))
				go func() {
					<-time.After(40 * time.Second)
					s.Begin(instance, c.hook.Transition)
				}()
				if outcome, err := k.Complete(t.Context(), hook.Continue); outcome != hook.Completed || err != nil {
					t.Errorf("got %v, %v, want completed", outcome, err)
				}
				if got := s.Action(instance, c.hook.Name).Results; len(got) != 1 {
					t.Errorf("got results %v, want one", got)
				}
			})
		})
	}
}

func TestANodeThatNeverReachesAWaitStateStopsTrying(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := stage(t, []awsfake.LifecycleHook{launch})
		s.Place(instance, group, "Pending")
		k := s.find(t, hook.Launching)
		began := time.Now()
		outcome, err := k.Complete(t.Context(), hook.Continue)
		if outcome != hook.AlreadyOver || err != nil || time.Since(began) > 3*time.Minute {
			t.Errorf("got %v, %v after %v, want it over within minutes", outcome, err, time.Since(began))
		}
	})
}

func TestEachOfSeveralHooksIsKeptAndCompleted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		logs := terminate
		logs.Name, logs.Timeout = "terminate-logs", time.Minute
		s := stage(t, []awsfake.LifecycleHook{launch, terminate, logs})
		found, err := s.hooks.Find(t.Context(), hook.Terminating, "")
		if err != nil || len(found) != 2 {
			t.Fatalf("got hooks %v, %v, want two", found, err)
		}
		s.Begin(instance, terminate.Transition)
		for _, k := range found {
			keep(t, k, time.Time{})
		}
		pass(20 * time.Minute)
		for i, k := range found {
			if got := s.State(instance); got != "Terminating:Wait" {
				t.Errorf("after %d completions: got state %q", i, got)
			}
			if outcome, err := k.Complete(t.Context(), hook.Continue); outcome != hook.Completed || err != nil {
				t.Errorf("hook %s: got %v, %v, want completed", k.Name, outcome, err)
			}
		}
		if got := s.State(instance); got != "Terminating:Proceed" {
			t.Errorf("after both: got state %q", got)
		}
	})
}

func TestAnAbandonedLaunchStopsTheOtherHooks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		other := launch
		other.Name = "launch-inventory"
		s := stage(t, []awsfake.LifecycleHook{launch, other})
		found, err := s.hooks.Find(t.Context(), hook.Launching, "")
		if err != nil {
			t.Fatal(err)
		}
		s.Begin(instance, launch.Transition)
		var outcomes []hook.Outcome
		for _, k := range found {
			outcome, err := k.Complete(t.Context(), hook.Abandon)
			if err != nil {
				t.Error(err)
			}
			outcomes = append(outcomes, outcome)
		}
		if diff := cmp.Diff([]hook.Outcome{hook.Completed, hook.AlreadyOver}, outcomes); diff != "" {
			t.Errorf("outcomes (-want +got):\n%s", diff)
		}
	})
}
