package probe

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"
)

// Container passes when every container of a Compose service runs, is healthy where it has a health check, and isn't
// restarted again and again.
type Container struct {
	// Engine is what is asked; the connections that it keeps for later are its own.
	Engine ContainerEngine
	// Project and Service are Compose's names. Containers of `compose run` don't count.
	Project, Service string
	// Replicas is how many containers the service should have; 0 for 1. With fewer fit ones, but at least one, it warns.
	Replicas int
	// MaxRestarts is how often the engine may have restarted a container that is younger than [RestartWindow] again; 0
	// stands for [DefaultMaxRestarts]. With more it fails.
	MaxRestarts int
}

// ContainerEngine is the part of a Docker Engine's client that the probe needs.
type ContainerEngine interface {
	ContainerList(context.Context, client.ContainerListOptions) (client.ContainerListResult, error)
	ContainerInspect(context.Context, string, client.ContainerInspectOptions) (client.ContainerInspectResult, error)
}

var _ ContainerEngine = (*client.Client)(nil)

const (
	// RestartWindow is how long a restarted container must run before its restarts are forgiven. The engine waits at most
	// a minute before it restarts a container that keeps failing, so one in such a loop is younger.
	RestartWindow = 2 * time.Minute
	// DefaultMaxRestarts forgives a service that came up before the database it needs.
	DefaultMaxRestarts = 3
)

// Probe's value is the number of restarts by the engine, all containers together.
func (p *Container) Probe(ctx context.Context) Result {
	filters := make(client.Filters).Add("label",
		"com.docker.compose.project="+p.Project, "com.docker.compose.service="+p.Service, "com.docker.compose.oneoff=False")
	list, err := p.Engine.ContainerList(ctx, client.ContainerListOptions{All: true, Filters: filters})
	if err != nil {
		return failed("ask the engine for service %s: %v", p.Service, plain(ctx, err))
	}
	if len(list.Items) == 0 {
		return failed("service %s of project %s has no container: is one of its profiles active?", p.Service, p.Project)
	}
	var worst []string
	fit, restarts, doubtful := 0, 0, false
	for _, item := range list.Items {
		found, err := p.Engine.ContainerInspect(ctx, item.ID, client.ContainerInspectOptions{})
		if err != nil {
			worst = append(worst, fmt.Sprintf("%s can't be inspected: %v", containerName(item.Names, item.ID), plain(ctx, err)))
			continue
		}
		status, text := p.judge(found.Container, time.Now())
		restarts += found.Container.RestartCount
		if status != Fail {
			fit++
		}
		if status != Pass {
			worst = append(worst, strings.TrimPrefix(found.Container.Name, "/")+" "+text)
		}
		doubtful = doubtful || status == Warn
	}
	wanted := max(p.Replicas, 1)
	if len(worst) == 0 && fit < wanted {
		worst = append(worst, fmt.Sprintf("only %d of %d containers exist", fit, wanted))
	}
	var result Result
	switch {
	case fit == 0:
		result = failed("service %s: %s", p.Service, strings.Join(worst, "; "))
	case fit < max(wanted, len(list.Items)) || doubtful:
		result = warned("service %s: %s", p.Service, strings.Join(worst, "; "))
	case fit == 1:
		result = passed("service %s runs", p.Service)
	default:
		result = passed("service %s runs in %d containers", p.Service, fit)
	}
	return result.measured(float64(restarts), "restarts")
}

// judge says how fit one container is, and why it isn't.
func (p *Container) judge(c container.InspectResponse, now time.Time) (Status, string) {
	state := c.State
	if state == nil {
		return Fail, "has no state"
	}
	switch state.Status {
	case container.StateRunning:
	case container.StateExited, container.StateDead:
		why := ""
		if state.OOMKilled {
			why = ", out of memory"
		}
		return Fail, fmt.Sprintf("exited with code %d%s", state.ExitCode, why)
	case container.StateRestarting:
		return Fail, fmt.Sprintf("exited with code %d and is about to be restarted, after %d restarts", state.ExitCode, c.RestartCount)
	default:
		return Fail, "is " + excerpt(string(state.Status), nameLimit)
	}
	if state.Health != nil {
		switch state.Health.Status {
		case container.Healthy, container.NoHealthcheck, "":
		case container.Starting:
			return Fail, "has not passed its health check yet"
		default:
			return Fail, "is " + excerpt(string(state.Health.Status), nameLimit) // the check's output may hold anything
		}
	}
	limit := p.MaxRestarts
	if limit == 0 {
		limit = DefaultMaxRestarts
	}
	started, err := time.Parse(time.RFC3339Nano, state.StartedAt)
	if age := now.Sub(started); err == nil && c.RestartCount > 0 && age < RestartWindow {
		text := fmt.Sprintf("was restarted by the engine, %d in all, last %s ago", c.RestartCount, max(age, 0).Round(time.Second))
		if c.RestartCount > limit {
			return Fail, text
		}
		return Warn, text
	}
	return Pass, ""
}

func containerName(names []string, id string) string {
	if len(names) > 0 {
		return strings.TrimPrefix(names[0], "/")
	}
	return id[:min(len(id), 12)] // as `docker ps` shows it
}
