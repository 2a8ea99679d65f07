package agent

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/flowviz/flowagent/agent/health"
	"github.com/flowviz/flowagent/agent/image"
	"github.com/flowviz/flowagent/agent/report"
	"github.com/flowviz/flowagent/agent/workload"
)

// errBooting is the answer to what can't be done before the node is up.
var errBooting = errors.New("the node is still booting: try again when 'flowagent status' says ready, or stop the agent")

// serve keeps a node whose workload is up, unless it is to leave already, until ctx ends: checks admit it and then watch it, services that go away are
// brought back, secrets are refreshed and delivered, superseded images removed. The checks go on until servers ends, because a drain is when people look.
func (a *Agent) serve(ctx context.Context, group *errgroup.Group, servers context.Context) error {
	p := a.parts()
	a.mu.Lock()
	if a.departure != nil {
		a.mu.Unlock()
		return errLeaving
	}
	a.up = true                           // from here on a drain may be asked for, and what it announces stays
	a.endpoint.Set(health.Ready, "ready") // which is served once the checks agree
	a.mu.Unlock()
	group.Go(func() error {
		p.monitor.Run(servers)
		return nil
	})
	a.sendMetrics(servers, group)
	a.supervisor.ready.Store(true)
	a.supervisor.notifier.Ready()
	group.Go(func() error {
		a.awaitReady(ctx)
		return nil
	})
	group.Go(func() error { return a.reconcile(ctx) })
	if pooled(a.place.State()) { // since the boot had looked
		group.Go(func() error {
			a.returnToPool(ctx)
			return nil
		})
	}

	a.cleanUp(ctx)
	// It returns when ctx ends, which is no failure.
	_ = p.keeper.Run(ctx, func(ctx context.Context, changed []string) {
		a.countRefresh(changed)
		if err := a.deliver(ctx); err != nil {
			a.log.ErrorContext(ctx, "secrets not delivered", "error", err)
		}
	})
	return nil
}

// cleanUp removes superseded images under disk pressure. A node with old images is still a good node.
func (a *Agent) cleanUp(ctx context.Context) {
	p := a.parts()
	removed, err := image.CleanUp(ctx, p.engine, p.config.Workload.CleanUp, p.runner.Project().Images(), image.DiskFree, a.log)
	if err != nil {
		a.log.WarnContext(ctx, "superseded images not removed", "error", err)
	}
	if len(removed) > 0 {
		a.log.InfoContext(ctx, "superseded images removed", "images", removed)
	}
}

// deliver brings changed secrets to the services and does to them what the configuration says. What failed is tried
// again at the next delivery and stands in the status until then.
func (a *Agent) deliver(ctx context.Context) error {
	// A drain doesn't wait until a service that is being recreated turns ready.
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(a.parting.Leaving(), cancel)()
	a.changing.Lock()
	defer a.changing.Unlock()
	if a.parting.Leaving().Err() != nil {
		return nil // what was wiped stays wiped
	}
	p := a.parts()
	written := time.Now()
	changed, err := p.delivery.write()
	restart := p.delivery.recreations(changed)
	err = errors.Join(err, p.delivery.prune(), a.signal(ctx, written, restart), a.recreate(ctx, restart))
	if ctx.Err() != nil {
		return nil // the agent stops or the node leaves; the next agent goes on where this one was
	}
	a.noteDelivery(err)
	return err
}

// noteDelivery keeps what could not be delivered for the status, until a later delivery can.
func (a *Agent) noteDelivery(err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.undelivered = err
}

// recreate replaces the containers of services whose content version changed, and no others. The node is failing from a
// recreation that didn't work until its services are ready with the new version; it is tried again at each delivery.
func (a *Agent) recreate(ctx context.Context, services []string) error {
	p := a.parts()
	labels := p.delivery.labels()
	if len(a.unsettled) > 0 {
		state, err := p.runner.State(ctx)
		if err != nil {
			return fmt.Errorf("see whether %s came up after a secret changed: %w", strings.Join(a.unsettled, ", "), err)
		}
		again := unfinished(a.unsettled, state, labels)
		switch {
		case len(again) > 0:
			services = slices.Compact(slices.Sorted(slices.Values(slices.Concat(services, again))))
		case len(services) == 0 && !allReady(state):
			return fmt.Errorf("not ready after a secret changed: %s", state)
		case len(services) == 0:
			a.log.InfoContext(ctx, "services are ready after all", "services", a.unsettled)
			a.settle()
			return nil
		}
	}
	if len(services) == 0 {
		return nil
	}
	a.log.InfoContext(ctx, "secret changed: services are recreated", "services", services)
	_, err := p.runner.Project().WriteOverride(p.pinned(), labels)
	if err == nil {
		err = p.runner.Start(ctx, p.config.Workload.Ready, nil, services...)
	}
	switch {
	case ctx.Err() != nil:
		return nil
	case err != nil:
		err = fmt.Errorf("recreate %s after a secret changed: %w", strings.Join(services, ", "), err)
		a.unsettled = slices.Compact(slices.Sorted(slices.Values(slices.Concat(a.unsettled, services))))
		a.endpoint.Set(health.Failing, err.Error())
		return err
	}
	a.settle()
	return nil
}

// settle is the end of a recreation: every service is ready.
func (a *Agent) settle() {
	a.unsettled = nil
	a.endpoint.Set(health.Ready, "ready")
}

// unfinished are those of the services that don't run with the content version they should have.
func unfinished(services []string, state workload.State, labels map[string]string) []string {
	var names []string
	for _, s := range state.Services {
		wrong := func(c workload.ContainerState) bool {
			ended := c.Status != "running" && s.Phase != workload.PhaseDone
			return ended || c.ContentVersion != labels[s.Name]
		}
		if slices.Contains(services, s.Name) && (len(s.Containers) < s.Wanted || slices.ContainsFunc(s.Containers, wrong)) {
			names = append(names, s.Name)
		}
	}
	return names
}

func allReady(state workload.State) bool {
	return !slices.ContainsFunc(state.Services, func(s workload.ServiceState) bool { return !s.Phase.Ready() })
}

// Status implements [control.Agent].
func (a *Agent) Status(ctx context.Context) report.Status {
	answer := a.endpoint.Snapshot()
	a.mu.Lock()
	p := a.produced
	status := report.Status{
		State:       answer.State.String(),
		Detail:      answer.Detail,
		Version:     a.opts.Version,
		Environment: p.config.Node.Environment,
		Node:        p.identity,
		Now:         time.Now(),
		Started:     a.started,
		Ready:       a.readyAt,
		Stages:      a.recorder.Stages(),
		Checks:      answer.Checks,
	}
	if a.undelivered != nil {
		status.Problems = append(status.Problems, "secrets not delivered: "+a.undelivered.Error())
	}
	if len(a.unapplied) > 0 {
		status.Problems = append(status.Problems, "changed in the configuration, but not before a restart of the agent ('systemctl restart flowagent'): "+strings.Join(a.unapplied, ", "))
	}
	if a.outside != nil {
		status.Problems = append(status.Problems, a.outside.Error())
	}
	status.Problems = append(status.Problems, a.givenUp()...)
	a.mu.Unlock()
	status.Secrets, status.Drain, status.Hooks = a.secretsStatus(), a.drainStatus(), a.hooks.status()
	if p.runner != nil {
		state, err := p.runner.State(ctx)
		if err != nil {
			status.Problems = append(status.Problems, err.Error())
		}
		status.Workload = state
	}
	return status
}

// RefreshSecrets implements [control.Agent].
func (a *Agent) RefreshSecrets(ctx context.Context) ([]string, error) {
	if !a.isUp() {
		return nil, errBooting
	}
	changed, err := a.parts().keeper.Refresh(ctx)
	a.countRefresh(changed)
	// A caller that left must not leave a service half-way between two secrets.
	return changed, errors.Join(err, a.deliver(context.WithoutCancel(ctx)))
}

func (a *Agent) isUp() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.up
}

// writeRecord keeps how the boot went for after a reboot. Losing it is no reason to lose the node.
func (a *Agent) writeRecord(ctx context.Context, bootErr error) {
	path := filepath.Join(a.opts.StateDir, "boot.json")
	record, err := report.ReadRecord(path)
	if err == nil {
		a.mu.Lock()
		record = report.Record{Starts: record.Starts + 1, Version: a.opts.Version, Started: a.started, Ready: a.readyAt, Stages: a.recorder.Stages()}
		a.mu.Unlock()
		if bootErr != nil {
			record.Error = bootErr.Error()
		}
		err = report.WriteRecord(path, record)
	}
	if err != nil {
		a.log.WarnContext(ctx, "boot not recorded", "error", err)
	}
}
