package faults

import (
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestEveryDrainEndsOnceWhateverGoesWrong is the matrix. Without -matrix each fault meets one trigger.
func TestEveryDrainEndsOnceWhateverGoesWrong(t *testing.T) {
	for i, f := range faults {
		if f.long && !*whole {
			continue
		}
		meets := slices.DeleteFunc(slices.Clone(triggers), func(tr trigger) bool { return f.reason(tr) != "" })
		if !*whole {
			meets = meets[i%len(meets):][:1]
		}
		for _, tr := range meets {
			t.Run(f.step+"/"+f.name+"/"+tr.name, func(t *testing.T) {
				t.Parallel()
				took := runCell(t, f, tr)
				results.note(f, tr, outcome{took: took, failed: t.Failed()})
			})
		}
	}
}

// runCell makes a node, has it drain with a fault, and looks at what became of it.
func runCell(t *testing.T, f fault, tr trigger) time.Duration {
	t.Cleanup(func() { // also where it ended early
		if t.Failed() {
			results.note(f, tr, outcome{failed: true})
		}
	})
	n := newNode(t, f.settings)
	n.trigger = tr
	if f.boot == nil {
		n.door.open()
	}
	n.restart()
	if f.boot != nil {
		f.boot(n)
	}
	n.awaitReady()
	if f.ready != nil {
		f.ready(n)
	}
	began := time.Now()
	tr.pull(n)
	if f.drain != nil {
		f.drain(n)
	}
	failed := n.agent().awaitDrain()
	if tr.completes {
		eventually(t, "the group goes on", func() bool { return n.group.State(instance) == "Terminating:Proceed" })
	}
	took := time.Since(began)
	if f.fails == "" && failed != "" || !strings.Contains(failed, f.fails) {
		t.Errorf("the drain failed with %q, want %q", failed, f.fails)
	}
	n.checkEnd(f)
	return took
}

// restart starts the trigger's agent.
func (n *node) restart() {
	n.t.Helper()
	var environment []string
	if n.trigger.environment != nil {
		environment = n.trigger.environment(n)
	}
	n.start(environment, n.trigger.arguments...)
}

// checkEnd looks at a node whose drain has ended.
func (n *node) checkEnd(f fault) {
	t, tr := n.t, n.trigger
	t.Helper()
	action := n.group.Action(instance, hookName)
	switch calls := n.aws.Calls("CompleteLifecycleAction"); {
	case tr.completes && (len(action.Results) != 1 || action.Results[0] != "CONTINUE" || action.TimedOut):
		t.Errorf("completions that took effect: %q, timed out %t; want CONTINUE once, in time", action.Results, action.TimedOut)
	case tr.completes && len(action.Heartbeats) == 0:
		t.Error("got no heartbeat, want one from the first second")
	case !tr.completes && calls > 0:
		t.Errorf("got %d completions of a hook that nobody waits for, want none", calls)
	}
	if tr.leaves && !f.restarts {
		if code, failed := n.agent().wait(), f.fails != ""; (code != 0) != failed {
			t.Errorf("the agent ended with %d, want another code than 0: %t", code, failed)
		}
	} else {
		eventually(t, "/health says 503 and draining", func() bool {
			code, state, err := n.health()
			return err == nil && code == http.StatusServiceUnavailable && state == "draining"
		})
	}
	n.watched.stop()
	if !n.watched.drained.Load() {
		t.Error("/health never said 503 and draining")
	}
	if n.watched.returned.Load() {
		t.Error("/health said 200 after it had said draining")
	}
	if running := slices.Sorted(slices.Values(n.running())); !slices.Equal(running, f.left) {
		t.Errorf("after the drain %q run, want %q", running, f.left)
	}
	if left := n.secrets(); len(left) > 0 != f.secrets {
		t.Errorf("the store holds %q, want something: %t", left, f.secrets)
	}
	eventually(t, "the drain is no more noted as cut off", func() bool {
		_, err := os.Stat(n.path("run/leaving.json"))
		return errors.Is(err, fs.ErrNotExist)
	})
	if n.answered != nil {
		if err := <-n.answered; err != nil {
			t.Errorf("the request that was under way: %v", err)
		}
	}
	for _, a := range n.agents {
		for _, sign := range []string{"DATA RACE", "panic: ", "key-number-one"} {
			if strings.Contains(a.log(), sign) {
				t.Errorf("the agent printed %q", sign)
			}
		}
	}
}

// result is what a cell of the table says.
func (o outcome) text(tr trigger) string {
	switch {
	case o.failed:
		return "✘ wrong"
	case tr.completes:
		return fmt.Sprintf("✔ 1 completion %.1fs", o.took.Seconds())
	}
	return fmt.Sprintf("✔ drained %.1fs", o.took.Seconds())
}
