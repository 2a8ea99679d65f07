package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/flowviz/flowagent/internal/awsfake"
)

const (
	instanceID  = "i-1234567890abcdef0" // the metadata mock's own
	scaling     = "e2e-group"
	hookName    = "e2e-terminate"
	terminating = "autoscaling:EC2_INSTANCE_TERMINATING"
)

// member is a node in an Auto Scaling group with a termination hook.
func member(t *testing.T, timeout time.Duration) (*node, *awsfake.Lifecycle) {
	t.Helper()
	n := newNode(t, "stories/member")
	group := awsfake.NewLifecycle(nil)
	group.Serve(n.aws)
	group.Add(awsfake.LifecycleHook{Group: scaling, Name: hookName, Transition: terminating, Timeout: timeout, Default: "ABANDON"})
	group.Place(instanceID, scaling, "InService")
	return n, group
}

// terminate has the group end the instance.
func terminate(n *node, group *awsfake.Lifecycle) {
	group.Begin(instanceID, terminating)
	n.announce(announcements{state: "Terminated"})
}

func (n *node) checkAllStopped() {
	n.t.Helper()
	for name, c := range n.inspect() {
		if c.Container.State.Running {
			n.t.Errorf("%s runs, want all stopped", name)
		}
	}
	n.checkEmptyStore()
}

// awaitCompletion waits until the group goes on, and fails unless it does so once and because the node let it.
func awaitCompletion(t *testing.T, group *awsfake.Lifecycle) awsfake.LifecycleAction {
	t.Helper()
	eventually(t, "the instance's termination goes on", func() bool { return group.State(instanceID) == "Terminating:Proceed" })
	action := group.Action(instanceID, hookName)
	if len(action.Results) != 1 || action.Results[0] != "CONTINUE" || action.TimedOut {
		t.Errorf("the action was completed with %q, timed out %t; want CONTINUE once, in time", action.Results, action.TimedOut)
	}
	return action
}

func TestAnInstanceThatIsTerminatedDrainsAndLetsItsGroupGoOn(t *testing.T) {
	t.Parallel()
	n, group := member(t, time.Minute)
	a := n.boot()
	terminate(n, group)
	action := awaitCompletion(t, group)
	if len(action.Heartbeats) == 0 {
		t.Error("got no heartbeat, want one from the first second")
	}
	n.checkAllStopped()
	if code, body := n.health(); code != 503 || !strings.Contains(body, "Auto Scaling terminates the instance") {
		t.Errorf("/health: got %d %s, want 503 with the reason", code, body)
	}
	if d := n.status().Drain; d == nil || d.Trigger != "terminate" || d.Error != "" || d.Ended.IsZero() {
		t.Errorf("status: got drain %+v, want one for the termination that ended well", d)
	}
	if _, metrics := n.get("/metrics"); !strings.Contains(metrics, `flowagent_notices_total{kind="terminate"} 1`+"\n") || !strings.Contains(metrics, `flowagent_drain_state{state="drained"} 1`+"\n") {
		t.Errorf("/metrics doesn't tell of the notice and the drain:\n%s", metrics)
	}
	if count := strings.Count(a.journal.String(), `"msg":"drain started"`); count != 1 {
		t.Errorf("got %d drains, want one for one announcement", count)
	}
}

func TestATerminationIsCompletedWhateverHappensToTheCalls(t *testing.T) {
	t.Parallel()
	n, group := member(t, time.Minute)
	n.boot()
	n.aws.Inject("DescribeLifecycleHooks", 1, awsfake.Throttled())
	n.aws.Inject("RecordLifecycleActionHeartbeat", 1, awsfake.Unavailable())
	n.aws.Inject("CompleteLifecycleAction", 1, awsfake.Unavailable())
	n.aws.Inject("CompleteLifecycleAction", 1, awsfake.LoseReply())
	terminate(n, group)
	awaitCompletion(t, group)
	n.checkAllStopped()
}

func TestATerminationWithoutPermissionToDescribeUsesTheConfiguredHook(t *testing.T) {
	t.Parallel()
	n, group := member(t, time.Minute)
	n.dropIn("50-hook.yaml", "lifecycle: {terminateHook: "+hookName+"}\n")
	n.aws.Inject("DescribeLifecycleHooks", awsfake.Always, awsfake.AccessDenied())
	n.boot()
	terminate(n, group)
	awaitCompletion(t, group)
}

func TestAFailedDrainLetsTheGroupGoOnAllTheSame(t *testing.T) {
	t.Parallel()
	n, group := member(t, time.Minute)
	n.dropIn("50-hooks.yaml", "drain: {hooks: [{name: broken, argv: [/bin/false]}]}\n")
	n.boot()
	terminate(n, group)
	awaitCompletion(t, group)
	if d := n.status().Drain; d == nil || !strings.Contains(d.Error, "broken: ") {
		t.Errorf("status: got drain %+v, want what failed", d)
	}
}

func TestAnAgentThatIsKilledInATerminationGoesOnWithIt(t *testing.T) {
	t.Parallel()
	n, group := member(t, time.Minute)
	g := n.gateEngine()
	a := n.boot()
	stopping := g.hold(t, "the first stop", request("POST", "/containers/[^/]+/stop"))
	terminate(n, group)
	stopping.awaitArrival(a)
	a.kill()
	stopping.release()
	n.start()
	awaitCompletion(t, group)
	n.checkAllStopped()
}

func TestAnInstanceThatComesUpToBeTerminatedStartsNothing(t *testing.T) {
	t.Parallel()
	n, group := member(t, time.Minute)
	n.boot().stop()
	before := n.boxes()
	group.Begin(instanceID, terminating)
	n.find(announcements{state: "Terminated"})
	n.start()
	awaitCompletion(t, group)
	n.checkAllStopped()
	for service, b := range n.boxes() {
		if b != before[service] {
			t.Errorf("%s was %+v and is %+v, want it stopped and nothing else", service, before[service], b)
		}
	}
}

func TestASpotNoticeShortensADrainThatIsUnderWay(t *testing.T) {
	t.Parallel()
	n, _ := member(t, time.Minute)
	g := n.gateEngine()
	a := n.boot()
	stopping := g.hold(t, "the first stop", request("POST", "/containers/[^/]+/stop"))
	drained := make(chan struct{})
	go func() {
		defer close(drained)
		_, _ = n.command("drain", "--timeout", "10m").CombinedOutput() // what it says is another test's
	}()
	stopping.awaitArrival(a)
	at := time.Now().Add(2 * time.Minute).UTC().Truncate(time.Second)
	n.announce(announcements{state: "InService", spot: fmt.Sprintf(`{"action": "terminate", "time": %q}`, at.Format(time.RFC3339))})
	a.await("less time", func(e event) bool { return e.Msg == "drain has less time" && strings.Contains(e.line, "spot instance") })
	if d := n.status().Drain; d == nil || !d.Deadline.Equal(at) {
		t.Errorf("status: got drain %+v, want its deadline at %s", d, at)
	}
	stopping.release()
	<-drained
	n.checkAllStopped()
}

func TestANodeHasLeftItsLoadBalancerBeforeItsServicesStop(t *testing.T) {
	t.Parallel()
	n, group := member(t, time.Minute)
	targets := n.behindTargetGroup()
	g := n.gateEngine()
	a := n.boot()
	stopping := g.hold(t, "the first stop", request("POST", "/containers/[^/]+/stop"))
	terminate(n, group)
	stopping.awaitArrival(a)
	if state := targets.State(targetGroup, instanceID, 8080); state != "draining" {
		t.Errorf("when services stop the target is %s, want draining", state)
	}
	stopping.release()
	awaitCompletion(t, group)
	n.checkAllStopped()
}

func TestADrainGoesOnWhereTheLoadBalancerCannotBeAsked(t *testing.T) {
	t.Parallel()
	n, group := member(t, time.Minute)
	n.dropIn("50-delay.yaml", "drain: {deregisterDelay: 1s}\n")
	n.aws.Inject("DescribeAutoScalingGroups", awsfake.Always, awsfake.AccessDenied())
	n.boot()
	terminate(n, group)
	awaitCompletion(t, group)
	n.checkAllStopped()
	if d := n.status().Drain; d == nil || !strings.Contains(d.Error, "waited for drain.deregisterDelay instead") || !strings.Contains(d.Error, "autoscaling:DescribeAutoScalingGroups") {
		t.Errorf("status: got drain %+v, want what to allow", d)
	}
}
