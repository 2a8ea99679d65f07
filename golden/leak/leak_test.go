package leak

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"
	"testing"

	"filippo.io/age"
	"golang.org/x/crypto/ssh"
)

// letters are random ones of an alphabet, so that no credential stands in this file.
func letters(alphabet string, n int) string {
	random := make([]byte, n)
	_, _ = rand.Read(random) // never fails
	for i := range random {
		random[i] = alphabet[int(random[i])%len(alphabet)]
	}
	return string(random)
}

const (
	upper = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
	lower = "abcdefghijklmnopqrstuvwxyz"
	digit = "0123456789"
	alnum = upper + lower + digit
)

// planted are credentials of every rule, as programs write them.
func planted(t testing.TB) map[string][]string {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	encode := func(kind string, der []byte) string {
		return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
	}
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	must(err)
	ecKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(err)
	ecDER, err := x509.MarshalECPrivateKey(ecKey)
	must(err)
	_, edKey, err := ed25519.GenerateKey(rand.Reader)
	must(err)
	edDER, err := x509.MarshalPKCS8PrivateKey(edKey)
	must(err)
	sshKey, err := ssh.MarshalPrivateKey(edKey, "builder")
	must(err)
	sshLocked, err := ssh.MarshalPrivateKeyWithPassphrase(edKey, "builder", []byte("a passphrase"))
	must(err)
	account, err := json.Marshal(map[string]string{"private_key": encode("PRIVATE KEY", edDER)})
	must(err)
	identity, err := age.GenerateX25519Identity()
	must(err)
	hybrid, err := age.GenerateHybridIdentity()
	must(err)
	secretKey := letters(alnum+"/+", 40)
	token := base64.RawURLEncoding.EncodeToString
	return map[string][]string{
		"private key": {
			encode("RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(rsaKey)), encode("EC PRIVATE KEY", ecDER), encode("PRIVATE KEY", edDER),
			string(pem.EncodeToMemory(sshKey)), string(pem.EncodeToMemory(sshLocked)), string(account),
			strings.ReplaceAll(encode("PRIVATE KEY", edDER), "\n", "\r\n"),
			"-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,0123\n\n" + letters(alnum, 64),
			"-----BEGIN PGP PRIVATE KEY BLOCK-----\n\n" + letters(alnum, 64),
		},
		"PuTTY private key": {"PuTTY-User-Key-File-3: ssh-ed25519\r\nEncryption: none\r\n"},
		"age identity":      {identity.String(), hybrid.String()},
		"AWS access key id": {
			"AKIA" + letters(upper, 16), "id=ASIA" + letters(upper+"234567", 16) + "\n", "AKIAQWERAKIAIOPQWERT",
			`{"AccessKeyId":"AKIA` + letters(upper, 16) + `","SecretAccessKey":""}`,
		},
		"AWS secret access key": {"aws_secret_access_key = " + secretKey, "AWS_SECRET_ACCESS_KEY=" + secretKey, `"SecretAccessKey": "` + secretKey + `"`},
		"GitHub token":          {"ghp_" + letters(alnum, 36), "github_pat_" + letters(alnum, 82)},
		"GitLab token":          {"glpat-" + letters(alnum, 20)},
		"Slack token":           {"xoxb-" + letters(digit, 12) + "-" + letters(alnum, 24), "xapp-1-" + letters(upper, 10) + "-" + letters(digit, 12) + "-" + letters(alnum, 40)},
		"Slack webhook":         {"https://hooks.slack.com/services/T" + letters(upper, 8) + "/B" + letters(upper, 8) + "/" + letters(alnum, 24)},
		"Vault token":           {"token=hvs." + letters(alnum, 90)},
		"npm token":             {"npm_" + letters(alnum, 36)},
		"PyPI token":            {"pypi-AgEIcHlwaS5vcmc" + letters(alnum, 80)},
		"Docker Hub token":      {"dckr_pat_" + letters(alnum, 27)},
		"Stripe key":            {"sk_live_" + letters(alnum, 24)},
		"Google API key":        {"AIza" + letters(alnum, 35)},
		"JSON web token":        {token([]byte(`{"alg":"HS256","typ":"JWT"}`)) + "." + token([]byte(`{"sub":"somebody or other"}`)) + "." + letters(alnum, 43)},
		"password in a URL":     {"postgresql://wms:hunter2@db.internal/wms", "https://deploy:Correct-Horse@registry.local", "redis://default:password1@cache:6379"},
		"password in cloud-init's data": {
			"users:\n  - name: x\n    plain_text_passwd: hunter2\n", "password: 'hunter2'\n", "    passwd: $6$rounds=4096$x\n",
		},
	}
}

// harmless looks like a credential, and is none.
var harmless = map[string]string{
	"a program's many constants":     "ge%s=%d:%dsk_live_rk_live_avx512cdavx512bwavx512dqavx512vloverflowgo/types",
	"a program's constant":           "-----BEGIN RSA PRIVATE KEY-----\x00-----END RSA PRIVATE KEY-----\x00",
	"a description":                  "the file begins with -----BEGIN PRIVATE KEY----- and goes on with base64",
	"a certificate":                  "-----BEGIN CERTIFICATE-----\nMIIBszCCAVmgAwIBAgIUJ0Zc2q8Q3v5b8m2mJ3p0c1pXk5AwCgYIKoZIzj0EAwIw\n",
	"the prefix of an identity":      "AGE-SECRET-KEY-1...",
	"constants side by side":         "glpat-gldt-glrt-hvs.hvb.npm_xoxb-sk_live_rk_live_ghp_gho_ghu_AKIAASIA",
	"AWS' own example":               "AKIAIOSFODNN7EXAMPLE and aws_secret_access_key = wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
	"letters with AKIA among them":   "QUJDREVGAKIAABCDEFGHIJKLMNOPQRSTUVWXYZ",
	"a variable of that name":        "AWS_SECRET_ACCESS_KEY=${AWS_SECRET_ACCESS_KEY}",
	"a URL's variable":               "postgresql://wms:${DB_PASSWORD}@db/wms",
	"a URL's placeholder":            "https://user:password@example.com",
	"a URL in a program":             "x://\x02\x03a:b\x80\xffcd@e",
	"a URL with a port":              "http://127.0.0.1:8080/mail@example.com",
	"cloud-init's own configuration": "    lock_passwd: true\nssh_pwauth: false\n# passwd: hunter2\n",
}

func search(t testing.TB, s *Scanner, name string, content []byte) []Finding {
	t.Helper()
	var all []Finding
	if err := s.File(t.Context(), name, bytes.NewReader(content), func(f Finding) { all = append(all, f) }); err != nil {
		t.Fatal(err)
	}
	return all
}

func has(findings []Finding, rule string) bool {
	for _, f := range findings {
		if f.Rule == rule {
			return true
		}
	}
	return false
}

func TestEveryRuleFindsItsCredentials(t *testing.T) {
	s := NewScanner()
	credentials := planted(t)
	if set := ruleSet(1) << (len(rules()) - 1); set == 0 {
		t.Fatalf("a set has no bit for the last of %d rules", len(rules()))
	}
	for _, r := range rules() {
		if len(credentials[r.name]) == 0 {
			t.Errorf("no credential is known for the rule %q", r.name)
		}
	}
	for rule, texts := range credentials {
		for i, text := range texts {
			content := []byte("# text before it\n" + text + "\nand after it\n")
			if found := search(t, s, "etc/cloud/settings.yaml", content); !has(found, rule) {
				t.Errorf("%s %d: found %v", rule, i, found)
			}
		}
	}
}

func TestWhatOnlyLooksLikeACredentialIsNone(t *testing.T) {
	s := NewScanner()
	for name, text := range harmless {
		if found := search(t, s, "etc/cloud/settings.yaml", []byte("x "+text+"\n")); len(found) > 0 {
			t.Errorf("%s: found %v", name, found)
		}
	}
}

func TestACredentialIsFoundWhereverItLies(t *testing.T) {
	s := NewScanner()
	for rule, text := range map[string]string{
		"private key":       planted(t)["private key"][2],
		"AWS access key id": " AKIA" + letters(upper, 16) + " ",
	} {
		at := strings.Index(text, "PRIVATE KEY")
		if at < 0 {
			at = strings.Index(text, "AKIA")
		}
		// Around the end of the first window, of what is decided on in it, and of the second; and at both ends of a file.
		for _, edge := range []int{0, window - ahead, window, 2*window - 2*ahead, 2 * window} {
			for _, offset := range []int{edge - len(text), edge - len(text)/2, edge - at - 1, edge - at, edge - 1, edge, edge + 1} {
				if offset < 0 {
					continue
				}
				for _, after := range []int{0, 1, ahead, window} {
					content := bytes.Repeat([]byte("."), offset+len(text)+after)
					copy(content[offset:], text)
					found := search(t, s, "file", content)
					if len(found) != 1 || found[0] != (Finding{Rule: rule, Offset: int64(offset + at)}) {
						t.Fatalf("%s at %d, %d bytes after it: found %v, want one at %d", rule, offset, after, found, offset+at)
					}
				}
			}
		}
	}
}

func TestGzipIsLookedInto(t *testing.T) {
	s := NewScanner()
	key := planted(t)["private key"][0]
	var zipped bytes.Buffer
	w := gzip.NewWriter(&zipped)
	fmt.Fprintf(w, "%s%s", strings.Repeat("text ", window), key)
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if found := search(t, s, "usr/share/backup.gz", zipped.Bytes()); !has(found, "private key") {
		t.Errorf("found %v", found)
	}
	// What only begins like gzip, or ends too soon, is searched as it is.
	if found := search(t, s, "file", append([]byte{0x1f, 0x8b, 8, 0}, key...)); !has(found, "private key") {
		t.Errorf("in something else: found %v", found)
	}
	cut := append(bytes.Clone(zipped.Bytes()[:zipped.Len()/2]), key...)
	if found := search(t, s, "file", cut); !has(found, "private key") {
		t.Errorf("behind half of it: found %v", found)
	}
}

func TestLoginsAreKnownByTheirPath(t *testing.T) {
	s := NewScanner()
	for path, content := range map[string]string{
		"root/.docker/config.json":           `{"auths":{"registry.local":{"auth":"dXNlcjpwYXNz"}}}`,
		"root/.dockercfg":                    `{"r":{"auth":"x"}}`,
		"run/containers/auth.json":           `{"auths":{"r":{"auth":"x"}}}`,
		"home/deploy/.aws/credentials":       "[default]\naws_secret_access_key=x",
		"root/.netrc":                        "machine h login u password p",
		"etc/apt/auth.conf.d/mirror":         "machine h login u password p",
		"root/.git-credentials":              "https://u:p@github.com",
		"root/.config/git/credentials":       "https://u:p@github.com",
		"etc/kubernetes/admin.conf":          "client-key-data: x",
		"etc/wpa_supplicant/wlan0.conf":      "network={\n  psk=x\n}",
		"root/_netrc":                        "machine h login u password p",
		"root/.pgpass":                       "# comment\ndb:5432:*:wms:p",
		"root/.my.cnf":                       "[client]\npassword=p",
		"root/.vault-token":                  "s.x",
		"root/.kube/config":                  "users:\n- user:\n    token: x",
		"home/deploy/.npmrc":                 "//npm.example.com/:_authToken=x",
		"root/.pypirc":                       "[pypi]\npassword: x",
		"root/.azure/accessTokens.json":      "[]",
		"root/.config/gcloud/credentials.db": "x",
		"etc/NetworkManager/system-connections/wifi.nmconnection":                              "[wifi-security]\npsk=x",
		"etc/wireguard/wg0.conf":                                                               "[Interface]\nPrivateKey = x",
		"var/lib/docker/overlay2/4f2a/diff/root/.docker/config.json":                           `{"auths":{"r":{"identitytoken":"x"}}}`,
		"var/lib/docker/overlay2/4f2a/diff/etc/wireguard/wg0.conf":                             "PrivateKey=x",
		"var/lib/containerd/io.containerd.snapshotter.v1.overlayfs/snapshots/7/fs/root/.netrc": "machine h password p",
	} {
		if found := search(t, s, path, []byte(content)); len(found) != 1 {
			t.Errorf("%s: found %v, want one", path, found)
		}
	}
	// Such a file is searched for everything else as well.
	key := planted(t)["private key"][0]
	if found := search(t, s, "root/.netrc", []byte("machine h login u password p\n"+key)); !has(found, "netrc login") || !has(found, "private key") {
		t.Errorf("found %v, want a login and a key", found)
	}
	for path, content := range map[string]string{
		"root/.docker/config.json":            `{"auths":{},"credsStore":"ecr-login"}`,
		"home/deploy/.npmrc":                  "//npm.example.com/:_authToken=${NPM_TOKEN}",
		"root/.aws/config":                    "[default]\nregion = eu-central-1",
		"usr/share/doc/x/netrc":               "machine h password p",
		"etc/flowagent/secrets.age":           "age-encryption.org/v1\n-> X25519 abc\n",
		"root/.pgpass":                        "# host:port:database:user:password\n",
		"usr/lib/python3/dist-packages/x.txt": "postgresql://wms:hunter2@db/wms", // not configuration
		"opt/app/lib/python3.13/site-packages/sqlalchemy/engine/url.txt": "postgresql://scott:tiger@localhost/test",
	} {
		if found := search(t, s, path, []byte(content)); len(found) > 0 {
			t.Errorf("%s: found %v, want none", path, found)
		}
	}
}

func TestTheFirstPlaceOfARuleIsTold(t *testing.T) {
	key := planted(t)["age identity"][0]
	found := search(t, NewScanner(), "file", []byte("12345 "+key+"\n"+key))
	if len(found) != 1 || found[0].Offset != 6 {
		t.Errorf("found %v, want one at 6", found)
	}
}

type broken struct{ *bytes.Reader }

var errBroken = errors.New("the disk is broken")

func (broken) Read([]byte) (int, error) { return 0, errBroken }

func TestWhatCantBeReadIsAnError(t *testing.T) {
	s := NewScanner()
	none := func(f Finding) { t.Errorf("found %v", f) }
	if err := s.File(t.Context(), "file", broken{bytes.NewReader(nil)}, none); !errors.Is(err, errBroken) {
		t.Errorf("got %v, want %v", err, errBroken)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.File(ctx, "file", bytes.NewReader([]byte("x")), none); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want that it was cancelled", err)
	}
	big := bytes.NewReader(make([]byte, maxLogin+1))
	if err := s.File(t.Context(), "root/.netrc", big, none); err == nil {
		t.Error("a login file of a megabyte is no error")
	}
}

// BenchmarkScan says how fast a disk could be searched by one processor: binary data, the words of a text, and beside them
// how fast the same bytes are hashed.
func BenchmarkScan(b *testing.B) {
	random := make([]byte, 16<<20)
	_, _ = rand.Read(random)
	text := bytes.Repeat([]byte("The private part of a key is not in https://example.com/keys, nor AKIN to it; see ghostscript.\n"), 16<<20/96)
	b.Run("sha256", func(b *testing.B) {
		b.SetBytes(int64(len(random)))
		for b.Loop() {
			sha256.Sum256(random)
		}
	})
	for name, content := range map[string][]byte{"binary": random, "text": text} {
		b.Run(name, func(b *testing.B) {
			s := NewScanner()
			b.SetBytes(int64(len(content)))
			for b.Loop() {
				if err := s.File(b.Context(), "usr/file", bytes.NewReader(content), func(Finding) {}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
