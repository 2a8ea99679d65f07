package workload

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"
	"golang.org/x/sync/errgroup"
)

// engineGrace is the engine's own, for a service that declares no stop_grace_period.
const engineGrace = 10 * time.Second

// Left are the project's containers whose service is no longer active: a profile was switched off, or the service is
// gone from the files. Compose takes the former for its own and leaves them running. Sorted by name.
func (r *Runner) Left(ctx context.Context) ([]ContainerState, error) {
	list, err := r.engine.ContainerList(ctx, client.ContainerListOptions{All: true, Filters: r.projectFilter()})
	if err != nil {
		return nil, r.engineError("list the project's containers", err)
	}
	active := r.project.Services()
	var left []ContainerState
	for _, item := range list.Items {
		if slices.Contains(active, item.Labels[labelService]) {
			continue
		}
		c, found, err := r.inspect(ctx, item.ID)
		if err != nil {
			return nil, err
		}
		if found {
			left = append(left, c)
		}
	}
	slices.SortFunc(left, func(a, b ContainerState) int { return strings.Compare(a.Name, b.Name) })
	return left, nil
}

// StopLeft stops and removes what [Runner.Left] finds, all at once, each with its own signal and grace, and returns it.
// Call it before Up: what left may hold ports that what comes needs. Volumes stay.
func (r *Runner) StopLeft(ctx context.Context) ([]ContainerState, error) {
	left, err := r.Left(ctx)
	if err != nil || len(left) == 0 {
		return nil, err
	}
	err = all(left, func(c ContainerState) error {
		if err := r.stop(ctx, c, c.grace()); err != nil {
			return err
		}
		r.log.Info("container of an inactive service removed", "service", c.Service, "container", c.Name)
		_, err := r.engine.ContainerRemove(ctx, c.ID, client.ContainerRemoveOptions{})
		// Gone already, or going.
		if err != nil && !errdefs.IsNotFound(err) && !errdefs.IsConflict(err) {
			return r.engineError("remove container "+c.Name, err)
		}
		return nil
	})
	return left, err
}

// Signal sends a signal, such as SIGHUP, to the main process of every running container of the services.
func (r *Runner) Signal(ctx context.Context, services []string, signal string) error {
	for _, name := range services {
		if err := r.active(name); err != nil {
			return fmt.Errorf("send %s: %w", signal, err)
		}
	}
	containers, err := r.containers(ctx)
	if err != nil {
		return err
	}
	var targets []ContainerState
	for _, c := range containers {
		if slices.Contains(services, c.Service) && c.Status == string(container.StateRunning) {
			targets = append(targets, c)
		}
	}
	defer r.changes.begin(services...)() // a signal to reload may be one that ends others
	return all(targets, func(c ContainerState) error {
		_, err := r.engine.ContainerKill(ctx, c.ID, client.ContainerKillOptions{Signal: signal})
		// It may have ended in between, on its own.
		if err != nil && !errdefs.IsNotFound(err) && !errdefs.IsConflict(err) {
			return r.engineError("send "+signal+" to "+c.Name, err)
		}
		return nil
	})
}

// Stop stops every container of the project: first the services of order, one after the other, then the rest, a service
// only after all that depend on it. Each gets its own stop signal and, up to its stop_grace_period, its share of the
// budget; what one doesn't need is left to those after it. A budget of 0 kills at once. Containers are not removed.
//
// A service that can't be stopped doesn't keep the others from being stopped; all errors are returned.
func (r *Runner) Stop(ctx context.Context, order []string, budget time.Duration) error {
	if err := r.project.CheckServices("drain.order", order); err != nil {
		return err
	}
	containers, err := r.containers(ctx)
	if err != nil {
		return err
	}
	groups := byNumber(containers)
	var steps [][]ContainerState
	for _, names := range r.project.stopOrder(order, groups) {
		var step []ContainerState
		for _, name := range names {
			for _, c := range groups[name] {
				if c.running() {
					step = append(step, c)
				}
			}
		}
		if len(step) > 0 {
			steps = append(steps, step)
		}
	}
	deadline := time.Now().Add(budget)
	var errs []error
	for i, step := range steps {
		share := shareOf(time.Until(deadline), steps[i:])
		err := all(step, func(c ContainerState) error {
			begin := time.Now()
			err := r.stopService(ctx, c, min(c.grace(), share))
			log := r.log.With("service", c.Service, "container", c.Name, "elapsed", time.Since(begin).Round(time.Millisecond))
			if err != nil {
				log.Error("container not stopped", "error", err)
				return err
			}
			log.Info("container stopped")
			return nil
		})
		errs = append(errs, err)
		if ctx.Err() != nil {
			return fmt.Errorf("stop the services: %w", context.Cause(ctx))
		}
	}
	return errors.Join(errs...)
}

// shareOf is what the first of the steps may take when there isn't enough time for all: a part as large as its grace is
// among all graces. So a slow worker doesn't cost the database its clean shutdown.
func shareOf(remaining time.Duration, steps [][]ContainerState) time.Duration {
	var total, first time.Duration
	for i, step := range steps {
		var longest time.Duration
		for _, c := range step {
			longest = max(longest, c.grace())
		}
		if i == 0 {
			first = longest
		}
		total += longest
	}
	switch {
	case remaining <= 0 || total == 0:
		return 0
	case total <= remaining:
		return first
	}
	return time.Duration(float64(remaining) * (float64(first) / float64(total)))
}

func (c ContainerState) grace() time.Duration {
	if c.stopTimeout > 0 {
		return c.stopTimeout
	}
	return engineGrace
}

// stopService stops one container; one with pre_stop hooks through compose, which runs them.
func (r *Runner) stopService(ctx context.Context, c ContainerState, grace time.Duration) error {
	if len(r.project.model.Services[c.Service].PreStop) == 0 {
		return r.stop(ctx, c, grace)
	}
	hooked, cancel := context.WithTimeout(ctx, grace+cancelGrace)
	defer cancel()
	err := r.compose(hooked, "stop", "--timeout", strconv.Itoa(seconds(grace)), "--", c.Service)
	if err == nil || ctx.Err() != nil {
		return err
	}
	// A hook that fails or hangs is no reason to leave it running.
	return errors.Join(err, r.stop(ctx, c, 0))
}

// seconds is a grace as the engine counts it: 0 kills at once, so whatever is left counts as one.
func seconds(grace time.Duration) int {
	if grace <= 0 {
		return 0
	}
	return max(1, int(grace/time.Second))
}

func (r *Runner) stop(ctx context.Context, c ContainerState, grace time.Duration) error {
	timeout := seconds(grace)
	_, err := r.engine.ContainerStop(ctx, c.ID, client.ContainerStopOptions{Timeout: &timeout})
	if err != nil && !errdefs.IsNotFound(err) && !errdefs.IsNotModified(err) {
		return r.engineError("stop container "+c.Name, err)
	}
	return nil
}

// all does something to each container at the same time, to the end, and returns every error.
func all(containers []ContainerState, do func(ContainerState) error) error {
	errs := make([]error, len(containers))
	var group errgroup.Group
	for i, c := range containers {
		group.Go(func() error {
			errs[i] = do(c)
			return nil
		})
	}
	_ = group.Wait() // the functions return none
	return errors.Join(errs...)
}

// stopOrder is the services in steps: order's one by one, then what nobody left depends on, again and again. Services
// that only have containers, not a place in the files, go with the first of the latter.
func (p *Project) stopOrder(order []string, present map[string][]ContainerState) [][]string {
	rest := make(map[string]bool)
	for name := range present {
		rest[name] = true
	}
	var steps [][]string
	for _, name := range order {
		if rest[name] {
			steps = append(steps, []string{name})
			delete(rest, name)
		}
	}
	services := p.model.AllServices()
	for len(rest) > 0 {
		// Through services that are stopped already, too: web needs api, which needs db.
		needed := make(map[string]bool)
		var need func(name string)
		need = func(name string) {
			for dependency := range services[name].DependsOn {
				if !needed[dependency] {
					needed[dependency] = true
					need(dependency)
				}
			}
		}
		for name := range rest {
			need(name)
		}
		var step []string
		for name := range rest {
			if !needed[name] {
				step = append(step, name)
			}
		}
		if len(step) == 0 { // a cycle, which compose-go refuses for active services
			for name := range rest {
				step = append(step, name)
			}
		}
		for _, name := range step {
			delete(rest, name)
		}
		slices.Sort(step)
		steps = append(steps, step)
	}
	return steps
}
