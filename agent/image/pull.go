package image

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/moby/moby/api/types/jsonstream"
	"github.com/moby/moby/client"
)

const (
	// The first wait is anything up to a second, the longest anything up to 30: AWS's "full jitter" with a cap that
	// still notices within half a minute that a registry is back.
	firstWait   = 500 * time.Millisecond // the middle of the range
	longestWait = 15 * time.Second       // the middle of the range
	// Failures that nobody can tell for passing or lasting are tried as often as the ECS agent tries any.
	unclearTries = 5
)

func newBackOff() *backoff.ExponentialBackOff {
	b := backoff.NewExponentialBackOff()
	b.InitialInterval = firstWait
	b.MaxInterval = longestWait
	b.Multiplier = 2
	b.RandomizationFactor = 1 // anything from nothing to twice the middle
	return b
}

// pull fetches one image, with as many tries as its failures deserve and the total timeout allows. No try begins after
// retries is done.
func (p *Puller) pull(ctx, retries context.Context, w wanted) (Image, error) {
	if limit := time.Duration(p.cfg.TotalTimeout); limit > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, limit,
			fmt.Errorf("%w: not done after %s (workload.pull.totalTimeout)", ErrTimeout, limit))
		defer cancel()
	}
	waits, stopWaits := context.WithCancelCause(ctx)
	defer stopWaits(nil)
	defer context.AfterFunc(retries, func() { stopWaits(context.Cause(retries)) })()

	var last error
	tries, unclearLeft, mayRenew := 0, unclearTries-1, true
	result, err := backoff.Retry(waits, func() (Image, error) {
		for {
			tries++
			got, auth, v, err := p.try(ctx, w)
			switch {
			case err == nil:
				return got, nil
			case ctx.Err() != nil:
				if !errors.Is(err, context.Cause(ctx)) {
					last = err // it failed by itself, just before
				}
				return Image{}, backoff.Permanent(err)
			}
			last = err
			switch {
			case v == denied && mayRenew && p.renew(ctx, w, auth):
				mayRenew = false
				p.log.Info("registry refused the credentials, trying new ones", "image", w.name(), "registry", w.host())
				continue // at once: nothing suggests that waiting helps
			case (v == unclear || v == noEngine) && unclearLeft > 0: // dockerd may be restarting
				unclearLeft--
				return Image{}, err
			case v == transient:
				return Image{}, err
			default:
				return Image{}, backoff.Permanent(err)
			}
		}
	}, backoff.WithBackOff(newBackOff()), backoff.WithMaxElapsedTime(0), backoff.WithNotify(func(err error, wait time.Duration) {
		p.log.Warn("pull failed, trying again", "image", w.name(), "try", tries, "wait", wait.Round(time.Millisecond), "error", err)
		p.progress.Waiting(w.name(), err.Error(), wait)
	}))
	if err == nil {
		return result, nil
	}
	switch {
	case ctx.Err() == nil: // also when waiting for another try was cut short: what the last one said matters
		return Image{}, last
	case last == nil:
		return Image{}, err // which says what was under way, and why it ended
	default:
		return Image{}, fmt.Errorf("%w; tried %d times, and the last failure was: %w", context.Cause(ctx), tries, last)
	}
}

// renew drops the refused credentials and tells whether there are others to try.
func (p *Puller) renew(ctx context.Context, w wanted, refused Auth) bool {
	p.creds.Forget(w.host(), refused)
	next, err := p.login(ctx, w.host())
	return err == nil && !next.same(refused)
}

// login gets the credentials for host. AWS has as long to answer as a registry has.
func (p *Puller) login(ctx context.Context, host string) (Auth, error) {
	if limit := time.Duration(p.cfg.BeginTimeout); limit > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, limit, fmt.Errorf("%w: no answer for %s (workload.pull.beginTimeout)", ErrTimeout, limit))
		defer cancel()
	}
	auth, err := p.creds.For(ctx, host)
	if err != nil && ctx.Err() != nil && !lasting(err) {
		return Auth{}, fmt.Errorf("get an ECR token for %s: %w", host, context.Cause(ctx))
	}
	return auth, err
}

// lasting tells whether the error of a login stays the same with more time.
func lasting(err error) bool { return errors.Is(err, ErrDenied) || errors.Is(err, errUnusable) }

// try pulls once. It returns the credentials that it used, and what to do when it failed.
func (p *Puller) try(ctx context.Context, w wanted) (Image, Auth, verdict, error) {
	host := w.host()
	auth, err := p.login(ctx, host)
	switch {
	case err != nil && lasting(err):
		return Image{}, auth, hopeless, err
	case err != nil:
		return Image{}, auth, transient, err
	}
	header, err := auth.header(host)
	if err != nil {
		return Image{}, auth, hopeless, err
	}

	try, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	watch := watchStall(time.Duration(p.cfg.BeginTimeout), time.Duration(p.cfg.IdleTimeout), p.pulse, cancel)
	defer watch.stop()
	seen, err := p.stream(try, w, header, watch)
	cause := context.Cause(try)
	cut := cause != nil && (errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded))
	switch {
	case cut && ctx.Err() != nil && errors.Is(cause, context.Cause(ctx)):
		return Image{}, auth, hopeless, cause
	case cut:
		return Image{}, auth, transient, fmt.Errorf("%w; check that %s can be reached from this node", cause, host)
	case err != nil: // also when time is up by now: this is why
		v := judge(err)
		return Image{}, auth, v, explain(w, v, scrub(err.Error(), host, auth), auth)
	}
	result, err := p.verify(ctx, w, seen)
	if err != nil {
		return Image{}, auth, hopeless, err
	}
	return result, auth, hopeless, nil
}

// stream has the engine pull, and follows it. The engine drops the pull when ctx ends, because that closes the answer.
func (p *Puller) stream(ctx context.Context, w wanted, header string, watch *stall) (*transfer, error) {
	answer, err := p.engine.ImagePull(ctx, w.named.String(), client.ImagePullOptions{RegistryAuth: header})
	if err != nil {
		return nil, err
	}
	defer answer.Close()
	seen := newTransfer()
	for message, err := range answer.JSONMessages(ctx) {
		if err != nil {
			return nil, err
		}
		if message.Error != nil {
			return nil, (*streamError)(message.Error)
		}
		watch.moved(seen.apply(message), seen.queued())
		p.progress.Moved(w.name(), seen.state())
	}
	return seen, ctx.Err()
}

// streamError is an error message in the engine's stream, which comes after a status of 200.
type streamError jsonstream.Error

func (e *streamError) Error() string {
	if e.Message == "" {
		return fmt.Sprintf("the engine gave error %d without a message", e.Code)
	}
	return e.Message
}

// verify looks at what arrived. The engine has checked every digest itself; that it knows the image under the digest
// that was asked for is what makes the image usable by that name.
func (p *Puller) verify(ctx context.Context, w wanted, seen *transfer) (Image, error) {
	found, ok, err := inspect(ctx, p.engine, w.named.String())
	if err != nil {
		return Image{}, err
	}
	if !ok {
		return Image{}, fmt.Errorf("%w: the engine has no %s after the pull; was it removed at the same time?", ErrMissing, w.name())
	}
	result := describe(found.InspectResponse, w, seen.digest)
	if w.digest != "" && result.Digest != w.digest {
		return Image{}, fmt.Errorf("%w: asked for %s and got %v; the image is not used", ErrCorrupt, w.digest, repoDigests(found.InspectResponse, w))
	}
	result.Pulled = true
	result.Bytes = seen.state().Current
	return result, nil
}
