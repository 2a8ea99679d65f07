package image

import (
	"bytes"
	"context"
	"encoding/base64"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecr"

	"github.com/flowviz/flowagent/agent/awserror"
	"github.com/flowviz/flowagent/agent/config"
	"github.com/flowviz/flowagent/agent/secret"
)

const (
	// An ECR token lives for 12 hours. It is replaced 30 to 60 minutes early, as the ECS agent does: early enough for a
	// long pull to finish, spread so that a fleet that booted together doesn't ask together.
	ecrRenewAtLeast = 30 * time.Minute
	ecrRenewSpread  = 30 * time.Minute
	// A token whose expiry is near or past, by a clock that is wrong before NTP has set it or by an emulator's fixed
	// date, is still used for so long: a refused one is forgotten anyway, and asking for every image would be throttled.
	ecrLeastUse = 5 * time.Minute
)

func ecrRegionOf(r config.Registry) (string, error) {
	if r.ECR.Region != "" {
		return r.ECR.Region, nil
	}
	_, region, found := config.ECRHost(canonicalHost(r.Host))
	if !found {
		return "", fmt.Errorf("registry %s: %w: its name doesn't tell an AWS region; set ecr.region in its entry under registries, or remove the entry if the registry is public", r.Host, errUnusable)
	}
	return region, nil
}

// ecrRegion holds one region's token. A token opens every registry, of whatever account, that the node's role may read
// in that region, so there is one per region and not one per registry.
type ecrRegion struct {
	name string
	aws  func(ctx context.Context, region string) (aws.Config, error)
	now  func() time.Time

	// turn lets one caller at a time through, so that images pulled together share one request; a channel, because a
	// waiting caller must be able to give up.
	turn   chan struct{}
	client *ecr.Client // belongs to who has the turn

	mu    sync.Mutex // never held during a request
	auth  Auth
	renew time.Time // from when on auth is not handed out any more
}

func newECRRegion(name string, aws func(context.Context, string) (aws.Config, error), now func() time.Time) *ecrRegion {
	return &ecrRegion{name: name, aws: aws, now: now, turn: make(chan struct{}, 1)}
}

func (r *ecrRegion) token(ctx context.Context) (Auth, error) {
	select {
	case r.turn <- struct{}{}:
		defer func() { <-r.turn }()
	case <-ctx.Done():
		return Auth{}, fmt.Errorf("wait for the ECR token of %s: %w", r.name, context.Cause(ctx))
	}
	if auth, ok := r.present(); ok {
		return auth, nil
	}
	if r.client == nil {
		cfg, err := r.aws(ctx, r.name)
		if err != nil {
			return Auth{}, fmt.Errorf("prepare for Amazon ECR in %s: %w", r.name, err)
		}
		r.client = ecr.NewFromConfig(cfg)
	}
	out, err := r.client.GetAuthorizationToken(ctx, &ecr.GetAuthorizationTokenInput{})
	if err != nil {
		return Auth{}, r.explain(err)
	}
	if len(out.AuthorizationData) == 0 {
		return Auth{}, fmt.Errorf("get the ECR token of %s: the answer holds none", r.name)
	}
	data := out.AuthorizationData[0]
	auth, err := r.decode(aws.ToString(data.AuthorizationToken))
	if err != nil {
		return Auth{}, err
	}
	r.keep(auth, aws.ToTime(data.ExpiresAt))
	return auth, nil
}

func (r *ecrRegion) present() (Auth, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.auth, r.auth.origin == ecrToken && r.now().Before(r.renew)
}

func (r *ecrRegion) keep(auth Auth, expires time.Time) {
	renew := expires.Add(-ecrRenewAtLeast - rand.N(ecrRenewSpread))
	if earliest := r.now().Add(ecrLeastUse); renew.Before(earliest) {
		renew = earliest
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.auth, r.renew = auth, renew
}

// decode never quotes the token.
func (r *ecrRegion) decode(token string) (Auth, error) {
	decoded, err := base64.StdEncoding.DecodeString(token)
	user, password, found := bytes.Cut(decoded, []byte(":"))
	if err != nil || !found {
		return Auth{}, fmt.Errorf("get the ECR token of %s: the answer is not base64 of user:password", r.name)
	}
	return Auth{Username: string(user), Password: secret.NewValue(password), origin: ecrToken, source: r.name}, nil
}

// ecrRefusals are the error codes that another try with the same node role can't change. Source: Amazon ECR API
// Reference, "Common errors", and the names that STS and older endpoints use for the same.
var ecrRefusals = map[string]bool{
	"AccessDenied": true, "AccessDeniedException": true, "UnauthorizedOperation": true, "OptInRequired": true,
	"UnrecognizedClientException": true, "InvalidClientTokenId": true, "InvalidSignatureException": true,
	"SignatureDoesNotMatch": true, "IncompleteSignature": true, "MissingAuthenticationToken": true,
}

func (r *ecrRegion) explain(err error) error {
	explained := awserror.Call{
		Did: "get the ECR token of " + r.name, Service: "ECR", Allow: "ecr:GetAuthorizationToken", Endpoint: "ecr.api",
	}.Explain(err)
	if ecrRefusals[awserror.Code(err)] {
		return fmt.Errorf("%w: %w", ErrDenied, explained)
	}
	return explained
}

func (r *ecrRegion) forget(refused secret.Value) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.auth.Password.Equal(refused) {
		r.auth = Auth{}
	}
}
