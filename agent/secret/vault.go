package secret

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/flowviz/flowagent/agent/config"
)

const (
	// vaultParallel is how many entries are read at once: one node must not use up the default rate limit of a small server.
	vaultParallel = 4
	// vaultRedirects is how often one request may be sent elsewhere on the same server.
	vaultRedirects = 3
	// vaultAnswer bounds an answer, in bytes: an entry of documentLimit and what Vault says around it.
	vaultAnswer = documentLimit + 64<<10
	// vaultTokenShare is the part of a token's lifetime in which it is used, so that none expires during a fetch.
	vaultTokenShare = 0.9
)

// vaultLocator is one version of one KV version 2 entry.
type vaultLocator struct {
	mount, path string
	version     int // 0 is the newest
}

func (l vaultLocator) String() string {
	s := "vault:" + l.mount + "/" + l.path
	if l.version != 0 {
		s += "@" + strconv.Itoa(l.version)
	}
	return s
}

// vaultLogin is a way to a token: a file that holds one, or an AppRole.
type vaultLogin interface {
	// login returns a token and how long it is good for; 0 means that only the server knows.
	login(ctx context.Context, v *vault) (vaultToken, error)
}

type vaultToken struct {
	secret   string
	lifetime time.Duration
}

// vault reads KV version 2 entries of HashiCorp Vault or OpenBao over their HTTP API.
type vault struct {
	base      string // without a slash at its end
	namespace string
	client    *http.Client
	auth      vaultLogin
	now       func() time.Time
	wanted    []vaultLocator

	// The token of an earlier fetch, in memory only.
	token   string
	expires time.Time // zero: log in for each fetch
}

func newVault(cfg config.Vault, deps Deps) (*vault, error) {
	if cfg.Address == "" {
		return nil, errors.New("secrets.vault.address is not set: give the server's URL")
	}
	v := &vault{base: strings.TrimSuffix(string(cfg.Address), "/"), namespace: cfg.Namespace, now: deps.Now}
	switch role := cfg.AppRole; {
	case (role != nil) == (cfg.TokenFile != ""):
		return nil, errors.New("secrets.vault needs tokenFile or appRole, and not both")
	case role == nil:
		v.auth = vaultTokenFile{cfg.TokenFile}
	case role.RoleID == "" || (role.SecretIDFile != "") == (role.SecretIDCredential != ""):
		return nil, errors.New("secrets.vault.appRole needs roleId, and secretIdFile or secretIdCredential")
	default:
		mount := strings.Trim(role.Mount, "/")
		if mount == "" {
			mount = "approle"
		}
		v.auth = vaultAppRole{mount: mount, roleID: role.RoleID, file: role.SecretIDFile, credential: role.SecretIDCredential, directory: deps.CredentialsDirectory}
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	if cfg.CAFile != "" {
		pem, _, err := readRegular(cfg.CAFile)
		if err != nil {
			return nil, fmt.Errorf("secrets.vault.caFile: %w", err)
		}
		pool := x509.NewCertPool()
		if !pool.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("secrets.vault.caFile: %s holds no PEM certificate", cfg.CAFile)
		}
		transport.TLSClientConfig = &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}
	}
	v.client = &http.Client{Transport: transport, CheckRedirect: sameServer}
	return v, nil
}

// sameServer keeps the token, which net/http would carry along, from any other server. A standby of a cluster may send
// clients to the active server's own address; that one must then be configured, or request forwarding be on.
func sameServer(next *http.Request, earlier []*http.Request) error {
	first := earlier[0].URL
	if next.URL.Scheme != first.Scheme || next.URL.Host != first.Host {
		return fmt.Errorf("it redirects to %s://%s, where no token is sent: set secrets.vault.address to that server", next.URL.Scheme, next.URL.Host)
	}
	if len(earlier) > vaultRedirects {
		return errors.New("it redirects in circles")
	}
	return nil
}

func (v *vault) fetch(ctx context.Context) map[locator]answer {
	fresh := false
	if v.token == "" || !v.now().Before(v.expires) {
		if err := v.logIn(ctx); err != nil {
			answers := make(map[locator]answer, len(v.wanted))
			for _, l := range v.wanted {
				answers[l] = answer{err: err}
			}
			return answers
		}
		fresh = true
	}
	answers := v.readAll(ctx, v.wanted)
	if fresh {
		return answers
	}
	// A refusal may mean that the token was revoked or expired early. One new login in a fetch tells.
	var refused []vaultLocator
	for _, l := range v.wanted {
		if errors.Is(answers[l].err, ErrDenied) {
			refused = append(refused, l)
		}
	}
	if len(refused) == 0 {
		return answers
	}
	if err := v.logIn(ctx); err != nil {
		for _, l := range refused {
			answers[l] = answer{err: err}
		}
		return answers
	}
	for l, a := range v.readAll(ctx, refused) {
		answers[l] = a
	}
	return answers
}

func (v *vault) logIn(ctx context.Context) error {
	v.token, v.expires = "", time.Time{}
	token, err := v.auth.login(ctx, v)
	if err != nil {
		return err
	}
	v.token = token.secret
	if token.lifetime > 0 {
		v.expires = v.now().Add(time.Duration(float64(token.lifetime) * vaultTokenShare))
	}
	return nil
}

func (v *vault) readAll(ctx context.Context, wanted []vaultLocator) map[locator]answer {
	sheet := newAnswerSheet()
	var group errgroup.Group
	group.SetLimit(vaultParallel)
	for _, l := range wanted {
		group.Go(func() error { sheet.put(l, v.read(ctx, l)); return nil })
	}
	_ = group.Wait() // every outcome is on the sheet
	return sheet.answers
}

func (v *vault) read(ctx context.Context, l vaultLocator) answer {
	target := v.base + "/v1/" + escapePath(l.mount) + "/data/" + escapePath(l.path)
	if l.version != 0 {
		target += "?version=" + strconv.Itoa(l.version)
	}
	status, body, err := v.do(ctx, http.MethodGet, target, nil)
	if err != nil {
		return answer{err: err}
	}
	var reply struct {
		Data struct {
			Data     json.RawMessage `json:"data"`
			Metadata struct {
				Version      int    `json:"version"`
				DeletionTime string `json:"deletion_time"`
				Destroyed    bool   `json:"destroyed"`
			} `json:"metadata"`
		} `json:"data"`
	}
	// A body that doesn't parse leaves reply empty, which each case below can tell.
	parseErr := json.Unmarshal(body, &reply)
	metadata := reply.Data.Metadata
	switch {
	case status == http.StatusOK && parseErr == nil && len(reply.Data.Data) > 0 && !isNull(reply.Data.Data):
		var compact bytes.Buffer
		if err := json.Compact(&compact, reply.Data.Data); err != nil {
			return answer{err: because(ErrUnavailable, "the answer is not JSON")}
		}
		return answer{document: NewValue(compact.Bytes()), version: strconv.Itoa(metadata.Version)}
	case status == http.StatusOK:
		return answer{err: because(ErrUnavailable, "the answer is not that of a KV version 2 engine: check secrets.vault.address and the item's mount")}
	case status == http.StatusNotFound && metadata.Destroyed:
		return answer{err: because(ErrNotFound, "version %d was destroyed: put a new one", metadata.Version)}
	case status == http.StatusNotFound && metadata.DeletionTime != "":
		return answer{err: because(ErrNotFound, "version %d was deleted: undelete it or put a new one", metadata.Version)}
	case status == http.StatusForbidden:
		return answer{err: because(ErrDenied, "%s: let a policy of this node's token read %s/data/%s", v.complaint(status, body), l.mount, l.path)}
	case status == http.StatusNotFound:
		return answer{err: because(ErrNotFound, "%s: put it there, or correct the item's mount, path or version", v.complaint(status, body))}
	default:
		return answer{err: because(ErrUnavailable, "%s", v.complaint(status, body))}
	}
}

func isNull(raw json.RawMessage) bool { return string(raw) == "null" }

// do sends one request and reads its answer. Errors are ErrUnavailable: no answer came.
func (v *vault) do(ctx context.Context, method, target string, body []byte) (int, []byte, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, method, target, bytes.NewReader(body))
	if err != nil {
		return 0, nil, because(ErrUnavailable, "secrets.vault.address makes no URL")
	}
	// Vault's agent and proxies with require_request_header refuse requests without it, as a guard against SSRF.
	request.Header.Set("X-Vault-Request", "true")
	if v.namespace != "" {
		request.Header.Set("X-Vault-Namespace", v.namespace)
	}
	if v.token != "" {
		request.Header.Set("X-Vault-Token", v.token)
	}
	if body != nil {
		request.Header.Set("Content-Type", "application/json")
	}
	response, err := v.client.Do(request)
	if err != nil {
		return 0, nil, v.noAnswer(err)
	}
	defer response.Body.Close()
	content, err := io.ReadAll(io.LimitReader(response.Body, vaultAnswer+1))
	if err != nil {
		return 0, nil, v.noAnswer(err)
	}
	if len(content) > vaultAnswer {
		return 0, nil, because(ErrUnavailable, "the answer is longer than %d bytes, which no secret is", vaultAnswer)
	}
	return response.StatusCode, content, nil
}

func (v *vault) noAnswer(err error) error {
	if errors.Is(err, context.DeadlineExceeded) {
		return because(ErrUnavailable, "%s gives no answer within %s", v.base, callTimeout)
	}
	var authority x509.UnknownAuthorityError
	if errors.As(err, &authority) {
		return because(ErrUnavailable, "%s has a certificate of an unknown authority: set secrets.vault.caFile", v.base)
	}
	// What url.Error adds is the method and the URL, which the address already tells.
	var urlErr *url.Error
	if errors.As(err, &urlErr) {
		err = urlErr.Err
	}
	return because(ErrUnavailable, "%s: %s", v.base, printable(err.Error()))
}

// complaint is what the server said, without the token should it repeat that.
func (v *vault) complaint(status int, body []byte) string {
	var reply struct {
		Errors   []string `json:"errors"`
		Warnings []string `json:"warnings"`
	}
	text := ""
	if json.Unmarshal(body, &reply) == nil {
		text = printable(strings.Join(append(reply.Errors, reply.Warnings...), "; "))
	}
	if v.token != "" {
		text = strings.ReplaceAll(text, v.token, redacted)
	}
	s := fmt.Sprintf("%s says %d", v.base, status)
	if status == http.StatusServiceUnavailable && text == "" {
		text = "sealed or starting"
	}
	if text == "" {
		return s
	}
	return s + " (" + text + ")"
}

// vaultTokenFile is a token that something else keeps fresh, such as Vault Agent. It is read for each fetch.
type vaultTokenFile struct{ path string }

func (f vaultTokenFile) login(context.Context, *vault) (vaultToken, error) {
	content, _, err := readRegular(f.path)
	if err != nil {
		return vaultToken{}, because(kindOf(err), "Vault token: %v", err)
	}
	token := string(bytes.TrimSpace(content))
	if !isHeaderText(token) {
		return vaultToken{}, because(ErrDenied, "Vault token: %s does not hold one token: write it there alone", f.path)
	}
	return vaultToken{secret: token}, nil
}

// vaultAppRole logs in with a role id and a secret id, again whenever the token it got has served its time. The secret id
// must therefore allow more than one use.
type vaultAppRole struct {
	mount, roleID    string
	file, credential string // where the secret id is; one is set
	directory        string // of systemd credentials
}

func (r vaultAppRole) login(ctx context.Context, v *vault) (vaultToken, error) {
	secretID, err := r.secretID()
	if err != nil {
		return vaultToken{}, because(kindOf(err), "Vault secret id: %v", err)
	}
	body, err := json.Marshal(map[string]string{"role_id": r.roleID, "secret_id": secretID})
	if err != nil {
		return vaultToken{}, because(ErrDenied, "Vault secret id: it is not text")
	}
	status, content, err := v.do(ctx, http.MethodPost, v.base+"/v1/auth/"+escapePath(r.mount)+"/login", body)
	if err != nil {
		return vaultToken{}, err
	}
	var reply struct {
		Auth struct {
			ClientToken   string `json:"client_token"`
			LeaseDuration int64  `json:"lease_duration"` // seconds
		} `json:"auth"`
	}
	// A body that doesn't parse leaves reply without a token.
	parseErr := json.Unmarshal(content, &reply)
	switch {
	case status == http.StatusOK && parseErr == nil && isHeaderText(reply.Auth.ClientToken):
		return vaultToken{secret: reply.Auth.ClientToken, lifetime: time.Duration(reply.Auth.LeaseDuration) * time.Second}, nil
	case status == http.StatusBadRequest, status == http.StatusForbidden, status == http.StatusNotFound:
		// Vault answers 400 to a wrong role id or secret id, 403 where a CIDR or namespace doesn't fit, 404 for a wrong mount.
		complaint := strings.ReplaceAll(v.complaint(status, content), secretID, redacted)
		return vaultToken{}, because(ErrDenied, "AppRole login: %s: check secrets.vault.appRole and issue a new secret id", complaint)
	case status == http.StatusOK:
		return vaultToken{}, because(ErrUnavailable, "AppRole login: the answer holds no token: check secrets.vault.address and appRole.mount")
	default:
		complaint := strings.ReplaceAll(v.complaint(status, content), secretID, redacted)
		return vaultToken{}, because(ErrUnavailable, "AppRole login: %s", complaint)
	}
}

func (r vaultAppRole) secretID() (string, error) {
	var (
		content []byte
		err     error
	)
	if r.credential != "" {
		content, err = readCredential(r.directory, r.credential)
	} else {
		content, _, err = readRegular(r.file)
	}
	if err != nil {
		return "", err
	}
	id := string(bytes.TrimSpace(content))
	if id == "" {
		return "", because(ErrDenied, "it is empty")
	}
	return id, nil
}

// isHeaderText tells whether a token can stand in a header; net/http's own error for a bad one would quote it.
func isHeaderText(token string) bool {
	if token == "" {
		return false
	}
	for i := range len(token) {
		if token[i] <= ' ' || token[i] >= 0x7f {
			return false
		}
	}
	return true
}

// escapePath makes a path of an engine or an entry safe in a URL, slashes kept.
func escapePath(path string) string {
	parts := strings.Split(path, "/")
	for i := range parts {
		parts[i] = url.PathEscape(parts[i])
	}
	return strings.Join(parts, "/")
}

// checkVaultPath refuses a path that would leave the engine it names.
func checkVaultPath(path string) error {
	for part := range strings.SplitSeq(path, "/") {
		if part == "" || part == "." || part == ".." {
			return fmt.Errorf("%q is not a path in Vault: write it like flowviz/production, without data/ before it", path)
		}
	}
	return nil
}
