package image

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/moby/moby/client"

	"github.com/flowviz/flowagent/agent/config"
	"github.com/flowviz/flowagent/test/lab"
)

func TestEnsurePullsWhatIsMissingInOrderAndOnce(t *testing.T) {
	f := newFront(t)
	a, b := f.push(t, "order-a:1", 300), f.push(t, "order-b:1", 200_000)
	puller, _ := f.puller(pulls())

	refs := []string{f.ref("order-b:1"), f.ref("order-a:1"), f.ref("order-b:1"), f.ref("order-a@" + a)}
	got, err := puller.Ensure(t.Context(), refs)
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []struct{ digest, name string }{{b, "order-b"}, {a, "order-a"}, {b, "order-b"}, {a, "order-a"}} {
		if got[i].Ref != refs[i] || got[i].Digest != want.digest || got[i].Pinned != f.ref(want.name)+"@"+want.digest {
			t.Errorf("image %d: got %+v, want %s with digest %s", i, got[i], refs[i], want.digest)
		}
	}
	if !got[0].Pulled || got[0].Bytes < 200_000 || got[0].Elapsed <= 0 {
		t.Errorf("pulled image: got %+v, want Pulled, at least 200000 bytes and an elapsed time", got[0])
	}
	if n := f.count("GET /v2" + repository + "order-b/blobs"); n != 2 {
		t.Errorf("blob requests for an image named twice: got %d, want 2 (its configuration and its layer)", n)
	}

	asked := f.count("")
	again, err := puller.Ensure(t.Context(), refs)
	if err != nil {
		t.Fatal(err)
	}
	if again[0].Pulled || again[0].Pinned != got[0].Pinned || again[0].ID != got[0].ID {
		t.Errorf("second time: got %+v, want the same image, not pulled", again[0])
	}
	if n := f.count(""); n != asked {
		t.Errorf("requests when everything is there: got %d, want none", n-asked)
	}
}

func TestPolicyAlwaysAsksTheRegistryAndFollowsTheTag(t *testing.T) {
	f := newFront(t)
	first := f.push(t, "moving:latest", 100)
	cfg := pulls()
	cfg.Policy = config.PullAlways
	puller, _ := f.puller(cfg)
	got, err := puller.Ensure(t.Context(), []string{f.ref("moving")})
	if err != nil {
		t.Fatal(err)
	}
	if got[0].Digest != first {
		t.Errorf("digest: got %s, want %s", got[0].Digest, first)
	}
	second := f.push(t, "moving:latest", 101)
	got, err = puller.Ensure(t.Context(), []string{f.ref("moving")})
	if err != nil {
		t.Fatal(err)
	}
	if got[0].Digest != second || !got[0].Pulled {
		t.Errorf("after the tag moved: got %+v, want digest %s", got[0], second)
	}
}

func TestPolicyNeverNamesWhatIsMissing(t *testing.T) {
	f := newFront(t)
	cfg := pulls()
	cfg.Policy = config.PullNever
	puller, _ := f.puller(cfg)
	_, err := puller.Ensure(t.Context(), []string{f.ref("never-a:1"), f.ref("never-b:1")})
	if !errors.Is(err, ErrMissing) || !strings.Contains(err.Error(), "never-a:1") || !strings.Contains(err.Error(), "never-b:1") {
		t.Errorf("got %v, want ErrMissing for both images", err)
	}
	if n := f.count(""); n != 0 {
		t.Errorf("requests to the registry: got %d, want none", n)
	}
}

func TestPinnedPullsRefuseEveryTagBeforeAnythingIsPulled(t *testing.T) {
	f := newFront(t)
	digest := f.push(t, "pinned:1", 100)
	cfg := pulls()
	cfg.Pin = config.PinDigest
	puller, _ := f.puller(cfg)

	_, err := puller.Ensure(t.Context(), []string{f.ref("pinned@" + digest), f.ref("loose-a:1"), f.ref("loose-b")})
	if !errors.Is(err, ErrUnpinned) || !strings.Contains(err.Error(), "loose-a:1") || !strings.Contains(err.Error(), "loose-b") {
		t.Errorf("got %v, want ErrUnpinned naming both tags", err)
	}
	if n := f.count(""); n != 0 {
		t.Errorf("requests to the registry: got %d, want none", n)
	}

	got, err := puller.Ensure(t.Context(), []string{f.ref("pinned:1@" + digest)})
	if err != nil {
		t.Fatal(err)
	}
	if want := f.ref("pinned@" + digest); got[0].Pinned != want || got[0].Digest != digest {
		t.Errorf("got %+v, want pinned reference %s", got[0], want)
	}
}

func TestARegistryThatLiesAboutADigestIsFoundOut(t *testing.T) {
	f := newFront(t)
	asked, other := f.push(t, "lying:1", 100), f.push(t, "lying:2", 100)
	f.breakWith(func(_ http.ResponseWriter, r *http.Request) bool {
		r.URL.Path = strings.Replace(r.URL.Path, asked, other, 1) // the registry's answer belongs to another image
		return false
	})
	cfg := pulls()
	cfg.Pin = config.PinDigest
	puller, _ := f.puller(cfg)
	_, err := puller.Ensure(t.Context(), []string{f.ref("lying@" + asked)})
	if !errors.Is(err, ErrCorrupt) || !strings.Contains(err.Error(), asked) {
		t.Errorf("got %v, want ErrCorrupt naming %s", err, asked)
	}
	if _, ok, _ := inspect(t.Context(), f.engine, f.ref("lying@"+asked)); ok {
		t.Error("the engine has an image under the digest that was lied about")
	}
}

func TestAWrongBlobIsFoundOut(t *testing.T) {
	f := newFront(t)
	f.push(t, "wrong-blob:1", 10_000)
	f.breakWith(func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.Contains(r.URL.Path, "/blobs/") || r.Method != http.MethodGet {
			return false
		}
		_, _ = io.WriteString(w, `{"architecture":"amd64","os":"linux"}`)
		return true
	})
	puller, _ := f.puller(pulls())
	_, err := puller.Ensure(t.Context(), []string{f.ref("wrong-blob:1")})
	if !errors.Is(err, ErrCorrupt) {
		t.Errorf("got %v, want ErrCorrupt", err)
	}
}

// refuse answers as registries do: with a status and an error document.
func refuse(w http.ResponseWriter, status int, code, message string) bool {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = fmt.Fprintf(w, `{"errors":[{"code":%q,"message":%q}]}`, code, message)
	return true
}

// times lets a fault happen to the first n requests for manifests and to none after.
func times(n int32, fault func(w http.ResponseWriter, r *http.Request) bool) func(w http.ResponseWriter, r *http.Request) bool {
	var left atomic.Int32
	left.Store(n)
	return func(w http.ResponseWriter, r *http.Request) bool {
		return strings.Contains(r.URL.Path, "/manifests/") && left.Add(-1) >= 0 && fault(w, r)
	}
}

func TestPassingTroubleIsRetried(t *testing.T) {
	f := newFront(t)
	digest := f.push(t, "trouble:1", 100)
	for name, fault := range map[string]func(w http.ResponseWriter, r *http.Request) bool{
		"500": func(w http.ResponseWriter, _ *http.Request) bool {
			return refuse(w, http.StatusInternalServerError, "UNKNOWN", "unknown error")
		},
		"502 with a page": func(w http.ResponseWriter, _ *http.Request) bool {
			http.Error(w, "<html>denied", http.StatusBadGateway)
			return true
		},
		"503": func(w http.ResponseWriter, _ *http.Request) bool {
			w.WriteHeader(http.StatusServiceUnavailable)
			return true
		},
		"429": func(w http.ResponseWriter, _ *http.Request) bool {
			return refuse(w, http.StatusTooManyRequests, "TOOMANYREQUESTS", "slow down")
		},
		"429 with a page": func(w http.ResponseWriter, _ *http.Request) bool {
			http.Error(w, "slow down", http.StatusTooManyRequests)
			return true
		},
		"closed connection": func(http.ResponseWriter, *http.Request) bool { panic(http.ErrAbortHandler) },
	} {
		t.Run(name, func(t *testing.T) {
			f.breakWith(times(2, fault)) // the engine asks up to twice a try: HEAD, then GET
			cfg := pulls()
			cfg.Policy = config.PullAlways
			puller, log := f.puller(cfg)
			got, err := puller.Ensure(t.Context(), []string{f.ref("trouble:1")})
			if err != nil {
				t.Fatal(err)
			}
			if got[0].Digest != digest {
				t.Errorf("digest: got %s, want %s", got[0].Digest, digest)
			}
			if !strings.Contains(log.String(), "trying again") {
				t.Errorf("log: got %q, want a retry", log)
			}
		})
	}
}

func TestARefusalIsNotRetriedWithTheSamePassword(t *testing.T) {
	f := newFront(t)
	f.push(t, "refused:1", 100)
	f.breakWith(func(w http.ResponseWriter, r *http.Request) bool {
		if strings.Contains(r.URL.Path, "/manifests/") {
			return refuse(w, http.StatusForbidden, "DENIED", "you said "+r.Header.Get("Authorization")+"\x1b[31m")
		}
		return false
	})
	puller, log := f.puller(pulls())
	_, err := puller.Ensure(t.Context(), []string{f.ref("refused:1")})
	if !errors.Is(err, ErrDenied) || !strings.Contains(err.Error(), "registry_password") || !strings.Contains(err.Error(), "denied") {
		t.Errorf("got %v, want ErrDenied naming the secret to check", err)
	}
	if n := f.count("/manifests/"); n > 2 {
		t.Errorf("manifest requests: got %d, want one try of at most 2", n)
	}
	login := base64.StdEncoding.EncodeToString([]byte(f.Username + ":" + f.Password))
	for place, text := range map[string]string{"error": fmt.Sprint(err), "log": log.String()} {
		if strings.Contains(text, f.Password) || strings.Contains(text, login) || strings.Contains(text, "\x1b") {
			t.Errorf("%s holds the password or a control character: %q", place, text)
		}
	}
}

func TestANewPasswordIsTriedOnce(t *testing.T) {
	f := newFront(t)
	digest := f.push(t, "rotated:1", 100)
	var asked atomic.Int32
	creds := NewCredentials(
		[]config.Registry{{Host: f.host, Username: f.Username, PasswordSecret: "p"}}, nil, nil, time.Now)
	old, now := secretsOf("p", "old"), secretsOf("p", f.Password)
	creds.password = old
	f.breakWith(func(http.ResponseWriter, *http.Request) bool {
		if asked.Add(1) == 1 {
			creds.password = now // the secret store has a newer one by the time the registry has refused the old
		}
		return false
	})
	puller := NewPuller(f.engine, pulls(), creds, nil, nil)
	got, err := puller.Ensure(t.Context(), []string{f.ref("rotated:1")})
	if err != nil {
		t.Fatal(err)
	}
	if got[0].Digest != digest {
		t.Errorf("digest: got %s, want %s", got[0].Digest, digest)
	}
}

func TestAMissingImageFailsAtOnceAndAllAreNamed(t *testing.T) {
	f := newFront(t)
	f.push(t, "there:1", 100)
	puller, log := f.puller(pulls())
	_, err := puller.Ensure(t.Context(), []string{f.ref("there:2"), f.ref("there:1"), f.ref("nowhere:1")})
	if !errors.Is(err, ErrNotFound) || !strings.Contains(err.Error(), "there:2") || !strings.Contains(err.Error(), "nowhere:1") {
		t.Errorf("got %v, want ErrNotFound for both", err)
	}
	if strings.Contains(log.String(), "trying again") {
		t.Errorf("log: got %q, want no retry", log)
	}
	if _, ok, err := inspect(t.Context(), f.engine, f.ref("there:1")); !ok {
		t.Errorf("the image that could be pulled: got none (%v), want it in the engine", err)
	}
}

func TestAnErrorThatLastsEndsTheRetriesOfTheOthers(t *testing.T) {
	f := newFront(t)
	f.breakWith(func(w http.ResponseWriter, r *http.Request) bool {
		return strings.Contains(r.URL.Path, "/flaky/manifests/") && refuse(w, http.StatusServiceUnavailable, "UNAVAILABLE", "later")
	})
	puller, _ := f.puller(pulls())
	_, err := puller.Ensure(t.Context(), []string{f.ref("flaky:1"), f.ref("gone:1")})
	if !errors.Is(err, ErrNotFound) || !strings.Contains(err.Error(), "503") || errors.Is(err, ErrTimeout) {
		t.Errorf("got %v, want what is wrong with both, and no timeout", err)
	}
}

func TestARegistryThatDoesNotAnswerTimesOutAndIsAskedAgain(t *testing.T) {
	f := newFront(t)
	f.push(t, "mute:1", 100)
	// Engine 20.10 asks for a manifest without a way to cancel that, so the answer is held back until the test is over.
	over := make(chan struct{})
	t.Cleanup(func() { close(over) })
	f.breakWith(times(1, func(http.ResponseWriter, *http.Request) bool {
		<-over
		panic(http.ErrAbortHandler) // or the engine would go on after the test
	}))
	cfg := pulls()
	cfg.BeginTimeout = config.Duration(time.Second)
	puller, log := f.puller(cfg)
	if _, err := puller.Ensure(t.Context(), []string{f.ref("mute:1")}); err != nil {
		t.Errorf("second try: got %v, want the image", err)
	}
	if !strings.Contains(log.String(), "beginTimeout") {
		t.Errorf("log: got %q, want the first try's timeout", log)
	}
}

func TestALayerThatStopsInTheMiddleTimesOutAndIsAskedForAgain(t *testing.T) {
	f := newFront(t)
	digest := f.push(t, "stalled:1", 400_000)
	layer := f.layer(t, "stalled:1", digest)
	// Engine 20.10 notices only when it next gets bytes that it has given a download up, so they are held back until
	// the test is over.
	over := make(chan struct{})
	t.Cleanup(func() { close(over) })
	var stalled atomic.Bool
	f.breakWith(func(w http.ResponseWriter, r *http.Request) bool {
		return strings.HasSuffix(r.URL.Path, layer) && stalled.CompareAndSwap(false, true) &&
			drip(w, func() bool { <-over; panic(http.ErrAbortHandler) }) // or the engine would go on after the test
	})
	cfg := pulls()
	cfg.IdleTimeout = config.Duration(time.Second)
	puller, log := f.puller(cfg)
	got, err := puller.Ensure(t.Context(), []string{f.ref("stalled:1")})
	if err != nil {
		t.Fatal(err)
	}
	if got[0].Digest != digest {
		t.Errorf("digest: got %s, want %s", got[0].Digest, digest)
	}
	if !strings.Contains(log.String(), "idleTimeout") {
		t.Errorf("log: got %q, want the first try's timeout", log)
	}
}

// drip answers with the beginning of a blob of 400,000 bytes, and a little more of it as long as more says so.
func drip(w http.ResponseWriter, more func() bool) bool {
	w.Header().Set("Content-Length", "400000")
	_, err := w.Write(make([]byte, 100_000))
	for err == nil && http.NewResponseController(w).Flush() == nil && more() {
		_, err = w.Write(make([]byte, 100))
	}
	return true
}

func TestCancellingEndsTheEnginesPull(t *testing.T) {
	f := newFront(t)
	layer := f.layer(t, "cancelled:1", f.push(t, "cancelled:1", 400_000))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	released := make(chan struct{}, 16)
	f.breakWith(func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.HasSuffix(r.URL.Path, layer) {
			return false
		}
		ticks := time.NewTicker(10 * time.Millisecond)
		defer ticks.Stop()
		drip(w, func() bool {
			select {
			case <-ticks.C:
				return true
			case <-r.Context().Done():
				return false
			}
		})
		<-r.Context().Done() // the engine closed the connection
		released <- struct{}{}
		return true
	})
	puller := NewPuller(f.engine, pulls(), f.credentials(), cancelOnBytes{cancel: cancel}, nil)
	if _, err := puller.Ensure(ctx, []string{f.ref("cancelled:1")}); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want context.Canceled", err)
	}
	<-released
}

// cancelOnBytes cancels when the first bytes of an image have arrived.
type cancelOnBytes struct {
	silent
	cancel context.CancelFunc
}

func (c cancelOnBytes) Moved(_ string, s State) {
	if s.Current > 0 {
		c.cancel()
	}
}

func TestATruncatedLayerIsFetchedAgain(t *testing.T) {
	f := newFront(t)
	digest := f.push(t, "truncated:1", 50_000)
	var cut atomic.Bool
	f.breakWith(func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method != http.MethodGet || !strings.Contains(r.URL.Path, "/blobs/") || !cut.CompareAndSwap(false, true) {
			return false
		}
		w.Header().Set("Content-Length", "50000")
		_, _ = w.Write([]byte("{"))
		panic(http.ErrAbortHandler)
	})
	puller, _ := f.puller(pulls())
	got, err := puller.Ensure(t.Context(), []string{f.ref("truncated:1")})
	if err != nil {
		t.Fatal(err)
	}
	if got[0].Digest != digest || !cut.Load() {
		t.Errorf("got %+v after a truncated answer (%t), want digest %s", got[0], cut.Load(), digest)
	}
}

func TestARegistryThatIsNotThereIsRetriedUntilTheTotalTimeout(t *testing.T) {
	engine := connectEngine(t)
	host := lab.DeafAddress(t)
	cfg := pulls()
	cfg.TotalTimeout = config.Duration(5 * time.Second) // one try must have ended by then
	puller := NewPuller(engine, cfg, NewCredentials(nil, nil, nil, time.Now), nil, nil)
	_, err := puller.Ensure(t.Context(), []string{host + "/x:1"})
	if !errors.Is(err, ErrTimeout) || !strings.Contains(err.Error(), "connection refused") || !strings.Contains(err.Error(), host) {
		t.Errorf("got %v, want a timeout, and that the registry refused the connection", err)
	}
}

func TestADeadEngineIsOneClearError(t *testing.T) {
	engine, err := client.New(client.WithHost("unix://" + filepath.Join(t.TempDir(), "docker.sock")))
	if err != nil {
		t.Fatal(err)
	}
	defer engine.Close()
	puller := NewPuller(engine, pulls(), NewCredentials(nil, nil, nil, time.Now), nil, nil)
	_, err = puller.Ensure(t.Context(), []string{"a:1", "b:1"})
	if !errors.Is(err, ErrEngine) || !strings.Contains(err.Error(), "systemctl status docker") || strings.Count(err.Error(), "\n") > 0 {
		t.Errorf("got %v, want ErrEngine once, with what to do", err)
	}
}

func TestImpossibleReferencesAreAllNamed(t *testing.T) {
	puller := NewPuller(nil, pulls(), nil, nil, nil)
	_, err := puller.Ensure(t.Context(), []string{"r.example/UPPER", "ok:1", "a b"})
	if err == nil || !strings.Contains(err.Error(), "r.example/UPPER") || !strings.Contains(err.Error(), "a b") {
		t.Errorf("got %v, want both impossible references", err)
	}
}

func TestAnImageBuiltHereRunsByItsName(t *testing.T) {
	engine := connectEngine(t)
	const ref = "agent-image-local:1"
	importImage(t, engine, ref, 10)
	t.Cleanup(func() { removeAll(t, engine, ref) })
	cfg := pulls()
	cfg.Policy = config.PullNever
	got, err := NewPuller(engine, cfg, NewCredentials(nil, nil, nil, time.Now), nil, nil).Ensure(t.Context(), []string{ref})
	if err != nil {
		t.Fatal(err)
	}
	want := Image{Ref: ref, ID: got[0].ID, Pinned: ref}
	if diff := cmp.Diff([]Image{want}, got); diff != "" {
		t.Errorf("image without a registry (-want +got):\n%s", diff)
	}
}

func TestDockersOwnConfigurationIsLeftAlone(t *testing.T) {
	f := newFront(t)
	f.push(t, "home:1", 100)
	f.push(t, "home:2", 100)
	home := t.TempDir()
	t.Setenv("HOME", home)
	t.Setenv("DOCKER_CONFIG", "")
	puller, _ := f.puller(pulls())
	if _, err := puller.Ensure(t.Context(), []string{f.ref("home:1")}); err != nil {
		t.Fatal(err)
	}
	if entries, err := os.ReadDir(home); err != nil || len(entries) > 0 {
		t.Errorf("home after a pull with a password: got %v, %v, want nothing in it", entries, err)
	}

	// One that is there is neither used nor changed.
	path := filepath.Join(home, ".docker", "config.json")
	content := fmt.Sprintf(`{"auths":{%q:{"auth":"d3Jvbmc6d3Jvbmc="}},"credsStore":"none-such"}`, f.host)
	if err := os.Mkdir(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	before, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := puller.Ensure(t.Context(), []string{f.ref("home:2")}); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(path)
	if err != nil || string(got) != content {
		t.Errorf("docker's configuration: got %q, %v, want %q", got, err, content)
	}
	if after, err := os.Stat(path); err != nil || !after.ModTime().Equal(before.ModTime()) {
		t.Errorf("docker's configuration was written: %v, %v", after, err)
	}
}
