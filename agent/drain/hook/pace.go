package hook

import (
	"context"
	"time"

	"github.com/cenkalti/backoff/v5"
)

// pace is how soon a failed call is tried again: with full jitter under a limit that doubles, or slowly where it was
// refused, and for the last time when the end has come.
type pace struct {
	random  func() float64
	longest time.Duration    // the limit's own limit
	ends    func() time.Time // it may move
	slow    time.Duration    // the pause while slowly, see below
	slowly  bool             // the last failure was a refusal
	limit   *backoff.ExponentialBackOff
}

// Reset begins anew after a success.
func (p *pace) Reset() {
	p.limit = &backoff.ExponentialBackOff{InitialInterval: min(firstRetry, p.longest), Multiplier: 2, MaxInterval: p.longest}
	p.limit.Reset()
}

// NextBackOff returns the pause, or [backoff.Stop].
func (p *pace) NextBackOff() time.Duration {
	left := time.Until(p.ends())
	if left <= 0 {
		return backoff.Stop
	}
	if p.limit == nil {
		p.Reset()
	}
	pause := time.Duration(p.random() * float64(p.limit.NextBackOff()))
	if p.slowly {
		pause = p.slow/2 + time.Duration(p.random()*float64(p.slow/2))
	}
	return min(pause, left)
}

// once makes one call within its time.
func once(ctx context.Context, call func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	return call(ctx)
}
