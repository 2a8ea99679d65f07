package agent

import (
	"context"
	"fmt"
	"net"
	"sync/atomic"
	"time"

	"github.com/flowviz/flowagent/agent/config"
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

// listenHealth opens the port for health checks, or takes over what systemd holds for it. A socket unit that listens
// elsewhere is served, too: its port is open whether anybody answers or not.
func (a *Agent) listenHealth(ctx context.Context, configured config.ListenAddress) ([]net.Listener, error) {
	listeners := a.opts.Listeners
	for _, l := range listeners {
		if covers(l.Addr().String(), string(configured)) {
			return listeners, nil
		}
	}
	own, err := net.Listen("tcp", string(configured))
	if err != nil {
		return nil, fmt.Errorf("listen for health checks: %w: free the port, or set health.listen", err)
	}
	for _, l := range listeners {
		a.log.WarnContext(ctx, "flowagent.socket doesn't listen at health.listen, whose port is closed while the agent restarts: make them the same",
			"socket", l.Addr().String(), "listen", string(configured))
	}
	return append(listeners, own), nil
}

// covers tells whether a socket bound to address receives what is sent to the configured one.
func covers(address, configured string) bool {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return false
	}
	wantedHost, wantedPort, err := net.SplitHostPort(configured)
	if err != nil || port != wantedPort {
		return false
	}
	ip, wanted := net.ParseIP(host), net.ParseIP(wantedHost)
	switch {
	case !ip.IsUnspecified():
		return ip.Equal(wanted)
	case wanted == nil: // every interface, or a name that stands for one
		return true
	}
	return ip.To4() == nil || wanted.To4() != nil // [::] takes IPv4 as well
}
