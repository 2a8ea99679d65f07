package hook_test

import (
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/flowviz/flowagent/agent/drain/hook"
	"github.com/flowviz/flowagent/internal/awsfake"
)

// observer writes down what it is told.
type observer struct {
	mu   sync.Mutex
	told []string
}

func (o *observer) note(format string, args ...any) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.told = append(o.told, fmt.Sprintf(format, args...))
}

func (o *observer) Found(k *hook.Hook) { o.note("found %s", k.Name) }

func (o *observer) Beat(k *hook.Hook, err error) {
	o.note("beat %s, %s", k.Name, map[bool]string{true: "taken", false: "failed"}[err == nil])
}

func (o *observer) Completed(k *hook.Hook, result hook.Result, outcome hook.Outcome) {
	o.note("completed %s with %s: %v", k.Name, result, outcome)
}

func TestAnObserverIsToldOfEachHeartbeatAndOfTheEnd(t *testing.T) {
	for name, c := range map[string]struct {
		fault string // the action that fails the first time
		want  []string
	}{
		"all goes well": {"", []string{"found terminate", "beat terminate, taken", "beat terminate, taken", "completed terminate with CONTINUE: completed"}},
		"a heartbeat fails": {heartbeat, []string{
			"found terminate", "beat terminate, failed", "beat terminate, taken", "beat terminate, taken", "completed terminate with CONTINUE: completed",
		}},
		"a completion fails": {complete, []string{"found terminate", "beat terminate, taken", "beat terminate, taken", "completed terminate with CONTINUE: completed"}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				o := &observer{}
				s := stage(t, []awsfake.LifecycleHook{terminate}, always(0), func(options *hook.Options) { options.Observer = o })
				k := s.find(t, hook.Terminating)
				s.Begin(instance, terminate.Transition)
				if c.fault != "" {
					s.aws.Inject(c.fault, 1, awsfake.Unavailable())
				}
				stop := keep(t, k, time.Time{})
				pass(terminate.Timeout / 2) // the second heartbeat is at a third
				stop()
				if _, err := k.Complete(t.Context(), hook.Continue); err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff(c.want, o.told); diff != "" {
					t.Errorf("(-want +got):\n%s", diff)
				}
			})
		})
	}
}

func TestAnObserverIsToldOfACompletionThatCameTooLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := &observer{}
		s := stage(t, []awsfake.LifecycleHook{terminate}, always(0), func(options *hook.Options) { options.Observer = o })
		k := s.find(t, hook.Terminating) // and no action waits
		if _, err := k.Complete(t.Context(), hook.Continue); err != nil {
			t.Fatal(err)
		}
		want := []string{"found terminate", "completed terminate with CONTINUE: already over"}
		if diff := cmp.Diff(want, o.told); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	})
}
