package balancer

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/arn"
	"github.com/aws/aws-sdk-go-v2/service/autoscaling"
	"github.com/aws/aws-sdk-go-v2/service/autoscaling/types"
	elb "github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2"
)

// delayKey is the attribute's name ("TargetGroupAttribute", in whole seconds).
const delayKey = "deregistration_delay.timeout_seconds"

// Find returns the target groups of the instance's Auto Scaling group and those of the configuration, each once. Whether
// they hold the instance is for Leave to see; an instance of no Auto Scaling group has the configured ones only. Calls that
// fail for now are made again until ctx ends, so it needs a deadline. Beside an error, which wraps ErrDenied or
// ErrUnsupported where that is the reason, stand the groups that were found all the same.
func (t *Targets) Find(ctx context.Context) ([]Group, error) {
	var groups []Group
	add := func(id string, configured bool) {
		i := slices.IndexFunc(groups, func(g Group) bool { return g.ARN == id })
		if i < 0 {
			i, groups = len(groups), append(groups, Group{ARN: id})
		}
		groups[i].Configured = groups[i].Configured || configured
	}
	var failed []error
	scaled, err := t.scalingGroup(ctx)
	if err != nil {
		failed = append(failed, fmt.Errorf("find the target groups of %s: %w", t.instance, err))
	}
	if scaled != nil {
		for _, id := range scaled.TargetGroupARNs {
			add(id, false)
		}
		for _, source := range scaled.TrafficSources {
			id := aws.ToString(source.Identifier)
			if !isTargetGroup(id) {
				failed = append(failed, elsewhere(scaled, id))
				continue
			}
			add(id, false)
		}
		for _, name := range scaled.LoadBalancerNames {
			// Most often a traffic source as well, and then told above.
			if !slices.ContainsFunc(scaled.TrafficSources, func(s types.TrafficSourceIdentifier) bool { return aws.ToString(s.Identifier) == name }) {
				failed = append(failed, elsewhere(scaled, name))
			}
		}
	}
	for _, id := range t.configured {
		add(id, true)
	}
	t.readDelays(ctx, groups)
	return groups, errors.Join(failed...)
}

// isTargetGroup tells a target group of Elastic Load Balancing from one of VPC Lattice and from a Classic Load Balancer,
// which has a name only.
func isTargetGroup(id string) bool {
	parsed, err := arn.Parse(id)
	return err == nil && parsed.Service == "elasticloadbalancing" && strings.HasPrefix(parsed.Resource, targetGroup)
}

func elsewhere(group *types.AutoScalingGroup, id string) error {
	return fmt.Errorf("%w: Auto Scaling group %s also takes requests from %s, which is no target group of Elastic Load Balancing: nothing tells when it stops sending, so set drain.deregisterDelay to what it needs",
		ErrUnsupported, aws.ToString(group.AutoScalingGroupName), id)
}

// scalingGroup returns the instance's Auto Scaling group; nil where it has none.
func (t *Targets) scalingGroup(ctx context.Context) (*types.AutoScalingGroup, error) {
	var name string
	err := t.persist(ctx, func(ctx context.Context) error {
		out, err := t.scaling.DescribeAutoScalingInstances(ctx, &autoscaling.DescribeAutoScalingInstancesInput{InstanceIds: []string{t.instance}})
		if err != nil {
			return explain("autoscaling:DescribeAutoScalingInstances", err)
		}
		if len(out.AutoScalingInstances) > 0 {
			name = aws.ToString(out.AutoScalingInstances[0].AutoScalingGroupName)
		}
		return nil
	})
	if err != nil || name == "" {
		return nil, err
	}
	var group *types.AutoScalingGroup
	err = t.persist(ctx, func(ctx context.Context) error {
		out, err := t.scaling.DescribeAutoScalingGroups(ctx, &autoscaling.DescribeAutoScalingGroupsInput{AutoScalingGroupNames: []string{name}})
		if err != nil {
			return explain("autoscaling:DescribeAutoScalingGroups", err)
		}
		if len(out.AutoScalingGroups) > 0 { // else it was deleted in between
			group = &out.AutoScalingGroups[0]
		}
		return nil
	})
	return group, err
}

// readDelays fills in the deregistration delays, of all groups at the same time. One that can't be read is told and left
// out: nobody's requests depend on it.
func (t *Targets) readDelays(ctx context.Context, groups []Group) {
	var reading sync.WaitGroup
	for i := range groups {
		reading.Go(func() {
			delay, err := t.delay(ctx, groups[i].ARN)
			if err != nil {
				t.log.InfoContext(ctx, "deregistration delay is not known", "group", groups[i].Name(), "error", err)
				return
			}
			groups[i].DeregistrationDelay = delay
		})
	}
	reading.Wait()
}

// delay is nil where the target group has none.
func (t *Targets) delay(ctx context.Context, group string) (*time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, delayTimeout)
	defer cancel()
	out, err := t.balancing.DescribeTargetGroupAttributes(ctx, &elb.DescribeTargetGroupAttributesInput{TargetGroupArn: &group})
	if err != nil {
		return nil, explain("elasticloadbalancing:DescribeTargetGroupAttributes", err)
	}
	for _, a := range out.Attributes {
		if aws.ToString(a.Key) != delayKey {
			continue
		}
		seconds, err := strconv.Atoi(aws.ToString(a.Value))
		if err != nil {
			return nil, fmt.Errorf("%s is %q, which is no number of seconds", delayKey, aws.ToString(a.Value))
		}
		return new(time.Duration(seconds) * time.Second), nil
	}
	return nil, nil
}
