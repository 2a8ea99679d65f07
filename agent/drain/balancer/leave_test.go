package balancer_test

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/flowviz/flowagent/agent/drain/balancer"
	"github.com/flowviz/flowagent/internal/awsfake"
)

func TestLeave_ARegisteredTargetIsDeregisteredAndSeenDraining(t *testing.T) {
	for _, state := range []string{"healthy", "unhealthy", "initial", "unavailable", "unhealthy.draining"} {
		t.Run(state, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newCloud(t)
				g := c.group("web", state)
				if err := c.leave(t, time.Minute, g); err != nil {
					t.Fatal(err)
				}
				if got := c.state(g); got != "draining" {
					t.Errorf("got %s, want draining", got)
				}
				if got := c.targets.State(g.ARN, other, 80); got != "healthy" {
					t.Errorf("another node: got %s, want it left alone", got)
				}
				if got := c.Calls("DeregisterTargets"); got != 1 {
					t.Errorf("got %d deregistrations, want 1", got)
				}
				if got := c.log.events("level=INFO", "node left a target group", "group=web", "state=draining", "elapsed="); len(got) != 1 {
					t.Errorf("got %d events of leaving, want one", len(got))
				}
			})
		})
	}
}

func TestLeave_WhatTheScalingGroupDeregisteredIsNotDeregisteredAgain(t *testing.T) {
	for _, since := range []struct {
		ago   time.Duration
		state string
	}{{time.Second, "draining"}, {drains, "not registered"}} {
		t.Run(since.state, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newCloud(t)
				g := c.group("web", "healthy")
				c.targets.Deregister(g.ARN, instance, 80)
				<-time.After(since.ago)
				if err := c.leave(t, time.Minute, g); err != nil {
					t.Fatal(err)
				}
				if described, deregistered := c.Calls("DescribeTargetHealth"), c.Calls("DeregisterTargets"); described != 1 || deregistered != 0 {
					t.Errorf("got %d looks and %d deregistrations, want one look", described, deregistered)
				}
				if got := c.log.events("node left", since.state); len(got) != 1 {
					t.Errorf("got %v, want the state %q told", c.log.events(), since.state)
				}
			})
		})
	}
}

func TestLeave_AGroupThatNoLoadBalancerUsesSendsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCloud(t)
		if err := c.leave(t, time.Minute, c.group("spare", "unused")); err != nil {
			t.Error(err)
		}
		if got := c.Calls("DeregisterTargets"); got != 0 {
			t.Errorf("got %d deregistrations, want none", got)
		}
	})
}

func TestLeave_WithoutGroupsIsDoneAtOnce(t *testing.T) {
	c := newCloud(t)
	if err := c.leave(t, time.Minute); err != nil {
		t.Error(err)
	}
}

func TestLeave_EveryPortOfTheInstanceIsLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCloud(t)
		g := c.group("web", "healthy")
		c.targets.Register(g.ARN, instance, 8081, "healthy")
		c.targets.Register(g.ARN, instance, 8082, "healthy")
		c.targets.Deregister(g.ARN, instance, 8082) // while one is draining already
		if err := c.leave(t, time.Minute, g); err != nil {
			t.Fatal(err)
		}
		for _, port := range []int{80, 8081, 8082} {
			if got := c.targets.State(g.ARN, instance, port); got != "draining" {
				t.Errorf("port %d: got %s, want draining", port, got)
			}
		}
	})
}

func TestLeave_AnAddressOfTheNodeIsLeftToo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCloud(t)
		g := balancer.Group{ARN: arnOf("by-address"), Configured: true}
		c.targets.Add(g.ARN, 80)
		c.targets.Register(g.ARN, "10.0.0.7", 80, "healthy")
		c.targets.Register(g.ARN, "10.0.0.8", 80, "healthy")

		err := c.leave(t, time.Minute, g)
		if !errors.Is(err, balancer.ErrUnsupported) {
			t.Errorf("a node that doesn't know its addresses: got %v, want ErrUnsupported", err)
		}
		c.options.Addresses = []string{"10.0.0.7"}
		if err := c.leave(t, time.Minute, g); err != nil {
			t.Error(err)
		}
		for address, want := range map[string]string{"10.0.0.7": "draining", "10.0.0.8": "healthy"} {
			if got := c.targets.State(g.ARN, address, 80); got != want {
				t.Errorf("%s: got %s, want %s", address, got, want)
			}
		}
	})
}

func TestLeave_WhatPassesIsTriedUntilItHasPassed(t *testing.T) {
	// Seven times is more often than the SDK itself tries, so that it is not the SDK that is held here.
	for name, fault := range map[string]awsfake.Fault{
		"throttled": awsfake.Throttled(), "unavailable": awsfake.Unavailable(), "hanging": awsfake.Hang(), "lost reply": awsfake.LoseReply(),
		"expired token": awsfake.Refuse(http.StatusForbidden, "ExpiredToken", "The security token included in the request is expired"),
	} {
		for _, action := range []string{"DescribeTargetHealth", "DeregisterTargets"} {
			t.Run(name+" "+action, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					c := newCloud(t)
					c.Inject(action, 7, fault)
					g := c.group("web", "healthy")
					if err := c.leave(t, 5*time.Minute, g); err != nil {
						t.Fatal(err)
					}
					if got := c.state(g); got != "draining" {
						t.Errorf("got %s, want draining", got)
					}
				})
			})
		}
	}
}

func TestLeave_ATargetThatIsGoneBeforeItIsDeregisteredHasLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCloud(t)
		g := c.group("web", "healthy")
		c.Inject("DeregisterTargets", 1, func(http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				c.targets.Deregister(g.ARN, instance, 80)
				awsfake.WriteError(w, r, http.StatusBadRequest, "InvalidTarget", "The target is not registered")
			})
		})
		if err := c.leave(t, time.Minute, g); err != nil {
			t.Error(err)
		}
	})
}

func TestLeave_ATargetThatAWSForgetsBetweenTwoLooksHasLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCloud(t)
		g := c.group("web", "healthy")
		c.Inject("DescribeTargetHealth", 1, func(next http.Handler) http.Handler { return next })
		c.Inject("DescribeTargetHealth", 1, awsfake.Refuse(http.StatusBadRequest, "InvalidTarget", "The target is not in the group's VPC"))
		if err := c.leave(t, time.Minute, g); err != nil {
			t.Error(err)
		}
		if got := c.Calls("DescribeTargetHealth"); got != 3 {
			t.Errorf("got %d looks, want a third one that asks for all targets", got)
		}
	})
}

func TestLeave_ADrainThatIsStoppedBeforeAnAnswerSaysSo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCloud(t)
		c.Inject("DescribeTargetHealth", awsfake.Always, awsfake.Hang())
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		err := balancer.New(c.options).Leave(ctx, []balancer.Group{c.group("web", "healthy")})
		if !errors.Is(err, context.Canceled) {
			t.Errorf("got %v, want the cancellation", err)
		}
		says(t, err, "target group web", "stopped before an answer came")
	})
}

func TestLeave_ADenialSaysWhatToAllow(t *testing.T) {
	for _, action := range []string{"DescribeTargetHealth", "DeregisterTargets"} {
		t.Run(action, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newCloud(t)
				c.Inject(action, awsfake.Always, awsfake.AccessDenied())
				began := time.Now()
				err := c.leave(t, time.Minute, c.group("web", "healthy"))
				if !errors.Is(err, balancer.ErrDenied) {
					t.Errorf("got %v, want ErrDenied", err)
				}
				says(t, err, "target group web", "allow elasticloadbalancing:"+action+" ")
				if took := time.Since(began); took != 0 || c.Calls(action) != 1 {
					t.Errorf("it took %v and %d calls: no other try changes a denial", took, c.Calls(action))
				}
				if got := c.log.events("level=WARN", "did not leave", "group=web", "error="); len(got) != 1 {
					t.Errorf("got %d events, want one that tells it", len(got))
				}
			})
		})
	}
}

func TestLeave_OneGroupThatFailsKeepsNoOtherFromBeingLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCloud(t)
		first, bad, last := c.group("first", "healthy"), c.group("bad", "healthy"), c.group("last", "initial")
		c.Inject("DeregisterTargets", awsfake.Always, only(bad, awsfake.AccessDenied()))
		err := c.leave(t, time.Minute, first, bad, last)
		if !errors.Is(err, balancer.ErrDenied) || strings.Contains(err.Error(), "group first") || strings.Contains(err.Error(), "group last") {
			t.Errorf("got %v, want ErrDenied of the bad group alone", err)
		}
		says(t, err, "target group bad")
		for g, want := range map[balancer.Group]string{first: "draining", bad: "healthy", last: "draining"} {
			if got := c.state(g); got != want {
				t.Errorf("%s: got %s, want %s", g.Name(), got, want)
			}
		}
	})
}

func TestLeave_AGroupThatHangsHoldsUpNoOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCloud(t)
		c.Inject("DescribeTargetHealth", 1, awsfake.Hang())
		groups := []balancer.Group{c.group("a", "healthy"), c.group("b", "healthy")}
		if err := c.leave(t, 5*time.Second, groups...); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v, want the end of the time", err)
		} else {
			says(t, err, "no answer in time")
		}
		if got := c.log.events("node left"); len(got) != 1 {
			t.Errorf("got %d groups left, want the one that answers", len(got))
		}
	})
}

func TestLeave_AGroupThatDoesNotLetGoIsToldWhenTheTimeIsOver(t *testing.T) {
	for _, c := range []struct {
		name   string
		random float64
		looks  [2]int // in a minute: at least, at most
	}{
		{"shortest pauses", 0, [2]int{60, 61}},     // one a second
		{"longest pauses", 0.9999, [2]int{13, 14}}, // after 2 and 4 s, then every 5 s
		{"pauses in between", 0.5, [2]int{20, 22}}, // after 1.5 and 2.5 s, then every 3 s
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				cloud := newCloud(t)
				cloud.options.Random = func() float64 { return c.random }
				cloud.Inject("DeregisterTargets", awsfake.Always, replyTo("DeregisterTargets", ""))
				began := time.Now()
				err := cloud.leave(t, time.Minute, cloud.group("web", "healthy"))
				if !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, balancer.ErrDenied) {
					t.Errorf("got %v, want the end of the time", err)
				}
				says(t, err, "target group web", "still healthy on port 80")
				if took := time.Since(began); took != time.Minute {
					t.Errorf("it took %v, want the whole minute", took)
				}
				if got := cloud.Calls("DescribeTargetHealth"); got < c.looks[0] || got > c.looks[1] {
					t.Errorf("got %d looks in a minute, want %d to %d", got, c.looks[0], c.looks[1])
				}
				if got := cloud.log.events("level=WARN", `state="healthy on port 80"`); len(got) != 1 {
					t.Errorf("got %d events, want one with the last state", len(got))
				}
			})
		})
	}
}

func TestLeave_EndsWithItsContextAndSaysWhy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCloud(t)
		c.Inject("DescribeTargetHealth", awsfake.Always, awsfake.Unavailable())
		stopped := errors.New("a second signal")
		ctx, cancel := context.WithCancelCause(t.Context())
		time.AfterFunc(10*time.Second, func() { cancel(stopped) })
		began := time.Now()
		err := balancer.New(c.options).Leave(ctx, []balancer.Group{c.group("web", "healthy")})
		if took := time.Since(began); took != 10*time.Second {
			t.Errorf("it took %v, want 10s", took)
		}
		if !errors.Is(err, stopped) {
			t.Errorf("got %v, want the cause %q", err, stopped)
		}
		says(t, err, "ServiceUnavailable")
	})
}

func TestLeave_AGroupThatIsGoneIsLeftUnlessTheConfigurationNamesIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCloud(t)
		c.Inject("DescribeTargetHealth", awsfake.Always, awsfake.Refuse(http.StatusBadRequest, "TargetGroupNotFound", "One or more target groups not found"))
		if err := c.leave(t, time.Minute, balancer.Group{ARN: arnOf("old")}); err != nil {
			t.Errorf("the Auto Scaling group's: got %v", err)
		}
		err := c.leave(t, time.Minute, balancer.Group{ARN: arnOf("misspelt"), Configured: true})
		says(t, err, "target group misspelt", "correct its ARN")
	})
}

func TestLeave_AnArgumentThatAWSRefusesIsNotTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCloud(t)
		c.Inject("DescribeTargetHealth", awsfake.Always, awsfake.Refuse(http.StatusBadRequest, "ValidationError", "'web' is not a valid target group ARN"))
		err := c.leave(t, time.Minute, balancer.Group{ARN: "web", Configured: true})
		says(t, err, "leave target group web", "not a valid target group ARN", "configuration")
		if got := c.Calls("DescribeTargetHealth"); got != 1 {
			t.Errorf("got %d calls, want 1", got)
		}
	})
}

func TestLeave_ATargetOfWhichNothingIsSaidIsStillRegistered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCloud(t)
		c.Inject("DescribeTargetHealth", 1, replyTo("DescribeTargetHealth",
			"<TargetHealthDescriptions><member/><member><Target><Id>"+instance+"</Id><Port>80</Port></Target></member></TargetHealthDescriptions>"))
		g := c.group("web", "healthy")
		if err := c.leave(t, time.Minute, g); err != nil {
			t.Fatal(err)
		}
		if got := c.state(g); got != "draining" {
			t.Errorf("got %s, want draining", got)
		}
	})
}

func TestLeave_AnAnswerOfAProxyIsNoConfirmation(t *testing.T) {
	for name, page := range map[string]string{"a page": "<html>please log in: session-token", "an answer without states": "<DescribeTargetHealthResponse/>"} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newCloud(t)
				c.Inject("DescribeTargetHealth", awsfake.Always, func(http.Handler) http.Handler {
					return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(page)) })
				})
				err := c.leave(t, 10*time.Second, c.group("web", "healthy"))
				says(t, err, "a proxy stands in between")
				if strings.Contains(err.Error(), "session-token") {
					t.Errorf("got %v, which quotes the answer", err)
				}
			})
		})
	}
}

func TestLeave_WhatQuotesTheRequestIsNotTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCloud(t)
		c.Inject("DescribeTargetHealth", awsfake.Always, awsfake.Refuse(http.StatusForbidden, "SignatureDoesNotMatch", "should have been x-amz-security-token:session-token"))
		err := c.leave(t, 10*time.Second, c.group("web", "healthy"))
		says(t, err, "SignatureDoesNotMatch")
		if strings.Contains(err.Error(), "session-token") {
			t.Errorf("got %v, want the code alone", err)
		}
	})
}
