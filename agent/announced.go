package agent

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"golang.org/x/sync/errgroup"

	"github.com/flowviz/flowagent/agent/config"
	"github.com/flowviz/flowagent/agent/drain"
	"github.com/flowviz/flowagent/agent/drain/balancer"
	"github.com/flowviz/flowagent/agent/drain/hook"
	"github.com/flowviz/flowagent/agent/drain/notice"
	"github.com/flowviz/flowagent/agent/node"
)

// membership is the instance's place in its Auto Scaling group and behind its load balancers.
type membership struct {
	aws      aws.Config
	instance string // its id
	kept     bool   // EC2 doesn't take it back: it is no spot instance
	metadata *node.Metadata
	hooks    *hook.Hooks
	targets  *balancer.Targets
}

// join makes the clients for the instance's place; they call nobody yet.
func (a *Agent) join(ctx context.Context, metadata *node.Metadata) (*membership, error) {
	cfg, err := a.aws.Config(ctx, "")
	if err != nil {
		return nil, err
	}
	instance := a.parts().identity.InstanceID
	var addresses []string
	// Target groups of type ip know the instance by it.
	if address, found, err := metadata.Get(ctx, "local-ipv4"); err == nil && found && address != "" {
		addresses = append(addresses, address)
	}
	// Without an answer it may be one.
	lifeCycle, _, err := metadata.Get(ctx, "instance-life-cycle")
	kept := err == nil && (lifeCycle == "on-demand" || lifeCycle == "scheduled")
	balancing, scaling := balancer.NewClients(cfg)
	return &membership{
		aws:      cfg,
		instance: instance,
		kept:     kept,
		metadata: metadata,
		hooks:    hook.New(hook.Options{API: hook.NewClient(cfg), Instance: instance, Log: a.log, Observer: &a.hooks}),
		targets:  balancer.New(balancer.Options{LoadBalancing: balancing, Scaling: scaling, Instance: instance, Addresses: addresses, Log: a.log}),
	}, nil
}

func noticeKinds() []string {
	var kinds []string
	for _, kind := range []notice.Kind{notice.Terminate, notice.Lifecycle, notice.Spot, notice.Rebalance, notice.Maintenance} {
		kinds = append(kinds, string(kind))
	}
	return kinds
}

// heed follows what EC2 announces to this instance until servers ends: also during the boot, which it may end, and during
// a drain, which it may hasten.
func (a *Agent) heed(ctx context.Context, group *errgroup.Group, servers context.Context) {
	p := a.parts()
	if p.membership == nil {
		return
	}
	watcher := notice.New(p.membership.metadata, notice.Options{Interval: time.Duration(p.config.Lifecycle.Interval), Kept: p.membership.kept, Log: a.log})
	group.Go(func() error {
		// What follows from a notice takes long, and the next notice may hasten it.
		var consequences sync.WaitGroup
		watcher.Run(servers, func(n notice.Notice) {
			a.metrics.Noticed(string(n.Kind))
			a.tellNotice(n)
			log := a.log.With("kind", string(n.Kind), "detail", n.Detail)
			if !n.At.IsZero() {
				log = log.With("at", n.At)
			}
			log.InfoContext(servers, "announced by EC2")
			if n.Kind == notice.Lifecycle || n.Kind == notice.Terminate {
				a.place.Set(n.Detail)
			}
			consequences.Go(func() { a.follow(ctx, n) })
		})
		consequences.Wait()
		return nil
	})
}

// follow does what a notice asks for.
func (a *Agent) follow(ctx context.Context, n notice.Notice) {
	request := drain.Request{Trigger: string(n.Kind)}
	switch {
	case n.Kind == notice.Terminate, n.Kind == notice.Lifecycle && ended(n.Detail):
		a.release(ctx, drain.Request{Reason: "Auto Scaling terminates the instance", Trigger: string(notice.Terminate)})
		return
	case n.Kind == notice.Lifecycle && pooled(n.Detail) && a.isUp(): // a boot looks for itself
		a.returnToPool(ctx)
		return
	case n.Kind == notice.Spot:
		request.Reason, request.Until = "EC2 takes the spot instance back: "+n.Detail, n.At
	case n.Kind == notice.Rebalance && a.parts().config.Lifecycle.Rebalance == config.AdviceDrain:
		request.Reason = "EC2 recommends to leave: the spot instance may be taken back"
	default:
		return // that it was announced is in the log
	}
	if err := a.depart(ctx, request); err != nil {
		a.log.ErrorContext(ctx, "node not drained as it should", "reason", request.Reason, "error", err)
	}
}

// release drains the node for its Auto Scaling group, and lets the group go on when that has ended, whether it worked or
// not: an instance that waits is no use to anybody.
func (a *Agent) release(ctx context.Context, request drain.Request) {
	p := a.parts()
	// The agent's own end must not end this: the group waits for an answer.
	ctx = context.WithoutCancel(ctx)
	keeping, stop := context.WithCancel(ctx)
	defer stop()
	var hooks []*hook.Hook
	var looking, working sync.WaitGroup
	looking.Go(func() { // beside the drain, which begins at once
		found, err := p.membership.hooks.Find(ctx, hook.Terminating, p.config.Lifecycle.TerminateHook)
		if err != nil && !errors.Is(err, hook.ErrNoHook) {
			a.log.WarnContext(ctx, "termination hooks not found", "error", err)
		}
		for _, h := range found {
			working.Go(func() { h.Keep(keeping, time.Time{}) })
		}
		hooks = found
	})
	if err := a.depart(ctx, request); err != nil {
		a.log.ErrorContext(ctx, "node not drained as it should", "reason", request.Reason, "error", err)
	}
	looking.Wait()
	var completing sync.WaitGroup
	for _, h := range hooks {
		completing.Go(func() {
			if _, err := h.Complete(ctx, hook.Continue); err != nil {
				a.log.ErrorContext(ctx, "lifecycle action not completed", "hook", h.Name, "error", err)
			}
		})
	}
	completing.Wait()
	stop()
	working.Wait()
}

// leaveEdge sees to it that nobody sends new requests: by the load balancers' own word, or, where there are none or they
// can't be asked, by giving them time to notice that /health says 503.
func (a *Agent) leaveEdge(ctx context.Context, p parts) error {
	delay, stop := context.WithTimeout(ctx, time.Duration(p.config.Drain.DeregisterDelay))
	defer stop()
	if p.membership != nil {
		groups, err := p.membership.targets.Find(ctx)
		if len(groups) > 0 {
			err = errors.Join(err, p.membership.targets.Leave(ctx, groups))
			if err == nil {
				return nil
			}
		}
		if err != nil {
			<-delay.Done()
			return fmt.Errorf("waited for drain.deregisterDelay instead: %w", err)
		}
	}
	<-delay.Done()
	return nil
}
