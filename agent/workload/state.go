package workload

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"
)

// Labels that compose puts on every container it makes.
const (
	labelProject = "com.docker.compose.project"
	labelService = "com.docker.compose.service"
	labelNumber  = "com.docker.compose.container-number"
	labelOneOff  = "com.docker.compose.oneoff" // True on those of `compose run`
	labelHash    = "com.docker.compose.config-hash"
)

// State is a project as the engine sees it at one moment.
type State struct {
	Project string `json:"project"`
	// Services are the active ones, sorted by name.
	Services []ServiceState `json:"services"`
	// Left are containers of the project whose service is no longer active.
	Left []ContainerState `json:"left,omitempty"`
}

// ServiceState is one active service.
type ServiceState struct {
	Name string `json:"name"`
	// Phase tells how far it is on its way to being ready.
	Phase Phase `json:"phase"`
	// Reason explains a phase other than running and done, in a few words. It holds no log line.
	Reason string `json:"reason,omitempty"`
	// Wanted is the number of containers it should have.
	Wanted int `json:"wanted"`
	// Containers by number.
	Containers []ContainerState `json:"containers"`
}

// Phase is how far a service is on its way to being ready.
type Phase string

const (
	PhaseMissing   Phase = "missing"   // not all of its containers exist
	PhaseStarting  Phase = "starting"  // not yet healthy, or not yet stable
	PhaseRunning   Phase = "running"   // ready
	PhaseDone      Phase = "done"      // ready: a one-shot that ended with 0
	PhaseUnhealthy Phase = "unhealthy" // its health check fails; it may recover
	PhaseStopped   Phase = "stopped"   // it ended and nobody restarts it
	PhaseFailed    Phase = "failed"    // it won't become ready by itself
)

// Ready tells whether the service is as it should be.
func (p Phase) Ready() bool { return p == PhaseRunning || p == PhaseDone }

// ContainerState is one container.
type ContainerState struct {
	ID      string `json:"id"`
	Name    string `json:"name"`
	Service string `json:"service"`
	Number  int    `json:"number"`
	// Image is the reference it was made with, ImageID what that was at the time.
	Image   string `json:"image"`
	ImageID string `json:"imageId"`
	// Status is the engine's: created, running, paused, restarting, removing, exited or dead.
	Status string `json:"status"`
	// Health is starting, healthy or unhealthy; empty without a health check.
	Health string `json:"health,omitempty"`
	// ExitCode counts once it ended.
	ExitCode int `json:"exitCode"`
	// Restarts by the engine since it was last started by someone.
	Restarts  int  `json:"restarts"`
	OOMKilled bool `json:"oomKilled,omitempty"`
	// Error is the engine's when it could not start it.
	Error string `json:"error,omitempty"`
	// ContentVersion is the value of LabelContentVersion.
	ContentVersion string    `json:"contentVersion,omitempty"`
	CreatedAt      time.Time `json:"createdAt"`
	// StartedAt and FinishedAt are zero when that never happened.
	StartedAt  time.Time `json:"startedAt,omitzero"`
	FinishedAt time.Time `json:"finishedAt,omitzero"`

	retries     int           // how often its policy lets it be restarted after a failure; 0 for no limit
	healthLog   string        // the last health check's output
	stopTimeout time.Duration // its own grace; 0 for the engine's default
	stopSignal  string
	tty         bool
	configHash  string // compose's, of what the container was made of
}

// State asks the engine. A service whose containers run counts as running once they have run without a restart
// since they were started, without waiting for it to be stable.
func (r *Runner) State(ctx context.Context) (State, error) {
	containers, err := r.containers(ctx)
	if err != nil {
		return State{}, err
	}
	j := judge{project: r.project, now: time.Now(), settled: true}
	state, _ := j.state(containers)
	return state, nil
}

// projectFilter selects the project's containers. Those of `compose run` are the operator's own affair.
func (r *Runner) projectFilter() client.Filters {
	return make(client.Filters).Add("label", labelProject+"="+r.project.Name(), labelOneOff+"=False")
}

// containers lists and inspects the project's containers, those that ended included.
func (r *Runner) containers(ctx context.Context) (map[string]ContainerState, error) {
	list, err := r.engine.ContainerList(ctx, client.ContainerListOptions{All: true, Filters: r.projectFilter()})
	if err != nil {
		return nil, r.engineError("list the project's containers", err)
	}
	containers := make(map[string]ContainerState, len(list.Items))
	for _, item := range list.Items {
		c, found, err := r.inspect(ctx, item.ID)
		if err != nil {
			return nil, err
		}
		if found {
			containers[c.ID] = c
		}
	}
	return containers, nil
}

// inspect says found = false for a container that is gone.
func (r *Runner) inspect(ctx context.Context, id string) (c ContainerState, found bool, err error) {
	result, err := r.engine.ContainerInspect(ctx, id, client.ContainerInspectOptions{})
	if errdefs.IsNotFound(err) {
		return c, false, nil
	}
	if err != nil {
		return c, false, r.engineError("inspect container "+shortID(id), err)
	}
	return containerState(result.Container), true, nil
}

func containerState(in container.InspectResponse) ContainerState {
	c := ContainerState{
		ID: in.ID, Name: strings.TrimPrefix(in.Name, "/"), ImageID: in.Image,
		Restarts: in.RestartCount, CreatedAt: engineTime(in.Created),
	}
	if in.Config != nil {
		c.Service = in.Config.Labels[labelService]
		c.Number, _ = strconv.Atoi(in.Config.Labels[labelNumber]) // compose's own label; 0 sorts first
		c.Image = in.Config.Image
		c.ContentVersion = in.Config.Labels[LabelContentVersion]
		c.stopSignal = in.Config.StopSignal
		c.configHash = in.Config.Labels[labelHash]
		c.tty = in.Config.Tty
		if in.Config.StopTimeout != nil {
			c.stopTimeout = time.Duration(*in.Config.StopTimeout) * time.Second
		}
	}
	if in.HostConfig != nil {
		c.retries = in.HostConfig.RestartPolicy.MaximumRetryCount
	}
	if s := in.State; s != nil {
		c.Status, c.ExitCode, c.OOMKilled, c.Error = string(s.Status), s.ExitCode, s.OOMKilled, s.Error
		c.StartedAt, c.FinishedAt = engineTime(s.StartedAt), engineTime(s.FinishedAt)
		if s.Health != nil && s.Health.Status != container.NoHealthcheck {
			c.Health = string(s.Health.Status)
			if n := len(s.Health.Log); n > 0 && s.Health.Log[n-1] != nil {
				c.healthLog = s.Health.Log[n-1].Output
			}
		}
	}
	return c
}

// engineTime is zero for "never", which the engine writes as year 1.
func engineTime(s string) time.Time {
	t, err := time.Parse(time.RFC3339Nano, s)
	if err != nil || t.Year() <= 1 {
		return time.Time{}
	}
	return t
}

func shortID(id string) string { return id[:min(12, len(id))] }

func (c ContainerState) running() bool {
	return c.Status == string(container.StateRunning) || c.Status == string(container.StatePaused) || c.Status == string(container.StateRestarting)
}

// ended tells that it ran and nobody restarts it.
func (c ContainerState) ended() bool {
	return c.Status == string(container.StateExited) || c.Status == string(container.StateDead)
}

// byNumber groups containers by service, in order.
func byNumber(containers map[string]ContainerState) map[string][]ContainerState {
	groups := make(map[string][]ContainerState)
	for _, c := range slices.SortedFunc(maps.Values(containers), func(a, b ContainerState) int {
		if a.Number != b.Number {
			return a.Number - b.Number
		}
		return strings.Compare(a.Name, b.Name)
	}) {
		groups[c.Service] = append(groups[c.Service], c)
	}
	return groups
}

// String is one word a service, for a log.
func (s State) String() string {
	words := make([]string, len(s.Services))
	for i, service := range s.Services {
		words[i] = fmt.Sprintf("%s=%s", service.Name, service.Phase)
	}
	return strings.Join(words, " ")
}

// summary is what a change of which is progress.
func (s State) summary() string {
	var b strings.Builder
	for _, service := range s.Services {
		fmt.Fprintf(&b, "%s %s %s\n", service.Name, service.Phase, service.Reason)
	}
	return b.String()
}
