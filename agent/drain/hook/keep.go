package hook

import (
	"context"
	"errors"
	"strings"
	"time"

	sdk "github.com/aws/aws-sdk-go-v2/service/autoscaling"
)

// What an action is like when Auto Scaling says that there is none.
var (
	errOver  = errors.New("the action is over")
	errEarly = errors.New("the action has not begun yet: the instance is still on its way into the wait state")
)

// Keep keeps the action from timing out: one heartbeat at once, then one in every third of the hook's timeout, and sooner
// after one that failed. It ends with ctx, at until (zero for no such time), when Auto Scaling allows the action no more
// time, or when there is none any more. It is meant to run beside the drain, until Complete has returned.
func (k *Hook) Keep(ctx context.Context, until time.Time) {
	began := k.begin()
	stop := began.Add(k.Longest)
	if !until.IsZero() {
		stop = earlier(stop, until)
	}
	ctx, cancel := context.WithDeadline(ctx, stop)
	defer cancel()
	interval := k.interval()
	p := &pace{random: k.hooks.random, longest: min(lastRetry, interval/2), slow: k.slow(), ends: func() time.Time { return stop }}
	failed := 0
	// The clock as well: a heartbeat that is due at stop may see its timer before the deadline.
	for ctx.Err() == nil && time.Now().Before(stop) {
		err := k.beat(ctx, began)
		if err == nil {
			k.hooks.observer.Beat(k, nil)
		}
		if errors.Is(err, errOver) || ctx.Err() != nil {
			return
		}
		pause := interval - time.Duration(beatSpread*k.hooks.random()*float64(interval))
		switch {
		case err == nil:
			if failed > 0 {
				k.hooks.log.InfoContext(ctx, "hook heartbeat works again", "hook", k.Name, "failed", failed)
			}
			failed = 0
			p.Reset()
		case errors.Is(err, errEarly):
			pause = p.NextBackOff()
		default:
			if failed == 0 {
				k.hooks.log.WarnContext(ctx, "hook heartbeat fails", "hook", k.Name, "error", explain(err, "RecordLifecycleActionHeartbeat"))
			}
			failed++
			k.hooks.observer.Beat(k, err)
			p.slowly = refused(err)
			pause = p.NextBackOff()
		}
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
		}
	}
}

func (k *Hook) interval() time.Duration {
	if !k.Described {
		return unknownInterval
	}
	return k.Timeout / beatsPerTimeout
}

// slow is the pause after a refusal; a short hook can't wait as long.
func (k *Hook) slow() time.Duration { return min(refusedRetry, k.Timeout/beatsPerTimeout) }

func (k *Hook) beat(ctx context.Context, since time.Time) error {
	err := once(ctx, func(ctx context.Context) error {
		_, err := k.hooks.api.RecordLifecycleActionHeartbeat(ctx, &sdk.RecordLifecycleActionHeartbeatInput{
			AutoScalingGroupName: &k.Group, LifecycleHookName: &k.Name, InstanceId: &k.hooks.instance,
		})
		return err
	})
	if err == nil {
		k.lives()
	}
	return k.judge(ctx, err, since)
}

// judge tells an action that is over from one that has yet to begin: a node can be up, or hear that it has to leave, before
// Auto Scaling has it in the wait state, and a completion that comes too early has no effect. Everything else stays as it is.
func (k *Hook) judge(ctx context.Context, err error, since time.Time) error {
	if !inactive(err) {
		return err
	}
	if time.Since(since) >= earlyLimit {
		return errOver
	}
	var state string
	_ = once(ctx, func(ctx context.Context) error { // not being told is no reason to wait
		self, err := k.hooks.self(ctx)
		if self != nil && self.LifecycleState != nil {
			state = strings.TrimPrefix(*self.LifecycleState, "Warmed:")
		}
		return err
	})
	if k.Transition == Launching && state == "Pending" || k.Transition == Terminating && state == "Terminating" {
		return errEarly
	}
	return errOver
}
