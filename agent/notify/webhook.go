package notify

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/flowviz/flowagent/agent/secret"
)

const (
	// keyPrefix marks a signing secret, and leastKey and longestKey are its size in bytes, by Standard Webhooks 1.0.0.
	keyPrefix  = "whsec_"
	leastKey   = 24
	longestKey = 64
	// answerLimit is how much of an answer is read, in bytes. What it says is of no interest.
	answerLimit = 64 << 10
)

// WebhookOptions are where events are posted to. URL and Timeout are needed.
type WebhookOptions struct {
	// URL is where. Of it, logs and errors have the scheme and the server only.
	URL string
	// TokenSecret and SigningSecret name secrets; "" for no token or no signature.
	TokenSecret, SigningSecret string
	// Secret finds their values, anew for each try; false for one that was not fetched yet.
	Secret func(name string) (secret.Value, bool)
	// Timeout bounds one try.
	Timeout time.Duration
	// CAFile is a PEM file of authorities to trust; "" for the system's.
	CAFile string
	// AgentVersion is part of the User-Agent.
	AgentVersion string
}

// Webhook posts events to an HTTP server, by the Standard Webhooks specification (https://www.standardwebhooks.com).
type Webhook struct {
	options WebhookOptions
	server  string // scheme and host
	client  *http.Client
}

// NewWebhook makes a webhook. It calls nobody yet. A redirect is not followed: the token must not go where nobody configured
// it to go.
func NewWebhook(o WebhookOptions) (*Webhook, error) {
	u, err := url.Parse(o.URL)
	if err != nil {
		return nil, errors.New("notify.webhook.url is not a URL")
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.DisableKeepAlives = true // minutes and days are between two events
	transport.TLSClientConfig = &tls.Config{MinVersion: tls.VersionTLS12}
	if o.CAFile != "" {
		pem, err := os.ReadFile(o.CAFile)
		if err != nil {
			return nil, fmt.Errorf("notify.webhook.caFile: %w", err)
		}
		transport.TLSClientConfig.RootCAs = x509.NewCertPool()
		if !transport.TLSClientConfig.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("notify.webhook.caFile: %s holds no PEM certificate", o.CAFile)
		}
	}
	return &Webhook{options: o, server: u.Scheme + "://" + u.Host, client: &http.Client{
		Transport:     transport,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}, nil
}

// Name implements [Sink].
func (*Webhook) Name() string { return "webhook" }

// Send implements [Sink].
func (w *Webhook) Send(ctx context.Context, e Event) error {
	ctx, cancel := context.WithTimeout(ctx, w.options.Timeout)
	defer cancel()
	body := encode(e)
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, w.options.URL, bytes.NewReader(body))
	if err != nil {
		return &Refused{errors.New("notify.webhook.url is not a URL")}
	}
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("User-Agent", "flowagent/"+w.options.AgentVersion)
	if err := w.authenticate(request, e.ID, time.Now(), body); err != nil {
		return err
	}
	response, err := w.client.Do(request)
	if err != nil {
		return fmt.Errorf("post to %s: %w", w.server, reason(err))
	}
	defer response.Body.Close()
	_, _ = io.Copy(io.Discard, io.LimitReader(response.Body, answerLimit))
	return w.judge(response)
}

// reason is a failed request's error without the URL, which may hold a secret.
func reason(err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		err = u.Err
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return errors.New("no answer in time: see that the server runs and can be reached from this node")
	}
	return fmt.Errorf("%w: see that the server runs and can be reached from this node", err)
}

// judge reads a status as EventBridge's own API destinations do: 401, 407, 409, 429 and 5xx may pass, and timeouts with
// them; all else in the 400s won't.
func (w *Webhook) judge(response *http.Response) error {
	code := response.StatusCode
	err := fmt.Errorf("post to %s: the answer was %d %s", w.server, code, http.StatusText(code))
	switch {
	case code >= 200 && code < 300:
		return nil
	case code >= 300 && code < 400:
		return &Refused{fmt.Errorf("%w: set notify.webhook.url to where it redirects", err)}
	case code == http.StatusUnauthorized:
		return fmt.Errorf("%w: check the secrets that notify.webhook names", err)
	case code == http.StatusTooManyRequests, code == http.StatusServiceUnavailable:
		if seconds, numberErr := strconv.Atoi(response.Header.Get("Retry-After")); numberErr == nil && seconds > 0 {
			return &Later{time.Duration(min(seconds, 3600)) * time.Second, err}
		}
		return err
	case code == http.StatusProxyAuthRequired, code == http.StatusRequestTimeout, code == http.StatusConflict, code == http.StatusTooEarly, code >= 500:
		return err
	}
	return &Refused{fmt.Errorf("%w: check notify.webhook.url and what the server takes", err)}
}

// authenticate adds Standard Webhooks' headers, and the token.
func (w *Webhook) authenticate(request *http.Request, id string, now time.Time, body []byte) error {
	stamp := strconv.FormatInt(now.Unix(), 10)
	request.Header.Set("webhook-id", id)
	request.Header.Set("webhook-timestamp", stamp)
	if name := w.options.TokenSecret; name != "" {
		value, found := w.options.Secret(name)
		token := strings.TrimSpace(string(value.Reveal()))
		switch {
		case !found:
			return fmt.Errorf("the secret %s for the token was not fetched yet", name)
		case token == "" || strings.ContainsFunc(token, func(r rune) bool { return r < '!' || r > '~' }):
			return fmt.Errorf("the secret %s is no bearer token: it must be printable ASCII without spaces", name)
		}
		request.Header.Set("Authorization", "Bearer "+token)
	}
	name := w.options.SigningSecret
	if name == "" {
		return nil
	}
	value, found := w.options.Secret(name)
	if !found {
		return fmt.Errorf("the secret %s for the signature was not fetched yet", name)
	}
	var signatures []string
	for _, word := range strings.Fields(string(value.Reveal())) {
		key, err := signingKey(word)
		if err != nil {
			return fmt.Errorf("the secret %s can't sign: %w", name, err)
		}
		mac := hmac.New(sha256.New, key)
		_, _ = fmt.Fprintf(mac, "%s.%s.%s", id, stamp, body)
		signatures = append(signatures, "v1,"+base64.StdEncoding.EncodeToString(mac.Sum(nil)))
	}
	if len(signatures) == 0 {
		return fmt.Errorf("the secret %s is empty", name)
	}
	request.Header.Set("webhook-signature", strings.Join(signatures, " "))
	return nil
}

// signingKey reads a secret in Standard Webhooks' serialization. Its error doesn't repeat it.
func signingKey(word string) ([]byte, error) {
	encoded, found := strings.CutPrefix(word, keyPrefix)
	key, err := base64.StdEncoding.DecodeString(encoded)
	if !found || err != nil || len(key) < leastKey || len(key) > longestKey {
		return nil, fmt.Errorf("it must be %s and %d to %d bytes in base64: make one with 'echo %s$(openssl rand -base64 32)'", keyPrefix, leastKey, longestKey, keyPrefix)
	}
	return key, nil
}
