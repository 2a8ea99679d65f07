package workload

import (
	"strings"
	"testing"
	"time"
)

var noon = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

func TestJudgeContainers(t *testing.T) {
	p := mustLoad(t, `
services:
  web: {image: x, restart: always}
  job: {image: x}
  retry: {image: x, restart: "on-failure:5"}
  insist: {image: x, restart: on-failure}
  pair: {image: x, restart: always, deploy: {replicas: 2}}
  none: {image: x, restart: always, scale: 0}
  swarm: {image: x, restart: always, deploy: {restart_policy: {condition: on-failure}}}
`)
	running := func(c ContainerState) ContainerState {
		c.Status, c.StartedAt = "running", noon.Add(-time.Second)
		return c
	}
	exited := func(code int) ContainerState {
		return ContainerState{Status: "exited", ExitCode: code, StartedAt: noon.Add(-time.Second)}
	}
	type verdict struct {
		phase  Phase
		reason string
		wake   time.Duration // after noon; 0 for none
	}
	for name, test := range map[string]struct {
		service    string
		containers []ContainerState
		unsettled  bool
		want       verdict
	}{
		"no container":                      {"web", nil, false, verdict{PhaseMissing, "has 0 of 1 containers", 0}},
		"created":                           {"web", []ContainerState{{Status: "created"}}, false, verdict{PhaseStarting, "is not started yet", 0}},
		"created and refused":               {"web", []ContainerState{{Status: "created", Error: "no such file"}}, false, verdict{PhaseFailed, "could not be started: no such file", 0}},
		"created and refused before":        {"web", []ContainerState{{Status: "created", Error: "no such file"}}, true, verdict{PhaseStarting, "is not started yet", 0}},
		"running for less than stable":      {"web", []ContainerState{running(ContainerState{})}, false, verdict{PhaseStarting, "has not run for 5s yet", 4 * time.Second}},
		"running for long":                  {"web", []ContainerState{{Status: "running", StartedAt: noon.Add(-5 * time.Second)}}, false, verdict{PhaseRunning, "", 0}},
		"running after a restart":           {"web", []ContainerState{{Status: "running", Restarts: 1, StartedAt: noon.Add(-6 * time.Second)}}, false, verdict{PhaseStarting, "has not run for 10s yet", 4 * time.Second}},
		"one-shot that keeps running":       {"job", []ContainerState{{Status: "running", StartedAt: noon.Add(-5 * time.Second)}}, false, verdict{PhaseRunning, "", 0}},
		"healthy at once":                   {"web", []ContainerState{running(ContainerState{Health: "healthy"})}, false, verdict{PhaseRunning, "", 0}},
		"health starting":                   {"web", []ContainerState{running(ContainerState{Health: "starting"})}, false, verdict{PhaseStarting, "is not healthy yet", 0}},
		"unhealthy":                         {"web", []ContainerState{running(ContainerState{Health: "unhealthy"})}, false, verdict{PhaseUnhealthy, "is unhealthy", 0}},
		"paused":                            {"web", []ContainerState{{Status: "paused"}}, false, verdict{PhaseStopped, "is paused", 0}},
		"one-shot done":                     {"job", []ContainerState{exited(0)}, false, verdict{PhaseDone, "", 0}},
		"one-shot done before":              {"job", []ContainerState{{Status: "exited", StartedAt: noon.Add(-time.Hour)}}, true, verdict{PhaseStarting, "is not started yet", 0}},
		"one-shot failed":                   {"job", []ContainerState{exited(3)}, false, verdict{PhaseFailed, "ended with exit code 3", 0}},
		"one-shot failed while starting":    {"job", []ContainerState{exited(3)}, true, verdict{PhaseFailed, "ended with exit code 3", 0}},
		"one-shot failed before":            {"job", []ContainerState{{Status: "exited", ExitCode: 3, StartedAt: noon.Add(-time.Hour)}}, true, verdict{PhaseStarting, "is not started yet", 0}},
		"one-shot out of memory":            {"job", []ContainerState{{Status: "exited", ExitCode: 137, OOMKilled: true, StartedAt: noon}}, false, verdict{PhaseFailed, "ran out of memory (exit code 137)", 0}},
		"retries used up":                   {"retry", []ContainerState{exited(1)}, false, verdict{PhaseFailed, "ended with exit code 1", 0}},
		"retries within their own limit":    {"retry", []ContainerState{{Status: "restarting", ExitCode: 1, Restarts: 4, retries: 5}}, false, verdict{PhaseStarting, "ended with exit code 1 and is being restarted", 0}},
		"retries without a limit":           {"insist", []ContainerState{{Status: "restarting", ExitCode: 1, Restarts: 3}}, false, verdict{PhaseFailed, "is in a crash loop: it was restarted 3 times, the last time after it ended with exit code 1", 0}},
		"service that ended":                {"web", []ContainerState{exited(0)}, false, verdict{PhaseStopped, "ended with exit code 0 and is not restarted", 0}},
		"service being restarted":           {"web", []ContainerState{{Status: "restarting", ExitCode: 1, Restarts: 2}}, false, verdict{PhaseStarting, "ended with exit code 1 and is being restarted", 0}},
		"crash loop":                        {"web", []ContainerState{running(ContainerState{Restarts: 3})}, false, verdict{PhaseFailed, "is in a crash loop: it was restarted 3 times", 0}},
		"crash loop in spite of its health": {"web", []ContainerState{running(ContainerState{Restarts: 3, Health: "healthy"})}, false, verdict{PhaseFailed, "is in a crash loop: it was restarted 3 times", 0}},
		"restarts from before":              {"web", []ContainerState{{ID: "old", Status: "running", Restarts: 42, StartedAt: noon.Add(-time.Hour)}}, false, verdict{PhaseRunning, "", 0}},
		"one of two":                        {"pair", []ContainerState{running(ContainerState{Health: "healthy"})}, false, verdict{PhaseMissing, "has 1 of 2 containers", 0}},
		"two, one unhealthy": {"pair", []ContainerState{running(ContainerState{Name: "p-1", Number: 1, Health: "healthy"}), running(ContainerState{Name: "p-2", Number: 2, Health: "unhealthy"})},
			false, verdict{PhaseUnhealthy, "p-2 is unhealthy", 0}},
		"none wanted":         {"none", nil, false, verdict{PhaseRunning, "", 0}},
		"deploy's policy won": {"swarm", []ContainerState{exited(0)}, false, verdict{PhaseDone, "", 0}},
	} {
		t.Run(name, func(t *testing.T) {
			containers := make(map[string]ContainerState)
			for i, c := range test.containers {
				c.Service = test.service
				if c.ID == "" {
					c.ID = string(rune('a' + i))
				}
				containers[c.ID] = c
			}
			j := judge{project: p, now: noon, since: noon.Add(-time.Minute), settled: !test.unsettled, stableFor: 5 * time.Second, baseline: map[string]int{"old": 42}}
			state, wake := j.state(containers)
			var got verdict
			for _, service := range state.Services {
				if service.Name == test.service {
					got = verdict{phase: service.Phase, reason: service.Reason}
				}
			}
			if !wake.IsZero() {
				got.wake = wake.Sub(noon)
			}
			if got != test.want {
				t.Errorf("got %+v, want %+v", got, test.want)
			}
		})
	}
}

func TestJudgeListsContainersOfInactiveServicesApart(t *testing.T) {
	p := mustLoad(t, "services: {web: {image: x}}")
	state, _ := judge{project: p, now: noon, settled: true}.state(map[string]ContainerState{
		"1": {ID: "1", Name: "web-1", Service: "web", Status: "running", StartedAt: noon},
		"2": {ID: "2", Name: "old-1", Service: "old", Status: "running"},
	})
	if len(state.Left) != 1 || state.Left[0].Name != "old-1" || len(state.Services) != 1 {
		t.Errorf("got %+v, want web as the service and old-1 as left", state)
	}
}

func TestStopOrderIsTheGivenOneThenAgainstDependencies(t *testing.T) {
	p := mustLoad(t, `
services:
  web: {image: x, depends_on: [api]}
  api: {image: x, depends_on: [db, cache]}
  worker: {image: x, depends_on: [db, cache], profiles: [jobs]}
  db: {image: x}
  cache: {image: x}
  sidecar: {image: x, network_mode: "service:api"}
`)
	present := map[string][]ContainerState{"web": nil, "api": nil, "worker": nil, "db": nil, "cache": nil, "sidecar": nil, "gone": nil}
	for order, want := range map[string]string{
		"":                "gone,sidecar,web,worker > api > cache,db",
		"worker api":      "worker > api > gone,sidecar,web > cache,db",
		"db":              "db > gone,sidecar,web,worker > api > cache",
		"absent-from-map": "gone,sidecar,web,worker > api > cache,db",
	} {
		var steps []string
		for _, step := range p.stopOrder(strings.Fields(order), present) {
			steps = append(steps, strings.Join(step, ","))
		}
		if got := strings.Join(steps, " > "); got != want {
			t.Errorf("order %q: got %s, want %s", order, got, want)
		}
	}
}

func TestStopSharesABudgetThatIsTooSmallByGrace(t *testing.T) {
	step := func(graces ...time.Duration) []ContainerState {
		var s []ContainerState
		for _, grace := range graces {
			s = append(s, ContainerState{stopTimeout: grace})
		}
		return s
	}
	for name, test := range map[string]struct {
		remaining time.Duration
		steps     [][]ContainerState
		want      time.Duration
	}{
		"enough for all":   {time.Minute, [][]ContainerState{step(30 * time.Second), step(20 * time.Second)}, 30 * time.Second},
		"half of it":       {30 * time.Second, [][]ContainerState{step(40*time.Second, 5*time.Second), step(20 * time.Second)}, 20 * time.Second},
		"engine's default": {10 * time.Second, [][]ContainerState{step(0), step(0)}, 5 * time.Second},
		"nothing left":     {0, [][]ContainerState{step(time.Minute)}, 0},
		"overdrawn":        {-time.Second, [][]ContainerState{step(time.Minute)}, 0},
	} {
		if got := shareOf(test.remaining, test.steps); got != test.want {
			t.Errorf("%s: got %s, want %s", name, got, test.want)
		}
	}
	for grace, want := range map[time.Duration]int{0: 0, time.Millisecond: 1, 1500 * time.Millisecond: 1, 2 * time.Second: 2} {
		if got := seconds(grace); got != want {
			t.Errorf("seconds(%s): got %d, want %d", grace, got, want)
		}
	}
}
