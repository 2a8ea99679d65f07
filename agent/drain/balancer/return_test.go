package balancer_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/flowviz/flowagent/agent/drain/balancer"
	"github.com/flowviz/flowagent/internal/awsfake"
)

func TestReturn_RegistersWhatTheNodeDeregisteredAndNothingElse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCloud(t)
		web, api, gone := c.group("web", "healthy"), c.group("api", "healthy"), c.group("gone", "healthy")
		c.targets.Deregister(gone.ARN, instance, 80) // by somebody else
		targets := balancer.New(c.options)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		c.Inject("DeregisterTargets", 1, awsfake.LoseReply())
		if err := targets.Leave(ctx, []balancer.Group{web, api, gone}); err != nil {
			t.Fatal(err)
		}
		c.Inject("RegisterTargets", 1, awsfake.Throttled())
		if err := targets.Return(ctx); err != nil {
			t.Fatal(err)
		}
		for _, g := range []balancer.Group{web, api} {
			if got := c.state(g); got != "initial" {
				t.Errorf("%s: got %s, want it registered again", g.Name(), got)
			}
		}
		if got := c.state(gone); got != "draining" {
			t.Errorf("a group that others took the node out of: got %s, want it left alone", got)
		}
		calls := c.Calls("RegisterTargets")
		if err := targets.Return(ctx); err != nil || c.Calls("RegisterTargets") != calls {
			t.Errorf("once more: got %v and %d calls, want nothing to do", err, c.Calls("RegisterTargets")-calls)
		}
	})
}

func TestReturn_SaysWhatToAllow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCloud(t)
		g := c.group("web", "healthy")
		targets := balancer.New(c.options)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := targets.Leave(ctx, []balancer.Group{g}); err != nil {
			t.Fatal(err)
		}
		c.Inject("RegisterTargets", 1, awsfake.AccessDenied())
		err := targets.Return(ctx)
		says(t, err, "web", "allow elasticloadbalancing:RegisterTargets")
		if !errors.Is(err, balancer.ErrDenied) {
			t.Errorf("got %v, want ErrDenied", err)
		}
		// Once it is allowed, another try has what is missing.
		if err := targets.Return(ctx); err != nil || c.state(g) != "initial" {
			t.Errorf("got %v and %s, want it registered again", err, c.state(g))
		}
	})
}
