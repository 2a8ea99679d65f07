package faults

import (
	"net/http"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/flowviz/flowagent/internal/awsfake"
)

// fault is something that goes wrong before, in or after a drain.
type fault struct {
	step, name string // the table, and the column in it
	settings   settings
	// without says why the fault makes no sense with a trigger; nil or "" for one with which it does.
	without func(trigger) string
	// boot comes before the agent's start, ready before the trigger, and drain after it. door is opened by boot, where
	// that is set.
	boot, ready, drain func(n *node)
	// restarts: the agent is another one after the fault. long: it takes half a minute, so only the whole matrix has it.
	restarts, long bool
	// fails is part of what the drain says of its failure; "" for a drain that must not fail.
	fails string
	// left are services that go on, with reason; secrets says that the tmpfs can't be emptied.
	left    []string
	secrets bool
}

// reason why a cell has no fault.
func (f fault) reason(t trigger) string {
	if f.without != nil {
		if reason := f.without(t); reason != "" {
			return reason
		}
	}
	if f.restarts && t.last {
		return "nobody starts the agent again on a machine that goes down"
	}
	return ""
}

func withoutCompletion(t trigger) string {
	if !t.completes {
		return "there is no hook, so nothing is completed"
	}
	return ""
}

// short is a budget for drains that use it up: its half is for the edge, which needs two seconds, and more on a busy machine.
const short = 15 * time.Second

// tokenDelay is longer than the interval in which announcements are asked for: a second here.
const tokenDelay = 3 * time.Second

// apiActions are the calls of AWS that a drain makes.
var apiActions = []string{
	"DescribeAutoScalingInstances", "DescribeAutoScalingGroups", "DescribeLifecycleHooks", "RecordLifecycleActionHeartbeat",
	"CompleteLifecycleAction", "DescribeTargetHealth", "DescribeTargetGroupAttributes", "DeregisterTargets",
}

var faults = []fault{
	{step: "none", name: "no fault"},

	{step: "edge", name: "fails", fails: "edge: waited for drain.deregisterDelay instead", ready: func(n *node) {
		n.aws.Inject("DescribeTargetHealth", awsfake.Always, awsfake.AccessDenied())
	}},
	{step: "edge", name: "hangs", settings: settings{budget: short}, fails: "edge: waited for drain.deregisterDelay instead", ready: func(n *node) {
		n.aws.Inject("DescribeTargetHealth", awsfake.Always, awsfake.Hang())
	}},
	{step: "edge", name: "killed", restarts: true, ready: func(n *node) {
		n.held = n.hold("DescribeTargetHealth", false)
	}, drain: func(n *node) {
		n.held.await()
		n.killAndRestart()
	}},

	{step: "requests", name: "fails: no engine", settings: settings{budget: short}, ready: func(n *node) {
		n.relay.set(gone)
	}, drain: func(n *node) {
		n.agent().awaitStepOver("requests")
		n.relay.set(passing)
	}},
	{step: "requests", name: "hangs: engine stopped", settings: settings{budget: short}, ready: func(n *node) {
		n.relay.set(frozen)
	}, drain: func(n *node) {
		n.agent().awaitStepOver("requests")
		n.relay.set(passing)
	}},
	{step: "requests", name: "hangs: endless request", settings: settings{budget: short}, ready: func(n *node) {
		n.ask(time.Hour)
	}},
	{step: "requests", name: "killed", restarts: true, ready: func(n *node) {
		n.answered = n.ask(8 * time.Second)
	}, drain: func(n *node) {
		n.agent().awaitStep("requests")
		n.killAndRestart()
	}},

	{step: "services", name: "fails: engine restarts", ready: func(n *node) {
		n.answered = n.ask(4 * time.Second)
	}, drain: func(n *node) {
		n.agent().awaitStep("requests")
		n.relay.set(gone)
		n.agent().await("a failed try", func(l line) bool { return l.Msg == "services can't be stopped yet" })
		n.relay.set(passing)
	}},
	{step: "services", name: "fails: no engine", settings: settings{budget: short}, fails: "services: ", left: []string{"web", "worker"}, ready: func(n *node) {
		n.ask(time.Hour)
	}, drain: func(n *node) {
		n.agent().awaitStep("requests")
		n.relay.set(gone)
	}},
	{step: "services", name: "hangs: engine stopped", long: true, settings: settings{budget: short}, fails: "services: ", left: []string{"web", "worker"}, ready: func(n *node) {
		n.ask(time.Hour)
	}, drain: func(n *node) {
		n.agent().awaitStep("requests")
		n.relay.set(frozen)
	}},
	{step: "services", name: "hangs: ignores SIGTERM", settings: settings{budget: short, worker: "sleep", grace: time.Hour}},
	{step: "services", name: "killed", restarts: true, settings: settings{worker: "trap -linger 2s"}, drain: func(n *node) {
		n.agent().awaitStep("services")
		n.killAndRestart()
	}},

	{step: "hooks", name: "fails", settings: settings{hooks: `[{name: broken, argv: [/bin/sh, -c, "exit 3"]}]`}, fails: "hooks: broken: "},
	{step: "hooks", name: "hangs", settings: settings{budget: short, hooks: `[{name: endless, argv: [/bin/sleep, "3600"], timeout: 1h}]`}, fails: "hooks: endless: "},
	{step: "hooks", name: "killed", restarts: true, settings: settings{hooks: `[{name: slow, argv: [/bin/sleep, "2"]}]`}, drain: func(n *node) {
		n.agent().awaitStep("hooks")
		n.killAndRestart()
	}},

	{step: "secrets", name: "fails: read-only", fails: "secrets: ", secrets: true, ready: func(n *node) {
		if err := unix.Mount("", n.store(), "", unix.MS_REMOUNT|unix.MS_RDONLY|unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
			n.t.Fatal(err)
		}
	}},
	{step: "secrets", name: "hangs: locked", ready: func(n *node) { n.lockStore() }},
	{step: "secrets", name: "killed", restarts: true, ready: func(n *node) {
		n.unlock = n.lockStore()
	}, drain: func(n *node) {
		n.agent().awaitStep("secrets")
		n.kill()
		n.unlock()
		n.restart()
	}},

	{step: "completion", name: "fails", without: withoutCompletion, ready: func(n *node) {
		n.aws.Inject("CompleteLifecycleAction", 3, awsfake.Unavailable())
	}},
	{step: "completion", name: "hangs", without: withoutCompletion, ready: func(n *node) {
		n.aws.Inject("CompleteLifecycleAction", 1, awsfake.Hang())
	}},
	{step: "completion", name: "loses its reply", without: withoutCompletion, ready: func(n *node) {
		n.aws.Inject("CompleteLifecycleAction", 1, awsfake.LoseReply())
	}},
	{step: "completion", name: "killed before", without: withoutCompletion, restarts: true, ready: func(n *node) {
		n.held = n.hold("CompleteLifecycleAction", false)
	}, drain: func(n *node) {
		n.held.await()
		n.killAndRestart()
	}},
	{step: "completion", name: "killed after", without: withoutCompletion, restarts: true, ready: func(n *node) {
		n.held = n.hold("CompleteLifecycleAction", true)
	}, drain: func(n *node) {
		n.held.await()
		n.killAndRestart()
	}},

	{step: "metadata", name: "late", boot: func(n *node) {
		n.agent().await("a try", func(l line) bool { return l.Msg == "instance metadata not reachable yet" })
		n.door.open()
	}},
	{step: "metadata", name: "404", ready: func(n *node) {
		n.hideAnnouncements()
	}, drain: func(n *node) {
		// Whoever waits for an announcement hears of it only now. When it is gone again, nothing is taken back.
		n.door.heal()
		n.agent().awaitStep("edge")
		n.hideAnnouncements()
	}},
	{step: "metadata", name: "slow tokens", ready: func(n *node) {
		n.door.inject(announcementPath, 1, status(http.StatusUnauthorized))
		n.door.inject(tokenPath, awsfake.Always, awsfake.Delay(tokenDelay))
	}},
	{step: "metadata", name: "silent in the drain", ready: func(n *node) {
		n.answered = n.ask(4 * time.Second)
	}, drain: func(n *node) {
		n.agent().awaitStep("requests")
		n.door.inject("/", awsfake.Always, awsfake.Hang())
	}},

	{step: "AWS", name: "throttled", ready: func(n *node) { n.inject(2, awsfake.Throttled(), apiActions...) }},
	{step: "AWS", name: "loses replies", ready: func(n *node) { n.inject(1, awsfake.LoseReply(), apiActions...) }},
	{step: "AWS", name: "hangs once", long: true, ready: func(n *node) {
		// A call is given up after ten seconds at the edge, and after five for a hook: half a minute has room for these.
		n.inject(1, awsfake.Hang(), "DescribeTargetHealth", "DescribeLifecycleHooks", "RecordLifecycleActionHeartbeat", "CompleteLifecycleAction")
	}},

	{step: "agent", name: "told to restart", restarts: true, without: func(t trigger) string {
		if !t.completes {
			return "the agent that is told to stop ends the drain first; one that is started after that boots, as who starts it wants"
		}
		return ""
	}, ready: func(n *node) {
		n.answered = n.ask(4 * time.Second)
	}, drain: func(n *node) {
		n.agent().awaitStep("requests")
		n.agent().signal(syscall.SIGTERM)
		n.agent().wait()
		n.restart()
	}},
}

func (n *node) inject(times int, f awsfake.Fault, actions ...string) {
	for _, action := range actions {
		n.aws.Inject(action, times, f)
	}
}

// hideAnnouncements has the metadata service know of none.
func (n *node) hideAnnouncements() {
	for _, path := range []string{"autoscaling/", "spot/", "events/"} {
		n.door.inject(announcementPath+path, awsfake.Always, status(http.StatusNotFound))
	}
}

// lockStore takes the lock that every change of the secrets takes, as a process would that was stopped in one.
func (n *node) lockStore() (unlock func()) {
	n.t.Helper()
	dir, err := os.Open(n.store())
	if err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(func() { _ = dir.Close() })
	if err := unix.Flock(int(dir.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		n.t.Fatal(err)
	}
	return func() { _ = dir.Close() }
}

// held is a call of AWS that waits for its answer until the caller is gone.
type held struct {
	n       *node
	action  string
	arrived chan struct{}
}

// hold has the next call of an action wait, before or after it took effect. Later ones go through.
func (n *node) hold(action string, effective bool) *held {
	h := &held{n, action, make(chan struct{})}
	n.aws.Inject(action, 1, func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			lose := awsfake.Hang()(next)
			if effective {
				lost := awsfake.LoseReply()(next)
				lose = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					defer func() {
						_ = recover() // the broken connection, which comes later
						close(h.arrived)
						<-r.Context().Done()
						panic(http.ErrAbortHandler)
					}()
					lost.ServeHTTP(w, r)
				})
			} else {
				close(h.arrived)
			}
			lose.ServeHTTP(w, r)
		})
	})
	return h
}

func (h *held) await() {
	h.n.t.Helper()
	late := time.NewTimer(patience)
	defer late.Stop()
	select {
	case <-h.arrived:
	case <-h.n.agent().ended:
		h.n.t.Fatalf("the agent ended with %d before it called %s", h.n.agent().code, h.action)
	case <-late.C:
		h.n.t.Fatalf("%s was not called in %v", h.action, patience)
	}
}

// kill ends the agent with whatever it was doing.
func (n *node) kill() {
	n.t.Helper()
	n.agent().signal(syscall.SIGKILL)
	n.agent().wait()
}

func (n *node) killAndRestart() {
	n.t.Helper()
	n.kill()
	n.restart()
}
