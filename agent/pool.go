package agent

import (
	"context"
	"strings"
	"sync"
	"time"

	"github.com/flowviz/flowagent/agent/drain"
	"github.com/flowviz/flowagent/agent/drain/notice"
	"github.com/flowviz/flowagent/agent/health"
	"github.com/flowviz/flowagent/agent/report"
)

// place is where Auto Scaling wants the instance: a target lifecycle state, "" while that is unknown.
type place struct {
	mu      sync.Mutex
	state   string
	changed chan struct{} // closed and made anew with each change
}

func (p *place) Set(state string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.state == state {
		return
	}
	p.state = state
	if p.changed != nil {
		close(p.changed)
		p.changed = nil
	}
}

func (p *place) State() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.state
}

// Await returns once the state is one of those that are meant. Its error is why ctx ended.
func (p *place) Await(ctx context.Context, meant func(state string) bool) error {
	for {
		p.mu.Lock()
		if meant(p.state) {
			p.mu.Unlock()
			return nil
		}
		if p.changed == nil {
			p.changed = make(chan struct{})
		}
		changed := p.changed
		p.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// pooled tells the states of an instance that waits in a warm pool, or is on its way there.
func pooled(state string) bool { return strings.HasPrefix(state, "Warmed:") }

// ended tells the states of an instance that is on its way out.
func ended(state string) bool { return state == notice.Terminated || state == notice.WarmedTerminated }

// lookAtPlace learns where the instance is wanted before its boot goes on. The watcher follows it from there; where this look
// fails, its first one comes within seconds.
func (a *Agent) lookAtPlace(ctx context.Context) {
	state, found, err := a.parts().membership.metadata.Get(ctx, "autoscaling/target-lifecycle-state")
	if err == nil && found {
		a.place.Set(state)
	}
}

// waitInPool is the life of an instance in a warm pool: its images are prepared, its services are not started, and secrets
// are not put anywhere. It returns at once for any other instance, and when the instance is to enter service: the boot then
// goes on with everything that may be out of date made anew. The launch into service is looked after until life ends.
func (a *Agent) waitInPool(ctx, life context.Context) error {
	for pooled(a.place.State()) {
		if err := a.stage(ctx, "prepare", a.prepare); err != nil {
			return err
		}
		// As far as anybody who started it can tell, the agent is up.
		a.supervisor.ready.Store(true)
		a.supervisor.notifier.Ready()
		a.endpoint.Set(health.Starting, "in the warm pool: images are prepared, services start when the instance enters service")
		a.log.InfoContext(ctx, "prepared for the warm pool", "state", a.place.State())
		a.launched()
		if err := a.place.Await(ctx, func(state string) bool { return !pooled(state) && !ended(state) }); err != nil {
			return err
		}
		a.log.InfoContext(ctx, "out of the warm pool: the node boots", "state", a.place.State())
		a.mu.Lock()
		a.woken = time.Now()
		a.mu.Unlock()
		a.beginLaunch(life)
		if err := a.stage(ctx, "project", a.readProject); err != nil {
			return err
		}
		if err := a.stage(ctx, "engine", a.connect); err != nil {
			return err
		}
	}
	return nil
}

// prepare has the images of all services there. Secrets are fetched only where a registry asks for one, and stay in memory.
func (a *Agent) prepare(ctx context.Context, span *report.Span) error {
	p := a.parts()
	planned, err := a.planPulls(p)
	if err != nil {
		return err
	}
	if len(planned.waiting) > 0 {
		if err := refreshSecrets(ctx, span, p.keeper); err != nil {
			return err
		}
	}
	fetched := make(chan struct{})
	close(fetched)
	images, err := planned.ensure(ctx, fetched)
	if err != nil {
		return err
	}
	span.Note("images", len(images))
	return nil
}

// returnToPool drains a node that its group takes out of service but keeps. The agent then waits with empty hands; when the
// instance enters service again it ends, and systemd starts it anew.
func (a *Agent) returnToPool(ctx context.Context) {
	a.release(ctx, drain.Request{Reason: "Auto Scaling returns the instance to the warm pool", Trigger: "warm-pool"})
	if err := a.place.Await(ctx, func(state string) bool { return !pooled(state) && !ended(state) }); err != nil {
		return // the agent stops
	}
	a.log.InfoContext(ctx, "out of the warm pool again: the agent ends, to be started anew", "state", a.place.State())
	a.startAnew()
}
