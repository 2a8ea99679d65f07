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

	"github.com/flowviz/flowagent/agent/drain"
	"github.com/flowviz/flowagent/agent/health"
	"github.com/flowviz/flowagent/agent/health/metrics"
	"github.com/flowviz/flowagent/agent/image"
	"github.com/flowviz/flowagent/agent/report"
	"github.com/flowviz/flowagent/agent/workload"
)

// errBooting is the answer to what can't be done before the node is up.
var errBooting = errors.New("the node is still booting: try again when 'flowagent status' says ready, or stop the agent")

// serve keeps a node whose workload is up until ctx ends: checks admit it and then watch it, secrets are refreshed and
// delivered, superseded images removed. The checks go on until servers ends, because a drain is when people look.
func (a *Agent) serve(ctx context.Context, group *errgroup.Group, servers context.Context) {
	p := a.parts()
	group.Go(func() error {
		p.monitor.Run(servers)
		return nil
	})
	a.endpoint.Set(health.Ready, "ready") // which is served once the checks agree
	group.Go(func() error {
		a.awaitReady(ctx)
		return nil
	})

	a.cleanUp(ctx)
	// It returns when ctx ends, which is no failure.
	_ = p.keeper.Run(ctx, func(ctx context.Context, changed []string) {
		a.countRefresh(changed)
		if err := a.deliver(ctx); err != nil {
			a.log.ErrorContext(ctx, "secrets not delivered", "error", err)
		}
	})
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
	defer context.AfterFunc(a.leaving, cancel)()
	a.changing.Lock()
	defer a.changing.Unlock()
	if a.leaving.Err() != nil {
		return nil // what was wiped stays wiped
	}
	p := a.parts()
	written := time.Now()
	changed, writeErr := p.delivery.write()
	restart := p.delivery.recreations(changed)
	err := errors.Join(writeErr, a.signal(ctx, written, restart))
	switch {
	case len(restart) > 0:
		a.log.InfoContext(ctx, "secret changed: services are recreated", "services", restart)
		err = errors.Join(err, a.recreate(ctx, restart))
	case a.endpoint.Own() == health.Failing:
		a.recover(ctx)
	}
	if ctx.Err() != nil {
		return nil // the agent stops or the node leaves; the next agent goes on where this one was
	}
	a.mu.Lock()
	a.undelivered = err
	a.mu.Unlock()
	return err
}

// recover turns a node ready again whose services have come up after all.
func (a *Agent) recover(ctx context.Context) {
	state, err := a.parts().runner.State(ctx)
	if err != nil || slices.ContainsFunc(state.Services, func(s workload.ServiceState) bool { return !s.Phase.Ready() }) {
		return
	}
	a.log.InfoContext(ctx, "services are ready after all")
	a.endpoint.Set(health.Ready, "ready")
}

// recreate replaces the containers of services whose content version changed, and no others.
func (a *Agent) recreate(ctx context.Context, services []string) error {
	p := a.parts()
	_, err := p.runner.Project().WriteOverride(p.pinned(), p.delivery.labels())
	if err == nil {
		err = p.runner.Start(ctx, p.config.Workload.Ready, nil, services...)
	}
	switch {
	case ctx.Err() != nil:
		return nil
	case err != nil:
		err = fmt.Errorf("recreate %s after a secret changed: %w", strings.Join(services, ", "), err)
		a.endpoint.Set(health.Failing, err.Error())
		return err
	}
	a.endpoint.Set(health.Ready, "ready")
	return nil
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
	a.mu.Unlock()
	status.Secrets = a.secretsStatus()
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

// Drain implements [control.Agent].
func (a *Agent) Drain(ctx context.Context, request drain.Request) error {
	if !a.isUp() {
		return errBooting
	}
	return a.drainNode(context.WithoutCancel(ctx), request)
}

func (a *Agent) drainNode(ctx context.Context, request drain.Request) error {
	a.leave()
	a.endpoint.Set(health.Draining, request.Reason)
	a.changing.Lock()
	defer a.changing.Unlock()
	if a.drained {
		return nil
	}
	a.forgetAdmission(ctx)
	p := a.parts()
	d := drain.Drain{
		Config:   p.config.Drain,
		Workload: p.runner,
		Secrets:  p.store,
		Log:      a.log,
	}
	progress := metrics.Drain{Started: time.Now()}
	a.setDrain(progress)
	err := d.Run(ctx, request)
	progress.Ended, progress.Failed = time.Now(), err != nil
	a.setDrain(progress)
	if err != nil {
		return err
	}
	a.drained = true
	a.endpoint.Set(health.Draining, "drained: "+request.Reason)
	return nil
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
