package balancer

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	elb "github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2"
	"github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2/types"

	"github.com/flowviz/flowagent/agent/awserror"
)

// States of the node in a target group beside those that AWS names.
const (
	notRegistered = "not registered"
	deleted       = "deleted"
)

// Leave returns nil once none of the groups sends new requests to the instance. It works on all groups at the same time, and
// one that fails keeps no other from being left. Where the instance is still registered it deregisters it, also where its
// Auto Scaling group is about to: AWS takes that twice. Calls that fail for now are made again until ctx ends, so it needs a
// deadline. The error names each group that was not left, and wraps ErrDenied where the node's role is the reason and the
// cause of ctx's end where that came first.
func (t *Targets) Leave(ctx context.Context, groups []Group) error {
	began := time.Now()
	failed := make([]error, len(groups))
	var leaving sync.WaitGroup
	for i, g := range groups {
		leaving.Go(func() {
			state, err := t.leave(ctx, g)
			if err != nil {
				t.log.WarnContext(ctx, "node did not leave a target group", "group", g.Name(), "state", state, "error", err)
				failed[i] = fmt.Errorf("leave target group %s: %w", g.Name(), err)
				return
			}
			t.log.InfoContext(ctx, "node left a target group", "group", g.Name(), "state", state, "elapsed", time.Since(began).Round(time.Millisecond))
		})
	}
	leaving.Wait()
	return errors.Join(failed...)
}

// leave returns the last state that was seen, empty where none was.
func (t *Targets) leave(ctx context.Context, g Group) (string, error) {
	var (
		state   string
		targets []types.TargetDescription // this node's; none until the group has told them
	)
	err := t.persist(ctx, func(ctx context.Context) error {
		seen, err := t.look(ctx, g, targets)
		if err != nil {
			targets = nil // they may be what is wrong
			return err
		}
		state, targets = seen.state, seen.targets
		if len(seen.registered) == 0 {
			return nil
		}
		t.removed.add(g.ARN, seen.registered) // before the call: its reply may be lost
		_, err = t.balancing.DeregisterTargets(ctx, &elb.DeregisterTargetsInput{TargetGroupArn: &g.ARN, Targets: seen.registered})
		switch awserror.Code(err) {
		case noSuchTarget, noSuchGroup: // gone since: the next look tells
			targets = nil
		default:
			if err != nil {
				return explain("elasticloadbalancing:DeregisterTargets", err)
			}
		}
		// It was sent, which doesn't say that it holds already.
		return fmt.Errorf("still %s: see in Elastic Load Balancing who registers it again, or give the drain more time", state)
	})
	return state, err
}

// sight is what a target group says of this node.
type sight struct {
	state               string
	targets, registered []types.TargetDescription // all of this node's, and those that may be sent new requests
}

// look asks for the given targets. Without any it asks for all of the group and picks this node's: to AWS, an instance on
// another port than the group's own is a target of its own, which has to be named with its port.
func (t *Targets) look(ctx context.Context, g Group, targets []types.TargetDescription) (sight, error) {
	out, err := t.balancing.DescribeTargetHealth(ctx, &elb.DescribeTargetHealthInput{TargetGroupArn: &g.ARN, Targets: targets})
	switch {
	case awserror.Code(err) == noSuchGroup && !g.Configured:
		return sight{state: deleted}, nil // AWS deletes none that a load balancer uses
	case awserror.Code(err) == noSuchGroup:
		return sight{}, &failure{errors.New("there is no such target group: correct its ARN in the configuration"), true}
	case err != nil:
		return sight{}, explain("elasticloadbalancing:DescribeTargetHealth", err)
	}
	var (
		s      sight
		states []string
		others bool // targets that are no instances
	)
	for _, d := range out.TargetHealthDescriptions {
		if d.Target == nil {
			continue
		}
		id := aws.ToString(d.Target.Id)
		others = others || !strings.HasPrefix(id, "i-")
		if !slices.Contains(t.ids, id) {
			continue
		}
		target := types.TargetDescription{Id: d.Target.Id, Port: d.Target.Port}
		if id != t.instance {
			target.AvailabilityZone = d.Target.AvailabilityZone // an address outside the VPC has one; an instance must not
		}
		s.targets = append(s.targets, target)
		health := types.TargetHealthStateEnum("registered") // where AWS doesn't say more
		if d.TargetHealth != nil {
			health = d.TargetHealth.State
		}
		if left(health) {
			states = append(states, string(health))
			continue
		}
		s.registered = append(s.registered, target)
		states = append(states, fmt.Sprintf("%s on port %d", health, aws.ToInt32(d.Target.Port)))
	}
	if len(s.targets) == 0 && others && len(t.ids) == 1 {
		return sight{}, &failure{fmt.Errorf("%w: its targets are no instances, so nothing tells whether it holds this node: name a target group of type instance in the configuration", ErrUnsupported), true}
	}
	slices.Sort(states)
	s.state = strings.Join(slices.Compact(states), ", ")
	if s.state == "" {
		s.state = notRegistered
	}
	return s, nil
}

// left tells the states in which a load balancer sends no new request ("TargetHealth" in the API reference). Not among them
// is unhealthy.draining: such a target is registered, and has its requests back once it is healthy.
func left(state types.TargetHealthStateEnum) bool {
	return state == types.TargetHealthStateEnumDraining || state == types.TargetHealthStateEnumUnused
}
