package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"

	"github.com/aws/smithy-go"
)

var (
	// ErrUnavailable is wrapped when the metadata service gave no usable answer now: no network yet, a timeout, a 5xx.
	ErrUnavailable = errors.New("the instance metadata service doesn't answer")
	// ErrNoIMDSv2 is wrapped when a metadata service answers but gives no session token: it is turned off, or speaks
	// version 1 only, which any program that can be made to fetch a URL can read.
	ErrNoIMDSv2 = errors.New("no instance metadata service version 2")

	errNotFound = errors.New("not found")
	errTooLarge = fmt.Errorf("the answer is larger than %d bytes", maxAnswer)
)

// exchange is what went over the wire for one call. It is noted here because the SDK's error for a failed token can't
// be unwrapped, so neither the status nor the cause could be read from it.
type exchange struct {
	sent        bool
	token       bool // what was sent last asks for a token
	tokenStatus int  // of the last token request, 0 for none
	tokenLife   bool // the token came with the life that version 2 gives it
	status      int  // of the question itself, 0 while the last request was for a token
	err         error
}

type exchangeKey struct{}

// observer notes each exchange, and bounds what the SDK, which reads answers whole, takes into memory.
type observer struct{ next http.RoundTripper }

func (o observer) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := o.next.RoundTrip(req)
	seen, ok := req.Context().Value(exchangeKey{}).(*exchange)
	if !ok {
		seen = &exchange{}
	}
	seen.sent, seen.token, seen.err = true, req.Method == http.MethodPut, err
	if err != nil {
		return nil, err
	}
	if req.Method == http.MethodPut {
		_, notSeconds := strconv.Atoi(resp.Header.Get("X-Aws-Ec2-Metadata-Token-Ttl-Seconds"))
		seen.tokenStatus, seen.tokenLife, seen.status = resp.StatusCode, notSeconds == nil, 0
	} else {
		seen.status = resp.StatusCode
	}
	resp.Body = &bounded{ReadCloser: resp.Body, left: maxAnswer, seen: seen}
	return resp, nil
}

// bounded fails a body that goes on too long, unlike io.LimitReader, which would pass its beginning off as the whole.
type bounded struct {
	io.ReadCloser
	left int
	seen *exchange
}

func (b *bounded) Read(p []byte) (int, error) {
	if len(p) > b.left+1 {
		p = p[:b.left+1]
	}
	n, err := b.ReadCloser.Read(p)
	if n > b.left {
		n, err = b.left, errTooLarge
	}
	b.left -= n
	if err != nil && err != io.EOF {
		b.seen.err = err
	}
	return n, err
}

// once makes one call within tryTimeout and tells its errors apart: errNotFound, ErrUnavailable (which may pass),
// ErrNoIMDSv2, the context's own, and others, which no repetition mends.
func (m *Metadata) once(ctx context.Context, call func(context.Context) error) error {
	return m.note(ctx, &exchange{}, call)
}

// note is once for a caller who also wants to know what went over the wire.
func (m *Metadata) note(ctx context.Context, seen *exchange, call func(context.Context) error) error {
	try, cancel := context.WithTimeout(context.WithValue(ctx, exchangeKey{}, seen), tryTimeout)
	defer cancel()
	err := call(try)
	if err != nil && ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return m.explain(err, *seen)
}

// fetchToken goes on for a caller who had no time left for a token: the answer to a poller's next question would come too
// late as well, and the one after that. It is over after tryTimeout, and there is one at a time.
func (m *Metadata) fetchToken() {
	if !m.fetching.CompareAndSwap(false, true) {
		return
	}
	go func() {
		defer m.fetching.Store(false)
		ctx, cancel := context.WithTimeout(context.Background(), tryTimeout)
		defer cancel()
		_, _ = m.read(ctx, "instance-id") // for the token that comes with it, which the SDK keeps
	}()
}

func (m *Metadata) explain(err error, seen exchange) error {
	var malformed *smithy.DeserializationError
	switch {
	case err == nil:
		return nil
	case !seen.sent:
		return fmt.Errorf("%w: allow it, or set node.provider: local", err) // AWS_EC2_METADATA_DISABLED, for one
	case errors.Is(seen.err, errTooLarge):
		return seen.err
	case seen.err != nil:
		return fmt.Errorf("%w: %s: %w", ErrUnavailable, m.endpoint, seen.err)
	case seen.status == 0 && (seen.tokenStatus >= 500 || seen.tokenStatus == http.StatusTooManyRequests):
		return fmt.Errorf("%w: %s answers %d to a token request", ErrUnavailable, m.endpoint, seen.tokenStatus)
	case seen.status == 0 && seen.tokenStatus == http.StatusForbidden:
		return fmt.Errorf("%w: it is turned off for this instance: turn it on (aws ec2 modify-instance-metadata-options --http-endpoint enabled --http-tokens required), or set node.provider: local",
			ErrNoIMDSv2)
	case seen.status == 0 && (seen.tokenStatus != http.StatusOK || !seen.tokenLife):
		return fmt.Errorf("%w: %s answers %d to a token request as a service of version 1 does, which flowagent never uses: offer version 2, or set node.provider: local",
			ErrNoIMDSv2, m.endpoint, seen.tokenStatus)
	case seen.status == http.StatusNotFound:
		return errNotFound
	case seen.status >= 500 || seen.status == http.StatusTooManyRequests || seen.status == http.StatusUnauthorized:
		return fmt.Errorf("%w: %s answers %d", ErrUnavailable, m.endpoint, seen.status)
	case errors.As(err, &malformed):
		return fmt.Errorf("%s answers something else than was asked for: %w", m.endpoint, malformed)
	default:
		return fmt.Errorf("%s answers %d: %w", m.endpoint, seen.status, err)
	}
}
