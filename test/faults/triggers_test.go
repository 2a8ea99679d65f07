package faults

import (
	"fmt"
	"syscall"
	"time"

	"github.com/flowviz/flowagent/agent/drain"
)

// trigger is something that makes a node drain.
type trigger struct {
	name string
	// completes: an action of Auto Scaling waits for the node.
	completes bool
	// leaves: the agent ends with its drain. last: no agent comes after it.
	leaves, last bool
	// arguments and environment are added to those of the agent.
	arguments   []string
	environment func(n *node) []string
	pull        func(n *node)
}

var operatorsWish = drain.Request{Reason: "an operator wishes it", Trigger: "operator"}

var triggers = []trigger{
	{name: "terminate", completes: true, pull: func(n *node) {
		n.targets.Deregister(target, instance, n.port)
		n.group.Begin(instance, terminating)
		n.announce(announced{state: "Terminated"})
	}},
	{name: "spot, then terminate", completes: true, pull: func(n *node) {
		n.group.Begin(instance, terminating)
		n.announce(announced{state: "Terminated", spot: interruption()})
	}},
	{name: "spot", pull: func(n *node) {
		n.announce(announced{state: "InService", spot: interruption()})
	}},
	{name: "rebalance", pull: func(n *node) {
		n.announce(announced{state: "InService", rebalance: fmt.Sprintf(`{"noticeTime": %q}`, time.Now().UTC().Format(time.RFC3339))})
	}},
	{name: "operator", pull: func(n *node) {
		go func() { _ = n.drain(n.t.Context()) }() // what it says is in the log, too
	}},
	{name: "stop", leaves: true, arguments: []string{"--drain-on-stop"}, pull: func(n *node) {
		n.agent().signal(syscall.SIGTERM)
	}},
	{name: "shutdown", leaves: true, last: true, environment: (*node).systemd, pull: func(n *node) {
		n.agent().signal(syscall.SIGTERM)
	}},
}

// interruption is a spot instance's end in two minutes.
func interruption() string {
	return fmt.Sprintf(`{"action": "terminate", "time": %q}`, time.Now().Add(2*time.Minute).UTC().Format(time.RFC3339))
}
