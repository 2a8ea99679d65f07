// Package balancer takes a node out of its load balancers before its services stop.
//
// What enters is the instance's id, and target groups from the configuration where its Auto Scaling group doesn't tell them
// all; what leaves is the confirmation that no target group sends new requests to the node, or an error that says which one
// still may. It never waits for requests under way, which others count, and it registers no target but those that it took out
// itself.
package balancer

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/arn"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	"github.com/aws/aws-sdk-go-v2/service/autoscaling"
	elb "github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2"
)

const (
	// callTimeout bounds one try, the SDK's retries included: ten times what a slow region takes.
	callTimeout = 10 * time.Second
	// delayTimeout bounds reading a target group's deregistration delay. The drain waits for it and could do without.
	delayTimeout = 3 * time.Second
	// attempts and backoff are the SDK's: few and short enough for callTimeout, because a call is made again anyway.
	attempts = 3
	backoff  = time.Second
	// shortestPause is about what a deregistration takes to show. longestPause holds up the end of a drain by no more than
	// itself: pauses of 3 s on average let thirty nodes of an account leave together before the 10 Describe calls a second
	// that Elastic Load Balancing grants it are used up ("Request throttling for the ELB API").
	shortestPause = time.Second
	longestPause  = 5 * time.Second
)

// LoadBalancing is what is needed of Elastic Load Balancing.
type LoadBalancing interface {
	DescribeTargetHealth(ctx context.Context, in *elb.DescribeTargetHealthInput, options ...func(*elb.Options)) (*elb.DescribeTargetHealthOutput, error)
	DescribeTargetGroupAttributes(ctx context.Context, in *elb.DescribeTargetGroupAttributesInput, options ...func(*elb.Options)) (*elb.DescribeTargetGroupAttributesOutput, error)
	DeregisterTargets(ctx context.Context, in *elb.DeregisterTargetsInput, options ...func(*elb.Options)) (*elb.DeregisterTargetsOutput, error)
	RegisterTargets(ctx context.Context, in *elb.RegisterTargetsInput, options ...func(*elb.Options)) (*elb.RegisterTargetsOutput, error)
}

// Scaling is what is needed of EC2 Auto Scaling.
type Scaling interface {
	DescribeAutoScalingInstances(ctx context.Context, in *autoscaling.DescribeAutoScalingInstancesInput, options ...func(*autoscaling.Options)) (*autoscaling.DescribeAutoScalingInstancesOutput, error)
	DescribeAutoScalingGroups(ctx context.Context, in *autoscaling.DescribeAutoScalingGroupsInput, options ...func(*autoscaling.Options)) (*autoscaling.DescribeAutoScalingGroupsOutput, error)
}

// NewClients makes clients whose retries fit into one call's time.
func NewClients(cfg aws.Config) (*elb.Client, *autoscaling.Client) {
	cfg = cfg.Copy()
	cfg.Retryer = func() aws.Retryer {
		return retry.NewStandard(func(o *retry.StandardOptions) { o.MaxAttempts, o.MaxBackoff = attempts, backoff })
	}
	return elb.NewFromConfig(cfg), autoscaling.NewFromConfig(cfg)
}

// Options are what Targets work with. LoadBalancing, Scaling and Instance are needed.
type Options struct {
	LoadBalancing LoadBalancing
	Scaling       Scaling
	// Instance is the instance's id, such as i-0abc.
	Instance string
	// Addresses are the instance's private addresses, by which target groups of type ip know it.
	Addresses []string
	// TargetGroups are the ARNs of target groups beside those of the Auto Scaling group.
	TargetGroups []string
	Log          *slog.Logger   // nil discards
	Random       func() float64 // from 0 up to 1; nil is math/rand's
}

// Targets are the places where load balancers know one instance.
type Targets struct {
	balancing  LoadBalancing
	scaling    Scaling
	instance   string
	ids        []string // what a target of this instance may be called
	configured []string
	log        *slog.Logger
	random     func() float64
	removed    removals
}

// New prepares Targets; it calls nobody.
func New(o Options) *Targets {
	t := &Targets{
		balancing: o.LoadBalancing, scaling: o.Scaling, instance: o.Instance,
		ids: append([]string{o.Instance}, o.Addresses...), configured: o.TargetGroups,
		log: o.Log, random: o.Random,
	}
	if t.log == nil {
		t.log = slog.New(slog.DiscardHandler)
	}
	if t.random == nil {
		t.random = rand.Float64
	}
	return t
}

// Group is a target group that may hold the instance.
type Group struct {
	ARN string
	// Configured: the configuration names it, so that one which doesn't exist is a mistake.
	Configured bool
	// DeregistrationDelay is how long the target group lets open requests finish before it cuts them off; nil where it
	// could not be read.
	DeregistrationDelay *time.Duration
}

// targetGroup begins the resource in a target group's ARN.
const targetGroup = "targetgroup/"

// Name is the target group's name, as people know it; the whole ARN where that is not one.
func (g Group) Name() string {
	if parsed, err := arn.Parse(g.ARN); err == nil {
		if rest, found := strings.CutPrefix(parsed.Resource, targetGroup); found {
			name, _, _ := strings.Cut(rest, "/")
			return name
		}
	}
	return g.ARN
}

// persist calls op again and again, with growing pauses, until it is done, fails for good or ctx ends. Then it returns op's
// last error, which says more than what the end of ctx made of a call under way, and wraps the cause of that end.
func (t *Targets) persist(ctx context.Context, op func(ctx context.Context) error) error {
	var last error
	for ceiling := 2 * shortestPause; ; ceiling = min(2*ceiling, longestPause) {
		call, cancel := context.WithTimeout(ctx, callTimeout)
		err := op(call)
		cancel()
		switch {
		case err == nil, permanent(err):
			return err
		case last == nil, ctx.Err() == nil:
			last = err
		}
		// Anywhere between the shortest pause and a growing ceiling: nodes that leave together don't ask together.
		pause := shortestPause + time.Duration(t.random()*float64(ceiling-shortestPause))
		select {
		case <-time.After(pause):
		case <-ctx.Done():
		}
		if ctx.Err() != nil { // also where both were ready
			return fmt.Errorf("%w (%w)", last, context.Cause(ctx))
		}
	}
}
