package probe

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"

	"github.com/flowviz/flowagent/test/lab"
)

const appImage = "probe-test/app:1"

// stack makes containers as Compose would, on the lab's engine.
type stack struct {
	project string
	engine  *client.Client
}

func newStack(t *testing.T) *stack {
	t.Helper()
	address := lab.Engine(t)
	lab.AppImage(t, appImage)
	engine, err := client.New(client.WithHost(address))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = engine.Close() })
	return &stack{project: fmt.Sprintf("probe-%d", os.Getpid()), engine: engine}
}

// run starts one container of a service. It is removed with the test.
func (s *stack) run(t *testing.T, service string, number int, change func(*container.Config, *container.HostConfig), args ...string) string {
	t.Helper()
	config := &container.Config{Image: appImage, Cmd: args, Labels: map[string]string{
		"com.docker.compose.project": s.project, "com.docker.compose.service": service, "com.docker.compose.oneoff": "False",
	}}
	host := &container.HostConfig{NetworkMode: "none"}
	if change != nil {
		change(config, host)
	}
	name := fmt.Sprintf("%s-%s-%d", s.project, service, number)
	made, err := s.engine.ContainerCreate(t.Context(), client.ContainerCreateOptions{Name: name, Config: config, HostConfig: host})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_, err := s.engine.ContainerRemove(context.WithoutCancel(t.Context()), made.ID, client.ContainerRemoveOptions{Force: true})
		if err != nil {
			t.Errorf("remove %s: %v", name, err)
		}
	})
	if _, err := s.engine.ContainerStart(t.Context(), made.ID, client.ContainerStartOptions{}); err != nil {
		t.Fatal(err)
	}
	return made.ID
}

func (s *stack) probe(service string) *Container {
	return &Container{Engine: s.engine, Project: s.project, Service: service}
}

func TestContainer_StateDecides(t *testing.T) {
	s := newStack(t)
	web := s.run(t, "web", 1, nil, "sleep")
	expect(t, s.probe("web").Probe(t.Context()), Pass, "service web runs")
	expect(t, s.probe("other").Probe(t.Context()), Fail, "service other of project "+s.project+" has no container: is one of its profiles active?")

	two := s.probe("web")
	two.Replicas = 2
	expect(t, two.Probe(t.Context()), Warn, "service web: only 1 of 2 containers exist")
	s.run(t, "web", 2, nil, "sleep")
	expect(t, two.Probe(t.Context()), Pass, "service web runs in 2 containers")

	if _, err := s.engine.ContainerPause(t.Context(), web, client.ContainerPauseOptions{}); err != nil {
		t.Fatal(err)
	}
	expect(t, two.Probe(t.Context()), Warn, "service web: "+s.project+"-web-1 is paused")
	if _, err := s.engine.ContainerUnpause(t.Context(), web, client.ContainerUnpauseOptions{}); err != nil {
		t.Fatal(err)
	}

	s.run(t, "ended", 1, nil, "exit", "3")
	eventually(t, s.probe("ended"), Fail, "ended-1 exited with code 3")
	// One of `docker compose run` is the operator's own affair.
	s.run(t, "tool", 1, func(c *container.Config, _ *container.HostConfig) { c.Labels["com.docker.compose.oneoff"] = "True" }, "sleep")
	expect(t, s.probe("tool").Probe(t.Context()), Fail, "has no container")
}

func TestContainer_HealthDecides(t *testing.T) {
	s := newStack(t)
	check := func(test ...string) func(*container.Config, *container.HostConfig) {
		return func(c *container.Config, _ *container.HostConfig) {
			c.Healthcheck = &container.HealthConfig{Test: append([]string{"CMD", "/app"}, test...), Interval: 50 * time.Millisecond, Retries: 1}
		}
	}
	s.run(t, "sick", 1, check("exit", "1"), "sleep")
	eventually(t, s.probe("sick"), Fail, "sick-1 is unhealthy")
	s.run(t, "well", 1, check("exit", "0"), "sleep")
	eventually(t, s.probe("well"), Pass, "service well runs")
	s.run(t, "new", 1, check("sleep", "1h"), "sleep")
	expect(t, s.probe("new").Probe(t.Context()), Fail, "new-1 has not passed its health check yet")
}

func TestContainer_ALoopOfRestartsFails(t *testing.T) {
	s := newStack(t)
	s.run(t, "loop", 1, func(_ *container.Config, h *container.HostConfig) {
		h.RestartPolicy = container.RestartPolicy{Name: container.RestartPolicyAlways}
	}, "exit", "1", "-after", "1ms")
	eventually(t, s.probe("loop"), Fail, "exited with code 1 and is about to be restarted, after ")
	s.run(t, "tried", 1, func(_ *container.Config, h *container.HostConfig) {
		h.RestartPolicy = container.RestartPolicy{Name: container.RestartPolicyOnFailure, MaximumRetryCount: 2}
	}, "exit", "1")
	until(t, "second restart", func() bool {
		got := s.probe("tried").Probe(t.Context())
		if got.Value == nil || got.Unit != "restarts" {
			t.Fatalf("got %+v, want a number of restarts", got)
		}
		return *got.Value >= 2
	})
	eventually(t, s.probe("tried"), Fail, "tried-1 exited with code 1")
}

func TestContainer_RestartsAreForgivenInTime(t *testing.T) {
	now := time.Now()
	running := func(restarts int, age time.Duration) container.InspectResponse {
		return container.InspectResponse{RestartCount: restarts, State: &container.State{
			Status: container.StateRunning, StartedAt: now.Add(-age).Format(time.RFC3339Nano),
		}}
	}
	for name, test := range map[string]struct {
		container container.InspectResponse
		max       int
		status    Status
		output    string
	}{
		"none":                    {running(0, time.Second), 0, Pass, ""},
		"one, just now":           {running(1, time.Second), 0, Warn, "was restarted by the engine, 1 in all, last 1s ago"},
		"many, just now":          {running(4, 10*time.Second), 0, Fail, "4 in all, last 10s ago"},
		"many that are allowed":   {running(4, time.Second), 5, Warn, "4 in all"},
		"many, long ago":          {running(40, RestartWindow), 0, Pass, ""},
		"by a clock that is late": {running(1, -time.Hour), 0, Warn, "last 0s ago"},
		"out of memory":           {container.InspectResponse{State: &container.State{Status: container.StateExited, ExitCode: 137, OOMKilled: true}}, 0, Fail, "exited with code 137, out of memory"},
		"nothing known":           {container.InspectResponse{}, 0, Fail, "has no state"},
	} {
		t.Run(name, func(t *testing.T) {
			status, output := (&Container{MaxRestarts: test.max}).judge(test.container, now)
			if status != test.status || !strings.Contains(output, test.output) {
				t.Errorf("got %s %q, want %s with %q", status, output, test.status, test.output)
			}
		})
	}
}

func TestContainer_AnEngineThatIsAwayFails(t *testing.T) {
	engine, err := client.New(client.WithHost("unix:///nonexistent/docker.sock"))
	if err != nil {
		t.Fatal(err)
	}
	p := &Container{Engine: engine, Project: "p", Service: "web"}
	expect(t, p.Probe(t.Context()), Fail, "ask the engine for service web: ")
}
