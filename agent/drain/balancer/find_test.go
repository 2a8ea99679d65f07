package balancer_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/flowviz/flowagent/agent/drain/balancer"
	"github.com/flowviz/flowagent/internal/awsfake"
)

const (
	instances  = "DescribeAutoScalingInstances"
	groups     = "DescribeAutoScalingGroups"
	attributes = "DescribeTargetGroupAttributes"
)

// scaled puts the instance into an Auto Scaling group, which is described by XML of the API.
func (c *cloud) scaled(description string) {
	c.Inject(instances, awsfake.Always, replyTo(instances,
		"<AutoScalingInstances><member><InstanceId>"+instance+"</InstanceId><AutoScalingGroupName>wms</AutoScalingGroupName></member></AutoScalingInstances>"))
	c.Inject(groups, awsfake.Always, replyTo(groups,
		"<AutoScalingGroups><member><AutoScalingGroupName>wms</AutoScalingGroupName>"+description+"</member></AutoScalingGroups>"))
}

// delay gives all target groups a deregistration delay.
func (c *cloud) delay(seconds string) {
	c.Inject(attributes, awsfake.Always, replyTo(attributes,
		"<Attributes><member><Key>stickiness.enabled</Key><Value>false</Value></member>"+
			"<member><Key>deregistration_delay.timeout_seconds</Key><Value>"+seconds+"</Value></member></Attributes>"))
}

func (c *cloud) find(t *testing.T, limit time.Duration) ([]balancer.Group, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	return balancer.New(c.options).Find(ctx)
}

func targetGroups(names ...string) string {
	list := "<TargetGroupARNs>"
	for _, name := range names {
		list += "<member>" + arnOf(name) + "</member>"
	}
	return list + "</TargetGroupARNs>"
}

func trafficSource(id, kind string) string {
	return "<member><Identifier>" + id + "</Identifier><Type>" + kind + "</Type></member>"
}

func TestFind_EachTargetGroupIsFoundOnceWhereverItStands(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCloud(t)
		c.delay("120")
		c.scaled(targetGroups("web", "api") + "<TrafficSources>" + trafficSource(arnOf("web"), "elbv2") + trafficSource(arnOf("new"), "elbv2") + "</TrafficSources>")
		c.options.TargetGroups = []string{arnOf("api"), arnOf("internal")}
		got, err := c.find(t, time.Minute)
		if err != nil {
			t.Fatal(err)
		}
		delay := new(2 * time.Minute)
		want := []balancer.Group{
			{ARN: arnOf("web"), DeregistrationDelay: delay},
			{ARN: arnOf("api"), DeregistrationDelay: delay, Configured: true},
			{ARN: arnOf("new"), DeregistrationDelay: delay},
			{ARN: arnOf("internal"), DeregistrationDelay: delay, Configured: true},
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
		if got := got[0].Name(); got != "web" {
			t.Errorf("name: got %q, want web", got)
		}
	})
}

func TestFind_AnInstanceOfNoScalingGroupHasTheConfiguredGroupsOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCloud(t)
		c.delay("0")
		c.Inject(instances, awsfake.Always, replyTo(instances, "<AutoScalingInstances/>"))
		if got, err := c.find(t, time.Minute); len(got) != 0 || err != nil {
			t.Errorf("got %v, %v, want nothing", got, err)
		}
		c.options.TargetGroups = []string{arnOf("web")}
		got, err := c.find(t, time.Minute)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff([]balancer.Group{{ARN: arnOf("web"), Configured: true, DeregistrationDelay: new(time.Duration)}}, got); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
		if got := c.Calls(groups); got != 0 {
			t.Errorf("got %d calls for an Auto Scaling group that isn't there", got)
		}
	})
}

func TestFind_AWayThatCannotBeAskedIsAnErrorBesideTheGroups(t *testing.T) {
	const lattice = "arn:aws:vpc-lattice:us-east-1:123456789012:targetgroup/tg-0123456789abcdef0"
	for name, c := range map[string]struct{ description, says string }{
		"VPC Lattice":                   {"<TrafficSources>" + trafficSource(lattice, "vpc-lattice") + "</TrafficSources>", lattice},
		"Classic Load Balancer":         {"<LoadBalancerNames><member>classic</member></LoadBalancerNames>", "from classic,"},
		"Classic as a traffic source":   {"<TrafficSources>" + trafficSource("classic", "elb") + "</TrafficSources>", "from classic,"},
		"Classic, which is named twice": {"<LoadBalancerNames><member>classic</member></LoadBalancerNames><TrafficSources>" + trafficSource("classic", "elb") + "</TrafficSources>", "from classic,"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				cloud := newCloud(t)
				cloud.delay("300")
				cloud.scaled(targetGroups("web") + c.description)
				got, err := cloud.find(t, time.Minute)
				if !errors.Is(err, balancer.ErrUnsupported) || errors.Is(err, balancer.ErrDenied) {
					t.Errorf("got %v, want ErrUnsupported", err)
				}
				says(t, err, "group wms", c.says, "set drain.deregisterDelay")
				if joined, ok := err.(interface{ Unwrap() []error }); ok && len(joined.Unwrap()) != 1 {
					t.Errorf("got %v, want it told once", err)
				}
				if len(got) != 1 || got[0].ARN != arnOf("web") {
					t.Errorf("got %v, want the target group all the same", got)
				}
			})
		})
	}
}

func TestFind_ADenialLeavesTheConfiguredGroups(t *testing.T) {
	for _, action := range []string{instances, groups} {
		t.Run(action, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newCloud(t)
				c.delay("300")
				c.Inject(action, awsfake.Always, awsfake.AccessDenied())
				c.scaled(targetGroups("web"))
				c.options.TargetGroups = []string{arnOf("internal")}
				got, err := c.find(t, time.Minute)
				if !errors.Is(err, balancer.ErrDenied) {
					t.Errorf("got %v, want ErrDenied", err)
				}
				says(t, err, instance, "allow autoscaling:"+action+" ")
				if len(got) != 1 || got[0].ARN != arnOf("internal") {
					t.Errorf("got %v, want the configured one", got)
				}
			})
		})
	}
}

func TestFind_WhatPassesIsTriedUntilItHasPassed(t *testing.T) {
	for name, fault := range map[string]awsfake.Fault{
		"throttled": awsfake.Throttled(), "unavailable": awsfake.Unavailable(), "hanging": awsfake.Hang(), "lost reply": awsfake.LoseReply(),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newCloud(t)
				c.delay("300")
				c.Inject(instances, 7, fault)
				c.Inject(groups, 7, fault)
				c.scaled(targetGroups("web"))
				if got, err := c.find(t, 5*time.Minute); len(got) != 1 || err != nil {
					t.Errorf("got %v, %v, want the target group", got, err)
				}
			})
		})
	}
}

func TestFind_ADelayThatCannotBeReadIsLeftOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCloud(t)
		c.Inject(attributes, 1, awsfake.AccessDenied())
		c.Inject(attributes, 1, replyTo(attributes, ""))
		c.delay("soon")
		c.scaled(targetGroups("web", "api", "internal"))
		got, err := c.find(t, time.Minute)
		if err != nil || len(got) != 3 {
			t.Fatalf("got %v, %v, want three groups", got, err)
		}
		for _, g := range got {
			if g.DeregistrationDelay != nil {
				t.Errorf("%s: got %v, want none", g.Name(), *g.DeregistrationDelay)
			}
		}
		if told := c.log.events("level=INFO", "deregistration delay is not known", "group="); len(told) != 2 {
			t.Errorf("got %v, want an event for each answer that was no use", told)
		}
		if told := c.log.events("allow elasticloadbalancing:DescribeTargetGroupAttributes"); len(told) != 1 {
			t.Errorf("got %v, want one that says what to allow", c.log.events())
		}
	})
}

func TestFind_ADelayThatHangsHoldsUpTheDrainForSecondsAtMost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCloud(t)
		c.Inject(attributes, awsfake.Always, awsfake.Hang())
		c.scaled(targetGroups("web", "api"))
		began := time.Now()
		if got, err := c.find(t, time.Minute); len(got) != 2 || err != nil {
			t.Errorf("got %v, %v, want both groups", got, err)
		}
		if took := time.Since(began); took != 3*time.Second {
			t.Errorf("it took %v, want 3s for both together", took)
		}
	})
}
