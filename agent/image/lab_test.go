package image

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/moby/moby/client"

	"github.com/flowviz/flowagent/agent/config"
	"github.com/flowviz/flowagent/agent/secret"
	"github.com/flowviz/flowagent/test/lab"
)

// repository is where the tests of this package put their images, in whatever registry.
const repository = "/agent-image/"

func connectEngine(t *testing.T) *client.Client {
	t.Helper()
	engine, err := client.New(client.WithHost(lab.Engine(t)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = engine.Close() })
	return engine
}

// front is a registry with a proxy before it in which tests break things. Images are pushed to the registry and pulled
// through the proxy, so the engine has none of them under the name that is pulled.
type front struct {
	*lab.RegistryServer
	engine *client.Client
	host   string          // of the proxy
	direct *http.Transport // to the registry

	mu       sync.Mutex
	fault    func(w http.ResponseWriter, r *http.Request) bool // true: answered
	requests []string                                          // "METHOD path" of each request under /v2/agent-image/
	logins   []string                                          // the Authorization of each of them
	rewrite  bool                                              // whether the proxy logs in to the registry by itself
}

func newFront(t *testing.T) *front {
	t.Helper()
	f := &front{RegistryServer: lab.Registry(t), engine: connectEngine(t)}
	proxy := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "https", Host: f.Host})
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: f.CAPool}}
	t.Cleanup(transport.CloseIdleConnections)
	proxy.Transport, f.direct = transport, transport
	proxy.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		f.mu.Lock()
		fault, rewrite := f.fault, f.rewrite
		if strings.HasPrefix(r.URL.Path, "/v2"+repository) {
			f.requests = append(f.requests, r.Method+" "+r.URL.Path)
			f.logins = append(f.logins, r.Header.Get("Authorization"))
		}
		f.mu.Unlock()
		if fault != nil && fault(w, r) {
			return
		}
		if rewrite {
			r.SetBasicAuth(f.Username, f.Password)
		}
		proxy.ServeHTTP(w, r)
	}))
	server.Config.ErrorLog = proxy.ErrorLog
	server.StartTLS()
	t.Cleanup(server.Close)
	f.host = strings.TrimPrefix(server.URL, "https://")
	t.Cleanup(func() { removeAll(t, f.engine, f.host+repository, f.Host+repository) })
	return f
}

// removeAll removes every reference that begins with one of the prefixes.
func removeAll(t *testing.T, engine *client.Client, prefixes ...string) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute) // the test's own context is done by now
	defer cancel()
	listed, err := engine.ImageList(ctx, client.ImageListOptions{})
	if err != nil {
		t.Error(err)
		return
	}
	for _, summary := range listed.Items {
		for _, ref := range append(summary.RepoTags, summary.RepoDigests...) {
			for _, prefix := range prefixes {
				if strings.HasPrefix(ref, prefix) {
					_, _ = engine.ImageRemove(ctx, ref, client.ImageRemoveOptions{PruneChildren: true})
				}
			}
		}
	}
}

// breakWith has the proxy ask fault before it passes a request on.
func (f *front) breakWith(fault func(w http.ResponseWriter, r *http.Request) bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.fault = fault
}

// count tells how many requests contained a text since the proxy started.
func (f *front) count(text string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := 0
	for _, request := range f.requests {
		if strings.Contains(request, text) {
			n++
		}
	}
	return n
}

// push makes an image with one layer of random content of that size, pushes it, forgets it locally, and returns its
// manifest's digest.
func (f *front) push(t *testing.T, name string, size int) (digest string) {
	t.Helper()
	ref := f.Host + repository + name
	importImage(t, f.engine, ref, size)
	auth, err := Auth{Username: f.Username, Password: secret.NewValue([]byte(f.Password)), origin: basic}.header(f.Host)
	if err != nil {
		t.Fatal(err)
	}
	answer, err := f.engine.ImagePush(t.Context(), ref, client.ImagePushOptions{RegistryAuth: auth})
	if err != nil {
		t.Fatal(err)
	}
	if err := answer.Wait(t.Context()); err != nil {
		t.Fatalf("push %s: %v", ref, err)
	}
	w, err := parseWanted(ref)
	if err != nil {
		t.Fatal(err)
	}
	found, _, err := inspect(t.Context(), f.engine, ref)
	if err != nil {
		t.Fatal(err)
	}
	digests := repoDigests(found.InspectResponse, w)
	if len(digests) != 1 {
		t.Fatalf("digests of %s: got %v, want one", ref, digests)
	}
	removeAll(t, f.engine, ref)
	return digests[0]
}

// layer returns the digest of the first layer of an image that was pushed.
func (f *front) layer(t *testing.T, name, digest string) string {
	t.Helper()
	name, _, _ = strings.Cut(name, ":")
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://"+f.Host+"/v2"+repository+name+"/manifests/"+digest, nil)
	if err != nil {
		t.Fatal(err)
	}
	request.SetBasicAuth(f.Username, f.Password)
	request.Header.Set("Accept", "application/vnd.docker.distribution.manifest.v2+json")
	answer, err := f.direct.RoundTrip(request)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	var m manifest
	if err := json.NewDecoder(answer.Body).Decode(&m); err != nil || len(m.Layers) == 0 {
		t.Fatalf("manifest of %s: %+v, %v", name, m, err)
	}
	return m.Layers[0].Digest
}

// importImage makes an image with one layer that holds one file of random content.
func importImage(t *testing.T, engine *client.Client, ref string, size int) {
	t.Helper()
	content := make([]byte, size)
	_, _ = rand.Read(content)
	answer, err := engine.ImageImport(t.Context(), client.ImageImportSource{
		Source: bytes.NewReader(tarOf(t, file{"content", content})), SourceName: "-",
	}, ref, client.ImageImportOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Close()
	if _, err := io.Copy(io.Discard, answer); err != nil {
		t.Fatal(err)
	}
}

type file struct {
	name    string
	content []byte
}

func tarOf(t *testing.T, files ...file) []byte {
	t.Helper()
	var out bytes.Buffer
	archive := tar.NewWriter(&out)
	for _, f := range files {
		if err := archive.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: f.name, Size: int64(len(f.content)), Mode: 0o644}); err != nil {
			t.Fatal(err)
		}
		if _, err := archive.Write(f.content); err != nil {
			t.Fatal(err)
		}
	}
	if err := archive.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// pulls are the settings of a node that waits for nothing for long; tests that are about waiting change them.
func pulls() config.Pull {
	return config.Pull{
		Policy: config.PullMissing, Pin: config.PinNone, Parallel: 4,
		BeginTimeout: config.Duration(time.Minute), IdleTimeout: config.Duration(time.Minute), TotalTimeout: config.Duration(2 * time.Minute),
	}
}

// credentials log in to the proxy as the registry wants it.
func (f *front) credentials() *Credentials {
	return NewCredentials(
		[]config.Registry{{Host: f.host, Username: f.Username, PasswordSecret: "registry_password"}},
		nil, secretsOf("registry_password", f.Password), time.Now)
}

func secretsOf(name, value string) func(string) (secret.Value, bool) {
	return func(asked string) (secret.Value, bool) {
		return secret.NewValue([]byte(value)), asked == name
	}
}

// puller is a Puller on the proxy, and what it logs.
func (f *front) puller(cfg config.Pull) (*Puller, *logBuffer) {
	log := &logBuffer{}
	return NewPuller(f.engine, cfg, f.credentials(), nil, slog.New(slog.NewTextHandler(log, nil))), log
}

func (f *front) ref(name string) string { return f.host + repository + name }

// logBuffer is a bytes.Buffer for several goroutines.
type logBuffer struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *logBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}
