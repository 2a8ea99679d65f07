// Package drain lets a node go of its work: it gives the edge time to notice that /health turned 503, stops the services
// in order and wipes the secrets.
//
// What enters is the order and the budget from the configuration, after the node has announced that it leaves; what leaves is a node without work and without
// secrets, and the errors of the steps that failed. A failed step never keeps the next one from running.
package drain

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/flowviz/flowagent/agent/config"
)

// Workload is what has to stop.
type Workload interface {
	// Stop ends the services named in order first and then the rest, all within budget.
	Stop(ctx context.Context, order []string, budget time.Duration) error
}

// Secrets is what has to be gone afterwards.
type Secrets interface {
	// Wipe removes every secret from the node; doing it twice is harmless.
	Wipe() error
}

// Request is one wish to drain.
type Request struct {
	// Reason is free text for events and status.
	Reason string `json:"reason"`
	// Budget replaces the configured one; zero keeps it.
	Budget config.Duration `json:"budget,omitempty"`
}

// Drain is a drain ready to run.
type Drain struct {
	Config   config.Drain
	Workload Workload
	Secrets  Secrets
	Log      *slog.Logger
}

// Run goes through the steps and returns what failed in them, joined. When ctx ends early the waits end with it, but
// services are still told to stop and secrets are still wiped.
func (d *Drain) Run(ctx context.Context, request Request) error {
	budget := time.Duration(d.Config.Budget)
	if request.Budget > 0 {
		budget = time.Duration(request.Budget)
	}
	deadline := time.Now().Add(budget)
	d.Log.InfoContext(ctx, "drain started", "reason", request.Reason, "budget", budget)

	delay := min(time.Duration(d.Config.DeregisterDelay), budget/2) // half at most: stopping needs the rest
	if delay > 0 {
		d.Log.InfoContext(ctx, "drain waits for the edge to notice", "delay", delay)
		select {
		case <-ctx.Done():
		case <-time.After(delay):
		}
	}

	// Stopping must go on although the agent itself is being stopped; its own deadline bounds it.
	stopCtx, cancel := context.WithDeadline(context.WithoutCancel(ctx), deadline)
	defer cancel()
	var failed []error
	if err := d.Workload.Stop(stopCtx, d.Config.Order, time.Until(deadline)); err != nil {
		failed = append(failed, fmt.Errorf("stop the services: %w", err))
	}
	if err := d.Secrets.Wipe(); err != nil {
		failed = append(failed, fmt.Errorf("wipe the secrets: %w", err))
	}
	err := errors.Join(failed...)
	if err != nil {
		d.Log.ErrorContext(ctx, "drain ended with failures", "reason", request.Reason, "error", err)
		return err
	}
	d.Log.InfoContext(ctx, "drain done", "reason", request.Reason, "elapsed", (budget - time.Until(deadline)).Round(time.Millisecond))
	return nil
}
