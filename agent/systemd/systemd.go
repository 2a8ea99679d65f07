// Package systemd is the agent's side of the talk with its service manager: whether it is ready and alive, and the
// sockets that systemd holds for it while it is being replaced.
//
// What enters is the environment that systemd gave the process; what leaves are datagrams (sd_notify(3)) and listeners
// (sd_listen_fds(3)). Outside systemd every call does nothing. It never asks systemd for anything and never waits for it.
package systemd

import (
	"fmt"
	"log/slog"
	"net"
	"strings"
	"time"

	"github.com/coreos/go-systemd/v22/activation"
	"github.com/coreos/go-systemd/v22/daemon"
)

// Notifier tells the service manager how the service is doing. It may be used by several goroutines.
type Notifier struct {
	log      *slog.Logger
	watchdog time.Duration
}

// NewNotifier reads what systemd said to this process. A message that can't be sent is logged, and nothing else: the
// node is fit to serve whether systemd hears of it or not.
func NewNotifier(log *slog.Logger) *Notifier {
	n := &Notifier{log: log}
	// An error means that the variables aren't systemd's own: there is no watchdog, then.
	n.watchdog, _ = daemon.SdWatchdogEnabled(false)
	return n
}

// Watchdog is the silence (WatchdogSec=) after which systemd kills the service; zero for no watchdog.
func (n *Notifier) Watchdog() time.Duration { return n.watchdog }

// Ready says that the service has started, or goes on after a reload.
func (n *Notifier) Ready() { n.send(daemon.SdNotifyReady) }

// Alive feeds the watchdog.
func (n *Notifier) Alive() { n.send(daemon.SdNotifyWatchdog) }

// Status is one line for `systemctl status`; never a secret.
func (n *Notifier) Status(text string) { n.send("STATUS=" + oneLine(text)) }

// Reloading says that a reload has begun; Ready ends it.
func (n *Notifier) Reloading() {
	n.send(daemon.SdNotifyReloading + "\n" + daemon.SdNotifyMonotonicUsec())
}

// Stopping says that the service is on its way out.
func (n *Notifier) Stopping() { n.send(daemon.SdNotifyStopping) }

// Extend asks for so much more time, from now, to start or to stop.
func (n *Notifier) Extend(by time.Duration) {
	n.send(fmt.Sprintf("EXTEND_TIMEOUT_USEC=%d", by.Microseconds()))
}

func (n *Notifier) send(state string) {
	if _, err := daemon.SdNotify(false, state); err != nil {
		n.log.Warn("systemd not told", "message", state, "error", err)
	}
}

func oneLine(text string) string {
	first, _, more := strings.Cut(strings.TrimSpace(text), "\n")
	if more {
		first += " …"
	}
	return first
}

// Listeners are the TCP sockets that systemd passed to this process (flowagent.socket), none outside systemd. It takes
// them once: a second call returns none.
func Listeners() ([]net.Listener, error) {
	byName, err := activation.ListenersWithNames()
	if err != nil {
		return nil, fmt.Errorf("take the sockets that systemd holds: %w", err)
	}
	var listeners []net.Listener
	for name, passed := range byName {
		for _, l := range passed {
			if _, isTCP := l.(*net.TCPListener); !isTCP {
				return nil, fmt.Errorf("systemd passed the socket %q, which is no TCP listener: correct the units that name flowagent.service", name)
			}
			listeners = append(listeners, l)
		}
	}
	return listeners, nil
}
