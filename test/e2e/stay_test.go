package e2e

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/flowviz/flowagent/internal/awsfake"
)

// targetGroup is one that a test's instance is registered in.
const targetGroup = "arn:aws:elasticloadbalancing:us-east-1:123456789012:targetgroup/e2e/0123456789abcdef"

// behindTargetGroup registers the instance in a target group of its Auto Scaling group.
func (n *node) behindTargetGroup() *awsfake.Targets {
	// What a group is made of is moto's to know, but this group is the stand-in's.
	n.aws.Handle("DescribeAutoScalingGroups", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(w, `<DescribeAutoScalingGroupsResponse><DescribeAutoScalingGroupsResult><AutoScalingGroups><member>
			<AutoScalingGroupName>%s</AutoScalingGroupName><TargetGroupARNs><member>%s</member></TargetGroupARNs>
			</member></AutoScalingGroups></DescribeAutoScalingGroupsResult></DescribeAutoScalingGroupsResponse>`, scaling, targetGroup)
	}))
	targets := n.aws.Targets(time.Now, time.Hour)
	targets.Add(targetGroup, 8080)
	targets.Register(targetGroup, instanceID, 8080, "healthy")
	return targets
}

// drainUntilEdge begins a drain that goes no further than its first step, since nobody notices that the node leaves.
func drainUntilEdge(n *node) {
	n.t.Helper()
	if out, stderr, code := n.flowagent("drain", "--wait=false", "--reason", "second thoughts"); code != 0 || !strings.Contains(out, "draining") {
		n.t.Fatalf("flowagent drain --wait=false: got %q, %q and code %d, want that it drains", out, stderr, code)
	}
	if code, body := n.health(); code != 503 || !strings.Contains(body, "second thoughts") {
		n.t.Errorf("/health: got %d %s, want 503 with the reason", code, body)
	}
}

func TestADrainIsTakenBackBeforeServicesStop(t *testing.T) {
	t.Parallel()
	n := newKept(t)
	n.dropIn("60-delay.yaml", "drain: {deregisterDelay: 1h, budget: 4h}\n")
	a := n.boot()
	before := n.boxes()
	drainUntilEdge(n)
	if out, stderr, code := n.flowagent("drain", "--cancel"); code != 0 || !strings.Contains(out, "taken back") {
		t.Fatalf("flowagent drain --cancel: got %q, %q and code %d, want it taken back", out, stderr, code)
	}
	awaitHealth(t, n, 200, "")
	n.checkUntouched(before)
	status := n.status()
	if status.State != "ready" || status.Drain == nil || !status.Drain.TakenBack || status.Drain.Error != "" {
		t.Errorf("got state %s and drain %+v, want ready and a drain that was taken back", status.State, status.Drain)
	}
	if _, metrics := n.get("/metrics"); !strings.Contains(metrics, `flowagent_drain_state{state="none"} 1`+"\n") {
		t.Errorf("/metrics tells of a drain:\n%s", metrics)
	}
	if _, err := os.Stat(filepath.Join(n.run(), "leaving.json")); err == nil {
		t.Error("the drain is still noted as cut off")
	}
	if _, stderr, code := n.flowagent("drain", "--cancel"); code != 1 || !strings.Contains(stderr, "no drain is under way") {
		t.Errorf("once more: got %q and code %d, want that there is none", stderr, code)
	}

	// The node is kept as before: what vanishes comes back.
	n.remove("web")
	a.awaitSays(saysBack, "web")
	// And it can leave all the same, which is where there is no way back.
	n.dropIn("60-delay.yaml", "drain: {deregisterDelay: 0s, budget: 1m}\n")
	if _, stderr, code := n.flowagent("reload"); code != 0 {
		t.Fatal(stderr)
	}
	if out, stderr, code := n.flowagent("drain"); code != 0 || out != "drained\n" {
		t.Fatalf("flowagent drain: got %q, %q and code %d", out, stderr, code)
	}
	if _, stderr, code := n.flowagent("drain", "--cancel"); code != 1 || !strings.Contains(stderr, "too late") || !strings.Contains(stderr, "systemctl restart flowagent") {
		t.Errorf("after the drain: got %q and code %d, want that it is too late and what to do", stderr, code)
	}
	n.checkEmptyStore()
}

func TestWhoWaitsForADrainHearsThatItWasTakenBack(t *testing.T) {
	t.Parallel()
	n := newNode(t, "stories/drained")
	n.dropIn("60-delay.yaml", "drain: {deregisterDelay: 1h, budget: 4h}\n")
	n.boot()
	waiting := n.command("drain")
	var said strings.Builder
	waiting.Stderr = &said
	if err := waiting.Start(); err != nil {
		t.Fatal(err)
	}
	awaitHealth(t, n, 503, "draining")
	if _, stderr, code := n.flowagent("drain", "--cancel"); code != 0 {
		t.Fatal(stderr)
	}
	if err := waiting.Wait(); err == nil || !strings.Contains(said.String(), "taken back") {
		t.Errorf("flowagent drain: got %v and %q, want a failure that says so", err, said.String())
	}
}

func TestANodeThatStaysIsBackBehindItsLoadBalancer(t *testing.T) {
	t.Parallel()
	n, _ := member(t, time.Minute)
	n.dropIn("60-budget.yaml", "drain: {budget: 4h}\n")
	targets := n.behindTargetGroup()
	n.boot()
	// From the second look on nobody says that the node left: the drain stays in its first step.
	n.aws.Inject("DeregisterTargets", 1, func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			n.aws.Inject("DescribeTargetHealth", awsfake.Always, awsfake.Unavailable())
			next.ServeHTTP(w, r)
		})
	})
	drainUntilEdge(n)
	eventually(t, "the node is deregistered", func() bool { return targets.State(targetGroup, instanceID, 8080) == "draining" })
	if _, stderr, code := n.flowagent("drain", "--cancel"); code != 0 {
		t.Fatal(stderr)
	}
	if state := targets.State(targetGroup, instanceID, 8080); state != "initial" {
		t.Errorf("the target is %s, want it registered again", state)
	}
	awaitHealth(t, n, 200, "")
}

func TestATerminationIsNotTakenBack(t *testing.T) {
	t.Parallel()
	n, group := member(t, time.Minute)
	n.dropIn("60-delay.yaml", "drain: {deregisterDelay: 10s, budget: 2m}\n")
	n.aws.Inject("DescribeAutoScalingGroups", awsfake.Always, awsfake.AccessDenied())
	n.boot()
	drainUntilEdge(n)
	terminate(n, group)
	eventually(t, "the termination is known", func() bool {
		_, metrics := n.get("/metrics")
		return strings.Contains(metrics, `flowagent_notices_total{kind="terminate"} 1`+"\n")
	})
	_, stderr, code := n.flowagent("drain", "--cancel")
	if code != 1 || !strings.Contains(stderr, "Auto Scaling terminates the instance") {
		t.Errorf("flowagent drain --cancel: got %q and code %d, want that it can't be", stderr, code)
	}
	awaitCompletion(t, group)
	n.checkAllStopped()
}
