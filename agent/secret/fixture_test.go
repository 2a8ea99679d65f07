package secret_test

import (
	"bytes"
	"context"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"

	"github.com/flowviz/flowagent/agent/config"
	"github.com/flowviz/flowagent/agent/secret"
)

// logBuffer takes a log from several goroutines.
type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func (l *logBuffer) logger() *slog.Logger { return slog.New(slog.NewTextHandler(l, nil)) }

func newKeeper(t *testing.T, cfg config.Secrets, deps secret.Deps) *secret.Keeper {
	t.Helper()
	k, err := secret.NewKeeper(cfg, deps)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// refresh fails the test unless everything could be fetched.
func refresh(t *testing.T, k *secret.Keeper) []string {
	t.Helper()
	changed, err := k.Refresh(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return changed
}

// refuse fails the test unless the refresh failed.
func refuse(t *testing.T, k *secret.Keeper) ([]string, error) {
	t.Helper()
	changed, err := k.Refresh(t.Context())
	if err == nil {
		t.Fatal("Refresh: got no error, want one")
	}
	return changed, err
}

func mustHold(t *testing.T, k *secret.Keeper, name, want string) {
	t.Helper()
	v, found := k.Value(name)
	if !found || string(v.Reveal()) != want {
		t.Errorf("value of %s: got %q (%v), want %q", name, v.Reveal(), found, want)
	}
}

func mustLack(t *testing.T, k *secret.Keeper, name string) {
	t.Helper()
	if v, found := k.Value(name); found || !v.IsZero() {
		t.Errorf("value of %s: got %q, want none", name, v.Reveal())
	}
}

func mustSay(t *testing.T, err error, parts ...string) {
	t.Helper()
	for _, part := range parts {
		if err == nil || !strings.Contains(err.Error(), part) {
			t.Errorf("got error %q, want it to say %q", err, part)
		}
	}
}

func statusOf(t *testing.T, k *secret.Keeper, name string) secret.Status {
	t.Helper()
	for _, s := range k.Status() {
		if s.Name == name {
			return s
		}
	}
	t.Fatalf("no status of %s", name)
	return secret.Status{}
}

func mustBeIn(t *testing.T, k *secret.Keeper, name string, want secret.State) {
	t.Helper()
	if s := statusOf(t, k, name); s.State != want {
		t.Errorf("state of %s: got %s (%s), want %s", name, s.State, s.Error, want)
	}
}

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

// fileItem is a secret in a plain file.
func fileItem(name, path, key string) config.Secret {
	return config.Secret{Name: name, From: config.Source{File: &config.FileSource{Path: path, Key: key}}}
}

func items(all ...config.Secret) config.Secrets { return config.Secrets{Items: all} }

// awsAt gives the SDK's configuration for a server that answers every service and region.
func awsAt(endpoint string) func(context.Context, string) (aws.Config, error) {
	return func(_ context.Context, region string) (aws.Config, error) {
		if region == "" {
			region = "us-east-1"
		}
		return aws.Config{
			Region:       region,
			BaseEndpoint: &endpoint,
			Credentials:  credentials.NewStaticCredentialsProvider("test", "test", ""),
		}, nil
	}
}

func serve(t *testing.T, h http.Handler) string {
	t.Helper()
	server := httptest.NewServer(h)
	t.Cleanup(server.Close)
	return server.URL
}

func in(t *testing.T, name string) string { t.Helper(); return filepath.Join(t.TempDir(), name) }

// record returns the body that a handler answers with.
func record(h http.Handler, r *http.Request) []byte {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w.Body.Bytes()
}
