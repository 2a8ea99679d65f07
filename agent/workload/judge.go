package workload

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/compose-spec/compose-go/v2/types"
	"github.com/moby/moby/api/types/container"
)

// crashLoop is how many restarts, while somebody waits for the service, make a crash loop. The engine's pauses between
// them grow from 100 ms, so three take about a second: a dependency that is slow to come up needs depends_on or
// retries of its own.
const crashLoop = 3

// calmAfter is how long a container must run after the engine restarted it: the time after which the engine itself
// takes it for recovered and forgets its growing pauses.
const calmAfter = 10 * time.Second

// judge decides how far each service is. It only looks at what it is given.
type judge struct {
	project *Project
	now     time.Time
	// since is when waiting began. Until compose is settled, containers that ended before it are leftovers that
	// compose is about to start or replace.
	since time.Time
	// settled: compose has ended, so every container is the current one.
	settled bool
	// stableFor is how long a container without a health check must run.
	stableFor time.Duration
	// baseline is the number of restarts of a container when waiting began; nil when nobody waits.
	baseline map[string]int
}

// state judges all services. wake is when the verdict changes by time alone; zero for never.
func (j judge) state(containers map[string]ContainerState) (state State, wake time.Time) {
	state.Project = j.project.Name()
	groups := byNumber(containers)
	active := j.project.Services()
	for _, name := range active {
		service := ServiceState{Name: name, Wanted: j.project.replicas(name), Containers: groups[name]}
		if service.Containers == nil {
			service.Containers = []ContainerState{}
		}
		stable := j.service(&service)
		if !stable.IsZero() && (wake.IsZero() || stable.Before(wake)) {
			wake = stable
		}
		state.Services = append(state.Services, service)
	}
	for name, group := range groups {
		if !slices.Contains(active, name) {
			state.Left = append(state.Left, group...)
		}
	}
	slices.SortFunc(state.Left, func(a, b ContainerState) int { return strings.Compare(a.Name, b.Name) })
	return state, wake
}

// worst first: a service is no better than its worst container.
var severity = []Phase{PhaseFailed, PhaseUnhealthy, PhaseStopped, PhaseMissing, PhaseStarting, PhaseRunning, PhaseDone}

func (j judge) service(s *ServiceState) (wake time.Time) {
	if s.Wanted == 0 {
		s.Phase = PhaseRunning
		return wake
	}
	s.Phase = PhaseDone
	for _, c := range s.Containers {
		phase, reason, stable := j.container(c)
		if slices.Index(severity, phase) < slices.Index(severity, s.Phase) {
			s.Phase, s.Reason = phase, reason
			if len(s.Containers) > 1 && reason != "" {
				s.Reason = c.Name + " " + reason
			}
		}
		if !stable.IsZero() && (wake.IsZero() || stable.Before(wake)) {
			wake = stable
		}
	}
	if len(s.Containers) < s.Wanted && slices.Index(severity, s.Phase) > slices.Index(severity, PhaseMissing) {
		s.Phase, s.Reason = PhaseMissing, fmt.Sprintf("has %d of %d containers", len(s.Containers), s.Wanted)
	}
	return wake
}

// container judges one; reason follows the service's or the container's name.
func (j judge) container(c ContainerState) (phase Phase, reason string, stableAt time.Time) {
	once := j.project.oneShot(c.Service)
	switch {
	case c.Status == string(container.StateCreated):
		if c.Error != "" && j.current(c) {
			return PhaseFailed, "could not be started: " + c.Error, stableAt
		}
		return PhaseStarting, "is not started yet", stableAt

	case c.ended():
		if !j.current(c) {
			return PhaseStarting, "is not started yet", stableAt
		}
		switch {
		case c.Error != "":
			return PhaseFailed, "could not be started: " + c.Error, stableAt
		case once && c.ExitCode == 0:
			return PhaseDone, "", stableAt
		case once:
			return PhaseFailed, exitReason(c), stableAt
		}
		// Its policy says it runs for ever, so somebody stopped it and may start it again.
		return PhaseStopped, exitReason(c) + " and is not restarted", stableAt
	}

	// A policy with a limit of its own (on-failure:10) is the operator's word for how many tries are normal.
	if restarts := c.Restarts - j.baseline[c.ID]; restarts >= crashLoop && j.baseline != nil && c.retries == 0 {
		reason = fmt.Sprintf("is in a crash loop: it was restarted %d times", restarts)
		if c.Status == string(container.StateRestarting) { // a running one has no exit code
			reason += ", the last time after it " + exitReason(c)
		}
		return PhaseFailed, reason, stableAt
	}
	switch {
	case c.Status == string(container.StateRestarting):
		return PhaseStarting, exitReason(c) + " and is being restarted", stableAt
	case c.Status == string(container.StatePaused):
		return PhaseStopped, "is paused", stableAt
	case c.Status != string(container.StateRunning):
		return PhaseStarting, "is " + c.Status, stableAt
	case c.Health == string(container.Unhealthy):
		return PhaseUnhealthy, "is unhealthy", stableAt
	case c.Health == string(container.Starting):
		return PhaseStarting, "is not healthy yet", stableAt
	case c.Health == "":
		stableFor := j.stableFor
		if c.Restarts > 0 {
			stableFor = max(stableFor, calmAfter)
		}
		if stableAt = c.StartedAt.Add(stableFor); j.now.Before(stableAt) {
			return PhaseStarting, fmt.Sprintf("has not run for %s yet", stableFor), stableAt
		}
	}
	return PhaseRunning, "", time.Time{}
}

// current tells whether what the container did last counts, or is left from before.
func (j judge) current(c ContainerState) bool {
	return j.settled || !c.StartedAt.Before(j.since) && !c.StartedAt.IsZero()
}

func exitReason(c ContainerState) string {
	if c.OOMKilled {
		return fmt.Sprintf("ran out of memory (exit code %d)", c.ExitCode)
	}
	return fmt.Sprintf("ended with exit code %d", c.ExitCode)
}

// replicas is how many containers a service should have.
func (p *Project) replicas(service string) int {
	s := p.model.Services[service]
	if s.Deploy != nil && s.Deploy.Replicas != nil {
		return *s.Deploy.Replicas
	}
	if s.Scale != nil {
		return *s.Scale
	}
	return 1
}

// oneShot tells whether a service may end, by its declared restart policy: none, or after a failure only.
func (p *Project) oneShot(service string) bool {
	s, known := p.model.Services[service]
	if !known {
		return true
	}
	policy := s.Restart
	// Compose lets deploy's policy win, and takes one without a condition for none.
	if s.Deploy != nil && s.Deploy.RestartPolicy != nil {
		policy = s.Deploy.RestartPolicy.Condition
	}
	policy, _, _ = strings.Cut(policy, ":")
	switch policy {
	case "", "no", "none", types.RestartPolicyOnFailure:
		return true
	}
	return false
}
