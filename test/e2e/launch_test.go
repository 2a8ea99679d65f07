package e2e

import (
	"encoding/json"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/ssm"
	"github.com/aws/aws-sdk-go-v2/service/ssm/types"

	"github.com/flowviz/flowagent/agent/launch"
	"github.com/flowviz/flowagent/internal/awsfake"
)

const (
	launchHook = "e2e-launch"
	launching  = "autoscaling:EC2_INSTANCE_LAUNCHING"
)

// newcomer is a node that its Auto Scaling group launches, and that waits for a launch hook.
func newcomer(t *testing.T, timeout time.Duration) (*node, *awsfake.Lifecycle) {
	t.Helper()
	n, group := member(t, time.Minute)
	group.Add(awsfake.LifecycleHook{Group: scaling, Name: launchHook, Transition: launching, Timeout: timeout, Default: "ABANDON"})
	group.Place(instanceID, scaling, "Pending")
	group.Begin(instanceID, launching)
	return n, group
}

// checkLaunch waits until the launch goes on, and fails unless it does so once and because of what the node said.
func checkLaunch(t *testing.T, group *awsfake.Lifecycle, result string) {
	t.Helper()
	eventually(t, "the launch goes on", func() bool { return group.State(instanceID) != "Pending:Wait" })
	action := group.Action(instanceID, launchHook)
	if len(action.Results) != 1 || action.Results[0] != result || action.TimedOut {
		t.Errorf("the action was completed with %q, timed out %t; want %s once, in time", action.Results, action.TimedOut, result)
	}
	if len(action.Heartbeats) == 0 {
		t.Error("got no heartbeat, want one from the first second")
	}
}

func (n *node) parameters() *ssm.Client {
	return ssm.New(ssm.Options{
		Region: region, BaseEndpoint: new(n.env["AWS_ENDPOINT_URL"]), Credentials: credentials.NewStaticCredentialsProvider("testing", "testing", ""),
	})
}

// failedLaunches is what the group's parameter says; zero where there is none.
func (n *node) failedLaunches() (kept struct {
	Failures int
	Reason   string
}) {
	n.t.Helper()
	out, err := n.parameters().GetParameter(n.t.Context(), &ssm.GetParameterInput{Name: new(launch.Parameter(scaling))})
	if err != nil {
		if !strings.Contains(err.Error(), "ParameterNotFound") {
			n.t.Fatal(err)
		}
		return kept
	}
	if err := json.Unmarshal([]byte(*out.Parameter.Value), &kept); err != nil {
		n.t.Fatal(err)
	}
	return kept
}

// failLaunches has the group's last launches failed.
func (n *node) failLaunches(times int) {
	n.t.Helper()
	value, err := json.Marshal(map[string]any{"failures": times, "last": time.Now(), "instance": "i-0", "reason": "the ones before"})
	if err != nil {
		n.t.Fatal(err)
	}
	if _, err := n.parameters().PutParameter(n.t.Context(), &ssm.PutParameterInput{
		Name: new(launch.Parameter(scaling)), Value: new(string(value)), Type: types.ParameterTypeString, Overwrite: new(true),
	}); err != nil {
		n.t.Fatal(err)
	}
}

func TestAnInstanceThatIsReadyIsLetIntoService(t *testing.T) {
	t.Parallel()
	n, group := newcomer(t, time.Minute)
	n.failLaunches(3)
	n.aws.Inject("CompleteLifecycleAction", 1, awsfake.LoseReply())
	n.boot()
	checkLaunch(t, group, "CONTINUE")
	eventually(t, "the group's failed launches are forgotten", func() bool { return n.failedLaunches().Failures == 0 })
}

func TestALaunchWhoseBootFailedForGoodIsAbandoned(t *testing.T) {
	for _, c := range []struct {
		what, userData, dropIn, says string
	}{
		{what: "in the compose files", dropIn: "drain: {order: [nobody]}\n", says: `no service "nobody"`},
		{what: "in the user data", userData: "apiVersion: flowagent/v1\nkind: Node\nnode: {hue: blue}\n", says: "node.hue"},
	} {
		t.Run(c.what, func(t *testing.T) {
			t.Parallel()
			n, group := newcomer(t, time.Minute)
			if c.userData != "" {
				n.onEC2(c.userData)
			}
			n.dropIn("60-wrong.yaml", c.dropIn)
			a := n.start()
			if code := a.wait(); code != 2 || !strings.Contains(a.said(), c.says) {
				t.Errorf("got exit code %d and %s, want 2 and what is wrong", code, a.said())
			}
			checkLaunch(t, group, "ABANDON")
			if kept := n.failedLaunches(); kept.Failures != 1 || !strings.Contains(kept.Reason, c.says) {
				t.Errorf("the group's parameter says %+v, want the first failure and its reason", kept)
			}
		})
	}
}

func TestAnEndlessReplacementIsDamped(t *testing.T) {
	t.Parallel()
	n, group := newcomer(t, time.Minute)
	n.failLaunches(1)
	n.dropIn("60-wrong.yaml", "drain: {order: [nobody]}\n")
	a := n.start()
	a.await("the wait", func(e event) bool {
		return e.Msg == "launch failed, as others of the group before: the instance is given up later" &&
			strings.Contains(e.line, `"failures":2`) && strings.Contains(e.line, `"wait":60000000000`)
	})
	if code, body := n.health(); code != 503 || !strings.Contains(body, "nobody") {
		t.Errorf("/health: got %d %s, want 503 and why", code, body)
	}
	a.signal(syscall.SIGTERM) // an operator who wants to look
	if code := a.wait(); code != 2 {
		t.Errorf("got exit code %d, want 2 for what only the operator can mend", code)
	}
	if got := group.Action(instanceID, launchHook); len(got.Results) != 0 || group.State(instanceID) != "Pending:Wait" {
		t.Errorf("the launch was completed with %q, want it to wait", got.Results)
	}
}

func TestAnInstanceThatIsTerminatedInsteadOfLaunchedWaitsForNothing(t *testing.T) {
	t.Parallel()
	n, group := newcomer(t, time.Minute)
	n.failLaunches(9) // half an hour
	n.dropIn("60-wrong.yaml", "drain: {order: [nobody]}\n")
	a := n.start()
	a.await("the wait", func(e event) bool {
		return e.Msg == "launch failed, as others of the group before: the instance is given up later"
	})
	terminate(n, group)
	awaitCompletion(t, group)
	if code := a.wait(); code != 2 {
		t.Errorf("got exit code %d, want 2 for what only the operator can mend", code)
	}
}

func TestAnAgentThatIsKilledInALaunchGoesOnWithIt(t *testing.T) {
	t.Parallel()
	n, group := newcomer(t, time.Minute)
	g := n.gateEngine()
	starting := g.hold(t, "the first start", request("POST", "/containers/[^/]+/start"))
	a := n.start()
	starting.awaitArrival(a)
	a.kill()
	starting.release()
	n.boot()
	checkLaunch(t, group, "CONTINUE")
}

func TestANodeInServiceHasNoLaunchToAnswer(t *testing.T) {
	t.Parallel()
	n, _ := member(t, time.Minute)
	n.boot().stop()
	n.boot()
	if got := n.aws.Calls("CompleteLifecycleAction") + n.aws.Calls("RecordLifecycleActionHeartbeat"); got != 0 {
		t.Errorf("got %d calls about a lifecycle action, want none", got)
	}
}

func TestAnInstanceOfAWarmPoolIsPreparedAndBootsWhenItEntersService(t *testing.T) {
	t.Parallel()
	n, group := newcomer(t, time.Minute)
	n.useRegistryFor("e2e/registry")
	n.find(announcements{state: "Warmed:Running"})
	a := n.start()
	checkLaunch(t, group, "CONTINUE") // into the pool
	if code, body := n.health(); code != 503 || !strings.Contains(body, "warm pool") {
		t.Errorf("/health: got %d %s, want 503 and why", code, body)
	}
	if boxes := n.boxes(); len(boxes) != 0 {
		t.Errorf("got containers %v in the warm pool, want none", boxes)
	}
	if _, err := os.Stat(n.store()); !os.IsNotExist(err) {
		t.Errorf("secrets in the warm pool: got %v, want no place for them", err)
	}
	if _, err := n.engine.ImageInspect(t.Context(), n.app); err != nil {
		t.Errorf("the image isn't prepared: %v", err)
	}
	n.rotate("e2e/key", "key-number-two")

	group.Begin(instanceID, launching)
	n.announce(announcements{state: "InService"})
	a.awaitReady()
	checkLaunch(t, group, "CONTINUE") // into service
	n.checkReads("api", "/run/secrets/key", "key-number-two")
}

func TestAnInstanceThatReturnsToItsWarmPoolDrainsAndComesBackAnew(t *testing.T) {
	t.Parallel()
	n, group := member(t, time.Minute)
	a := n.boot()
	group.Begin(instanceID, terminating)
	n.announce(announcements{state: "Warmed:Running"})
	awaitCompletion(t, group)
	n.checkAllStopped()
	if code, body := n.health(); code != 503 || !strings.Contains(body, "warm pool") {
		t.Errorf("/health: got %d %s, want 503 and why", code, body)
	}
	n.announce(announcements{state: "InService"})
	if code := a.wait(); code != 0 {
		t.Errorf("got exit code %d, want 0: systemd starts it anew", code)
	}
	n.boot()
}

func TestAnInstanceThatEndsInItsWarmPoolLetsItsGroupGoOn(t *testing.T) {
	t.Parallel()
	n, group := member(t, time.Minute)
	n.find(announcements{state: "Warmed:Stopped"})
	a := n.start()
	a.await("the pool", func(e event) bool { return e.Msg == "prepared for the warm pool" })
	group.Begin(instanceID, terminating)
	n.announce(announcements{state: "Warmed:Terminated"})
	awaitCompletion(t, group)
	if boxes := n.boxes(); len(boxes) != 0 {
		t.Errorf("got containers %v, want that none was ever started", boxes)
	}
	a.stop()
}

func TestAMachineThatStopsInItsWarmPoolHasNothingToDrain(t *testing.T) {
	t.Parallel()
	n, _ := member(t, time.Minute)
	n.find(announcements{state: "Warmed:Stopped"})
	a := n.start()
	a.await("the pool", func(e event) bool { return e.Msg == "prepared for the warm pool" })
	a.stop()
	if text := a.journal.String(); strings.Contains(text, "drain started") {
		t.Errorf("a node without work was drained:\n%s", text)
	}
}
