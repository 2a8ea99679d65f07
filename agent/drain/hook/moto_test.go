package hook_test

import (
	"log/slog"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	sdk "github.com/aws/aws-sdk-go-v2/service/autoscaling"
	"github.com/google/go-cmp/cmp"

	"github.com/flowviz/flowagent/agent/drain/hook"
	"github.com/flowviz/flowagent/internal/awsfake"
	"github.com/flowviz/flowagent/test/lab"
)

// found are the hooks that the API at an endpoint has for an instance.
func found(t *testing.T, endpoint, instance string) []*hook.Hook {
	t.Helper()
	hooks, err := hook.New(hook.Options{API: hook.NewClient(config(endpoint, nil)), Instance: instance, Log: slog.New(slog.DiscardHandler)}).
		Find(t.Context(), hook.Terminating, "")
	if err != nil {
		t.Fatal(err)
	}
	return hooks
}

// The stand-in for Auto Scaling was written for these tests; moto was not. Where both have the same group, a node has to
// find the same in both.
func TestMotoAndTheStandInAgreeOnHooks(t *testing.T) {
	endpoint := lab.Moto(t)
	client := sdk.NewFromConfig(config(endpoint, nil))
	if _, err := client.CreateLaunchConfiguration(t.Context(), &sdk.CreateLaunchConfigurationInput{
		LaunchConfigurationName: aws.String("flowviz"), ImageId: aws.String("ami-12c6146b"), InstanceType: aws.String("t3.small"), // one that moto has
	}); err != nil {
		t.Fatal(err)
	}
	if _, err := client.CreateAutoScalingGroup(t.Context(), &sdk.CreateAutoScalingGroupInput{
		AutoScalingGroupName: aws.String(group), LaunchConfigurationName: aws.String("flowviz"),
		MinSize: aws.Int32(1), MaxSize: aws.Int32(1), AvailabilityZones: []string{"us-east-1a"},
	}); err != nil {
		t.Fatal(err)
	}
	lifecycle := awsfake.NewLifecycle(nil)
	for _, h := range []awsfake.LifecycleHook{
		launch, terminate,
		{Group: group, Name: "terminate-logs", Transition: string(hook.Terminating), Timeout: 2 * time.Hour, Default: "ABANDON"},
	} {
		lifecycle.Add(h)
		if _, err := client.PutLifecycleHook(t.Context(), &sdk.PutLifecycleHookInput{
			AutoScalingGroupName: &h.Group, LifecycleHookName: &h.Name, LifecycleTransition: &h.Transition,
			HeartbeatTimeout: aws.Int32(int32(h.Timeout / time.Second)), DefaultResult: &h.Default,
		}); err != nil {
			t.Fatal(err)
		}
	}
	instances, err := client.DescribeAutoScalingInstances(t.Context(), &sdk.DescribeAutoScalingInstancesInput{})
	if err != nil || len(instances.AutoScalingInstances) != 1 {
		t.Fatalf("got instances %v, %v, want one", instances, err)
	}
	member := instances.AutoScalingInstances[0]
	lifecycle.Place(*member.InstanceId, group, *member.LifecycleState)

	// The stand-in in front of moto: what it doesn't answer still comes from there.
	fake, err := awsfake.New(endpoint)
	if err != nil {
		t.Fatal(err)
	}
	lifecycle.Serve(fake)
	server := httptest.NewServer(fake)
	t.Cleanup(server.Close)
	if diff := cmp.Diff(found(t, endpoint, *member.InstanceId), found(t, server.URL, *member.InstanceId), values); diff != "" {
		t.Errorf("hooks (-moto +awsfake):\n%s", diff)
	}

	fronted := sdk.NewFromConfig(config(server.URL, nil))
	answer, err := fronted.DescribeAutoScalingInstances(t.Context(), &sdk.DescribeAutoScalingInstancesInput{InstanceIds: []string{*member.InstanceId}})
	if err != nil || len(answer.AutoScalingInstances) != 1 {
		t.Fatalf("got %v, %v, want one instance", answer, err)
	}
	for name, get := range map[string]func() (moto, fake *string){
		"group": func() (*string, *string) {
			return member.AutoScalingGroupName, answer.AutoScalingInstances[0].AutoScalingGroupName
		},
		"state": func() (*string, *string) { return member.LifecycleState, answer.AutoScalingInstances[0].LifecycleState },
		"zone": func() (*string, *string) {
			return member.AvailabilityZone, answer.AutoScalingInstances[0].AvailabilityZone
		},
	} {
		if m, f := get(); aws.ToString(m) != aws.ToString(f) {
			t.Errorf("%s: got %q from moto and %q from awsfake", name, aws.ToString(m), aws.ToString(f))
		}
	}
	if groups, err := fronted.DescribeAutoScalingGroups(t.Context(), &sdk.DescribeAutoScalingGroupsInput{}); err != nil || len(groups.AutoScalingGroups) != 1 {
		t.Errorf("got %v, %v, want moto's group through the stand-in", groups, err)
	}

	// A whole action over a real connection.
	lifecycle.Begin(*member.InstanceId, string(hook.Terminating))
	for _, k := range found(t, server.URL, *member.InstanceId) {
		fake.Inject("CompleteLifecycleAction", 1, awsfake.LoseReply())
		if outcome, err := k.Complete(t.Context(), hook.Continue); outcome != hook.AlreadyOver || err != nil {
			t.Errorf("hook %s: got %v, %v, want the lost try to have completed it", k.Name, outcome, err)
		}
		if got := lifecycle.Action(*member.InstanceId, k.Name).Results; len(got) != 1 {
			t.Errorf("hook %s: got results %v, want one", k.Name, got)
		}
	}
}
