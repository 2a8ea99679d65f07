package secret_test

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/flowviz/flowagent/agent/config"
	"github.com/flowviz/flowagent/agent/secret"
	"github.com/flowviz/flowagent/internal/vaultfake"
	"github.com/flowviz/flowagent/test/lab"
)

// vaultRoom is a Vault, its clock, and a node that is let in by AppRole or token file.
type vaultRoom struct {
	*vaultfake.Server
	url     string
	deps    secret.Deps
	approle config.Vault
	dir     string

	mu  sync.Mutex
	now time.Time
}

const vaultLease = 20 * time.Minute

func newVaultRoom(t *testing.T) *vaultRoom {
	t.Helper()
	r := &vaultRoom{dir: t.TempDir(), now: time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)}
	r.deps = secret.Deps{Now: r.clock}
	r.Server = vaultfake.New(r.clock)
	r.url = serve(t, r.Server)
	secretID := r.AddRole("approle", "node", vaultLease, "secret/flowviz")
	write(t, filepath.Join(r.dir, "secret-id"), secretID+"\n")
	r.approle = config.Vault{Address: config.URL(r.url), AppRole: &config.VaultAppRole{RoleID: "node", SecretIDFile: filepath.Join(r.dir, "secret-id")}}
	return r
}

func (r *vaultRoom) clock() time.Time {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.now
}

func (r *vaultRoom) pass(d time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.now = r.now.Add(d)
}

func vaultItem(name, path, key string, version int) config.Secret {
	return config.Secret{Name: name, From: config.Source{Vault: &config.VaultSource{Path: path, Key: key, Version: version}}}
}

func through(v config.Vault, all ...config.Secret) config.Secrets {
	return config.Secrets{Vault: v, Items: all}
}

func TestVaultEntriesAreReadByVersionAndKey(t *testing.T) {
	r := newVaultRoom(t)
	r.Put("secret/flowviz/app", `{"db": {"password": "one"}}`)
	r.Put("secret/flowviz/app", `{"db": {"password": "two", "port": 5432, "large": 12345678901234567890123}}`)
	r.Put("secret/flowviz/a b%2f?c", `{"x": "odd"}`)
	kv := vaultItem("mount", "flowviz/x", "x", 0)
	r.AddRole("factory", "other", 0, "kv/team")
	r.Put("kv/team/flowviz/x", `{"x": "elsewhere"}`)
	kv.From.Vault.Mount = "/kv/team/"
	r.Restrict("node", "secret/", "kv/")
	k := newKeeper(t, through(r.approle,
		vaultItem("newest", "flowviz/app", "db.password", 0),
		vaultItem("port", "flowviz/app", "db.port", 0),
		vaultItem("large", "flowviz/app", "db.large", 0),
		vaultItem("first", "flowviz/app", "db.password", 1),
		vaultItem("whole", "/flowviz/app/", "", 1),
		vaultItem("odd", "flowviz/a b%2f?c", "x", 0),
		kv,
	), r.deps)
	refresh(t, k)
	for name, want := range map[string]string{
		"newest": "two", "port": "5432", "large": "12345678901234567890123", "first": "one", "whole": `{"db":{"password":"one"}}`, "odd": "odd", "mount": "elsewhere",
	} {
		mustHold(t, k, name, want)
	}
	if got := [2]string{statusOf(t, k, "newest").Version, statusOf(t, k, "first").Version}; got != [2]string{"2", "1"} {
		t.Errorf("versions: got %q, want 2 and 1", got)
	}
	if got, want := statusOf(t, k, "first").Source, "vault:secret/flowviz/app@1#db.password"; got != want {
		t.Errorf("source: got %q, want %q", got, want)
	}
	// Versions 0 and 1 are two reads; the items that differ in their key share them.
	if got := r.Reads("secret/flowviz/app"); got != 2 {
		t.Errorf("reads: got %d, want 2", got)
	}
	if got := r.Logins(); got != 1 {
		t.Errorf("logins: got %d, want 1", got)
	}
}

func TestVaultTokensAreReplacedWhenTheyExpireOrAreRevoked(t *testing.T) {
	r := newVaultRoom(t)
	r.Put("secret/flowviz/app", `{"a": "x"}`)
	k := newKeeper(t, through(r.approle, vaultItem("a", "flowviz/app", "a", 0)), r.deps)
	for i, step := range []struct {
		what   string
		before func()
		logins int
		reads  int
	}{
		{"first", func() {}, 1, 1},
		{"token still good", func() { r.pass(10 * time.Minute) }, 1, 2},
		{"token about to expire", func() { r.pass(9 * time.Minute) }, 2, 3},
		{"token revoked", r.RevokeTokens, 3, 5}, // the refused read and its repetition
		{"token expired long ago", func() { r.pass(24 * time.Hour) }, 4, 6},
	} {
		step.before()
		refresh(t, k)
		if got := [2]int{r.Logins(), r.Reads("secret/flowviz/app")}; got != [2]int{step.logins, step.reads} {
			t.Errorf("%d, %s: got %v logins and reads, want [%d %d]", i, step.what, got, step.logins, step.reads)
		}
	}
}

func TestVaultRefusalsCostOneLoginARefresh(t *testing.T) {
	r := newVaultRoom(t)
	for _, name := range []string{"a", "b", "c"} {
		r.Put("secret/flowviz/"+name, `{"x": "`+canary+`"}`)
	}
	k := newKeeper(t, through(r.approle, vaultItem("a", "flowviz/a", "x", 0), vaultItem("b", "flowviz/b", "x", 0), vaultItem("c", "flowviz/c", "x", 0)), r.deps)
	refresh(t, k)
	r.Restrict("node", "secret/flowviz/a")
	changed, err := refuse(t, k)
	if diff := cmp.Diff([]string{"b", "c"}, changed); diff != "" {
		t.Errorf("changed (-want +got):\n%s", diff)
	}
	mustBeOnly(t, err, secret.ErrDenied)
	mustSay(t, err, "permission denied", "let a policy of this node's token read secret/data/flowviz/b")
	mustBeIn(t, k, "b", secret.Withdrawn)
	mustHold(t, k, "a", canary)
	if got := r.Logins(); got != 2 {
		t.Errorf("logins: got %d, want 2", got)
	}
	mustHide(t, "error", err.Error())
}

func TestAVaultTokenFileIsReadAnewEachTime(t *testing.T) {
	r := newVaultRoom(t)
	r.Put("secret/flowviz/app", `{"a": "x"}`)
	file := filepath.Join(r.dir, "token")
	k := newKeeper(t, through(config.Vault{Address: config.URL(r.url), TokenFile: file}, vaultItem("a", "flowviz/app", "a", 0)), r.deps)

	_, err := refuse(t, k)
	mustSay(t, err, "Vault token", file, "create it")
	mustBeOnly(t, err, secret.ErrNotFound)

	write(t, file, r.IssueToken(0, "secret/")+"\n")
	refresh(t, k)
	r.RevokeTokens()
	write(t, file, r.IssueToken(0, "secret/"))
	refresh(t, k)

	old := r.IssueToken(time.Minute, "secret/")
	write(t, file, old)
	r.pass(time.Hour)
	_, err = refuse(t, k)
	mustBeOnly(t, err, secret.ErrDenied)
	mustLack(t, k, "a")
	if strings.Contains(err.Error(), old) {
		t.Errorf("the error shows the token: %v", err)
	}
	for _, bad := range []string{"", "two tokens", "line\nbreak", "ü", canary + "\x00"} {
		write(t, file, bad)
		_, err = refuse(t, k)
		mustSay(t, err, "does not hold one token")
		mustBeOnly(t, err, secret.ErrDenied)
		mustHide(t, "error", err.Error())
	}
}

func TestVaultDeletionsWithdrawAndTroubleKeeps(t *testing.T) {
	r := newVaultRoom(t)
	r.Put("secret/flowviz/app", `{"a": "`+canary+`"}`)
	k := newKeeper(t, through(r.approle, vaultItem("a", "flowviz/app", "a", 0)), r.deps)
	refresh(t, k)
	for _, status := range []int{http.StatusTooManyRequests, http.StatusInternalServerError, http.StatusBadGateway, http.StatusPreconditionFailed, 473, http.StatusBadRequest} {
		r.FailNext(status)
		_, err := refuse(t, k)
		mustBeOnly(t, err, secret.ErrUnavailable)
		mustBeIn(t, k, "a", secret.Stale)
		mustHold(t, k, "a", canary)
	}
	r.Seal(true)
	_, err := refuse(t, k)
	mustBeOnly(t, err, secret.ErrUnavailable)
	mustSay(t, err, "Vault is sealed")
	r.pass(time.Hour) // so that the next refresh must log in, which fails as well
	_, err = refuse(t, k)
	mustBeOnly(t, err, secret.ErrUnavailable)
	mustSay(t, err, "AppRole login")
	mustHold(t, k, "a", canary)
	r.Seal(false)
	refresh(t, k)

	r.Delete("secret/flowviz/app", 1)
	_, err = refuse(t, k)
	mustBeOnly(t, err, secret.ErrNotFound)
	mustSay(t, err, "version 1 was deleted")
	mustLack(t, k, "a")
	r.Put("secret/flowviz/app", `{"a": "new"}`)
	refresh(t, k)
	r.Destroy("secret/flowviz/app", 2)
	_, err = refuse(t, k)
	mustBeOnly(t, err, secret.ErrNotFound)
	mustSay(t, err, "version 2 was destroyed")

	k = newKeeper(t, through(r.approle, vaultItem("absent", "flowviz/absent", "a", 0), vaultItem("future", "flowviz/app", "a", 9)), r.deps)
	_, err = refuse(t, k)
	mustBeOnly(t, err, secret.ErrNotFound)
	mustSay(t, err, "secret absent", "secret future", "correct the item's mount, path or version")
}

func TestAppRoleLoginsThatFailAreDenialsThatShowNoSecretID(t *testing.T) {
	r := newVaultRoom(t)
	r.Put("secret/flowviz/app", `{"a": "x"}`)
	credentialsDir := t.TempDir()
	write(t, filepath.Join(credentialsDir, "vault-id"), canary)
	for name, c := range map[string]struct {
		role config.VaultAppRole
		want string
	}{
		"wrong secret id": {config.VaultAppRole{RoleID: "node", SecretIDCredential: "vault-id"}, "invalid role or secret ID"},
		"wrong role":      {config.VaultAppRole{RoleID: "nobody", SecretIDFile: r.approle.AppRole.SecretIDFile}, "invalid role or secret ID"},
		"wrong mount":     {config.VaultAppRole{Mount: "elsewhere", RoleID: "node", SecretIDFile: r.approle.AppRole.SecretIDFile}, "issue a new secret id"},
		"empty secret id": {config.VaultAppRole{RoleID: "node", SecretIDFile: filepath.Join(r.dir, "empty")}, "Vault secret id: access denied: it is empty"},
		"mount of two":    {config.VaultAppRole{RoleID: "node", SecretIDCredential: "vault-id", Mount: "a/b"}, "AppRole login"},
	} {
		t.Run(name, func(t *testing.T) {
			write(t, filepath.Join(r.dir, "empty"), "\n")
			deps := r.deps
			deps.CredentialsDirectory = credentialsDir
			k := newKeeper(t, through(config.Vault{Address: config.URL(r.url), AppRole: &c.role}, vaultItem("a", "flowviz/app", "a", 0)), deps)
			_, err := refuse(t, k)
			mustBeOnly(t, err, secret.ErrDenied)
			mustSay(t, err, c.want)
			mustHide(t, "error", err.Error())
		})
	}
}

func TestAVaultNamespaceIsSent(t *testing.T) {
	r := newVaultRoom(t)
	r.UseNamespace("factory/north")
	r.Put("secret/flowviz/app", `{"a": "x"}`)
	item := vaultItem("a", "flowviz/app", "a", 0)
	_, err := refuse(t, newKeeper(t, through(r.approle, item), r.deps))
	mustBeOnly(t, err, secret.ErrDenied) // the login's route doesn't exist outside the namespace
	r.approle.Namespace = "factory/north"
	refresh(t, newKeeper(t, through(r.approle, item), r.deps))
}

func TestVaultOverTLSNeedsItsAuthority(t *testing.T) {
	r := newVaultRoom(t)
	r.Put("secret/flowviz/app", `{"a": "x"}`)
	server := httptest.NewUnstartedServer(r.Server)
	server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError) // it complains of the refused handshake
	server.StartTLS()
	t.Cleanup(server.Close)
	r.approle.Address = config.URL(server.URL)
	item := vaultItem("a", "flowviz/app", "a", 0)

	_, err := refuse(t, newKeeper(t, through(r.approle, item), r.deps))
	mustBeOnly(t, err, secret.ErrUnavailable)
	mustSay(t, err, "unknown authority", "secrets.vault.caFile")

	r.approle.CAFile = filepath.Join(r.dir, "ca.pem")
	writePEM(t, r.approle.CAFile, server.Certificate())
	refresh(t, newKeeper(t, through(r.approle, item), r.deps))

	write(t, r.approle.CAFile, "not a certificate")
	_, err = secret.NewKeeper(through(r.approle, item), r.deps)
	mustSay(t, err, "caFile", "no PEM certificate")
}

func writePEM(t *testing.T, path string, certificate *x509.Certificate) {
	t.Helper()
	write(t, path, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certificate.Raw})))
}

func TestARedirectCarriesNoTokenToAnotherServer(t *testing.T) {
	r := newVaultRoom(t)
	r.Put("secret/flowviz/app", `{"a": "x"}`)
	var (
		mu     sync.Mutex
		stolen []string
	)
	thief := serve(t, http.HandlerFunc(func(_ http.ResponseWriter, q *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		body, _ := io.ReadAll(q.Body)
		stolen = append(stolen, q.Header.Get("X-Vault-Token")+string(body))
	}))
	var redirectTo string // set before each use, by one goroutine
	front := serve(t, http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		if redirectTo != "" && !strings.HasPrefix(q.URL.Path, "/v1/here/") {
			http.Redirect(w, q, redirectTo+q.URL.Path, http.StatusTemporaryRedirect)
			return
		}
		q.URL.Path = strings.Replace(q.URL.Path, "/v1/here/v1/", "/v1/", 1)
		r.ServeHTTP(w, q)
	}))
	r.approle.Address = config.URL(front)
	item := vaultItem("a", "flowviz/app", "a", 0)

	redirectTo = thief
	_, err := refuse(t, newKeeper(t, through(r.approle, item), r.deps)) // the login, whose body holds the secret id
	mustBeOnly(t, err, secret.ErrUnavailable)
	mustSay(t, err, thief, "set secrets.vault.address")

	redirectTo = ""
	k := newKeeper(t, through(r.approle, item), r.deps)
	refresh(t, k)
	redirectTo = thief
	_, err = refuse(t, k) // a read, whose header holds the token
	mustBeOnly(t, err, secret.ErrUnavailable)
	mustHold(t, k, "a", "x")
	if len(stolen) != 0 {
		t.Errorf("another server was sent %q, want nothing", stolen)
	}

	redirectTo = front + "/v1/here"
	refresh(t, k) // on the same server a redirect is followed
	redirectTo = front
	_, err = refuse(t, k)
	mustSay(t, err, "in circles")
}

func TestAVaultThatAnswersNonsenseOrNothingIsUnavailable(t *testing.T) {
	var body string // set before each use, by one goroutine
	url := serve(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, body) }))
	token := filepath.Join(t.TempDir(), "token")
	write(t, token, canary)
	item := vaultItem("a", "flowviz/app", "a", 0)
	k := newKeeper(t, through(config.Vault{Address: config.URL(url), TokenFile: token}, item), secret.Deps{})
	for _, body = range []string{
		"", "<html>" + canary, "{}", `{"data": null}`, `{"data": {"data": null}}`, `{"data": {"data": {"a": "` + canary, `{"data": {"a": "` + canary + `"}}`,
		`{"data": {"data": {"a": "` + strings.Repeat("x", 2<<20) + `"}}}`,
	} {
		_, err := refuse(t, k)
		mustBeOnly(t, err, secret.ErrUnavailable)
		mustHide(t, "error", err.Error())
	}
	for _, address := range []string{"http://" + lab.DeafAddress(t), "http://name.invalid:1"} {
		_, err := refuse(t, newKeeper(t, through(config.Vault{Address: config.URL(address), TokenFile: token}, item), secret.Deps{}))
		mustBeOnly(t, err, secret.ErrUnavailable)
		mustSay(t, err, address)
		mustHide(t, "error", err.Error())
	}
}

func TestAServerThatRepeatsSecretsInItsComplaintsIsNotQuoted(t *testing.T) {
	var refusal int // set before each use, by one goroutine
	url := serve(t, http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		if refusal == 0 {
			_, _ = io.WriteString(w, `{"data": {"data": {"a": "`+canary+`"}, "metadata": {"version": 1}}}`)
			return
		}
		w.WriteHeader(refusal)
		_, _ = io.WriteString(w, `{"errors": ["`+canary+` is not for `+q.Header.Get("X-Vault-Token")+`"]}`)
	}))
	const token = "hvs.the-token-itself"
	file := filepath.Join(t.TempDir(), "token")
	write(t, file, token)
	var log logBuffer
	k := newKeeper(t, through(config.Vault{Address: config.URL(url), TokenFile: file}, vaultItem("a", "flowviz/app", "a", 0)), secret.Deps{Log: log.logger()})
	refresh(t, k)
	for _, refusal = range []int{http.StatusInternalServerError, http.StatusForbidden} {
		_, err := refuse(t, k)
		mustSay(t, err, "[redacted] is not for [redacted]")
		for where, text := range map[string]string{"error": err.Error(), "log": log.String(), "status": statusOf(t, k, "a").Error} {
			mustHide(t, where, text)
			if strings.Contains(text, token) {
				t.Errorf("%s shows the token: %s", where, text)
			}
		}
	}
}

func TestVaultIsLeftAloneWhenItsSecretIDCannotBeRead(t *testing.T) {
	r := newVaultRoom(t)
	if err := os.Remove(r.approle.AppRole.SecretIDFile); err != nil {
		t.Fatal(err)
	}
	_, err := refuse(t, newKeeper(t, through(r.approle, vaultItem("a", "flowviz/app", "a", 0)), r.deps))
	mustBeOnly(t, err, secret.ErrNotFound)
	mustSay(t, err, "Vault secret id", r.approle.AppRole.SecretIDFile)
	if got := r.Logins(); got != 0 {
		t.Errorf("logins: got %d, want none", got)
	}
}

func TestAVaultThatHangsIsUnavailableInTime(t *testing.T) {
	url := serve(t, http.HandlerFunc(func(_ http.ResponseWriter, q *http.Request) { <-q.Context().Done() }))
	token := filepath.Join(t.TempDir(), "token")
	write(t, token, canary)
	k := newKeeper(t, through(config.Vault{Address: config.URL(url), TokenFile: token}, vaultItem("a", "flowviz/app", "a", 0)), secret.Deps{})
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	_, err := k.Refresh(ctx)
	mustBeOnly(t, err, secret.ErrUnavailable)
	mustSay(t, err, url+" gives no answer")
}
