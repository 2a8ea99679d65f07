package workload

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/flowviz/flowagent/agent/config"
)

// NotReadyError says which services didn't become ready, why, and what they last wrote. Nothing in it is secret.
type NotReadyError struct {
	// Waited is set when the time ran out; zero when there was no point in waiting longer.
	Waited time.Duration
	// Failures, one a service.
	Failures []Failure
}

// Failure is one service that isn't ready.
type Failure struct {
	Service   string
	Container string // name of the container; empty when there is none
	Phase     Phase
	Reason    string
	// Check is the last output of the health check that fails.
	Check string
	// Log are the container's last lines.
	Log []string
}

func (e *NotReadyError) Error() string {
	var b strings.Builder
	if e.Waited > 0 {
		fmt.Fprintf(&b, "not ready after %s: ", e.Waited)
	}
	for i, f := range e.Failures {
		if i > 0 {
			b.WriteString("\n")
		}
		fmt.Fprintf(&b, "service %q %s", f.Service, f.Reason)
		if f.Check != "" {
			fmt.Fprintf(&b, "; its health check says: %s", f.Check)
		}
		if len(f.Log) > 0 {
			b.WriteString("; its last lines:")
			for _, line := range f.Log {
				b.WriteString("\n  | " + line)
			}
			b.WriteString("\n ")
		} else {
			b.WriteString(";")
		}
		b.WriteString(" " + f.next())
	}
	return b.String()
}

// next is what to do about it.
func (f Failure) next() string {
	switch {
	case f.Container == "":
		return "see why compose didn't create it: flowagent status"
	case f.Phase == PhaseUnhealthy, f.Phase == PhaseStarting:
		return fmt.Sprintf("look at `docker logs %s`; give a slow start more time in workload.ready.timeout", f.Container)
	case f.Phase == PhaseStopped:
		return fmt.Sprintf("look at `docker logs %s`; a service that may end needs restart: on-failure or none", f.Container)
	}
	return fmt.Sprintf("look at `docker logs %s`, correct the cause and start again", f.Container)
}

// WaitReady waits until every active service is ready: healthy where it has a health check, else running for
// ready.StableFor without a restart, or ended with 0 where its declared restart policy lets it end. It doesn't poll but
// follows the engine's events; progress, when not nil, is called with each state in which
// a phase or a reason changed.
//
// It fails at once when a one-shot ended with another code, a container could not be started, or one was restarted
// three times; everything else, an unhealthy service included, may still recover until ready.Timeout (0 for no limit).
// The error is then a *[NotReadyError]. An engine that goes away in between is waited for.
func (r *Runner) WaitReady(ctx context.Context, ready config.Ready, progress func(State)) error {
	return r.await(ctx, ready, progress, nil)
}

// Start is [Runner.Up] with [Runner.WaitReady] watching from the beginning, so that a failure ends it while compose still
// waits for dependencies, and health that came meanwhile isn't waited for again. ready.Timeout is for both together.
//
// Without services, one-shots that have done their work are not run again where nothing has changed and everything else runs:
// an agent that is restarted repeats no migration.
func (r *Runner) Start(ctx context.Context, ready config.Ready, progress func(State), services ...string) error {
	return r.await(ctx, ready, progress, func(ctx context.Context) error {
		if len(services) == 0 && r.nothingToDo(ctx) {
			return nil
		}
		return r.up(ctx, services)
	})
}

// errTimeout ends a wait whose time is up.
var errTimeout = errors.New("time is up")

// await judges until all are ready, while action, if any, is still under way beside it.
func (r *Runner) await(ctx context.Context, ready config.Ready, progress func(State), action func(context.Context) error) (err error) {
	begin := time.Now()
	timeout := time.Duration(ready.Timeout)
	if timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, timeout, errTimeout)
		defer cancel()
	}
	w, err := r.watch(ctx)
	if err != nil {
		return err
	}
	defer w.end()
	j := judge{project: r.project, since: begin, settled: action == nil, stableFor: time.Duration(ready.StableFor), baseline: restarts(w.containers)}

	var ended chan struct{}
	var actionErr error
	if action != nil {
		actionCtx, cancel := context.WithCancel(ctx)
		ended = make(chan struct{})
		go func() {
			defer close(ended)
			actionErr = action(actionCtx)
		}()
		// Whatever way out is taken, compose doesn't run on behind the caller's back.
		defer func() { cancel(); <-ended }()
	}
	pending := ended
	last := ""
	for {
		j.now = time.Now()
		for id, count := range restarts(w.containers) {
			// Someone started it anew, which the engine counts from 0.
			if base, known := j.baseline[id]; known && count < base {
				j.baseline[id] = count
			}
		}
		state, wake := j.state(w.containers)
		if text := state.summary(); progress != nil && text != last {
			progress(state)
			last = text
		}
		if failed := r.failures(ctx, state, func(p Phase) bool { return p == PhaseFailed }); len(failed) > 0 {
			return &NotReadyError{Failures: failed}
		}
		if j.settled && allReady(state) {
			r.cameUp.Store(new(w.seen))
			return nil
		}
		err := w.next(ctx, wake, pending)
		if errors.Is(err, errTimeout) {
			return &NotReadyError{Waited: timeout, Failures: r.failures(ctx, state, func(p Phase) bool { return !p.Ready() })}
		}
		if err != nil {
			return fmt.Errorf("wait for the services: %w", err)
		}
		select {
		case <-pending:
			pending = nil
			if actionErr != nil {
				return actionErr
			}
			// The events of what compose did last may still be on their way.
			if w.containers, err = r.containers(ctx); err != nil {
				if err := w.reopen(ctx, err); err != nil {
					continue // next sees that the context ended, too
				}
			}
			j.settled = true
		default:
		}
	}
}

func restarts(containers map[string]ContainerState) map[string]int {
	counts := make(map[string]int, len(containers))
	for id, c := range containers {
		counts[id] = c.Restarts
	}
	return counts
}

func allReady(state State) bool {
	for _, service := range state.Services {
		if !service.Phase.Ready() {
			return false
		}
	}
	return true
}

// failures describes the services in a phase, with their log.
func (r *Runner) failures(ctx context.Context, state State, in func(Phase) bool) []Failure {
	var failures []Failure
	for _, service := range state.Services {
		if !in(service.Phase) {
			continue
		}
		f := Failure{Service: service.Name, Phase: service.Phase, Reason: service.Reason}
		if f.Reason == "" {
			f.Reason = "is " + string(service.Phase)
		}
		if c, found := culprit(service); found {
			f.Container = c.Name
			f.Log = r.lastLines(ctx, c)
			if c.Health != "" && c.Health != "healthy" {
				f.Check = shorten(r.scrubber().scrub(printable(strings.ReplaceAll(strings.TrimSpace(c.healthLog), "\n", " / "))))
			}
		}
		f.Reason = r.scrubber().scrub(f.Reason)
		failures = append(failures, f)
	}
	return failures
}

// culprit is the container that the service's reason names, or its only one.
func culprit(service ServiceState) (ContainerState, bool) {
	for _, c := range service.Containers {
		if strings.HasPrefix(service.Reason, c.Name+" ") {
			return c, true
		}
	}
	if len(service.Containers) == 0 {
		return ContainerState{}, false
	}
	return service.Containers[0], true
}
