package agent

import (
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/flowviz/flowagent/agent/drain/hook"
	"github.com/flowviz/flowagent/agent/report"
)

// hooksSeen keeps how lifecycle actions go, for the status, and counts them. It implements [hook.Observer].
type hooksSeen struct {
	agent *Agent

	mu   sync.Mutex
	list []report.Hook // the last action of each
}

// transitions are the API's words and ours.
var transitions = strings.NewReplacer("autoscaling:EC2_INSTANCE_LAUNCHING", "launching", "autoscaling:EC2_INSTANCE_TERMINATING", "terminating")

func transition(k *hook.Hook) string { return transitions.Replace(string(k.Transition)) }

// Found implements [hook.Observer].
func (h *hooksSeen) Found(k *hook.Hook) {
	h.agent.metrics.HookFound(k.Name, transition(k))
	h.change(k, func(seen *report.Hook) {
		*seen = report.Hook{Name: k.Name, Group: k.Group, Transition: transition(k), Found: time.Now()}
	})
}

// Beat implements [hook.Observer].
func (h *hooksSeen) Beat(k *hook.Hook, err error) {
	h.agent.metrics.Beat(k.Name, transition(k), err == nil)
	h.change(k, func(seen *report.Hook) {
		if err == nil {
			seen.Heartbeats++
		} else {
			seen.HeartbeatsFailed++
		}
	})
}

// Completed implements [hook.Observer].
func (h *hooksSeen) Completed(k *hook.Hook, result hook.Result, outcome hook.Outcome) {
	h.agent.metrics.Completed(k.Name, transition(k), string(result), outcome.String())
	h.agent.tellCompleted(k, result, outcome)
	h.change(k, func(seen *report.Hook) {
		seen.Ended, seen.Result, seen.Outcome = time.Now(), string(result), outcome.String()
	})
}

// change finds a hook, which Found announced, or makes a place for it.
func (h *hooksSeen) change(k *hook.Hook, change func(*report.Hook)) {
	h.mu.Lock()
	defer h.mu.Unlock()
	i := slices.IndexFunc(h.list, func(seen report.Hook) bool { return seen.Name == k.Name && seen.Transition == transition(k) })
	if i < 0 {
		i = len(h.list)
		h.list = append(h.list, report.Hook{})
	}
	change(&h.list[i])
}

func (h *hooksSeen) status() []report.Hook {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.list)
}
