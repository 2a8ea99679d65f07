package notify_test

import (
	"context"
	"encoding/json"
	"encoding/pem"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"github.com/flowviz/flowagent/agent/notify"
	"github.com/flowviz/flowagent/agent/secret"
	"github.com/flowviz/flowagent/test/lab"
)

const (
	token  = "the-bearer-token"
	oldKey = "whsec_b2xkLW9sZC1vbGQtb2xkLW9sZC1vbGQtb2xkIQ=="
	newKey = "whsec_bmV3LW5ldy1uZXctbmV3LW5ldy1uZXctbmV3IQ=="
)

// secrets finds values by name, as a node's keeper does.
type secrets map[string]string

func (s secrets) find(name string) (secret.Value, bool) {
	value, found := s[name]
	if !found {
		return secret.Value{}, false
	}
	return secret.NewValue([]byte(value)), true
}

// webhook makes one that is as configured as can be.
func webhook(t *testing.T, url string, change ...func(*notify.WebhookOptions)) *notify.Webhook {
	t.Helper()
	o := notify.WebhookOptions{
		URL: url, TokenSecret: "token", SigningSecret: "key", Timeout: time.Minute, AgentVersion: "1.2.3",
		Secret: secrets{"token": token + "\n", "key": newKey + " " + oldKey + "\n"}.find,
	}
	for _, c := range change {
		c(&o)
	}
	w, err := notify.NewWebhook(o)
	if err != nil {
		t.Fatal(err)
	}
	return w
}

// drained is an event as a node in EC2 makes it.
func drained(t *testing.T) notify.Event {
	t.Helper()
	return made(t, notify.Origin{Account: "123456789012", Region: "us-east-1", Node: notify.Node{InstanceID: "i-0123456789abcdef0", Hostname: "web-1", AgentVersion: "1.2.3"}},
		notify.NodeDrainEnded, notify.Detail{Drain: &notify.Drain{Reason: "spot", Trigger: "spot", Result: "failed", Seconds: 12.5, FailedSteps: []string{"edge"}}})
}

// serve answers every request with a handler, and stops when the test ends.
func serve(t *testing.T, handler http.HandlerFunc) string {
	t.Helper()
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	return server.URL
}

func TestWebhook_PostsTheEventWithATokenAndASignatureOfEachKey(t *testing.T) {
	var got *http.Request
	var body []byte
	url := serve(t, func(w http.ResponseWriter, r *http.Request) {
		got = r
		body, _ = io.ReadAll(r.Body)
		w.WriteHeader(http.StatusAccepted)
	})
	e := drained(t)
	if err := webhook(t, url+"/hook/?a=b").Send(t.Context(), e); err != nil {
		t.Fatal(err)
	}
	if got.Method != http.MethodPost || got.RequestURI != "/hook/?a=b" {
		t.Errorf("got %s %s, want POST /hook/?a=b", got.Method, got.RequestURI)
	}
	for name, want := range map[string]string{
		"Content-Type": "application/json", "User-Agent": "flowagent/1.2.3", "Authorization": "Bearer " + token, "webhook-id": e.ID,
	} {
		if value := got.Header.Get(name); value != want {
			t.Errorf("%s: got %q, want %q", name, value, want)
		}
	}
	for _, key := range []string{oldKey, newKey} {
		judge, err := standardwebhooks.NewWebhook(key) // the specification's own library
		if err != nil {
			t.Fatal(err)
		}
		if err := judge.Verify(body, got.Header); err != nil {
			t.Errorf("verify with %s: %v", key, err)
		}
		if err := judge.Verify(append(body, ' '), got.Header); err == nil {
			t.Errorf("%s verifies another body", key)
		}
	}
	var posted notify.Event
	if err := json.Unmarshal(body, &posted); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(e, posted); diff != "" {
		t.Errorf("body (-want +got):\n%s", diff)
	}
}

func TestWebhook_NeedsNeitherTokenNorSignature(t *testing.T) {
	var got http.Header
	url := serve(t, func(_ http.ResponseWriter, r *http.Request) { got = r.Header })
	if err := webhook(t, url, func(o *notify.WebhookOptions) { o.TokenSecret, o.SigningSecret = "", "" }).Send(t.Context(), drained(t)); err != nil {
		t.Fatal(err)
	}
	if got.Get("Authorization") != "" || got.Get("webhook-signature") != "" || got.Get("webhook-id") == "" {
		t.Errorf("got %v, want an id and neither token nor signature", got)
	}
}

// sort is what a notifier makes of an error.
func sort(err error) string {
	var refused *notify.Refused
	var later *notify.Later
	switch {
	case err == nil:
		return "delivered"
	case errors.As(err, &refused):
		return "refused"
	case errors.As(err, &later):
		return "again after " + later.After.String()
	}
	return "again"
}

func TestWebhook_TellsWhatWillPassFromWhatWont(t *testing.T) {
	for _, c := range []struct {
		status int
		after  string
		want   string
	}{
		{200, "", "delivered"}, {204, "", "delivered"}, {299, "", "delivered"},
		{301, "", "refused"}, {307, "", "refused"}, {400, "", "refused"}, {403, "", "refused"}, {404, "", "refused"}, {410, "", "refused"},
		{401, "", "again"}, {408, "", "again"}, {409, "", "again"}, {425, "", "again"}, {429, "", "again"}, {500, "", "again"}, {502, "", "again"}, {503, "", "again"},
		{429, "7", "again after 7s"}, {503, "-1", "again"}, {503, "999999", "again after 1h0m0s"}, {503, "Wed, 21 Oct 2026 07:28:00 GMT", "again"},
	} {
		followed := false
		url := serve(t, func(w http.ResponseWriter, r *http.Request) {
			followed = followed || r.URL.Path == "/elsewhere"
			w.Header().Set("Location", "/elsewhere")
			if c.after != "" {
				w.Header().Set("Retry-After", c.after)
			}
			w.WriteHeader(c.status)
		})
		err := webhook(t, url+"/hook").Send(t.Context(), drained(t))
		if got := sort(err); got != c.want {
			t.Errorf("%d with Retry-After %q: got %s (%v), want %s", c.status, c.after, got, err, c.want)
		}
		if followed {
			t.Errorf("%d: a redirect was followed, with the token", c.status)
		}
	}
}

func TestWebhook_NoErrorHoldsASecret(t *testing.T) {
	parrot := serve(t, func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusBadRequest)
		_, _ = io.WriteString(w, r.Header.Get("Authorization")+r.RequestURI)
	})
	silent := serve(t, func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body) // or the server doesn't notice that the client is gone
		<-r.Context().Done()
	})
	cut := serve(t, func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
	untrusted := httptest.NewUnstartedServer(http.NotFoundHandler())
	untrusted.Config.ErrorLog = quiet
	untrusted.StartTLS()
	t.Cleanup(untrusted.Close)

	short := func(o *notify.WebhookOptions) { o.Timeout = 100 * time.Millisecond }
	with := func(name, value string) func(*notify.WebhookOptions) {
		return func(o *notify.WebhookOptions) {
			s := secrets{"token": token, "key": newKey}
			if s[name] = value; value == "" {
				delete(s, name)
			}
			o.Secret = s.find
		}
	}
	const badKey = "whsec_c2hvcnQta2V5LXZhbHVl"
	for name, c := range map[string]struct {
		url    string
		change func(*notify.WebhookOptions)
		says   string
	}{
		"nobody listens":          {"http://" + lab.DeafAddress(t), func(*notify.WebhookOptions) {}, "connection refused"},
		"the server echoes":       {parrot, func(*notify.WebhookOptions) {}, "400 Bad Request: check notify.webhook.url"},
		"the server hangs":        {silent, short, "no answer in time"},
		"the reply is lost":       {cut, func(*notify.WebhookOptions) {}, "EOF"},
		"unknown authority":       {untrusted.URL, func(*notify.WebhookOptions) {}, "certificate signed by unknown authority"},
		"no token yet":            {parrot, with("token", ""), "the secret token for the token was not fetched yet"},
		"no key yet":              {parrot, with("key", ""), "the secret key for the signature was not fetched yet"},
		"a token of two lines":    {parrot, with("token", token+"\nX-Other: 1"), "the secret token is no bearer token"},
		"a key without its mark":  {parrot, with("key", strings.TrimPrefix(newKey, "whsec_")), "the secret key can't sign: it must be whsec_ and 24 to 64 bytes"},
		"a key that is too short": {parrot, with("key", badKey), "the secret key can't sign"},
		"an empty key":            {parrot, with("key", " "), "the secret key is empty"},
	} {
		t.Run(name, func(t *testing.T) {
			err := webhook(t, c.url+"/path-secret?code=query-secret", c.change).Send(t.Context(), drained(t))
			if err == nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("got %v, want %q in it", err, c.says)
			}
			for _, never := range []string{"path-secret", "query-secret", token, strings.TrimPrefix(newKey, "whsec_"), strings.TrimPrefix(badKey, "whsec_")} {
				if strings.Contains(err.Error(), never) {
					t.Errorf("got %v, with %q in it", err, never)
				}
			}
		})
	}
}

func TestWebhook_TrustsTheAuthorityThatItIsGiven(t *testing.T) {
	server := httptest.NewTLSServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	t.Cleanup(server.Close)
	path := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := webhook(t, server.URL, func(o *notify.WebhookOptions) { o.CAFile = path }).Send(t.Context(), drained(t)); err != nil {
		t.Error(err)
	}
	if err := os.WriteFile(path, []byte("no certificate"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, bad := range []string{path, path + ".missing"} {
		if _, err := notify.NewWebhook(notify.WebhookOptions{URL: server.URL, CAFile: bad}); err == nil || !strings.Contains(err.Error(), "notify.webhook.caFile") {
			t.Errorf("with %s: got %v, want an error about caFile", bad, err)
		}
	}
}

// The server takes the event and says so to nobody. The next try must be the same event.
func TestNotifier_AnEventWhoseReplyWasLostIsSentAgainUnderTheSameID(t *testing.T) {
	type request struct{ id, body string }
	requests := make(chan request, 10)
	url := serve(t, func(_ http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		requests <- request{r.Header.Get("webhook-id"), string(body)}
		if len(requests) == 1 {
			panic(http.ErrAbortHandler)
		}
	})
	ctx, cancel := context.WithCancel(t.Context())
	n := notify.New(notify.Options{
		Sinks: []notify.Sink{webhook(t, url)}, Random: func() float64 { return 0 }, Count: func(string, notify.Result) { cancel() },
	})
	n.Tell(notify.NodeReady, notify.Detail{Boot: &notify.Boot{Seconds: 1}})
	n.Run(ctx)
	if len(requests) != 2 {
		t.Fatalf("got %d requests, want 2", len(requests))
	}
	if first, second := <-requests, <-requests; first != second || first.id == "" {
		t.Errorf("got %v and %v, want the same", first, second)
	}
}

func encoded(t *testing.T, v any) string {
	t.Helper()
	content, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}
