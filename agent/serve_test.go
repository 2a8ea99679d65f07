package agent

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/flowviz/flowagent/agent/workload"
)

func TestUnfinished_AreThoseThatDontRunWithTheirContentVersion(t *testing.T) {
	service := func(name string, phase workload.Phase, status, version string) workload.ServiceState {
		return workload.ServiceState{Name: name, Phase: phase, Wanted: 1, Containers: []workload.ContainerState{{Status: status, ContentVersion: version}}}
	}
	state := workload.State{Services: []workload.ServiceState{
		service("old", workload.PhaseRunning, "running", "1"),
		service("new", workload.PhaseUnhealthy, "running", "2"), // may recover by itself
		service("created", workload.PhaseStarting, "created", "2"),
		service("migrate", workload.PhaseDone, "exited", "2"),
		service("other", workload.PhaseRunning, "running", "1"), // nobody's recreation failed
		{Name: "gone", Phase: workload.PhaseMissing, Wanted: 1},
	}}
	labels := map[string]string{}
	for _, s := range state.Services {
		labels[s.Name] = "2"
	}
	got := unfinished([]string{"old", "new", "created", "migrate", "gone"}, state, labels)
	if diff := cmp.Diff([]string{"old", "created", "gone"}, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
