// Package systemd is the agent's side of the talk with its service manager: whether it is ready and alive, and the
// sockets that systemd holds for it while it is being replaced.
//
// What enters is the environment that systemd gave the process; what leaves are datagrams (sd_notify(3)), the agent's own
// port among them, and listeners (sd_listen_fds(3)). Outside systemd every call does nothing. It asks systemd one thing
// only, whether the machine is going down, and changes nothing there.
package systemd

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strings"
	"time"

	"github.com/coreos/go-systemd/v22/activation"
	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/coreos/go-systemd/v22/dbus"
	"golang.org/x/sys/unix"
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

// Present tells whether there is anybody to tell.
func (n *Notifier) Present() bool { return os.Getenv("NOTIFY_SOCKET") != "" }

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

// askLimit is how long systemd may take to say what it is at: milliseconds, but for a machine that is going down, whose systemd
// stops a hundred units at once. An emulated machine with two busy processors needed more than two seconds; who gives up then
// doesn't drain. It is a third of the unit's TimeoutStopSec, within which the drain has to ask for more.
const askLimit = 20 * time.Second

// MachineStops tells whether systemd is shutting the machine down: to power off, reboot, halt or kexec. It is asked when
// the service is told to stop, which a restart of the service does as well. A systemd that doesn't say is taken not to be
// shutting down; outside systemd nobody is asked.
func (n *Notifier) MachineStops(ctx context.Context) bool {
	if !n.Present() {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, askLimit)
	defer cancel()
	// Directly, as root may: the bus goes down with the rest of the machine.
	manager, err := dbus.NewSystemdConnectionContext(ctx)
	if err != nil {
		manager, err = dbus.NewSystemConnectionContext(ctx)
	}
	if err != nil {
		n.log.WarnContext(ctx, "systemd doesn't say whether the machine shuts down: taken for a restart of the agent alone", "error", err)
		return false
	}
	defer manager.Close()
	state, err := manager.SystemStateContext(ctx)
	if err != nil {
		n.log.WarnContext(ctx, "systemd doesn't say whether the machine shuts down: taken for a restart of the agent alone", "error", err)
		return false
	}
	return state.Value.Value() == "stopping" // of those in org.freedesktop.systemd1(5)
}

// storedName is what an agent's own port is called in systemd's store of file descriptors.
const storedName = "flowagent-stored"

// Store gives systemd a copy of a listening socket, to be held while the service restarts (FileDescriptorStoreMax=). What
// connects meanwhile waits for the next agent. It is closed when the service is stopped.
func (n *Notifier) Store(l *net.TCPListener) error {
	socket := os.Getenv("NOTIFY_SOCKET")
	if socket == "" {
		return nil
	}
	if err := sendSocket(socket, l); err != nil {
		return fmt.Errorf("store %s with systemd: %w", l.Addr(), err)
	}
	return nil
}

// sendSocket does what go-systemd has no call for: a notification with a descriptor beside it. The descriptor is lent by
// the listener rather than made by its File method, which would make the socket a blocking one for both: an Accept that
// nothing ends.
func sendSocket(to string, l *net.TCPListener) error {
	listener, err := l.SyscallConn()
	if err != nil {
		return err
	}
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	defer unix.Close(fd)
	message := "FDSTORE=1\nFDNAME=" + storedName
	var sent error
	err = listener.Control(func(lent uintptr) {
		sent = unix.Sendmsg(fd, []byte(message), unix.UnixRights(int(lent)), &unix.SockaddrUnix{Name: to}, 0)
	})
	return errors.Join(err, os.NewSyscallError("sendmsg", sent))
}

// Unstore has systemd close what was stored.
func (n *Notifier) Unstore() { n.send("FDSTOREREMOVE=1\nFDNAME=" + storedName) }

// Listener is a TCP socket that systemd held for this process.
type Listener struct {
	*net.TCPListener
	// Stored says that an earlier agent stored it; else it is a socket unit's.
	Stored bool
}

// Listeners are the TCP sockets that systemd passed to this process, none outside systemd. It takes them once: a second
// call returns none.
func Listeners() ([]Listener, error) {
	byName, err := activation.ListenersWithNames()
	if err != nil {
		return nil, fmt.Errorf("take the sockets that systemd holds: %w", err)
	}
	var listeners []Listener
	for name, passed := range byName {
		for _, l := range passed {
			tcp, isTCP := l.(*net.TCPListener)
			if !isTCP {
				return nil, fmt.Errorf("systemd passed the socket %q, which is no TCP listener: correct the units that name flowagent.service", name)
			}
			listeners = append(listeners, Listener{tcp, name == storedName})
		}
	}
	return listeners, nil
}
