//go:build fleet

package e2e

import (
	"fmt"
	"syscall"
	"time"

	"github.com/flowviz/flowagent/internal/awsfake"
)

// trigger is a way to tell a node to leave.
type trigger struct {
	name      string
	arguments []string         // for the agent
	prepare   func(*fleetNode) // before it boots
	pull      func(*fleetNode) // may return before the node has left
	confirm   func(*fleetNode) // fails unless whoever told the node knows that it has left
	ends      bool             // the agent ends by itself
}

// triggers are taken by turns. A machine's shutdown is not among them, which takes a machine with a systemd (test/systemd).
var triggers = []trigger{
	{
		name:    "flowagent drain",
		prepare: nothing,
		pull: func(m *fleetNode) {
			if out, stderr, code := m.flowagent("drain", "--reason", "replaced"); code != 0 || out != "drained\n" {
				m.t.Errorf("flowagent drain: got %q, %q and code %d, want drained", out, stderr, code)
			}
		},
		confirm: nothing,
	},
	{
		name: "Auto Scaling",
		prepare: func(m *fleetNode) {
			m.becomeInstance()
			m.group = awsfake.NewLifecycle(nil)
			m.group.Serve(m.aws)
			m.group.Add(awsfake.LifecycleHook{Group: scaling, Name: hookName, Transition: terminating, Timeout: time.Minute, Default: "ABANDON"})
			m.group.Place(instanceID, scaling, "InService")
		},
		pull:    func(m *fleetNode) { terminate(m.node, m.group) },
		confirm: func(m *fleetNode) { awaitCompletion(m.t, m.group) },
	},
	{
		name:    "a spot interruption",
		prepare: (*fleetNode).becomeInstance,
		pull: func(m *fleetNode) {
			at := time.Now().Add(2 * time.Minute).UTC().Format(time.RFC3339)
			m.announce(announcements{state: "InService", spot: fmt.Sprintf(`{"action": "terminate", "time": %q}`, at)})
		},
		confirm: nothing,
	},
	{
		name: "a rebalance recommendation",
		prepare: func(m *fleetNode) {
			m.becomeInstance()
			m.dropIn("60-rebalance.yaml", "lifecycle: {rebalance: drain}\n")
		},
		pull: func(m *fleetNode) {
			at := time.Now().UTC().Format(time.RFC3339)
			m.announce(announcements{state: "InService", rebalance: fmt.Sprintf(`{"noticeTime": %q}`, at)})
		},
		confirm: nothing,
	},
	{
		name:      "SIGTERM",
		arguments: []string{"--drain-on-stop"},
		prepare:   nothing,
		pull:      func(m *fleetNode) { m.agent.signal(syscall.SIGTERM) },
		confirm: func(m *fleetNode) {
			if code := m.agent.wait(); code != 0 {
				m.t.Errorf("after SIGTERM: got exit code %d, want 0", code)
			}
		},
		ends: true,
	},
}

func nothing(*fleetNode) {}

// becomeInstance makes the machine an EC2 instance in service. Its group has no load balancer: the edge is another one.
func (m *fleetNode) becomeInstance() {
	m.t.Helper()
	m.onEC2("# nothing that is flowagent's")
	m.useAWS(true)
	m.dropIn("60-instance.yaml", "node: {provider: ec2}\nlifecycle: {interval: 1s}\n")
}
