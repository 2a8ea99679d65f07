package image

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/moby/moby/client"

	"github.com/flowviz/flowagent/agent/config"
)

// What can be wrong with an image, for callers that decide on it.
var (
	// ErrDenied: the registry, or AWS, refused the node's credentials, also with a new token.
	ErrDenied = errors.New("access denied")
	// ErrNotFound: the registry has no such image.
	ErrNotFound = errors.New("the registry has no such image")
	// ErrCorrupt: what arrived isn't what its digest promises, from a registry or in an archive. It is not used.
	ErrCorrupt = errors.New("content does not match its digest")
	// ErrUnpinned: a reference without a digest, and the configuration wants one.
	ErrUnpinned = errors.New("images that are not pinned by digest")
	// ErrMissing: the image isn't on the node and the pull policy is never.
	ErrMissing = errors.New("the image is not on this node")
	// ErrTimeout: one of the pull's limits passed.
	ErrTimeout = errors.New("timed out")
	// ErrEngine: no Docker Engine answers.
	ErrEngine = errors.New("the Docker Engine does not answer")

	// errUnusable is a registry entry that can't work as it is.
	errUnusable = errors.New("no usable login")
)

// verdict is what to do about a failed pull.
type verdict int

const (
	unclear   verdict = iota // try again, a few times
	transient                // back off and try again until the total timeout
	denied                   // forget the token, try again once
	absent                   // fail now, as do the rest
	corrupt
	noSpace
	untrusted // TLS
	hopeless  // the request itself, such as a platform that the image doesn't have
	noEngine
)

// Status codes as engines quote them: "received unexpected HTTP status: 500 …", "error parsing HTTP 403 response body",
// and "unexpected status from GET request to https://…: 403 Forbidden" from engines with the containerd store.
var quotedStatus = regexp.MustCompile(`parsing HTTP (\d{3}) response|unexpected (?:HTTP )?status\b.*?:\s(\d{3})\b`)

// clues are looked for in this order in the lower-cased text of an engine's error, because the engine passes on what a
// registry said as text inside an error of its own, with a status of its own (Engine 20.10 says 404 to a 403, and 500
// to a 401). Each list names what engines 20.10 to 29 and the usual registries say.
var clues = []struct {
	verdict verdict
	words   []string
}{
	{noSpace, []string{"no space left on device", "disk quota exceeded"}},
	{corrupt, []string{"verification failed for digest", "invalid checksum digest", "unexpected commit digest", "invalid diffid", "does not match provided digest", "content does not match digest", "failed size validation"}},
	{transient, []string{"toomanyrequests", "too many requests", "rate exceeded", "rate limit", "throttl"}},
	{transient, []string{"tls handshake timeout"}},
	{untrusted, []string{"x509:", "certificate", "server gave http response to https client", "first record does not look like a tls handshake", "remote error: tls"}},
	{denied, []string{"denied", "unauthorized", "no basic auth credentials", "authentication required", "authorization failed", "insufficient_scope", "forbidden", "token has expired"}},
	{hopeless, []string{"no matching manifest", "no match for platform", "does not match the specified platform", "unsupported manifest", "unsupported media type", "mediatype", "invalid reference format", "unknown blob type"}},
	{absent, []string{"manifest unknown", "name unknown", "name invalid", "not found", "no such image"}},
	{transient, []string{"eof", "connection refused", "connection reset", "broken pipe", "timeout", "timed out", "deadline exceeded", "no such host", "unreachable", "temporary failure", "server misbehaving", "unavailable", "internal server error", "bad gateway", "use of closed network connection", "request canceled", "server closed"}},
}

// judge reads an error of a pull: the engine's answer, a message of its stream, or the connection to the engine.
func judge(err error) verdict {
	if client.IsErrConnectionFailed(err) {
		return noEngine
	}
	text := strings.ToLower(err.Error())
	// A status is the registry's own word; phrases around it, also in its body, may be anything. Space and digests come
	// first all the same: they are the engine's own finding.
	for _, clue := range clues[:2] {
		if containsAny(text, clue.words) {
			return clue.verdict
		}
	}
	if v, ok := judgeStatus(err.Error()); ok {
		return v
	}
	for _, clue := range clues[2:] {
		if containsAny(text, clue.words) {
			return clue.verdict
		}
	}
	switch {
	case cerrdefs.IsInvalidArgument(err):
		return hopeless
	case cerrdefs.IsUnavailable(err):
		return transient
	default:
		return unclear
	}
}

func judgeStatus(text string) (verdict, bool) {
	match := quotedStatus.FindStringSubmatch(text)
	if match == nil {
		return unclear, false
	}
	code, err := strconv.Atoi(match[1] + match[2])
	switch {
	case err != nil:
		return unclear, false
	case code == 401 || code == 403:
		return denied, true
	case code == 404:
		return absent, true
	case code == 408 || code == 425 || code == 429 || code >= 500:
		return transient, true
	default:
		return unclear, true
	}
}

func containsAny(text string, words []string) bool {
	for _, word := range words {
		if strings.Contains(text, word) {
			return true
		}
	}
	return false
}

// explain makes the error that a person meets: what the registry or engine said, without credentials, and what to do
// next. The engine's own error is not wrapped, because it may quote credentials.
func explain(w wanted, v verdict, said string, auth Auth) error {
	host := w.host()
	switch v {
	case denied:
		return fmt.Errorf("%w (%s); %s", ErrDenied, said, adviseOnAccess(host, auth))
	case absent:
		return fmt.Errorf("%w (%s); check its name and tag or digest, or push it", ErrNotFound, said)
	case corrupt:
		return fmt.Errorf("%w (%s); %s or something between it and this node changed the image: push it again and check proxies", ErrCorrupt, said, host)
	case noSpace:
		return fmt.Errorf("%s; free space on the engine's disk, or raise workload.cleanUp.minFree so that it is done earlier", said)
	case untrusted:
		return fmt.Errorf("%s; put the CA of %s into /etc/docker/certs.d/%s/ca.crt", said, host, host)
	case hopeless:
		return fmt.Errorf("%s; push an image that this node's engine and architecture can run", said)
	case noEngine:
		return fmt.Errorf("%w (%s); see `systemctl status docker` and workload.engine", ErrEngine, said)
	default:
		return fmt.Errorf("%s; check that %s can be reached from this node", said, host)
	}
}

func adviseOnAccess(host string, auth Auth) string {
	switch auth.origin {
	case ecrToken:
		return "allow ecr:BatchGetImage and ecr:GetDownloadUrlForLayer on the repository to the node's role, and in the repository's policy when it belongs to another account"
	case basic:
		return fmt.Sprintf("check that the secret %s holds the password of %s at %s, and that this user may pull", auth.source, auth.Username, host)
	}
	if _, _, ecr := config.ECRHost(host); ecr {
		return fmt.Sprintf("add {host: %q, ecr: {}} under registries", host)
	}
	return fmt.Sprintf("check the image's name; a private image needs an entry for %s under registries, with username and passwordSecret", host)
}

// engineError explains an error of a call to the engine that has nothing to do with a registry.
func engineError(ctx context.Context, what string, err error) error {
	if ctx.Err() != nil {
		return fmt.Errorf("%s: %w", what, context.Cause(ctx))
	}
	if client.IsErrConnectionFailed(err) {
		return fmt.Errorf("%s: %w (%s); see `systemctl status docker` and workload.engine", what, ErrEngine, tidy(err.Error()))
	}
	return fmt.Errorf("%s: %s", what, tidy(err.Error()))
}
