package health

import (
	"fmt"
	"testing"

	"github.com/flowviz/flowagent/agent/config"
	"github.com/flowviz/flowagent/agent/health/probe"
)

// found is a check at one moment: its scope and gate, and what it amounts to.
func found(name string, scope config.Scope, gate config.Gate, p phase, s probe.Status) CheckStatus {
	c := Check{Scope: scope, Gate: gate}
	return CheckStatus{Name: name, Gates: c.gates(), Admits: c.admits(), phase: p, status: s, Phase: p.String(), Status: s.String(), Output: "found"}
}

func TestDecide_ScopeAndGateSayWhatACheckDoesToTheNode(t *testing.T) {
	const node, shared = config.ScopeNode, config.ScopeShared
	const auto, always, never = config.GateAuto, config.GateAlways, config.GateNever
	for _, c := range []struct {
		scope config.Scope
		gate  config.Gate
		phase phase
		// before admission; after it on a node that has served; and on one whose agent was restarted
		before, serving, restarted string
	}{
		{node, auto, pending, "starting", "ready pass", "starting"},
		{node, auto, up, "ready pass", "ready pass", "ready pass"},
		{node, auto, down, "starting", "failing", "failing"},
		{node, always, down, "starting", "failing", "failing"},
		{node, never, pending, "ready pass", "ready pass", "ready pass"},
		{node, never, down, "ready warn", "ready warn", "ready warn"},
		{shared, auto, pending, "starting", "ready pass", "ready pass"},
		{shared, auto, up, "ready pass", "ready pass", "ready pass"},
		{shared, auto, down, "starting", "ready warn", "ready warn"},
		{shared, always, pending, "starting", "ready pass", "starting"},
		{shared, always, down, "starting", "failing", "failing"},
		{shared, never, down, "ready warn", "ready warn", "ready warn"},
	} {
		status := probe.Fail
		if c.phase == up {
			status = probe.Pass
		}
		check := found("a", c.scope, c.gate, c.phase, status)
		for _, moment := range []struct {
			name             string
			admitted, served bool
			want             string
		}{{"before", false, false, c.before}, {"serving", true, true, c.serving}, {"restarted", true, false, c.restarted}} {
			v := decide(situation{own: Ready, detail: "ready", admitted: moment.admitted, served: moment.served, checks: []CheckStatus{check}})
			got := v.state.String()
			if v.state == Ready {
				got += " " + v.status.String()
			} else if v.status != probe.Fail {
				t.Errorf("%v: status %v in the state %v", c, v.status, v.state)
			}
			if got != moment.want {
				t.Errorf("%v %v %v, %s: got %s, want %s", c.scope, c.gate, c.phase, moment.name, got, moment.want)
			}
		}
	}
}

func TestDecide_TheAgentsOwnStateComesFirst(t *testing.T) {
	fine := found("a", config.ScopeNode, config.GateAuto, up, probe.Pass)
	for _, own := range []State{Starting, Failing, Draining} {
		got := decide(situation{own: own, detail: "why", admitted: true, served: true, checks: []CheckStatus{fine}})
		if want := (verdict{own, probe.Fail, "why"}); got != want {
			t.Errorf("%v with every check up: got %v, want %v", own, got, want)
		}
	}
}

func TestDecide_SaysWhatIsWrong(t *testing.T) {
	const node, shared, auto = config.ScopeNode, config.ScopeShared, config.GateAuto
	many := make([]CheckStatus, 8)
	for i := range many {
		many[i] = found(fmt.Sprintf("c%d", i), node, auto, down, probe.Fail)
	}
	for _, c := range []struct {
		admitted bool
		checks   []CheckStatus
		want     verdict
	}{
		{true, nil, verdict{Ready, probe.Pass, "up"}},
		{true, []CheckStatus{found("a", node, auto, up, probe.Warn)}, verdict{Ready, probe.Warn, "a: found"}},
		{false, []CheckStatus{found("a", node, auto, pending, probe.Fail), found("b", shared, auto, down, probe.Fail)}, verdict{Starting, probe.Fail, "waiting for a: found; b: found"}},
		{true, []CheckStatus{found("a", node, auto, down, probe.Fail), found("b", shared, auto, down, probe.Fail)}, verdict{Failing, probe.Fail, "a: found"}},
		{true, many, verdict{Failing, probe.Fail, "c0: found; c1: found; c2: found; c3: found; c4: found; and 3 more"}},
	} {
		if got := decide(situation{own: Ready, detail: "up", admitted: c.admitted, checks: c.checks}); got != c.want {
			t.Errorf("%v: got %v, want %v", c.checks, got, c.want)
		}
	}
}
