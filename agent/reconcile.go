package agent

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/flowviz/flowagent/agent/config"
	"github.com/flowviz/flowagent/agent/health/metrics"
	"github.com/flowviz/flowagent/agent/workload"
)

// recovery is what became of one service that had to be brought back.
type recovery struct {
	recovered, failed uint64
	problem           string // for the status, once it was given up
}

// reconcile brings services back until ctx ends, which is no failure. A node that leaves is let alone, for as long as it
// does.
func (a *Agent) reconcile(ctx context.Context) error {
	for {
		leaving := a.parting.Leaving()
		a.reconcileUntil(ctx, leaving)
		if leaving.Err() == nil {
			return nil
		}
		select {
		case <-a.parting.Staying().Done():
		case <-ctx.Done():
			return nil
		}
	}
}

func (a *Agent) reconcileUntil(ctx, leaving context.Context) {
	// A drain doesn't wait until a service is back.
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(leaving, cancel)()
	_ = a.parts().runner.Reconcile(ctx, workload.Reconciliation{
		Settings: func() (config.Reconcile, config.Ready) {
			w := a.parts().config.Workload // a reload may change it
			return w.Reconcile, w.Ready
		},
		Lock:   a.lockChanging,
		Report: func(r workload.Recovery) { a.noteRecovery(ctx, r) },
		Random: rand.Float64,
	})
}

// lockChanging locks changing, unless ctx ends before.
func (a *Agent) lockChanging(ctx context.Context) (unlock func(), err error) {
	locked := make(chan struct{})
	go func() {
		a.changing.Lock()
		select {
		case locked <- struct{}{}:
		case <-ctx.Done():
			a.changing.Unlock()
		}
	}()
	select {
	case <-locked:
		return a.changing.Unlock, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// noteRecovery writes what happened to a service into the log, and keeps it for the metrics and the status.
func (a *Agent) noteRecovery(ctx context.Context, r workload.Recovery) {
	elapsed := r.Elapsed.Round(time.Millisecond)
	log := a.log.With("service", r.Service)
	a.mu.Lock()
	defer a.mu.Unlock()
	note := a.recovered[r.Service]
	switch r.Step {
	case workload.RecoveryBegun:
		log.WarnContext(ctx, "service has to be brought back", "why", r.Why, "try", r.Try, "tries", r.Tries)
	case workload.RecoveryDone:
		note.recovered++
		note.problem = ""
		log.InfoContext(ctx, "service is back", "elapsed", elapsed, "try", r.Try)
	case workload.RecoveryFailed:
		note.failed++
		log = log.With("error", r.Why, "elapsed", elapsed, "try", r.Try, "tries", r.Tries)
		if r.Next > 0 {
			log = log.With("wait", r.Next.Round(time.Millisecond))
		}
		log.WarnContext(ctx, "service not brought back")
	case workload.RecoveryGivenUp:
		next := fmt.Sprintf("correct the cause, then run 'docker compose up' for it or restart the agent, which leaves alone what runs ('docker compose -p %s logs %s' may tell more)",
			a.produced.config.Workload.Project, r.Service)
		note.problem = fmt.Sprintf("service %q was given up after %d tries: %s: %s", r.Service, r.Try, r.Why, next)
		log.ErrorContext(ctx, "service given up", "error", r.Why, "elapsed", elapsed, "tries", r.Try, "next", next)
	case workload.RecoveryUnneeded:
		note.problem = ""
		log.InfoContext(ctx, "service that was given up is back", "elapsed", elapsed)
	case workload.RecoveryUnwelcome:
		log.InfoContext(ctx, "service was stopped on purpose and is left alone")
	}
	if a.recovered == nil {
		a.recovered = map[string]recovery{}
	}
	a.recovered[r.Service] = note
}

// givenUp are the lines of the status about services that were given up. The caller holds mu.
func (a *Agent) givenUp() []string {
	var lines []string
	for _, service := range slices.Sorted(maps.Keys(a.recovered)) {
		if problem := a.recovered[service].problem; problem != "" {
			lines = append(lines, problem)
		}
	}
	return lines
}

// recoveries are for the metrics: every service that is watched, whatever happened to it.
func (a *Agent) recoveries() []metrics.Recoveries {
	a.mu.Lock()
	defer a.mu.Unlock()
	cfg := a.produced.config.Workload.Reconcile
	if a.produced.runner == nil || cfg.Tries == 0 {
		return nil
	}
	var all []metrics.Recoveries
	for _, service := range a.produced.runner.Project().Services() {
		if !slices.Contains(cfg.Leave, service) {
			note := a.recovered[service]
			all = append(all, metrics.Recoveries{Service: service, Recovered: note.recovered, Failed: note.failed, GivenUp: note.problem != ""})
		}
	}
	return all
}
