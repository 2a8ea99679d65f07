package image

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/moby/moby/api/pkg/authconfig"
	"github.com/moby/moby/api/types/registry"

	"github.com/flowviz/flowagent/agent/config"
	"github.com/flowviz/flowagent/agent/secret"
)

// Auth logs in to one registry. The zero value is anonymous.
type Auth struct {
	Username string
	Password secret.Value
	// How the credential came about, for advice when the registry refuses it.
	origin origin
	// Name of the secret that holds the password; region of the ECR token.
	source string
}

type origin int

const (
	anonymous origin = iota
	basic
	ecrToken
)

// header is the value of the engine's X-Registry-Auth header: base64url JSON, "" for anonymous.
func (a Auth) header(host string) (string, error) {
	if a.origin == anonymous {
		return "", nil
	}
	encoded, err := authconfig.Encode(registry.AuthConfig{
		Username:      a.Username,
		Password:      string(a.Password.Reveal()),
		ServerAddress: host,
	})
	if err != nil {
		return "", fmt.Errorf("encode the credentials of %s for the engine", host) // err might quote them
	}
	return encoded, nil
}

// Credentials knows how to log in to each configured registry. It keeps ECR tokens in memory and may be used by several
// goroutines at once.
type Credentials struct {
	logins   map[string]config.Registry // by canonical host
	aws      func(ctx context.Context, region string) (aws.Config, error)
	password func(name string) (secret.Value, bool)
	now      func() time.Time

	mu      sync.Mutex
	regions map[string]*ecrRegion
}

// NewCredentials takes the configured registries, a way to AWS for each region, the secrets by name (false: not
// there, or not yet) and a clock. aws is called once for each region that is needed, password each time.
func NewCredentials(
	registries []config.Registry,
	aws func(ctx context.Context, region string) (aws.Config, error),
	password func(name string) (secret.Value, bool),
	now func() time.Time,
) *Credentials {
	c := &Credentials{
		logins: map[string]config.Registry{}, aws: aws, password: password, now: now,
		regions: map[string]*ecrRegion{},
	}
	for _, r := range registries {
		c.logins[canonicalHost(r.Host)] = r
	}
	return c
}

// For returns what logs in to the registry at host, as it stands in image references. A host that isn't configured is
// used anonymously. It asks AWS when there is no ECR token or the present one is about to expire; when the region's
// endpoint refuses, the error wraps [ErrDenied].
func (c *Credentials) For(ctx context.Context, host string) (Auth, error) {
	login, ok := c.logins[canonicalHost(host)]
	switch {
	case !ok:
		return Auth{}, nil
	case login.ECR != nil:
		region, err := ecrRegionOf(login)
		if err != nil {
			return Auth{}, err
		}
		return c.region(region).token(ctx)
	case login.PasswordSecret == "":
		return Auth{}, fmt.Errorf("registry %s: %w: it has a user name and no password; set passwordSecret in its entry under registries", login.Host, errUnusable)
	}
	password, ok := c.password(login.PasswordSecret)
	if !ok {
		return Auth{}, fmt.Errorf("registry %s: %w: its password, the secret %s, is not available; see `flowagent secrets list`", login.Host, errUnusable, login.PasswordSecret)
	}
	return Auth{Username: login.Username, Password: password, origin: basic, source: login.PasswordSecret}, nil
}

// NeedsSecret tells which secret must have been fetched before images of host can be pulled, if any. Images of all
// other registries can be pulled while secrets are still on their way.
func (c *Credentials) NeedsSecret(host string) (name string, needed bool) {
	login, ok := c.logins[canonicalHost(host)]
	if !ok || login.ECR != nil || login.PasswordSecret == "" {
		return "", false
	}
	return login.PasswordSecret, true
}

// Forget drops the token of host after the registry refused it, so that the next [Credentials.For] fetches another.
// A token that replaced the refused one in the meantime is kept: several pulls may be refused for the same reason.
func (c *Credentials) Forget(host string, refused Auth) {
	if refused.origin == ecrToken {
		c.region(refused.source).forget(refused.Password)
	}
}

func (c *Credentials) region(name string) *ecrRegion {
	c.mu.Lock()
	defer c.mu.Unlock()
	r, ok := c.regions[name]
	if !ok {
		r = newECRRegion(name, c.aws, c.now)
		c.regions[name] = r
	}
	return r
}

// same tells whether logging in with b again would repeat what a did. ECR answers a new request with a new token.
func (a Auth) same(b Auth) bool {
	return a.origin != ecrToken && a.origin == b.origin && a.Username == b.Username &&
		bytes.Equal(a.Password.Reveal(), b.Password.Reveal())
}

// canonicalHost maps Docker Hub's several host names to the one in normalised references.
func canonicalHost(host string) string {
	switch host = strings.ToLower(host); host {
	case "index.docker.io", "registry-1.docker.io", "registry.hub.docker.com":
		return "docker.io"
	default:
		return host
	}
}
