package image

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"

	"github.com/flowviz/flowagent/agent/config"
	"github.com/flowviz/flowagent/agent/secret"
	"github.com/flowviz/flowagent/test/lab"
)

const (
	virginia = "123456789012.dkr.ecr.us-east-1.amazonaws.com"
	ireland  = "210987654321.dkr.ecr.eu-west-1.amazonaws.com"
)

// cloud is a way to AWS at one endpoint; it counts the requests of each region.
type cloud struct {
	endpoint string

	mu    sync.Mutex
	asked map[string]int
}

func newCloud(endpoint string) *cloud { return &cloud{endpoint: endpoint, asked: map[string]int{}} }

func (c *cloud) config(_ context.Context, region string) (aws.Config, error) {
	return aws.Config{
		Region:       region,
		BaseEndpoint: aws.String(c.endpoint),
		Credentials:  credentials.NewStaticCredentialsProvider("test", "test", ""),
		HTTPClient: clientFunc(func(r *http.Request) (*http.Response, error) {
			c.mu.Lock()
			c.asked[region]++
			c.mu.Unlock()
			return http.DefaultClient.Do(r)
		}),
	}, nil
}

func (c *cloud) count(region string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.asked[region]
}

type clientFunc func(*http.Request) (*http.Response, error)

func (f clientFunc) Do(r *http.Request) (*http.Response, error) { return f(r) }

func ecrRegistries(hosts ...string) []config.Registry {
	var all []config.Registry
	for _, host := range hosts {
		all = append(all, config.Registry{Host: host, ECR: &config.ECR{}})
	}
	return all
}

func TestECRTokensOfSeveralAccountsAndRegions(t *testing.T) {
	cloud := newCloud(lab.Moto(t))
	const otherAccount = "210987654321.dkr.ecr.us-east-1.amazonaws.com"
	creds := NewCredentials(ecrRegistries(virginia, otherAccount, ireland), cloud.config, nil, time.Now)
	for _, host := range []string{virginia, otherAccount, ireland, virginia, ireland} {
		got, err := creds.For(t.Context(), host)
		if err != nil {
			t.Fatal(err)
		}
		if want := "123456789012-auth-token"; got.Username != "AWS" || string(got.Password.Reveal()) != want {
			t.Errorf("%s: got user %s and password %s, want AWS and %s", host, got.Username, got.Password.Reveal(), want)
		}
	}
	// moto's tokens expired in 2015; that must not mean one request for each image.
	for _, region := range []string{"us-east-1", "eu-west-1"} {
		if got := cloud.count(region); got != 1 {
			t.Errorf("requests in %s: got %d, want 1 for all accounts and images", region, got)
		}
	}
}

func TestECRTokenOpensARealRegistryAndIsRenewedAfterARefusal(t *testing.T) {
	f := newFront(t)
	digest := f.push(t, "ecr:1", 1000)
	cloud := newCloud(lab.Moto(t))
	login := "Basic " + base64.StdEncoding.EncodeToString([]byte("AWS:123456789012-auth-token"))
	f.rewrite = true
	refusals := atomic.Int32{}
	refusals.Store(1)
	f.breakWith(func(w http.ResponseWriter, r *http.Request) bool {
		switch {
		case r.Header.Get("Authorization") != login:
			w.Header().Set("Www-Authenticate", `Basic realm="https://ecr.example/",service="ecr.amazonaws.com"`)
			return refuse(w, http.StatusUnauthorized, "UNAUTHORIZED", "authentication required")
		case strings.Contains(r.URL.Path, "/manifests/") && r.Method == http.MethodGet && refusals.Add(-1) >= 0:
			return refuse(w, http.StatusForbidden, "DENIED", "Your authorization token has expired. Reauthenticate and try again.")
		case strings.Contains(r.URL.Path, "/manifests/") && r.Method == http.MethodHead && refusals.Load() > 0:
			w.WriteHeader(http.StatusForbidden)
			return true
		}
		return false
	})
	creds := NewCredentials([]config.Registry{{Host: f.host, ECR: &config.ECR{Region: "us-east-1"}}}, cloud.config, nil, time.Now)
	log := &logBuffer{}
	cfg := pulls()
	cfg.Policy = config.PullAlways
	puller := NewPuller(f.engine, cfg, creds, nil, slog.New(slog.NewTextHandler(log, nil)))

	got, err := puller.Ensure(t.Context(), []string{f.ref("ecr:1")})
	if err != nil {
		t.Fatal(err)
	}
	if got[0].Digest != digest {
		t.Errorf("digest: got %s, want %s", got[0].Digest, digest)
	}
	if n := cloud.count("us-east-1"); n != 2 {
		t.Errorf("tokens asked for: got %d, want 2, one after the refusal", n)
	}
	if strings.Contains(log.String(), "wait=") {
		t.Errorf("log: got %q, want no wait before the new token is tried", log)
	}

	refusals.Store(1000)
	_, err = puller.Ensure(t.Context(), []string{f.ref("ecr:1")})
	if !errors.Is(err, ErrDenied) || !strings.Contains(err.Error(), "ecr:BatchGetImage") {
		t.Errorf("got %v, want ErrDenied naming the IAM action", err)
	}
	if n := cloud.count("us-east-1"); n != 3 {
		t.Errorf("tokens asked for: got %d, want 3, one more", n)
	}
	if text := fmt.Sprint(err) + log.String(); strings.Contains(text, "auth-token") || strings.Contains(text, login[6:]) {
		t.Errorf("the token is in the error or the log: %s", text)
	}
}

// tokenServer answers GetAuthorizationToken with tokens that are numbered and expire when the test says.
func tokenServer(t *testing.T, expires func() time.Time) *cloud {
	t.Helper()
	var n atomic.Int32
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		token := base64.StdEncoding.EncodeToString(fmt.Appendf(nil, "AWS:token-%d", n.Add(1)))
		w.Header().Set("Content-Type", "application/x-amz-json-1.1")
		_ = json.NewEncoder(w).Encode(map[string]any{"authorizationData": []any{map[string]any{
			"authorizationToken": token, "expiresAt": expires().Unix(),
		}}})
	}))
	t.Cleanup(server.Close)
	return newCloud(server.URL)
}

func TestECRTokenIsRenewedHalfAnHourToAnHourEarly(t *testing.T) {
	start := time.Date(2026, 11, 1, 6, 0, 0, 0, time.UTC)
	for range 20 { // the moment is random
		now := start
		cloud := tokenServer(t, func() time.Time { return now.Add(12 * time.Hour) })
		creds := NewCredentials(ecrRegistries(virginia), cloud.config, nil, func() time.Time { return now })
		for _, step := range []struct {
			after time.Duration
			want  string
		}{{0, "token-1"}, {10*time.Hour + 59*time.Minute, "token-1"}, {11*time.Hour + 30*time.Minute, "token-2"}} {
			now = start.Add(step.after)
			got, err := creds.For(t.Context(), virginia)
			if err != nil {
				t.Fatal(err)
			}
			if string(got.Password.Reveal()) != step.want {
				t.Fatalf("after %s: got %s, want %s", step.after, got.Password.Reveal(), step.want)
			}
		}
	}
}

func TestAnExpiredECRTokenIsUsedForAFewMinutes(t *testing.T) {
	start := time.Date(1970, 1, 1, 0, 0, 0, 0, time.UTC) // a node whose clock wasn't set yet
	now := start
	cloud := tokenServer(t, func() time.Time { return start.Add(-time.Hour) })
	creds := NewCredentials(ecrRegistries(virginia), cloud.config, nil, func() time.Time { return now })
	for _, step := range []struct {
		after time.Duration
		want  int
	}{{0, 1}, {4 * time.Minute, 1}, {6 * time.Minute, 2}} {
		now = start.Add(step.after)
		if _, err := creds.For(t.Context(), virginia); err != nil {
			t.Fatal(err)
		}
		if got := cloud.count("us-east-1"); got != step.want {
			t.Errorf("requests after %s: got %d, want %d", step.after, got, step.want)
		}
	}
}

func TestForgettingARefusedTokenKeepsTheOneThatReplacedIt(t *testing.T) {
	cloud := tokenServer(t, func() time.Time { return time.Now().Add(12 * time.Hour) })
	creds := NewCredentials(ecrRegistries(virginia), cloud.config, nil, time.Now)
	first, err := creds.For(t.Context(), virginia)
	if err != nil {
		t.Fatal(err)
	}
	for range 4 { // four images were refused with the first token
		creds.Forget(virginia, first)
		got, err := creds.For(t.Context(), virginia)
		if err != nil {
			t.Fatal(err)
		}
		if string(got.Password.Reveal()) != "token-2" {
			t.Errorf("got %s, want token-2", got.Password.Reveal())
		}
	}
}

func TestPullsThatStartTogetherShareOneToken(t *testing.T) {
	cloud := tokenServer(t, func() time.Time { return time.Now().Add(12 * time.Hour) })
	creds := NewCredentials(ecrRegistries(virginia), cloud.config, nil, time.Now)
	var group sync.WaitGroup
	for range 16 {
		group.Go(func() {
			if _, err := creds.For(t.Context(), virginia); err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	if got := cloud.count("us-east-1"); got != 1 {
		t.Errorf("requests: got %d, want 1", got)
	}
}

func TestARefusalByAWSIsSaidWithoutTheSessionsToken(t *testing.T) {
	const session = "IQoJb3JpZ2luX2VjE"
	for name, c := range map[string]struct {
		code, message string
		says          []string
	}{
		"denied":            {"AccessDeniedException", "User: arn:aws:iam::123456789012:role/node is not authorized", []string{"ecr:GetAuthorizationToken", "role/node"}},
		"a wrong signature": {"InvalidSignatureException", "should have been 'POST x-amz-security-token:" + session + "'", []string{"InvalidSignatureException", "clock"}},
	} {
		t.Run(name, func(t *testing.T) {
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Type", "application/x-amz-json-1.1")
				w.WriteHeader(http.StatusBadRequest)
				_ = json.NewEncoder(w).Encode(map[string]string{"__type": c.code, "message": c.message})
			}))
			defer server.Close()
			creds := NewCredentials(ecrRegistries(virginia), newCloud(server.URL).config, nil, time.Now)
			_, err := creds.For(t.Context(), virginia)
			if !errors.Is(err, ErrDenied) {
				t.Fatalf("got %v, want ErrDenied", err)
			}
			for _, part := range c.says {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("got %q, want %q in it", err, part)
				}
			}
			if strings.Contains(err.Error(), session) {
				t.Errorf("got %q, which holds the session's token", err)
			}
		})
	}
}

func TestAnAWSEndpointThatDoesNotAnswerTimesOut(t *testing.T) {
	engine := connectEngine(t)
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body) // the end of the connection shows only after the body
		<-r.Context().Done()
	}))
	defer server.Close()
	cfg := pulls()
	cfg.BeginTimeout = config.Duration(200 * time.Millisecond)
	cfg.TotalTimeout = config.Duration(time.Second)
	puller := NewPuller(engine, cfg, NewCredentials(ecrRegistries(virginia), newCloud(server.URL).config, nil, time.Now), nil, nil)
	_, err := puller.Ensure(t.Context(), []string{virginia + "/x:1"})
	if !errors.Is(err, ErrTimeout) || !strings.Contains(err.Error(), "ECR token") {
		t.Errorf("got %v, want ErrTimeout for the token", err)
	}
}

func TestECRRegionComesFromTheHostOrTheConfiguration(t *testing.T) {
	for host, want := range map[string]string{
		virginia: "us-east-1",
		"123456789012.dkr.ecr-fips.us-gov-west-1.amazonaws.com": "us-gov-west-1",
		"123456789012.dkr.ecr.cn-north-1.amazonaws.com.cn":      "cn-north-1",
		"123456789012.dkr-ecr.eu-central-1.on.aws":              "eu-central-1",
		"public.ecr.aws":        "",
		"registry.example":      "",
		"x.dkr.ecr.us-east-1.a": "",
	} {
		got, err := ecrRegionOf(config.Registry{Host: host, ECR: &config.ECR{}})
		if got != want || (err != nil) != (want == "") {
			t.Errorf("%s: got %q, %v, want %q", host, got, err, want)
		}
		got, err = ecrRegionOf(config.Registry{Host: host, ECR: &config.ECR{Region: "eu-west-3"}})
		if got != "eu-west-3" || err != nil {
			t.Errorf("%s with a region: got %q, %v, want eu-west-3", host, got, err)
		}
	}
}

func TestBasicAndAnonymousRegistries(t *testing.T) {
	creds := NewCredentials([]config.Registry{
		{Host: "registry.factory.local", Username: "puller", PasswordSecret: "there"},
		{Host: "other.factory.local", Username: "puller", PasswordSecret: "not_there"},
		{Host: "index.docker.io", Username: "hub", PasswordSecret: "there"},
		{Host: virginia, ECR: &config.ECR{}},
	}, nil, secretsOf("there", "pw"), time.Now)

	for _, step := range []struct{ host, user, secret string }{
		{"registry.factory.local", "puller", "there"}, {"Registry.Factory.Local", "puller", "there"},
		{"docker.io", "hub", "there"}, {"unknown.example", "", ""},
	} {
		got, err := creds.For(t.Context(), step.host)
		if err != nil || got.Username != step.user {
			t.Errorf("%s: got user %q, %v, want %q", step.host, got.Username, err, step.user)
		}
		if name, needed := creds.NeedsSecret(step.host); name != step.secret || needed != (step.secret != "") {
			t.Errorf("%s needs: got %q, %t, want %q", step.host, name, needed, step.secret)
		}
	}
	if name, needed := creds.NeedsSecret(virginia); needed {
		t.Errorf("ECR needs: got %q, want no secret", name)
	}
	if _, err := creds.For(t.Context(), "other.factory.local"); err == nil || !strings.Contains(err.Error(), "not_there") {
		t.Errorf("a password that isn't there: got %v, want an error that names its secret", err)
	}
}

func TestCredentialsNeverPrint(t *testing.T) {
	auth := Auth{Username: "AWS", Password: secret.NewValue([]byte("canary")), origin: ecrToken}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x"} {
		for _, value := range []any{auth, &auth} {
			if got := fmt.Sprintf(verb, value); strings.Contains(got, "canary") || strings.Contains(got, "63616e617279") {
				t.Errorf("%s: got %s, want no password", verb, got)
			}
		}
	}
	if got, err := json.Marshal(auth); err != nil || strings.Contains(string(got), "canary") {
		t.Errorf("JSON: got %s, %v, want no password", got, err)
	}
}
