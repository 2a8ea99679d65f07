package agent

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/flowviz/flowagent/agent/systemd"
)

const (
	// pulse is how often the service manager's picture of the node is brought up to date: at once, to a person.
	pulse = time.Second
	// extension is what a boot or a drain asks for at a time, and keeps asking for while it goes on. Each of their stages
	// has a deadline of its own; this one is for an agent that hangs.
	extension = 30 * time.Second
)

// supervised is what the service manager was told last.
type supervised struct {
	notifier *systemd.Notifier
	ready    atomic.Bool // the boot is over; from here on the watchdog wants to be fed

	status         string
	fed, prolonged time.Time
}

// supervise tells the service manager how the node is doing, until servers ends; stopping ends when the agent is asked to
// stop. A start or a stop takes as long as it takes while the agent makes progress. Afterwards the watchdog is fed as
// long as checks are being looked after: it bites when the agent hangs, and not when a database does.
func (a *Agent) supervise(stopping, servers context.Context) {
	tick := time.NewTicker(pulse)
	defer tick.Stop()
	asked := stopping.Done()
	for {
		a.tell(time.Now(), stopping.Err() != nil)
		select {
		case <-tick.C:
		case <-asked:
			a.supervisor.notifier.Stopping()
			asked = nil
		case <-servers.Done():
			a.tell(time.Now(), true) // the last word: why it ends
			return
		}
	}
}

func (a *Agent) tell(now time.Time, stopping bool) {
	s := &a.supervisor
	answer := a.endpoint.Snapshot()
	if status := describe(answer.State.String(), answer.Detail); status != s.status {
		s.status = status
		s.notifier.Status(status)
	}
	if stopping || !s.ready.Load() {
		// parts waits for the lock that every stage takes: no extension for an agent that is stuck in one.
		if a.parts(); now.Sub(s.prolonged) >= extension/3 {
			s.prolonged = now
			s.notifier.Extend(extension)
		}
		return
	}
	limit := s.notifier.Watchdog()
	monitor := a.parts().monitor
	if limit == 0 || now.Sub(s.fed) < limit/3 || now.Sub(monitor.Progress()) > limit/3 {
		return
	}
	s.fed = now
	s.notifier.Alive()
}

// describe is a state in one line.
func describe(state, detail string) string {
	if detail == "" || detail == state {
		return state
	}
	return state + ": " + detail
}
