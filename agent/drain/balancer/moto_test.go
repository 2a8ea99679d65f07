package balancer_test

import (
	"context"
	"encoding/xml"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/autoscaling"
	elb "github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2"
	"github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2/types"

	"github.com/flowviz/flowagent/agent/drain/balancer"
	"github.com/flowviz/flowagent/internal/awsfake"
	"github.com/flowviz/flowagent/test/lab"
)

// realCloud is moto behind awsfake, with the clients that the agent uses.
type realCloud struct {
	*awsfake.Server
	endpoint  string
	balancing *elb.Client
	scaling   *autoscaling.Client
}

func newRealCloud(t *testing.T) *realCloud {
	t.Helper()
	fake, err := awsfake.New(lab.Moto(t))
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(fake)
	t.Cleanup(server.Close)
	c := &realCloud{Server: fake, endpoint: server.URL}
	c.balancing, c.scaling = balancer.NewClients(aws.Config{
		Region: "us-east-1", BaseEndpoint: &server.URL, Credentials: credentials.NewStaticCredentialsProvider("test", "test", ""),
	})
	return c
}

// vpc returns the id of a VPC that is there from the start. One call isn't worth EC2's SDK.
func (c *realCloud) vpc(t *testing.T) string {
	t.Helper()
	form := url.Values{"Action": {"DescribeVpcs"}, "Version": {"2016-11-15"}}
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, c.endpoint, strings.NewReader(form.Encode()))
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	// By this alone moto knows the service; it checks no signature.
	request.Header.Set("Authorization", "AWS4-HMAC-SHA256 Credential=test/20260101/us-east-1/ec2/aws4_request, SignedHeaders=host, Signature=0")
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	var reply struct {
		IDs []string `xml:"vpcSet>item>vpcId"`
	}
	if err := xml.NewDecoder(response.Body).Decode(&reply); err != nil || len(reply.IDs) == 0 {
		t.Fatalf("got %s, %v, %v, want a VPC", response.Status, reply.IDs, err)
	}
	return reply.IDs[0]
}

// targetGroup makes one for instances, with a deregistration delay in seconds.
func (c *realCloud) targetGroup(t *testing.T, vpc, name, delay string) string {
	t.Helper()
	out, err := c.balancing.CreateTargetGroup(t.Context(), &elb.CreateTargetGroupInput{
		Name: &name, VpcId: &vpc, Port: aws.Int32(80), Protocol: types.ProtocolEnumHttp, TargetType: types.TargetTypeEnumInstance,
	})
	if err != nil {
		t.Fatal(err)
	}
	id := aws.ToString(out.TargetGroups[0].TargetGroupArn)
	if _, err := c.balancing.ModifyTargetGroupAttributes(t.Context(), &elb.ModifyTargetGroupAttributesInput{
		TargetGroupArn: &id, Attributes: []types.TargetGroupAttribute{{Key: aws.String("deregistration_delay.timeout_seconds"), Value: &delay}},
	}); err != nil {
		t.Fatal(err)
	}
	return id
}

// scalingGroup starts two instances in target groups and returns their ids.
func (c *realCloud) scalingGroup(t *testing.T, name string, targetGroups ...string) (instances [2]string) {
	t.Helper()
	if _, err := c.scaling.CreateLaunchConfiguration(t.Context(), &autoscaling.CreateLaunchConfigurationInput{
		LaunchConfigurationName: &name, ImageId: aws.String("ami-12c6146b"), InstanceType: aws.String("t3.micro"),
	}); err != nil {
		t.Fatal(err)
	}
	if _, err := c.scaling.CreateAutoScalingGroup(t.Context(), &autoscaling.CreateAutoScalingGroupInput{
		AutoScalingGroupName: &name, LaunchConfigurationName: &name, AvailabilityZones: []string{"us-east-1a"},
		MinSize: aws.Int32(2), MaxSize: aws.Int32(2), TargetGroupARNs: targetGroups,
	}); err != nil {
		t.Fatal(err)
	}
	out, err := c.scaling.DescribeAutoScalingGroups(t.Context(), &autoscaling.DescribeAutoScalingGroupsInput{AutoScalingGroupNames: []string{name}})
	if err != nil || len(out.AutoScalingGroups) != 1 || len(out.AutoScalingGroups[0].Instances) != 2 {
		t.Fatalf("got %v, %v, want a group of two instances", out, err)
	}
	for i, one := range out.AutoScalingGroups[0].Instances {
		instances[i] = aws.ToString(one.InstanceId)
	}
	return instances
}

// states are those of a target group's registered instances.
func (c *realCloud) states(t *testing.T, group string) map[string]types.TargetHealthStateEnum {
	t.Helper()
	out, err := c.balancing.DescribeTargetHealth(t.Context(), &elb.DescribeTargetHealthInput{TargetGroupArn: &group})
	if err != nil {
		t.Fatal(err)
	}
	states := map[string]types.TargetHealthStateEnum{}
	for _, d := range out.TargetHealthDescriptions {
		states[aws.ToString(d.Target.Id)] = d.TargetHealth.State
	}
	return states
}

// always is the shortest pause, since moto needs none.
func always() float64 { return 0 }

func TestAnInstanceLeavesTheTargetGroupsOfItsScalingGroup(t *testing.T) {
	c := newRealCloud(t)
	vpc := c.vpc(t)
	web, api, internal := c.targetGroup(t, vpc, "leave-web", "20"), c.targetGroup(t, vpc, "leave-api", "300"), c.targetGroup(t, vpc, "leave-internal", "0")
	nodes := c.scalingGroup(t, "leave", web, api)
	for _, node := range nodes {
		if _, err := c.balancing.RegisterTargets(t.Context(), &elb.RegisterTargetsInput{TargetGroupArn: &internal, Targets: []types.TargetDescription{{Id: &node}}}); err != nil {
			t.Fatal(err)
		}
	}
	// The SDK tries these again.
	c.Inject("DescribeAutoScalingInstances", 1, awsfake.Throttled())
	c.Inject("DescribeTargetHealth", 1, awsfake.Unavailable())
	c.Inject("DeregisterTargets", 1, awsfake.LoseReply())

	targets := balancer.New(balancer.Options{
		LoadBalancing: c.balancing, Scaling: c.scaling, Instance: nodes[0], TargetGroups: []string{internal}, Random: always,
	})
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var groups []balancer.Group
	for complete := false; !complete; { // a delay that is late is left out: a leaving node doesn't wait for it
		var err error
		if groups, err = targets.Find(ctx); err != nil || len(groups) != 3 {
			t.Fatalf("got %v, %v, want three target groups", groups, err)
		}
		complete = !slices.ContainsFunc(groups, func(g balancer.Group) bool { return g.DeregistrationDelay == nil })
	}
	delays := map[string]time.Duration{"leave-web": 20 * time.Second, "leave-api": 300 * time.Second, "leave-internal": 0}
	for _, g := range groups {
		if want := delays[g.Name()]; g.DeregistrationDelay == nil || *g.DeregistrationDelay != want {
			t.Errorf("delay of %s: got %v, want %v", g.Name(), g.DeregistrationDelay, want)
		}
	}
	if err := targets.Leave(ctx, groups); err != nil {
		t.Fatal(err)
	}
	for _, group := range []string{web, api, internal} {
		states := c.states(t, group)
		if state, held := states[nodes[0]]; held {
			t.Errorf("%s: the node is still %s", group, state)
		}
		if len(states) != 1 {
			t.Errorf("%s: got %v, want the other node alone", group, states)
		}
	}
	if err := targets.Return(ctx); err != nil {
		t.Fatal(err)
	}
	for _, group := range []string{web, api, internal} {
		if states := c.states(t, group); len(states) != 2 {
			t.Errorf("%s: got %v, want the node back beside the other one", group, states)
		}
	}
}

func TestAnInstanceThatAWSDoesNotKnowIsInNoGroup(t *testing.T) {
	c := newRealCloud(t)
	targets := balancer.New(balancer.Options{LoadBalancing: c.balancing, Scaling: c.scaling, Instance: instance})
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	groups, err := targets.Find(ctx)
	if err != nil || len(groups) != 0 {
		t.Fatalf("got %v, %v, want none", groups, err)
	}
	if err := targets.Leave(ctx, groups); err != nil {
		t.Error(err)
	}
}
