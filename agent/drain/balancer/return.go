package balancer

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	elb "github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2"
	"github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2/types"
)

// removals are the targets that Leave has deregistered, or tried to, by the ARN of their group.
type removals struct {
	mu      sync.Mutex
	targets map[string][]types.TargetDescription
}

func (r *removals) add(group string, targets []types.TargetDescription) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.targets == nil {
		r.targets = map[string][]types.TargetDescription{}
	}
	for _, target := range targets {
		same := func(other types.TargetDescription) bool {
			return aws.ToString(other.Id) == aws.ToString(target.Id) && aws.ToInt32(other.Port) == aws.ToInt32(target.Port)
		}
		if !slices.ContainsFunc(r.targets[group], same) {
			r.targets[group] = append(r.targets[group], target)
		}
	}
}

// take empties it.
func (r *removals) take() map[string][]types.TargetDescription {
	r.mu.Lock()
	defer r.mu.Unlock()
	taken := r.targets
	r.targets = nil
	return taken
}

// Return registers again what Leave deregistered, for a node that stays after all. What others deregistered, such as an Auto
// Scaling group that ends the instance, stays out. Calls that fail for now are made again until ctx ends, so it needs a
// deadline. The error names each target group that the node is not back in, and what to allow.
func (t *Targets) Return(ctx context.Context) error {
	began := time.Now()
	var (
		mu        sync.Mutex
		failed    []error
		returning sync.WaitGroup
	)
	for arn, targets := range t.removed.take() {
		returning.Go(func() {
			name := Group{ARN: arn}.Name()
			err := t.persist(ctx, func(ctx context.Context) error {
				_, err := t.balancing.RegisterTargets(ctx, &elb.RegisterTargetsInput{TargetGroupArn: &arn, Targets: targets})
				if err != nil {
					return explain("elasticloadbalancing:RegisterTargets", err)
				}
				return nil
			})
			if err != nil {
				t.log.WarnContext(ctx, "node is not back in a target group", "group", name, "error", err)
				t.removed.add(arn, targets) // for another try
				mu.Lock()
				defer mu.Unlock()
				failed = append(failed, fmt.Errorf("return to target group %s: %w", name, err))
				return
			}
			t.log.InfoContext(ctx, "node is back in a target group", "group", name, "elapsed", time.Since(began).Round(time.Millisecond))
		})
	}
	returning.Wait()
	return errors.Join(failed...)
}
