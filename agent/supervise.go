package agent

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/flowviz/flowagent/agent/systemd"
)

// extension is what a boot or a drain asks for at a time, and keeps asking for while it goes on. Each of their stages has a
// deadline of its own; this one is for an agent that hangs.
const extension = 30 * time.Second

// supervised is what the service manager was told last.
type supervised struct {
	notifier *systemd.Notifier
	ready    atomic.Bool // the boot is over; from here on the watchdog wants to be fed
	status   string
}

// supervise tells the service manager how the node is doing, until servers ends; stopping ends when the agent is asked to
// stop. A start or a stop takes as long as it takes while the agent makes progress. Afterwards the watchdog is fed as
// long as checks are being looked after: it bites when the agent hangs, and not when a database does.
func (a *Agent) supervise(stopping, servers context.Context) {
	if !a.supervisor.notifier.Present() {
		return
	}
	// Often enough for both, and seldom enough for an agent that has nothing else to do.
	pulse := extension / 3
	if limit := a.supervisor.notifier.Watchdog(); limit > 0 {
		pulse = min(pulse, limit/3)
	}
	tick := time.NewTicker(pulse)
	defer tick.Stop()
	asked := stopping.Done()
	for {
		a.tell(stopping.Err() != nil)
		select {
		case <-tick.C:
		case <-a.endpoint.Changed():
		case <-asked:
			a.supervisor.notifier.Stopping()
			asked = nil
		case <-servers.Done():
			a.tell(true) // the last word: why it ends
			return
		}
	}
}

func (a *Agent) tell(stopping bool) {
	s := &a.supervisor
	answer := a.endpoint.Snapshot()
	if status := describe(answer.State.String(), answer.Detail); status != s.status {
		s.status = status
		s.notifier.Status(status)
	}
	monitor := a.parts().monitor // it waits for the lock that every stage takes: nothing more from an agent that is stuck in one
	if stopping || !s.ready.Load() {
		s.notifier.Extend(extension)
		return
	}
	if monitor == nil || monitor.Alive() { // none where a node leaves before it served
		s.notifier.Alive()
	}
}

// describe is a state in one line.
func describe(state, detail string) string {
	if detail == "" || detail == state {
		return state
	}
	return state + ": " + detail
}
