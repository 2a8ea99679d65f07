package node

import (
	"context"
	"errors"
	"fmt"
	"time"
)

const (
	// firstPause and longestPause bound the random pauses between tries, as in AWS's article "Exponential Backoff And
	// Jitter". The longest one is how much later than the network a node may notice it.
	firstPause   = 100 * time.Millisecond
	longestPause = 5 * time.Second
)

var errWaited = errors.New("waited long enough")

// patience gives all calls of one purpose the time that a late network is waited for.
func (m *Metadata) patience(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeoutCause(ctx, m.wait, errWaited)
}

// patiently repeats a call while the service is unavailable, with full jitter, until ctx, made by patience, ends.
func (m *Metadata) patiently(ctx context.Context, call func(context.Context) error) error {
	last := ErrUnavailable
	for try := 1; ; try++ {
		err := m.once(ctx, call)
		if err == nil || ctx.Err() == nil && !errors.Is(err, ErrUnavailable) {
			return err
		}
		if ctx.Err() == nil {
			last = err
			pause := m.pause(try)
			m.log.Info("instance metadata not reachable yet", "phase", "node", "try", try, "pause", pause, "error", err)
			if sleep(ctx, pause) {
				continue
			}
		}
		if cause := context.Cause(ctx); !errors.Is(cause, errWaited) {
			return fmt.Errorf("stopped waiting for the instance metadata service: %w (last answer: %w)", cause, last)
		}
		return fmt.Errorf("%w: given up after %d tries in %s: check the route to %s and that the instance's metadata options allow it, or set node.provider: local",
			last, try, m.wait, m.endpoint)
	}
}

// pause is full jitter: anything between nothing and the doubled, bounded limit.
func (m *Metadata) pause(try int) time.Duration {
	limit := longestPause
	if doublings := try - 1; doublings < 10 { // by then the limit is long reached; more would overflow
		limit = min(limit, firstPause<<doublings)
	}
	return time.Duration(m.random() * float64(limit))
}

// sleep returns false when ctx ends first.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}
