package hook

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	sdk "github.com/aws/aws-sdk-go-v2/service/autoscaling"
	"github.com/cenkalti/backoff/v5"
)

// Outcome is what became of a completion.
type Outcome int

const (
	// GaveUp comes with an error: the action's time is over, and Auto Scaling does what the hook says for that.
	GaveUp Outcome = iota
	// Completed: Auto Scaling took the result.
	Completed
	// AlreadyOver: no action waited. An earlier try whose reply was lost had completed it, or somebody else, or its timeout.
	AlreadyOver
)

func (o Outcome) String() string {
	switch o {
	case Completed:
		return "completed"
	case AlreadyOver:
		return "already over"
	default:
		return "gave up"
	}
}

// Complete ends the action with a result. It tries until Auto Scaling has taken it or until the hook's timeout has run out
// since the last heartbeat, and for 30 seconds in any case: of a heartbeat whose reply was lost only Auto Scaling knows. The
// error says what to do next.
func (k *Hook) Complete(ctx context.Context, result Result) (Outcome, error) {
	outcome, err := k.complete(ctx, result)
	k.hooks.observer.Completed(k, result, outcome)
	return outcome, err
}

func (k *Hook) complete(ctx context.Context, result Result) (Outcome, error) {
	k.begin()
	started := time.Now()
	log := k.hooks.log.With("hook", k.Name, "transition", string(k.Transition), "result", string(result))
	// The agent is often being stopped by now. An action that nobody completes holds the instance for the rest of its
	// timeout, so this outlives the caller's ctx; the action's own end bounds it.
	ctx = context.WithoutCancel(ctx)
	tries, said := 0, false
	var last error
	p := &pace{random: k.hooks.random, longest: lastRetry, slow: k.slow(), ends: func() time.Time {
		return later(k.ends(), started.Add(shortestTimeout))
	}}
	_, _ = backoff.Retry(ctx, func() (struct{}, error) {
		tries++
		last = k.judge(ctx, once(ctx, func(ctx context.Context) error {
			_, err := k.hooks.api.CompleteLifecycleAction(ctx, &sdk.CompleteLifecycleActionInput{
				AutoScalingGroupName: &k.Group, LifecycleHookName: &k.Name, InstanceId: &k.hooks.instance,
				LifecycleActionResult: aws.String(string(result)),
			})
			return err
		}), started)
		if errors.Is(last, errOver) {
			return struct{}{}, backoff.Permanent(last)
		}
		if p.slowly = refused(last); p.slowly && !said {
			said = true
			log.WarnContext(ctx, "hook completion is refused", "error", explain(last, "CompleteLifecycleAction"))
		}
		return struct{}{}, last
	}, backoff.WithBackOff(p), backoff.WithMaxElapsedTime(0)) // the pace knows the end
	elapsed := time.Since(started)
	switch {
	case last == nil:
		log.InfoContext(ctx, "hook completed", "elapsed", elapsed, "tries", tries)
		return Completed, nil
	case errors.Is(last, errOver):
		log.InfoContext(ctx, "hook was over already", "elapsed", elapsed, "tries", tries)
		if !k.Described && tries == 1 { // a wrong name has the same answer, and nobody could check it
			log.WarnContext(ctx, "nothing waits for the configured hook: check its name, or allow autoscaling:DescribeLifecycleHooks for the node's role")
		}
		return AlreadyOver, nil
	case !errors.Is(last, errEarly):
		last = explain(last, "CompleteLifecycleAction")
	}
	err := fmt.Errorf("complete hook %s of group %s: gave up after %v: %w; Auto Scaling now goes by the hook's default, %s: "+
		"where the instance still waits, run aws autoscaling complete-lifecycle-action for %s",
		k.Name, k.Group, elapsed.Round(time.Second), last, k.Default, k.hooks.instance)
	log.ErrorContext(ctx, "hook given up", "elapsed", elapsed, "tries", tries, "error", err)
	return GaveUp, err
}

func later(a, b time.Time) time.Time {
	if a.Before(b) {
		return b
	}
	return a
}
