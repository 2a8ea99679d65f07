package main

import (
	"slices"
	"strings"
	"testing"
)

// The journal of a shutdown, as far as it matters.
var shutdown = []string{
	`{"MESSAGE":"container stopped service=api","FLOWAGENT_EVENT":"agent started"}`,
	`{"MESSAGE":"drain started …","FLOWAGENT_EVENT":"drain started","FLOWAGENT_TRIGGER":"shutdown"}`,
	`{"MESSAGE":null,"FLOWAGENT_EVENT":"stage done","FLOWAGENT_PHASE":"drain.requests"}`,
	`{"MESSAGE":[1,2],"FLOWAGENT_EVENT":"container stopped","FLOWAGENT_SERVICE":"worker"}`,
	`{"FLOWAGENT_EVENT":"container stopped","FLOWAGENT_SERVICE":"api"}`,
	`{"FLOWAGENT_EVENT":"container stopped","FLOWAGENT_SERVICE":"valkey"}`,
	`{"FLOWAGENT_EVENT":"container stopped","FLOWAGENT_SERVICE":"postgres"}`,
	`{"FLOWAGENT_EVENT":"stage done","FLOWAGENT_PHASE":"drain.secrets"}`,
	`{"FLOWAGENT_EVENT":"drain done","FLOWAGENT_ELAPSED":"3.2s"}`,
	`{"MESSAGE":"Stopping docker.service - Docker Application Container Engine...","UNIT":"docker.service"}`,
	`{"MESSAGE":"Stopped docker.service - Docker Application Container Engine.","UNIT":"docker.service"}`,
}

func TestAShutdownThatDrainedIsAccepted(t *testing.T) {
	detail, err := judgeShutdown(strings.NewReader(strings.Join(shutdown, "\n")))
	if err != nil || !strings.Contains(detail, "worker, api, postgres, valkey") || !strings.Contains(detail, "3.2s") {
		t.Errorf("got %q, %v; want the order and the time", detail, err)
	}
}

func TestAnyOtherShutdownIsNot(t *testing.T) {
	without := func(i int) []string { return slices.Delete(slices.Clone(shutdown), i, i+1) }
	swapped := func(i, j int) []string {
		lines := slices.Clone(shutdown)
		lines[i], lines[j] = lines[j], lines[i]
		return lines
	}
	for what, lines := range map[string][]string{
		"nothing":                            nil,
		"no drain":                           {shutdown[9]},
		"a drain that is not done":           without(8),
		"secrets that stay":                  without(7),
		"an API that is not stopped":         without(4),
		"an API that stops first":            swapped(3, 4),
		"a database that stops before":       swapped(4, 6),
		"an engine that stops first":         swapped(8, 9),
		"a drain that an operator wished":    append([]string{strings.Replace(shutdown[1], "shutdown", "operator", 1)}, shutdown[2:]...),
		"a drain that failed":                append(without(8), `{"MESSAGE":"drain ended with failures","FLOWAGENT_EVENT":"drain ended with failures"}`),
		"a line that is none of the journal": append(slices.Clone(shutdown), "{"),
	} {
		if detail, err := judgeShutdown(strings.NewReader(strings.Join(lines, "\n"))); err == nil {
			t.Errorf("%s: got %q, want an error", what, detail)
		}
	}
}
