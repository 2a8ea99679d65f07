package hook_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/flowviz/flowagent/agent/drain/hook"
	"github.com/flowviz/flowagent/internal/awsfake"
)

// values compares hooks by what they say.
var values = cmpopts.IgnoreUnexported(hook.Hook{})

func TestHooksAreFoundByTheInstance(t *testing.T) {
	short := launch
	short.Name, short.Timeout, short.Default = "launch-inventory", 30*time.Second, "CONTINUE"
	long := launch
	long.Timeout = 2 * time.Hour
	elsewhere := launch
	elsewhere.Group = "flowviz-green"

	launching := &hook.Hook{Name: "launch", Group: group, Transition: hook.Launching, Timeout: 5 * time.Minute, Longest: 500 * time.Minute, Default: hook.Abandon, Described: true}
	inventory := &hook.Hook{Name: "launch-inventory", Group: group, Transition: hook.Launching, Timeout: 30 * time.Second, Longest: 50 * time.Minute, Default: hook.Continue, Described: true}
	twoDays := &hook.Hook{Name: "launch", Group: group, Transition: hook.Launching, Timeout: 2 * time.Hour, Longest: 48 * time.Hour, Default: hook.Abandon, Described: true}
	assumed := &hook.Hook{Name: "configured", Group: group, Transition: hook.Launching, Timeout: time.Hour, Longest: 48 * time.Hour, Default: hook.Abandon}

	type inject map[string]awsfake.Fault
	for name, c := range map[string]struct {
		hooks  []awsfake.LifecycleHook
		name   string
		change []options
		once   inject
		always inject
		want   []*hook.Hook
		none   bool   // ErrNoHook is the answer
		why    string // of another error
	}{
		"one":                             {hooks: []awsfake.LifecycleHook{terminate, launch, elsewhere}, want: []*hook.Hook{launching}},
		"several":                         {hooks: []awsfake.LifecycleHook{launch, short}, want: []*hook.Hook{launching, inventory}},
		"the configured one of several":   {hooks: []awsfake.LifecycleHook{launch, short}, name: "launch-inventory", want: []*hook.Hook{inventory}},
		"at most two days":                {hooks: []awsfake.LifecycleHook{long}, want: []*hook.Hook{twoDays}},
		"none":                            {hooks: []awsfake.LifecycleHook{terminate, elsewhere}, none: true},
		"none although one is configured": {hooks: []awsfake.LifecycleHook{terminate}, name: "launch", none: true},
		"another than configured":         {hooks: []awsfake.LifecycleHook{launch}, name: "lunch", why: `"lunch", but launch`},
		"not described": {
			hooks: []awsfake.LifecycleHook{launch}, name: "configured",
			always: inject{describeHooks: awsfake.AccessDenied()}, want: []*hook.Hook{assumed},
		},
		"not described nor configured": {
			hooks:  []awsfake.LifecycleHook{launch},
			always: inject{describeHooks: awsfake.AccessDenied()}, why: "allow autoscaling:DescribeLifecycleHooks",
		},
		"group not told": {
			hooks: []awsfake.LifecycleHook{launch}, name: "launch",
			always: inject{describeInstances: awsfake.AccessDenied()}, why: "allow autoscaling:DescribeAutoScalingInstances",
		},
		"group known without asking": {
			hooks: []awsfake.LifecycleHook{launch}, change: []options{inGroup(group)},
			always: inject{describeInstances: awsfake.AccessDenied()}, want: []*hook.Hook{launching},
		},
		"after a failure": {
			hooks: []awsfake.LifecycleHook{launch},
			once:  inject{describeInstances: awsfake.Throttled(), describeHooks: awsfake.LoseReply()}, want: []*hook.Hook{launching},
		},
		"not at all": {
			hooks: []awsfake.LifecycleHook{launch}, name: "launch",
			always: inject{describeHooks: awsfake.Unavailable()}, why: "ServiceUnavailable",
		},
		"no way there": {always: inject{describeInstances: awsfake.Hang()}, why: "VPC endpoint"},
		"a clock that is off": {
			hooks:  []awsfake.LifecycleHook{launch},
			always: inject{describeHooks: signature}, why: "SignatureDoesNotMatch",
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := stage(t, c.hooks, append(c.change, always(0.5))...)
				for action, fault := range c.once {
					s.aws.Inject(action, 1, fault)
				}
				for action, fault := range c.always {
					s.aws.Inject(action, awsfake.Always, fault)
				}
				began := time.Now()
				got, err := s.hooks.Find(t.Context(), hook.Launching, c.name)
				if diff := cmp.Diff(c.want, got, values); diff != "" {
					t.Errorf("hooks (-want +got):\n%s", diff)
				}
				if errors.Is(err, hook.ErrNoHook) != c.none {
					t.Errorf("got %v, want ErrNoHook: %v", err, c.none)
				}
				if c.why != "" && (err == nil || !strings.Contains(err.Error(), c.why)) {
					t.Errorf("got %v, want it to say %q", err, c.why)
				}
				if err != nil && strings.Contains(err.Error(), token) {
					t.Errorf("%q holds the session token", err)
				}
				if took := time.Since(began); took > 15*time.Second {
					t.Errorf("took %v, want half of the shortest hook at most", took)
				}
				if found := s.log.count("hook found"); found != len(c.want) {
					t.Errorf("got %d events of hooks found, want %d:\n%s", found, len(c.want), s.log)
				}
			})
		})
	}
}

func TestAnInstanceOutsideOfGroupsHasNoHook(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := stage(t, []awsfake.LifecycleHook{launch})
		alone := hook.New(hook.Options{
			API: hook.NewClient(config("http://aws.test", client(s.aws))), Instance: "i-00000000000000000",
		})
		if got, err := alone.Find(t.Context(), hook.Launching, "launch"); !errors.Is(err, hook.ErrNoHook) {
			t.Errorf("got %v, %v, want ErrNoHook", got, err)
		}
	})
}

func TestThatHooksAreNotDescribedIsSaidOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := stage(t, []awsfake.LifecycleHook{launch, terminate})
		s.aws.Inject(describeHooks, awsfake.Always, awsfake.AccessDenied())
		for transition, name := range map[hook.Transition]string{hook.Launching: "launch", hook.Terminating: "terminate"} {
			if _, err := s.hooks.Find(t.Context(), transition, name); err != nil {
				t.Error(err)
			}
		}
		if got := s.log.count("level=WARN"); got != 1 || s.log.count("allow autoscaling:DescribeLifecycleHooks") != 1 {
			t.Errorf("got %d warnings, want one that says what to allow:\n%s", got, s.log)
		}
	})
}

func TestAHookThatIsNotDescribedIsKeptAndCompleted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := stage(t, []awsfake.LifecycleHook{terminate})
		s.aws.Inject(describeHooks, awsfake.Always, awsfake.AccessDenied())
		found, err := s.hooks.Find(t.Context(), hook.Terminating, terminate.Name)
		if err != nil {
			t.Fatal(err)
		}
		s.Begin(instance, terminate.Transition)
		keep(t, found[0], time.Time{})
		pass(time.Hour)
		if got := s.State(instance); got != "Terminating:Wait" {
			t.Errorf("got state %q, want the action to live although its timeout is far below the default", got)
		}
		if outcome, err := found[0].Complete(t.Context(), hook.Continue); outcome != hook.Completed || err != nil {
			t.Errorf("got %v, %v, want completed", outcome, err)
		}
	})
}

func TestLookingForHooksEndsWithItsCaller(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := stage(t, []awsfake.LifecycleHook{launch})
		s.aws.Inject(describeHooks, awsfake.Always, awsfake.Unavailable())
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		began := time.Now()
		if _, err := s.hooks.Find(ctx, hook.Launching, ""); err == nil || time.Since(began) > 3*time.Second {
			t.Errorf("got %v after %v, want an error in time", err, time.Since(began))
		}
	})
}

func TestATransitionIsToldFromTheInstancesState(t *testing.T) {
	for state, want := range map[string]hook.Transition{
		"Pending": hook.Launching, "Pending:Wait": hook.Launching, "Pending:Proceed": hook.Launching,
		"Warmed:Pending": hook.Launching, "Warmed:Pending:Wait": hook.Launching,
		"Terminating": hook.Terminating, "Terminating:Wait": hook.Terminating, "Warmed:Terminating:Wait": hook.Terminating,
		"InService": "", "Standby": "", "EnteringStandby": "", "Warmed:Stopped": "", "Warmed:Running": "",
	} {
		t.Run(state, func(t *testing.T) {
			s := stage(t, nil)
			s.Place(instance, group, state)
			for _, transition := range []hook.Transition{hook.Launching, hook.Terminating} {
				if got, err := s.hooks.Underway(t.Context(), transition); got != (transition == want) || err != nil {
					t.Errorf("%s: got %t, %v", transition, got, err)
				}
			}
		})
	}
	synctest.Test(t, func(t *testing.T) {
		s := stage(t, nil)
		s.aws.Inject(describeInstances, awsfake.Always, awsfake.AccessDenied())
		if got, err := s.hooks.Underway(t.Context(), hook.Launching); got || err == nil || !strings.Contains(err.Error(), "allow autoscaling:DescribeAutoScalingInstances") {
			t.Errorf("got %t, %v, want what to allow", got, err)
		}
	})
}
