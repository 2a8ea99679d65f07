package agent

import (
	"context"
	"fmt"
	"time"

	"github.com/cenkalti/backoff/v5"

	"github.com/flowviz/flowagent/agent/report"
)

const (
	// firstWait and longestWait bound the pauses between tries: the first is about what a late network interface
	// needs, the last keeps a fleet that boots together from hammering an API that is down.
	firstWait   = 500 * time.Millisecond
	longestWait = 15 * time.Second
)

// retry runs op until it succeeds, fails for good or has been tried for limit, and returns op's own last error. The
// pauses have full jitter, so that nodes that started together don't try together.
func retry(ctx context.Context, span *report.Span, limit time.Duration, permanent func(error) bool, op func(ctx context.Context) error) error {
	limited, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	pauses := &backoff.ExponentialBackOff{
		InitialInterval:     firstWait,
		RandomizationFactor: 1, // anywhere between no pause and twice the interval
		Multiplier:          2,
		MaxInterval:         longestWait,
	}
	var last error
	_, err := backoff.Retry(limited, func() (struct{}, error) {
		last = op(limited)
		if last != nil && permanent(last) {
			return struct{}{}, backoff.Permanent(last)
		}
		return struct{}{}, last
	}, backoff.WithBackOff(pauses), backoff.WithMaxElapsedTime(limit), backoff.WithNotify(func(err error, wait time.Duration) {
		span.Retry(ctx, err, wait)
	}))
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil: // somebody stopped the agent: that is the reason, not what op made of it
		return context.Cause(ctx)
	case permanent(last):
		return last
	}
	return fmt.Errorf("gave up after %v: %w", limit, last)
}
