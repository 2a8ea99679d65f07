package awsfake_test

import (
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	elb "github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2"
	"github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2/types"
	"github.com/google/go-cmp/cmp"
)

func TestTargetsDrainBeforeTheyAreUnused(t *testing.T) {
	const group, drains = "arn:of:web", 5 * time.Minute
	fake, endpoint := serve(t, "")
	began := time.Now()
	var passed atomic.Int64 // on the clock of the targets
	targets := fake.Targets(func() time.Time { return began.Add(time.Duration(passed.Load())) }, drains)
	targets.Add(group, 80)
	targets.Register(group, "i-a", 80, "healthy")
	targets.Register(group, "i-a", 8081, "initial")
	targets.Register(group, "i-b", 80, "unhealthy")
	client := elb.New(elb.Options{
		Region: "us-east-1", BaseEndpoint: &endpoint, Retryer: aws.NopRetryer{},
		Credentials: credentials.NewStaticCredentialsProvider("test", "test", ""),
	})
	// states lists what is told of the named targets, or of all.
	states := func(group string, named ...types.TargetDescription) (list []string, err error) {
		out, err := client.DescribeTargetHealth(t.Context(), &elb.DescribeTargetHealthInput{TargetGroupArn: &group, Targets: named})
		if err != nil {
			return nil, err
		}
		for _, d := range out.TargetHealthDescriptions {
			list = append(list, fmt.Sprintf("%s:%d %s %s", *d.Target.Id, *d.Target.Port, d.TargetHealth.State, d.TargetHealth.Reason))
		}
		return list, nil
	}
	expect := func(when string, want []string, named ...types.TargetDescription) {
		t.Helper()
		got, err := states(group, named...)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", when, diff)
		}
	}
	const other = "i-b:80 unhealthy "
	expect("at first", []string{"i-a:80 healthy ", "i-a:8081 initial ", other})

	withoutPort := types.TargetDescription{Id: aws.String("i-a")}
	unknown := types.TargetDescription{Id: aws.String("i-c"), Port: aws.Int32(80)}
	for range 2 { // the second one changes nothing
		if _, err := client.DeregisterTargets(t.Context(), &elb.DeregisterTargetsInput{
			TargetGroupArn: aws.String(group), Targets: []types.TargetDescription{withoutPort, unknown},
		}); err != nil {
			t.Fatal(err)
		}
		expect("the group's own port deregistered", []string{"i-a:80 draining Target.DeregistrationInProgress", "i-a:8081 initial ", other})
		passed.Add(int64(drains / 2))
	}
	targets.Deregister(group, "i-a", 8081)
	expect("one drained, one to drain", []string{"i-a:8081 draining Target.DeregistrationInProgress", other})
	expect("asked by name", []string{"i-a:80 unused Target.NotRegistered", "i-c:80 unused Target.NotRegistered"}, withoutPort, unknown)
	if got := targets.State(group, "i-a", 8081); got != "draining" {
		t.Errorf("state: got %s, want draining", got)
	}

	if _, err := states("arn:of:another"); codeOf(err) != "UnknownOperationException" {
		t.Errorf("a group that nobody added: got %v, want the upstream's answer", err)
	}
}
