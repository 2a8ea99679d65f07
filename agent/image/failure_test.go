package image

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	cerrdefs "github.com/containerd/errdefs"
)

func TestEngineErrorsAreJudgedByWhatTheRegistrySaid(t *testing.T) {
	for text, want := range map[string]verdict{
		// Engine 20.10, its own store.
		"unauthorized":                          denied,
		"unauthorized: authentication required": denied,
		"no basic auth credentials":             denied,
		"pull access denied for r/x, repository does not exist or may require 'docker login': denied: Your authorization token has expired. Reauthenticate and try again.": denied,
		`error parsing HTTP 403 response body: invalid character 'o' in literal false (expecting 'a'): "forbidden"`:                                                        denied,
		`error parsing HTTP 403 response body: unexpected end of JSON input: ""`:                                                                                           denied,
		"manifest unknown": absent,
		"name unknown":     absent,
		"manifest for r/x:1 not found: manifest unknown: manifest unknown":                                                           absent,
		`error parsing HTTP 404 response body: invalid character '<' looking for beginning of value: "<html>access denied</html>"`:   absent,
		"name unknown: The repository with name 'x' does not exist in the registry with id '123456789012'":                           absent,
		"toomanyrequests: You have reached your pull rate limit. You may increase the limit by authenticating and upgrading: denied": transient,
		`error parsing HTTP 429 response body: invalid character 's' looking for beginning of value: "slow down"`:                    transient,
		"received unexpected HTTP status: 500 Internal Server Error":                                                                 transient,
		"received unexpected HTTP status: 503 Service Unavailable":                                                                   transient,
		`Head "https://127.0.0.1:42687/v2/x/manifests/1": EOF`:                                                                       transient,
		`Get "http://127.0.0.1:1/v2/": dial tcp 127.0.0.1:1: connect: connection refused`:                                            transient,
		`Get "https://r.invalid/v2/": dial tcp: lookup r.invalid on 10.0.0.2:53: no such host`:                                       transient,
		`Get "https://r/v2/": net/http: TLS handshake timeout`:                                                                       transient,
		`Get "https://r/v2/": net/http: request canceled while waiting for connection (Client.Timeout exceeded)`:                     transient,
		"read tcp 10.0.0.1:1->10.0.0.2:443: read: connection reset by peer":                                                          transient,
		`Get "https://r/v2/": x509: certificate signed by unknown authority`:                                                         untrusted,
		`Get "https://r/v2/": http: server gave HTTP response to HTTPS client`:                                                       untrusted,
		"filesystem layer verification failed for digest sha256:00":                                                                  corrupt,
		"manifest verification failed for digest sha256:00":                                                                          corrupt,
		"failed to register layer: Error processing tar file(exit status 1): write /x: no space left on device":                      noSpace,
		"no matching manifest for linux/amd64 in the manifest list entries":                                                          hopeless,
		// Engines with the containerd store.
		`failed to resolve reference "r/x:1": unexpected status from HEAD request to https://r:5000/v2/x/manifests/1: 403 Forbidden`:                    denied,
		`failed to resolve reference "r/x:1": unexpected status from HEAD request to https://r:5000/v2/x/manifests/1: 503 Service Unavailable`:          transient,
		`failed to resolve reference "r/x:1": r/x:1: not found`:                                                                                         absent,
		"pull access denied, repository does not exist or may require authorization: server message: insufficient_scope: authorization failed":          denied,
		`failed to authorize: failed to fetch anonymous token: unexpected status from GET request to https://auth.example/token: 401 Unauthorized`:      denied,
		"failed commit on ref \"layer-sha256:00\": unexpected commit digest sha256:11, expected sha256:00: failed precondition":                         corrupt,
		"failed to copy: httpReadSeeker: failed open: failed to do request: Get \"https://r/v2/x/blobs/sha256:00\": dial tcp 10.0.0.1:443: i/o timeout": transient,
		"no match for platform in manifest: not found": hopeless,
		"something nobody has seen":                    unclear,
	} {
		if got := judge(errors.New("Error response from daemon: " + text)); got != want {
			t.Errorf("%s:\ngot %d, want %d", text, got, want)
		}
	}
	if got := judge(fmt.Errorf("odd: %w", cerrdefs.ErrInvalidArgument)); got != hopeless {
		t.Errorf("invalid argument: got %d, want %d", got, hopeless)
	}
}

func TestEveryFailureSaysWhatToDoNext(t *testing.T) {
	const private = "registry.factory.local/api:1"
	for _, step := range []struct {
		verdict verdict
		ref     string
		auth    Auth
		is      error
		advice  string
	}{
		{denied, private, Auth{}, ErrDenied, "entry for registry.factory.local under registries"},
		{denied, private, Auth{Username: "puller", origin: basic, source: "registry_password"}, ErrDenied, "secret registry_password"},
		{denied, virginia + "/api:1", Auth{}, ErrDenied, "ecr: {}"},
		{denied, virginia + "/api:1", Auth{origin: ecrToken}, ErrDenied, "ecr:BatchGetImage"},
		{absent, private, Auth{}, ErrNotFound, "push it"},
		{corrupt, private, Auth{}, ErrCorrupt, "push it again"},
		{noSpace, private, Auth{}, nil, "workload.cleanUp.minFree"},
		{untrusted, private, Auth{}, nil, "/etc/docker/certs.d/registry.factory.local/ca.crt"},
		{hopeless, private, Auth{}, nil, "architecture"},
		{noEngine, private, Auth{}, ErrEngine, "systemctl status docker"},
		{transient, private, Auth{}, nil, "registry.factory.local can be reached"},
		{unclear, private, Auth{}, nil, "registry.factory.local can be reached"},
	} {
		w, err := parseWanted(step.ref)
		if err != nil {
			t.Fatal(err)
		}
		got := explain(w, step.verdict, "what was said", step.auth)
		if (step.is != nil && !errors.Is(got, step.is)) || !strings.Contains(got.Error(), step.advice) || !strings.Contains(got.Error(), "what was said") {
			t.Errorf("verdict %d: got %v, want %v with %q", step.verdict, got, step.is, step.advice)
		}
	}
}

func TestHostOfAReference(t *testing.T) {
	for ref, want := range map[string]string{
		"debian": "docker.io", "a/b:1": "docker.io", "localhost:5000/x": "localhost:5000", virginia + "/api@" + digestOf(nil): virginia,
	} {
		if got, err := Host(ref); got != want || err != nil {
			t.Errorf("%s: got %q, %v, want %q", ref, got, err, want)
		}
	}
	if _, err := Host("not a reference"); err == nil {
		t.Error("not a reference: got no error")
	}
}
