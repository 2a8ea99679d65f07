package agent

import (
	"context"
	"time"

	"github.com/flowviz/flowagent/agent/drain"
	"github.com/flowviz/flowagent/agent/health"
)

// Drain implements [control.Agent].
func (a *Agent) Drain(ctx context.Context, request drain.Request) error {
	if !a.isUp() {
		return errBooting
	}
	if request.Trigger == "" {
		request.Trigger = "operator"
	}
	return a.drainNode(context.WithoutCancel(ctx), request)
}

// drainNode lets the node go of its work, and returns when it has. A wish that comes while another drain is under way joins
// it, with the earlier of both deadlines; a node that is drained stays so. One whose drain failed is drained again.
func (a *Agent) drainNode(ctx context.Context, request drain.Request) error {
	a.leave()
	a.endpoint.Set(health.Draining, request.Reason)
	a.mu.Lock()
	if a.draining != nil {
		a.draining.Hasten(request) // which does nothing to one that has ended
	} else {
		a.draining = a.newDrain(request)
	}
	a.mu.Unlock()

	a.changing.Lock()
	defer a.changing.Unlock()
	a.mu.Lock()
	d := a.draining
	if status := d.Status(); !status.Ended.IsZero() && status.Error != "" {
		d = a.newDrain(request)
		a.draining = d
	}
	a.mu.Unlock()
	if !d.Status().Ended.IsZero() {
		return nil
	}
	// Once more: a recreation that ended in the meantime may have said ready.
	a.endpoint.Set(health.Draining, request.Reason)
	a.forgetAdmission(ctx)
	if err := d.Run(ctx, a.drainSteps(a.parts(), d)); err != nil {
		return err
	}
	a.endpoint.Set(health.Draining, "drained: "+request.Reason)
	return nil
}

// newDrain is called with mu held.
func (a *Agent) newDrain(request drain.Request) *drain.Drain {
	budget := time.Duration(a.produced.config.Drain.Budget)
	if request.Budget > 0 {
		budget = time.Duration(request.Budget)
	}
	return drain.New(a.log, request, budget)
}

// The weights share a budget of which nobody knows beforehand where it is needed: most for services to end by themselves.
// The edge gets as much as that, so that a delay is cut to half of the budget at most.
const (
	edgeWeight     = 1
	servicesWeight = 1
)

func (a *Agent) drainSteps(p parts, d *drain.Drain) []drain.Step {
	cfg := p.config.Drain
	var steps []drain.Step
	if cfg.DeregisterDelay > 0 {
		steps = append(steps, drain.Step{Name: "edge", Weight: edgeWeight, Limit: time.Duration(cfg.DeregisterDelay), Run: func(ctx context.Context) error {
			<-ctx.Done() // the step's time is what it is about
			return nil
		}})
	}
	steps = append(steps, drain.Step{Name: "services", Weight: servicesWeight, Run: func(ctx context.Context) error {
		return a.stopServices(ctx, p)
	}})
	return append(steps, drain.Step{Name: "secrets", Always: true, Run: func(context.Context) error { return p.store.Wipe() }})
}

const (
	// stopSlack is kept of the time for stopping, so that the last service that is killed at its end is not cut short.
	stopSlack = time.Second
	// killLimit bounds the killing of what is left when the time is up. The engine needs well under a second for each.
	killLimit = 30 * time.Second
)

// stopServices stops the services in order, each with its own signal and grace. What still runs when ctx ends is killed.
func (a *Agent) stopServices(ctx context.Context, p parts) error {
	deadline, _ := ctx.Deadline() // every step has one
	budget := time.Until(deadline)
	if budget > 2*stopSlack {
		budget -= stopSlack
	}
	err := p.runner.Stop(ctx, p.config.Drain.Order, budget)
	if ctx.Err() == nil {
		return err
	}
	a.log.WarnContext(ctx, "time is up: services that still run are killed")
	kill, cancel := context.WithTimeout(context.WithoutCancel(ctx), killLimit)
	defer cancel()
	return p.runner.Stop(kill, nil, 0)
}
