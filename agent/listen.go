package agent

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/flowviz/flowagent/agent/config"
	"github.com/flowviz/flowagent/agent/health"
)

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

// lastAnswers is how long clients that are connected may take to ask and be answered when the agent ends: microseconds, but
// for a machine that is waiting.
const lastAnswers = 2 * time.Second

// serve runs server on the listeners until ctx ends.
//
// Then it answers whoever is connected to the end, because to a load balancer a connection that breaks is a failure.
// [http.Server.Shutdown] would not: what it reads once it began it drops. Whoever hasn't asked after last isn't waited
// for.
func serve(ctx context.Context, group *errgroup.Group, server *http.Server, last time.Duration, listeners ...net.Listener) {
	waiting := &unanswered{next: server.ConnState, conns: map[net.Conn]bool{}}
	server.ConnState = waiting.connState
	var accepting sync.WaitGroup
	for _, listener := range listeners {
		accepting.Add(1)
		group.Go(func() error {
			defer accepting.Done()
			if err := server.Serve(listener); ctx.Err() == nil {
				return fmt.Errorf("serve on %s: %w", listener.Addr(), err)
			}
			return nil
		})
	}
	group.Go(func() error {
		<-ctx.Done()
		for _, listener := range listeners {
			_ = listener.Close() // what connects from now on waits where systemd holds the port
		}
		server.SetKeepAlivesEnabled(false)
		accepting.Wait() // the last one that was accepted counts, too
		waiting.wait(last)
		_ = server.Close() // what is open now is nobody's who asked
		return nil
	})
}

// unanswered are the connections of a server that had no answer yet: somebody is asking, or about to. A connection that is
// kept after its first answer isn't among them: whoever keeps one knows that it may be closed between two requests.
type unanswered struct {
	next  func(net.Conn, http.ConnState) // the server's own hook; may be nil
	count atomic.Int64                   // of conns, for the hook, which is called twice a request

	mu    sync.Mutex
	conns map[net.Conn]bool
}

func (u *unanswered) connState(conn net.Conn, state http.ConnState) {
	switch {
	case state == http.StateNew:
		u.mu.Lock()
		u.conns[conn] = true
		u.count.Store(int64(len(u.conns)))
		u.mu.Unlock()
	case state != http.StateActive && u.count.Load() > 0:
		u.mu.Lock()
		delete(u.conns, conn)
		u.count.Store(int64(len(u.conns)))
		u.mu.Unlock()
	}
	if u.next != nil {
		u.next(conn, state)
	}
}

// wait returns when there is none, or after limit.
func (u *unanswered) wait(limit time.Duration) {
	end := time.NewTimer(limit)
	defer end.Stop()
	tick := time.NewTicker(readyPoll)
	defer tick.Stop()
	for u.count.Load() > 0 {
		select {
		case <-tick.C:
		case <-end.C:
			return
		}
	}
}
