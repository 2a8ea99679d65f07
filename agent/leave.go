package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/moby/moby/client"

	"github.com/flowviz/flowagent/agent/config"
	"github.com/flowviz/flowagent/agent/drain"
	"github.com/flowviz/flowagent/agent/drain/inflight"
	"github.com/flowviz/flowagent/agent/drain/notice"
	"github.com/flowviz/flowagent/agent/health"
	"github.com/flowviz/flowagent/agent/health/probe"
	"github.com/flowviz/flowagent/agent/report"
	"github.com/flowviz/flowagent/agent/secret"
	"github.com/flowviz/flowagent/internal/atomicfile"
)

// operator is the trigger of a drain that a person asks for.
const operator = "operator"

// Drain implements [control.Agent].
func (a *Agent) Drain(ctx context.Context, request drain.Request) error {
	if !a.isUp() {
		return errBooting
	}
	if request.Trigger == "" {
		request.Trigger = operator
	}
	return a.drainNode(context.WithoutCancel(ctx), request)
}

// revocable says that a drain for this trigger is somebody's wish, and not what happens to the machine in any case.
func revocable(trigger string) bool {
	return trigger == operator || trigger == string(notice.Rebalance)
}

// drainNode lets the node go of its work, and returns when it has. A wish that comes while another drain is under way joins
// it, with the earlier of both deadlines, and shares its end; a node that is drained stays so. One whose drain failed is
// drained again. The error is [drain.ErrTakenBack] where somebody took the drain back.
func (a *Agent) drainNode(ctx context.Context, request drain.Request) error {
	a.mu.Lock()
	a.announceLeaving(request)
	if a.draining == nil || over(a.draining.Status()) {
		a.draining = a.newDrain(request)
	} else {
		a.draining.Hasten(request) // which does nothing to one that has ended
	}
	a.mu.Unlock()

	a.changing.Lock()
	defer a.changing.Unlock()
	a.mu.Lock()
	d := a.draining
	status := d.Status()
	switch joined := !status.Ended.IsZero(); {
	case joined && status.TakenBack && !revocable(request.Trigger):
		d = a.newDrain(request)
		a.draining = d
	case joined:
		a.mu.Unlock()
		switch {
		case status.TakenBack:
			return drain.ErrTakenBack
		case status.Error != "":
			return errors.New(status.Error)
		}
		return nil
	}
	// Once more: a recreation that ended in the meantime, or the end of a drain that was taken back, may have said ready.
	a.announceLeaving(request)
	a.mu.Unlock()
	admitted := a.wasAdmitted()
	a.forgetAdmission(ctx)
	a.noteLeaving(ctx, request, d.Deadline())
	a.tellDrain(d)
	err := d.Run(ctx, a.drainSteps(a.parts(), d))
	a.tellDrain(d)
	// Whether or not it worked: only a drain that was cut off is gone on with.
	if removeErr := os.Remove(a.leavingPath()); removeErr != nil {
		a.log.WarnContext(ctx, "a restarted agent will drain again", "error", removeErr)
	}
	switch {
	case errors.Is(err, drain.ErrTakenBack):
		a.stay(ctx, admitted)
	case err == nil:
		a.endpoint.Set(health.Draining, "drained: "+request.Reason)
	}
	return err
}

// over tells a drain that has ended and left the node other than drained.
func over(status report.Drain) bool {
	return !status.Ended.IsZero() && (status.Error != "" || status.TakenBack)
}

// announceLeaving is called with mu held.
func (a *Agent) announceLeaving(request drain.Request) {
	if !revocable(request.Trigger) && a.mustLeave == nil {
		a.mustLeave = &request
	}
	a.parting.Begin()
	a.endpoint.Set(health.Draining, request.Reason)
}

// CancelDrain implements [control.Agent].
func (a *Agent) CancelDrain(ctx context.Context) error {
	a.mu.Lock()
	d, must, gaveUp := a.draining, a.mustLeave, a.departure != nil
	a.mu.Unlock()
	switch {
	case d == nil || d.Status().TakenBack:
		return errors.New("no drain is under way: there is nothing to take back")
	case must != nil:
		return fmt.Errorf("%w: %s, and nothing here changes that", drain.ErrTooLate, must.Reason)
	case gaveUp: // its services may be half started or half stopped
		return fmt.Errorf("%w: it began before the node was up: %s", drain.ErrTooLate, bootAgain)
	}
	if err := d.TakeBack(); err != nil {
		return fmt.Errorf("%w: %s", err, bootAgain)
	}
	a.changing.Lock() // which the drain holds to its end
	defer a.changing.Unlock()
	a.mu.Lock()
	defer a.mu.Unlock()
	if must := a.mustLeave; must != nil {
		return fmt.Errorf("%w: in the meantime, %s", drain.ErrTooLate, must.Reason)
	}
	return a.outside
}

// bootAgain is how a node that is drained comes back.
const bootAgain = "once the node is drained, 'systemctl restart flowagent' has it back"

// returnLimit bounds coming back to the load balancers, whose API answers within seconds. Who asked for it waits.
const returnLimit = time.Minute

// stay puts a node back whose drain was taken back. It is called with changing held, and does nothing where the node has to
// leave for another reason by now.
func (a *Agent) stay(ctx context.Context, admitted bool) {
	a.mu.Lock()
	if a.mustLeave != nil {
		a.mu.Unlock()
		return
	}
	a.parting.TakeBack()
	if len(a.unsettled) > 0 {
		a.endpoint.Set(health.Failing, "not ready after a secret changed: "+strings.Join(a.unsettled, ", "))
	} else {
		a.endpoint.Set(health.Ready, "ready")
	}
	a.mu.Unlock()
	if admitted {
		a.markAdmitted(ctx)
	}
	var err error
	if member := a.parts().membership; member != nil {
		ctx, cancel := context.WithTimeout(ctx, returnLimit)
		defer cancel()
		if err = member.targets.Return(ctx); err != nil {
			err = fmt.Errorf("the node serves, but not for its load balancers: %w: 'flowagent drain' and '--cancel' try again", err)
			a.log.ErrorContext(ctx, "node not back behind its load balancers", "error", err)
		}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.outside = err
}

// leavingPath is there while this node drains, so that an agent that was killed in the middle goes on when it is started
// again, rather than to start what was just stopped. A reboot takes it away.
func (a *Agent) leavingPath() string { return filepath.Join(a.opts.RunDir, "leaving.json") }

func (a *Agent) noteLeaving(ctx context.Context, request drain.Request, deadline time.Time) {
	request.Until, request.Budget = deadline, 0
	content, err := json.Marshal(request)
	if err == nil {
		err = atomicfile.Write(a.leavingPath(), append(content, '\n'), 0o600)
	}
	if err != nil {
		a.log.WarnContext(ctx, "drain not noted: an agent that is killed now would not go on with it", "error", err)
	}
}

// cutOff is the drain that an earlier agent could not end; false for none.
func (a *Agent) cutOff() (request drain.Request, found bool, err error) {
	content, err := os.ReadFile(a.leavingPath())
	if errors.Is(err, fs.ErrNotExist) {
		return request, false, nil
	}
	if err == nil {
		err = json.Unmarshal(content, &request)
	}
	if err != nil {
		return request, false, fmt.Errorf("read which drain was cut off: %w: remove %s", err, a.leavingPath())
	}
	return request, true, nil
}

// errLeaving ends a boot of a node that is to leave instead.
var errLeaving = errors.New("the node leaves")

// depart drains the node for a reason that doesn't wait for an operator, also in the middle of a boot: that is given up
// first. It returns when the node is drained, or when there was nothing yet that could be.
func (a *Agent) depart(ctx context.Context, request drain.Request) error {
	if !a.giveUpBoot(request) {
		return a.drainNode(context.WithoutCancel(ctx), request)
	}
	<-a.gone.Done()
	return nil
}

// giveUpBoot has the node drain as soon as its boot can be given up; false when it is over.
func (a *Agent) giveUpBoot(request drain.Request) bool {
	a.mu.Lock()
	booting := !a.up
	if booting && a.departure == nil {
		a.departure = &request
	}
	a.mu.Unlock()
	if booting {
		a.parting.Begin()
	}
	return booting
}

// departing is why the boot is given up; nil for no reason.
func (a *Agent) departing() *drain.Request {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.departure
}

// leaveInstead is the life of a node that drains before its boot was over: what runs since before is stopped, and whoever
// asks is told.
func (a *Agent) leaveInstead(ctx context.Context, request drain.Request) error {
	a.mu.Lock()
	a.up = true // an operator's wish joins
	a.mu.Unlock()
	a.supervisor.ready.Store(true)
	a.supervisor.notifier.Ready()
	err := a.drainNode(context.WithoutCancel(ctx), request)
	a.departed()
	<-ctx.Done()
	return err
}

// newDrain is called with mu held.
func (a *Agent) newDrain(request drain.Request) *drain.Drain {
	budget := time.Duration(a.produced.config.Drain.Budget)
	if request.Budget > 0 {
		budget = time.Duration(request.Budget)
	}
	return drain.New(a.log, request, budget)
}

// The weights share a budget of which nobody knows beforehand where it is needed: most for work to end by itself, in requests
// and in services. The edge gets as much as all that follow, so that a delay is cut to half of the budget at most.
const (
	edgeWeight     = 9
	requestsWeight = 4
	servicesWeight = 4
	hooksWeight    = 1
)

// hooksLeast is for what says goodbye: a service that ignores its signal must not keep that from being tried, and killing it
// may take the last of the budget. Programs that need longer depend on the budget.
const hooksLeast = 2 * time.Second

func (a *Agent) drainSteps(p parts, d *drain.Drain) []drain.Step {
	cfg := p.config.Drain
	var steps []drain.Step
	if cfg.DeregisterDelay > 0 || p.membership != nil {
		steps = append(steps, drain.Step{Name: "edge", Weight: edgeWeight, Run: func(ctx context.Context) error {
			return a.leaveEdge(ctx, p)
		}})
	}
	steps = append(steps, drain.Step{Name: "requests", Weight: requestsWeight, Run: func(ctx context.Context) error {
		return a.awaitRequests(ctx, p, d)
	}})
	steps = append(steps, drain.Step{Name: "services", Weight: servicesWeight, Final: true, Run: func(ctx context.Context) error {
		return a.stopServices(ctx, p)
	}})
	if len(cfg.Hooks) > 0 {
		steps = append(steps, drain.Step{Name: "hooks", Weight: hooksWeight, Least: hooksLeast, Run: func(ctx context.Context) error {
			return a.runHooks(ctx, cfg.Hooks)
		}})
	}
	return append(steps, drain.Step{Name: "secrets", Always: true, Run: func(context.Context) error { return a.wipe(p) }})
}

// runHooks runs the operator's programs one after the other, each within its own time and what is left for all.
func (a *Agent) runHooks(ctx context.Context, hooks []config.DrainHook) error {
	var failed []error
	for _, hook := range hooks {
		begin := time.Now()
		limited, cancel := context.WithTimeout(ctx, time.Duration(hook.Timeout))
		result := (&probe.Command{Argv: hook.Argv}).Probe(limited) // the rules for a check's program are right for this one
		cancel()
		log := a.log.With("hook", hook.Name, "output", result.Output, "elapsed", time.Since(begin).Round(time.Millisecond))
		if result.Status == probe.Fail {
			log.WarnContext(ctx, "drain hook failed")
			failed = append(failed, fmt.Errorf("%s: %s", hook.Name, result.Output))
			continue
		}
		log.InfoContext(ctx, "drain hook done")
	}
	return errors.Join(failed...)
}

// wipe empties the store, which a boot that was ended has not opened yet.
func (a *Agent) wipe(p parts) error {
	store := p.store
	if store == nil {
		opened, err := secret.OpenStore(a.secretsDir())
		if err != nil {
			return err
		}
		defer opened.Close()
		store = opened
	}
	return store.Wipe()
}

// awaitRequests waits until the requests under way are answered. Those that take longer than the step may are left to their
// services' own grace, which is no failure.
func (a *Agent) awaitRequests(ctx context.Context, p parts, d *drain.Drain) error {
	counter := inflight.New(inflight.Options{Containers: inflight.Project{Engine: p.engine, Name: p.runner.Project().Name()}, Log: a.log})
	counts, err := counter.Wait(ctx, time.Duration(p.config.Drain.IdleAfter), d.Requests)
	if err != nil {
		a.log.WarnContext(ctx, "requests are still under way: their services are stopped all the same", "requests", counts.String(), "error", err)
	}
	return nil
}

const (
	// stopSlack is kept of the time for stopping, so that the last service that is killed at its end is not cut short.
	stopSlack = time.Second
	// killLimit bounds the killing of what is left when the time is up. The engine needs well under a second for each.
	killLimit = 30 * time.Second
	// stopAgain is between two tries to stop services. An engine needs some seconds to start.
	stopAgain = time.Second
)

// stopServices stops the services in order, each with its own signal and grace; again where the engine doesn't answer, since
// one that restarts is back in seconds. What still runs when ctx ends is killed.
func (a *Agent) stopServices(ctx context.Context, p parts) error {
	deadline, _ := ctx.Deadline() // every step has one
	for {
		budget := time.Until(deadline)
		if budget > 2*stopSlack {
			budget -= stopSlack
		}
		err := p.runner.Stop(ctx, p.config.Drain.Order, budget)
		if ctx.Err() == nil && client.IsErrConnectionFailed(err) {
			a.log.WarnContext(ctx, "services can't be stopped yet", "error", err)
			select {
			case <-time.After(stopAgain):
				continue
			case <-ctx.Done():
			}
		}
		if ctx.Err() == nil {
			return err
		}
		break
	}
	a.log.WarnContext(ctx, "time is up: services that still run are killed")
	kill, cancel := context.WithTimeout(context.WithoutCancel(ctx), killLimit)
	defer cancel()
	return p.runner.Stop(kill, nil, 0)
}
