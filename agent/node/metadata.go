package node

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/ratelimit"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	"github.com/aws/aws-sdk-go-v2/feature/ec2/imds"
)

const (
	// dialTimeout is long for a link-local service, which answers in less than a millisecond, and short for a boot
	// that waits for a route.
	dialTimeout = time.Second
	// tryTimeout is the AWS SDK's own limit for one call, token included.
	tryTimeout = 5 * time.Second
	// maxAnswer bounds every answer, in bytes. EC2 allows 16 KiB of user data; services that imitate it, up to 64 KiB.
	maxAnswer = 64 << 10
	// maxUserData bounds unpacked user data, in bytes: far more than a configuration, far less than a gzip bomb.
	maxUserData = 1 << 20
)

// Metadata asks the EC2 instance metadata service, version 2 only. It keeps one connection and one session token,
// until that expires or is refused; so keep one Metadata for the life of the process. Its methods may be
// called at the same time.
type Metadata struct {
	client   *imds.Client
	endpoint string // for messages
	wait     time.Duration
	log      *slog.Logger
	random   func() float64
	fetching atomic.Bool // a token is fetched for nobody in particular
}

func newMetadata(o Options) (*Metadata, error) {
	endpoint := o.MetadataEndpoint
	if endpoint == "" {
		endpoint = os.Getenv("AWS_EC2_METADATA_SERVICE_ENDPOINT")
	}
	if endpoint == "" {
		endpoint = "http://169.254.169.254"
		if strings.EqualFold(os.Getenv("AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE"), "ipv6") {
			endpoint = "http://[fd00:ec2::254]"
		}
	}
	if u, err := url.Parse(endpoint); err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil {
		return nil, errors.New("the metadata endpoint is not a URL such as http://169.254.169.254: check AWS_EC2_METADATA_SERVICE_ENDPOINT")
	}
	transport := &http.Transport{
		// No Proxy, whatever HTTP_PROXY says: a proxy would be handed the session token.
		DialContext:        o.dial,
		DisableCompression: true, // an answer stays the size that was checked
		MaxIdleConns:       1,
		IdleConnTimeout:    time.Minute, // far more than a poller's interval
	}
	return &Metadata{
		client: imds.New(imds.Options{
			Endpoint:       endpoint,
			EnableFallback: aws.FalseTernary,
			HTTPClient: &http.Client{
				Transport: observer{transport},
				// A redirect could carry the token off the machine.
				CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
			},
			// Of its own accord the SDK only asks again after a refused token; see patiently for the rest.
			Retryer: retry.NewStandard(func(r *retry.StandardOptions) {
				r.MaxAttempts = 2
				r.Retryables = []retry.IsErrorRetryable{retry.RetryableError{}}
				r.Backoff = retry.BackoffDelayerFunc(func(int, error) (time.Duration, error) { return 0, nil })
				r.RateLimiter = ratelimit.None
			}),
		}),
		endpoint: endpoint,
		wait:     o.Wait,
		log:      o.Log,
		random:   o.random,
	}, nil
}

// Client is the SDK's client below, for the instance role's credentials: so that they share its token and connection.
func (m *Metadata) Client() *imds.Client { return m.client }

// Get asks once for one path below /latest/meta-data/, such as autoscaling/target-lifecycle-state. found is false on a
// 404, which says that EC2 knows no such thing now. An answer may be empty. Errors wrap ErrUnavailable where the same
// question may be answered later; a poller then simply asks again at its next turn. A token that takes longer than ctx
// allows is waited for behind the scenes: until it is there, Get fails at once.
func (m *Metadata) Get(ctx context.Context, path string) (value string, found bool, err error) {
	if m.fetching.Load() {
		return "", false, fmt.Errorf("instance metadata %s: %w: a session token takes long", path, ErrUnavailable)
	}
	var seen exchange
	err = m.note(ctx, &seen, func(ctx context.Context) (err error) {
		value, err = m.read(ctx, path)
		return err
	})
	if err != nil && seen.token && errors.Is(ctx.Err(), context.DeadlineExceeded) {
		m.fetchToken()
	}
	switch {
	case errors.Is(err, errNotFound):
		return "", false, nil
	case err != nil:
		return "", false, fmt.Errorf("instance metadata %s: %w", path, err)
	}
	return strings.TrimSpace(value), true, nil
}

// UserData returns what the instance was launched with, unpacked when it is gzip, or nil when there is none. It waits
// for a late network as long as Discover does. Its content is whatever the operator wrote, so it belongs in no log.
func (m *Metadata) UserData(ctx context.Context) ([]byte, error) {
	ctx, cancel := m.patience(ctx)
	defer cancel()
	var data []byte
	err := m.patiently(ctx, func(ctx context.Context) error {
		out, err := m.client.GetUserData(ctx, nil)
		if err != nil {
			return err
		}
		data, err = io.ReadAll(out.Content)
		return err
	})
	switch {
	case errors.Is(err, errNotFound):
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("user data: %w", err)
	}
	data, err = unpack(data)
	if err != nil {
		return nil, fmt.Errorf("user data: %w", err)
	}
	return data, nil
}

func (m *Metadata) read(ctx context.Context, path string) (string, error) {
	out, err := m.client.GetMetadata(ctx, &imds.GetMetadataInput{Path: path})
	if err != nil {
		return "", err
	}
	value, err := io.ReadAll(out.Content)
	return string(value), err
}

// unpack undoes gzip, which cloud-init's users know as a way around the 16 KiB limit. Other data stays as it is.
func unpack(data []byte) ([]byte, error) {
	if !bytes.HasPrefix(data, []byte{0x1f, 0x8b}) { // RFC 1952, section 2.3.1
		return data, nil
	}
	r, err := gzip.NewReader(bytes.NewReader(data))
	if err != nil {
		return nil, fmt.Errorf("it begins like gzip and isn't: %w", err)
	}
	plain, err := io.ReadAll(io.LimitReader(r, maxUserData+1))
	if err != nil {
		return nil, fmt.Errorf("damaged gzip: %w", err)
	}
	if len(plain) > maxUserData {
		return nil, fmt.Errorf("unpacked it is larger than %d bytes: keep large files elsewhere", maxUserData)
	}
	return plain, nil
}
