package agent

import (
	"context"
	"fmt"
	"net"
	"sync/atomic"
	"time"

	"github.com/flowviz/flowagent/agent/config"
	"github.com/flowviz/flowagent/agent/health"
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

// listenHealth opens the port for health checks, or takes over what systemd holds for it. held tells that clients may be
// waiting in it since an earlier agent left.
//
// A socket unit that listens elsewhere is served, too: its port is open whether anybody answers or not.
func (a *Agent) listenHealth(ctx context.Context, configured config.ListenAddress) (listeners []net.Listener, held bool, err error) {
	covered := false
	for _, l := range a.opts.Listeners {
		matches := covers(l.Addr().String(), string(configured))
		switch {
		case !matches && l.Stored: // health.listen is another one since
			a.supervisor.notifier.Unstore()
			_ = l.Close() // nobody asks there any more
			continue
		case !matches:
			a.log.WarnContext(ctx, "flowagent.socket doesn't listen at health.listen: make them the same", "socket", l.Addr().String(), "listen", string(configured))
		}
		listeners = append(listeners, l)
		covered = covered || matches
		held = held || l.Stored
	}
	if covered {
		return listeners, held, nil
	}
	own, err := net.Listen("tcp", string(configured))
	if err != nil {
		return nil, false, fmt.Errorf("listen for health checks: %w: free the port, or set health.listen", err)
	}
	if err := a.supervisor.notifier.Store(own.(*net.TCPListener)); err != nil {
		a.log.WarnContext(ctx, "the port is closed while the agent restarts", "error", err)
	}
	return append(listeners, own), false, nil
}

// longestHold is how long clients wait for a new agent on a node that serves, at most: with their own connection it is
// less than the five seconds after which an ALB's probe gives up.
const longestHold = 3 * time.Second

// awaitSettled returns when a restarted agent knows again how its node is. Until then a node that serves would answer
// "starting" to a load balancer that need not know of the restart.
func (a *Agent) awaitSettled(ctx context.Context) {
	limit := time.NewTimer(longestHold)
	defer limit.Stop()
	tick := time.NewTicker(readyPoll)
	defer tick.Stop()
	for a.endpoint.State() == health.Starting {
		select {
		case <-tick.C:
		case <-limit.C:
			return
		case <-ctx.Done():
			return
		}
	}
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
