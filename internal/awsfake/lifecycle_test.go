package awsfake_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/autoscaling"
	"github.com/aws/smithy-go"
	"github.com/google/go-cmp/cmp"

	"github.com/flowviz/flowagent/internal/awsfake"
)

const (
	launching   = "autoscaling:EC2_INSTANCE_LAUNCHING"
	terminating = "autoscaling:EC2_INSTANCE_TERMINATING"
)

// scaling is a Lifecycle on a clock of its own, with a client.
type scaling struct {
	*awsfake.Lifecycle
	t      *testing.T
	aws    *awsfake.Server
	client *autoscaling.Client
	clock  atomic.Int64
}

func scale(t *testing.T, hooks ...awsfake.LifecycleHook) *scaling {
	t.Helper()
	server, err := awsfake.New("")
	if err != nil {
		t.Fatal(err)
	}
	s := &scaling{t: t, aws: server}
	s.Lifecycle = awsfake.NewLifecycle(func() time.Time { return time.Unix(0, s.clock.Load()) })
	s.Serve(server)
	for _, h := range hooks {
		h.Group = "blue"
		s.Add(h)
	}
	s.Place("i-1", "blue", "InService")
	s.client = autoscaling.New(autoscaling.Options{
		Region: "us-east-1", BaseEndpoint: aws.String("http://aws.test"), Retryer: aws.NopRetryer{},
		HTTPClient:  &http.Client{Transport: awsfake.Transport(server)},
		Credentials: credentials.NewStaticCredentialsProvider("test", "test", ""),
	})
	return s
}

func (s *scaling) pass(d time.Duration) { s.clock.Add(int64(d)) }

func (s *scaling) heartbeat(hook string) error {
	_, err := s.client.RecordLifecycleActionHeartbeat(s.t.Context(), &autoscaling.RecordLifecycleActionHeartbeatInput{
		AutoScalingGroupName: aws.String("blue"), LifecycleHookName: &hook, InstanceId: aws.String("i-1"),
	})
	return err
}

func (s *scaling) complete(hook, result string) error {
	_, err := s.client.CompleteLifecycleAction(s.t.Context(), &autoscaling.CompleteLifecycleActionInput{
		AutoScalingGroupName: aws.String("blue"), LifecycleHookName: &hook, InstanceId: aws.String("i-1"), LifecycleActionResult: &result,
	})
	return err
}

func (s *scaling) wantState(want string) {
	s.t.Helper()
	if got := s.State("i-1"); got != want {
		s.t.Errorf("got state %q, want %q", got, want)
	}
}

// wantNone expects Auto Scaling's refusal for an action that isn't there.
func (s *scaling) wantNone(err error) {
	s.t.Helper()
	var api smithy.APIError
	if !errors.As(err, &api) || api.ErrorCode() != "ValidationError" || api.ErrorMessage() != "No active Lifecycle Action found with instance ID i-1" {
		s.t.Errorf("got %v, want a ValidationError: no active action", err)
	}
}

func (s *scaling) must(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Error(err)
	}
}

func TestALifecycleActionIsCompletedOnce(t *testing.T) {
	for _, c := range []struct{ transition, result, wait, proceed string }{
		{launching, "CONTINUE", "Pending:Wait", "Pending:Proceed"},
		{launching, "ABANDON", "Pending:Wait", "Pending:Proceed"},
		{terminating, "CONTINUE", "Terminating:Wait", "Terminating:Proceed"},
		{terminating, "ABANDON", "Terminating:Wait", "Terminating:Proceed"},
	} {
		t.Run(c.wait+" "+c.result, func(t *testing.T) {
			s := scale(t, awsfake.LifecycleHook{Name: "hook", Transition: c.transition, Timeout: time.Minute, Default: "ABANDON"})
			s.wantNone(s.heartbeat("hook"))
			s.wantNone(s.complete("hook", c.result))
			s.wantState("InService")

			s.Begin("i-1", c.transition)
			s.wantState(c.wait)
			if err := s.complete("hook", "PERHAPS"); codeOf(err) != "ValidationError" {
				t.Errorf("got %v, want a refused result", err)
			}
			s.wantNone(s.complete("another", c.result))
			s.must(s.complete("hook", c.result))
			s.wantState(c.proceed)
			s.wantNone(s.complete("hook", c.result))
			s.wantNone(s.heartbeat("hook"))
			if diff := cmp.Diff([]string{c.result}, s.Action("i-1", "hook").Results); diff != "" {
				t.Errorf("results (-want +got):\n%s", diff)
			}
		})
	}
}

func TestALifecycleActionTimesOutAfterItsLastHeartbeat(t *testing.T) {
	s := scale(t, awsfake.LifecycleHook{Name: "hook", Transition: terminating, Timeout: time.Minute, Default: "CONTINUE"})
	s.Begin("i-1", terminating)
	for range 3 {
		s.pass(59 * time.Second)
		s.must(s.heartbeat("hook"))
	}
	s.pass(59 * time.Second)
	s.wantState("Terminating:Wait")
	s.pass(time.Second)
	s.wantState("Terminating:Proceed")
	s.wantNone(s.heartbeat("hook"))
	a := s.Action("i-1", "hook")
	if !a.TimedOut || len(a.Results) != 0 || len(a.Heartbeats) != 3 {
		t.Errorf("got %+v, want three heartbeats and no result", a)
	}
}

func TestHeartbeatsCannotHoldAnInstanceForever(t *testing.T) {
	for timeout, longest := range map[time.Duration]time.Duration{30 * time.Second: 50 * time.Minute, 2 * time.Hour: 48 * time.Hour} {
		s := scale(t, awsfake.LifecycleHook{Name: "hook", Transition: terminating, Timeout: timeout, Default: "ABANDON"})
		s.Begin("i-1", terminating)
		for passed := time.Duration(0); passed < longest-timeout/2; passed += timeout / 2 {
			s.must(s.heartbeat("hook"))
			s.pass(timeout / 2)
		}
		s.must(s.heartbeat("hook"))
		s.wantState("Terminating:Wait")
		s.pass(timeout / 2)
		s.wantState("Terminating:Proceed")
		s.wantNone(s.heartbeat("hook"))
	}
}

func TestAnInstanceWaitsForAllOfItsHooksUnlessOneIsAbandoned(t *testing.T) {
	hooks := []awsfake.LifecycleHook{
		{Name: "a", Transition: launching, Timeout: time.Minute, Default: "CONTINUE"},
		{Name: "b", Transition: launching, Timeout: 2 * time.Minute, Default: "ABANDON"},
		{Name: "c", Transition: launching, Timeout: time.Hour, Default: "CONTINUE"},
		{Name: "d", Transition: terminating, Timeout: time.Minute, Default: "CONTINUE"},
	}
	t.Run("all continue", func(t *testing.T) {
		s := scale(t, hooks...)
		s.Begin("i-1", launching)
		for _, hook := range []string{"a", "b", "c"} {
			s.wantState("Pending:Wait")
			s.must(s.complete(hook, "CONTINUE"))
		}
		s.wantState("Pending:Proceed")
	})
	t.Run("one is abandoned", func(t *testing.T) {
		s := scale(t, hooks...)
		s.Begin("i-1", launching)
		s.must(s.complete("b", "ABANDON"))
		s.wantState("Pending:Proceed")
		s.wantNone(s.complete("a", "CONTINUE"))
		if !s.Action("i-1", "a").Stopped || !s.Action("i-1", "c").Stopped {
			t.Error("want the other two stopped")
		}
	})
	t.Run("one times out into being abandoned", func(t *testing.T) {
		s := scale(t, hooks...)
		s.Begin("i-1", launching)
		s.pass(2 * time.Minute)
		s.wantState("Pending:Proceed")
		if a, b, c := s.Action("i-1", "a"), s.Action("i-1", "b"), s.Action("i-1", "c"); !a.TimedOut || !b.TimedOut || !c.Stopped {
			t.Errorf("got %+v, %+v, %+v, want two timeouts, of which the second stops the third", a, b, c)
		}
	})
	t.Run("there are none", func(t *testing.T) {
		s := scale(t)
		s.Begin("i-1", launching)
		s.wantState("Pending:Proceed")
	})
}

func TestInstancesAndHooksAreDescribed(t *testing.T) {
	s := scale(t,
		awsfake.LifecycleHook{Name: "a", Transition: launching, Timeout: time.Minute, Default: "CONTINUE"},
		awsfake.LifecycleHook{Name: "b", Transition: terminating, Timeout: time.Hour, Default: "ABANDON"},
	)
	s.Add(awsfake.LifecycleHook{Group: "green", Name: "c", Transition: launching, Timeout: time.Minute, Default: "CONTINUE"})
	s.Place("i-2", "green", "Pending")
	for _, c := range []struct{ asked, want []string }{
		{nil, []string{"i-1 blue InService", "i-2 green Pending"}},
		{[]string{"i-3", "i-2"}, []string{"i-2 green Pending"}},
		{[]string{"i-3"}, nil},
	} {
		out, err := s.client.DescribeAutoScalingInstances(t.Context(), &autoscaling.DescribeAutoScalingInstancesInput{InstanceIds: c.asked})
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, i := range out.AutoScalingInstances {
			got = append(got, *i.InstanceId+" "+*i.AutoScalingGroupName+" "+*i.LifecycleState)
		}
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("instances of %v (-want +got):\n%s", c.asked, diff)
		}
	}
	for _, c := range []struct{ asked, want []string }{
		{nil, []string{"a " + launching + " 60 6000 CONTINUE", "b " + terminating + " 3600 172800 ABANDON"}},
		{[]string{"a", "c"}, []string{"a " + launching + " 60 6000 CONTINUE"}},
	} {
		out, err := s.client.DescribeLifecycleHooks(t.Context(), &autoscaling.DescribeLifecycleHooksInput{
			AutoScalingGroupName: aws.String("blue"), LifecycleHookNames: c.asked,
		})
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, h := range out.LifecycleHooks {
			got = append(got, fmt.Sprintf("%s %s %d %d %s", *h.LifecycleHookName, *h.LifecycleTransition, *h.HeartbeatTimeout, *h.GlobalTimeout, *h.DefaultResult))
		}
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("hooks %v (-want +got):\n%s", c.asked, diff)
		}
	}
}

func TestATransportWithoutANetworkKeepsToItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := scale(t)
		s.aws.Inject("DescribeLifecycleHooks", awsfake.Always, awsfake.Hang())
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		in := &autoscaling.DescribeLifecycleHooksInput{AutoScalingGroupName: aws.String("blue")}
		for _, want := range []int{1, 1} { // the second finds its time over and calls nobody
			if _, err := s.client.DescribeLifecycleHooks(ctx, in); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("got %v, want the deadline", err)
			}
			if got := s.aws.Calls("DescribeLifecycleHooks"); got != want {
				t.Errorf("got %d calls, want %d", got, want)
			}
		}
	})
}

func TestALostReplyLeavesTheActionCompleted(t *testing.T) {
	s := scale(t, awsfake.LifecycleHook{Name: "hook", Transition: terminating, Timeout: time.Minute, Default: "ABANDON"})
	s.Begin("i-1", terminating)
	s.aws.Inject("CompleteLifecycleAction", 1, awsfake.LoseReply())
	if err := s.complete("hook", "CONTINUE"); err == nil || codeOf(err) != "" {
		t.Errorf("got %v, want a broken connection", err)
	}
	s.wantState("Terminating:Proceed")
	s.wantNone(s.complete("hook", "CONTINUE"))
}
