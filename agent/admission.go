package agent

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/flowviz/flowagent/agent/health"
	"github.com/flowviz/flowagent/agent/report"
	"github.com/flowviz/flowagent/internal/atomicfile"
	"github.com/flowviz/flowagent/internal/footprint"
)

// admissionPath is there while this node is admitted: from the first time that its checks were up until it drains or the
// machine reboots. A restarted agent then doesn't take a serving node out because a shared database is away.
func (a *Agent) admissionPath() string { return filepath.Join(a.opts.RunDir, "admitted") }

func (a *Agent) wasAdmitted() bool {
	_, err := os.Stat(a.admissionPath())
	return err == nil
}

func (a *Agent) markAdmitted(ctx context.Context) {
	a.telling.newcomer.Store(!a.wasAdmitted())
	if err := atomicfile.Write(a.admissionPath(), nil, 0o644); err != nil {
		a.log.WarnContext(ctx, "admission not noted: a restart of the agent waits for shared checks again", "error", err)
	}
}

func (a *Agent) forgetAdmission(ctx context.Context) {
	if err := os.Remove(a.admissionPath()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		a.log.WarnContext(ctx, "admission not forgotten", "error", err)
	}
}

// readyPoll is how often a node that waits to be ready looks at what it answers: unnoticeable in a boot, and a thousandth
// of a percent of a core.
const readyPoll = 10 * time.Millisecond

// awaitReady notes when the node is ready for the first time. It has no limit: a node whose database is away stays
// starting, and whoever started it decides how long.
func (a *Agent) awaitReady(ctx context.Context) {
	err := a.recorder.Do(ctx, "checks", func(ctx context.Context, span *report.Span) error {
		span.Note("checks", len(a.parts().checks))
		tick := time.NewTicker(readyPoll)
		defer tick.Stop()
		for a.endpoint.State() != health.Ready {
			select {
			case <-tick.C:
			case <-ctx.Done():
				return context.Cause(ctx)
			case <-a.parting.Leaving().Done():
				select { // a drain may be taken back
				case <-a.parting.Staying().Done():
				case <-ctx.Done():
					return context.Cause(ctx)
				}
			}
		}
		return nil
	})
	if err != nil {
		return // the agent stops before the node was ever ready
	}
	a.mu.Lock()
	a.readyAt = time.Now()
	since := a.started
	if !a.woken.IsZero() { // of the wait in a warm pool nobody wants to know
		since = a.woken
	}
	elapsed := a.readyAt.Sub(since)
	a.mu.Unlock()
	a.launched()
	a.log.InfoContext(ctx, fmt.Sprintf("ready in %.1f s", elapsed.Seconds()))
	a.tellReady(elapsed)
	a.writeRecord(ctx, nil)
	// Compose files and AWS's answers were read; from here on it is probes. The node is as good without it.
	if err := footprint.Shrink(); err != nil {
		a.log.WarnContext(ctx, "memory of the boot not given back", "error", err)
	}
}
