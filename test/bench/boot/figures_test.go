package main

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/flowviz/flowagent/agent/report"
)

const ms = time.Millisecond

// threeRounds are results whose second round had a noisy neighbour.
func threeRounds(s scenario, agent time.Duration) *results {
	began := time.Date(2026, 11, 23, 18, 0, 0, 0, time.UTC)
	r := &results{scenario: s}
	for _, noise := range []time.Duration{1, 5, 1} {
		r.add(round{
			stepPull:   {done: noise * 800 * ms},
			stepUp:     {app: noise * 1000 * ms, done: noise * 1100 * ms},
			stepScript: {app: noise * 2000 * ms, done: noise * 2010 * ms},
			stepAgent: {app: noise * agent, done: noise * (agent + 10*ms), start: began, stages: []report.Stage{
				{Name: "node", Started: began.Add(20 * ms), Ended: began.Add(21 * ms)},
				{Name: "workload", Started: began.Add(70 * ms), Ended: began.Add(1070 * ms)},
			}},
		})
	}
	return r
}

func printed(t *testing.T, r *results) []string {
	t.Helper()
	var b strings.Builder
	if err := r.print(&b); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimRight(b.String(), "\n"), "\n")
	for i := range lines {
		lines[i] = strings.TrimRight(lines[i], " ")
	}
	return lines
}

func TestResults_ShowMediansAndRatiosTakenWithinRounds(t *testing.T) {
	got := printed(t, threeRounds(scenarios[0], 1050*ms))
	want := []string{
		"Images baked in      application answers     done",
		"  docker compose up  1.000 s (1.000–5.000)   1.100 s (1.100–5.500)",
		"  user-data.sh       2.000 s (2.000–10.000)  2.010 s (2.010–10.050)",
		"  flowagent run      1.050 s (1.050–5.250)   1.060 s (1.060–5.300)",
		"flowagent run ÷ (docker compose up): application 1.05 (1.05–1.05), its own /health 1.06 (1.06–1.06); at most 1.1: within",
		"flowagent run ÷ user-data.sh: application 0.53 (0.53–0.53), its own /health 0.53 (0.53–0.53)",
		"Stages of flowagent run (some overlap)  begins after           takes",
		"  node                                  0.020 s (0.020–0.020)  0.001 s (0.001–0.001)",
		"  workload                              0.070 s (0.070–0.070)  1.000 s (1.000–1.000)",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("table (-want +got):\n%s", diff)
	}
}

func TestResults_HoldTheAgentAgainstPullAndUpTogether(t *testing.T) {
	for _, test := range []struct {
		agent time.Duration
		want  string
	}{
		{1800 * ms, "at most 1.1: within"},
		{1970 * ms, "at most 1.1: within"}, // 1980 ms ÷ (800 ms + 1000 ms) is the bound itself
		{2000 * ms, "at most 1.1: beyond"},
	} {
		got := strings.Join(printed(t, threeRounds(scenarios[1], test.agent)), "\n")
		if !strings.Contains(got, "flowagent run ÷ (docker compose pull + docker compose up)") || !strings.Contains(got, test.want) {
			t.Errorf("agent ready after %v: got\n%s\nwant the sum of pull and up, and %q", test.agent+10*ms, got, test.want)
		}
	}
}
