package secret_test

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"filippo.io/age"
	"filippo.io/age/armor"

	"github.com/flowviz/flowagent/agent/config"
	"github.com/flowviz/flowagent/agent/secret"
)

const ageDocument = `# secrets of the factory
registry: &registry
  password: "` + canary + `"
  user: puller
database:
  <<: *registry
  user: app
  pin: 0042
  port: 5432
  ratio: 1.50
  mask: 0x1F
  large: 123456789012345678901234567890
  enabled: True
  plain: true
  since: 2026-11-01
  nothing: ~
  quoted: '007'
  html: {x: "<&>", y: [1.0, 0o17]}
  text: |
    two
    lines
list: [a, {b: *registry}]
`

// sealed writes an age file and returns its path.
func sealed(t *testing.T, path, content string, armored bool, to ...age.Recipient) string {
	t.Helper()
	var out bytes.Buffer
	var target io.Writer = &out
	var shell io.WriteCloser
	if armored {
		shell = armor.NewWriter(&out)
		target = shell
	}
	w, err := age.Encrypt(target, to...)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(w, content); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if shell != nil {
		if err := shell.Close(); err != nil {
			t.Fatal(err)
		}
	}
	write(t, path, out.String())
	return path
}

func newIdentity(t *testing.T) *age.X25519Identity {
	t.Helper()
	identity, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	return identity
}

func ageItem(name, path, key string) config.Secret {
	return config.Secret{Name: name, From: config.Source{Age: &config.AgeSource{File: path, Key: key}}}
}

func TestAnAgeFileIsReadBinaryAndArmored(t *testing.T) {
	dir := t.TempDir()
	identity := newIdentity(t)
	keyFile := filepath.Join(dir, "age.key")
	write(t, keyFile, "# created: today\r\n# public key: "+identity.Recipient().String()+"\r\n"+identity.String()+"\r\n")
	binary := sealed(t, filepath.Join(dir, "binary.age"), ageDocument, false, newIdentity(t).Recipient(), identity.Recipient())
	armored := sealed(t, filepath.Join(dir, "armored.age"), ageDocument, true, identity.Recipient())

	want := map[string]string{
		"database.password": canary,
		"database.user":     "app",
		"database.pin":      "0042",
		"database.port":     "5432",
		"database.ratio":    "1.50",
		"database.mask":     "0x1F",
		"database.large":    "123456789012345678901234567890",
		"database.enabled":  "True",
		"database.plain":    "true",
		"database.since":    "2026-11-01",
		"database.quoted":   "007",
		"database.html":     `{"x":"<&>","y":[1.0,"0o17"]}`,
		"database.text":     "two\nlines\n",
		"list.0":            "a",
		"list.1.b.user":     "puller",
		"":                  ageDocument,
	}
	cfg := config.Secrets{Age: config.AgeIdentity{IdentityFile: keyFile}}
	for key := range want {
		cfg.Items = append(cfg.Items, ageItem("binary."+key, binary, key), ageItem("armored."+key, armored, key))
	}
	k := newKeeper(t, cfg, secret.Deps{})
	refresh(t, k)
	for key, value := range want {
		mustHold(t, k, "binary."+key, value)
		mustHold(t, k, "armored."+key, value)
	}
}

func TestAnAgeFileMayHoldJSON(t *testing.T) {
	dir := t.TempDir()
	identity := newIdentity(t)
	write(t, filepath.Join(dir, "age.key"), identity.String())
	path := sealed(t, filepath.Join(dir, "s.age"), `{"n": 1e400, "tab":	"a\tb"}`, false, identity.Recipient())
	k := newKeeper(t, config.Secrets{
		Age:   config.AgeIdentity{IdentityFile: filepath.Join(dir, "age.key")},
		Items: []config.Secret{ageItem("n", path, "n"), ageItem("tab", path, "tab")},
	}, secret.Deps{})
	refresh(t, k)
	mustHold(t, k, "n", "1e400")
	mustHold(t, k, "tab", "a\tb")
}

func TestTheAgeIdentityMayBeACredentialAndPostQuantum(t *testing.T) {
	dir := t.TempDir()
	identity, err := age.GenerateHybridIdentity()
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "age-key"), identity.String()+"\n")
	path := sealed(t, filepath.Join(dir, "s.age"), "a: b", true, identity.Recipient())
	cfg := config.Secrets{Age: config.AgeIdentity{IdentityCredential: "age-key"}, Items: []config.Secret{ageItem("a", path, "a")}}
	k := newKeeper(t, cfg, secret.Deps{CredentialsDirectory: dir})
	refresh(t, k)
	mustHold(t, k, "a", "b")

	_, err = refuse(t, newKeeper(t, cfg, secret.Deps{}))
	mustSay(t, err, "age identity", "LoadCredential=age-key")
	mustBeOnly(t, err, secret.ErrNotFound)
}

func TestAnIdentityThatOthersCanReadIsRefused(t *testing.T) {
	dir := t.TempDir()
	identity := newIdentity(t)
	keyFile := filepath.Join(dir, "age.key")
	write(t, keyFile, identity.String())
	path := sealed(t, filepath.Join(dir, "s.age"), "a: b", false, identity.Recipient())
	cfg := config.Secrets{Age: config.AgeIdentity{IdentityFile: keyFile}, Items: []config.Secret{ageItem("a", path, "a")}}
	for _, mode := range []os.FileMode{0o640, 0o604, 0o620, 0o644} {
		if err := os.Chmod(keyFile, mode); err != nil {
			t.Fatal(err)
		}
		_, err := refuse(t, newKeeper(t, cfg, secret.Deps{}))
		mustSay(t, err, "chmod 600 "+keyFile)
		mustBeOnly(t, err, secret.ErrDenied)
	}
	if err := os.Chmod(keyFile, 0o400); err != nil {
		t.Fatal(err)
	}
	refresh(t, newKeeper(t, cfg, secret.Deps{}))
}

func TestADamagedAgeFileOrDocumentKeepsTheOldValueAndShowsNothing(t *testing.T) {
	dir := t.TempDir()
	identity := newIdentity(t)
	keyFile := filepath.Join(dir, "age.key")
	write(t, keyFile, identity.String())
	path := filepath.Join(dir, "s.age")
	seal := func(content string) string {
		sealed(t, path, content, false, identity.Recipient())
		encrypted, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return string(encrypted)
	}
	good := "password: " + canary + "\n"
	whole := seal(good)
	for name, c := range map[string]struct {
		content string
		want    string
		kind    error
	}{
		"cut in the header": {whole[:40], "not a whole age file", secret.ErrUnavailable},
		"cut in the body":   {whole[:len(whole)-5], "cut off or was changed", secret.ErrUnavailable},
		"changed":           {whole[:len(whole)-1] + string([]byte{whole[len(whole)-1] ^ 1}), "cut off or was changed", secret.ErrUnavailable},
		"not encrypted":     {good, "not a whole age file", secret.ErrUnavailable},
		"empty file":        {"", "not a whole age file", secret.ErrUnavailable},
		"broken armor":      {armor.Header + "\n" + canary, "not a whole age file", secret.ErrUnavailable},
		"empty document":    {seal(""), "is empty", secret.ErrUnavailable},
		"neither":           {seal("password: \"" + canary), "damaged at line 1", secret.ErrUnavailable},
		"bad alias":         {seal("a: b\npassword: *" + canary), "damaged at line 2", secret.ErrUnavailable},
		"binary":            {seal("\x00\xff" + canary), "neither YAML nor JSON", secret.ErrUnavailable},
		"key twice":         {seal("password: " + canary + "\npassword: b"), `"password" twice`, secret.ErrUnavailable},
		"two documents":     {seal("password: " + canary + "\n---\npassword: b"), "more than one", secret.ErrUnavailable},
		"second damaged":    {seal("password: " + canary + "\n---\npassword: \""), "damaged at line", secret.ErrUnavailable},
		"key not text":      {seal("? [" + canary + "]\n: b"), "not plain text", secret.ErrUnavailable},
		"merge of text":     {seal("<<: " + canary), "merges", secret.ErrUnavailable},
		"endless alias":     {seal("password: &a [*a]"), "nests or repeats", secret.ErrUnavailable},
		"endless merge":     {seal("password: &a {<<: *a}"), "nests or repeats", secret.ErrUnavailable},
		"deep":              {seal(strings.Repeat("[", 500) + "x" + strings.Repeat("]", 500)), "nests or repeats", secret.ErrUnavailable},
		"very deep":         {seal(strings.Repeat("- ", 400_000)), "damaged", secret.ErrUnavailable},
		"many laughs":       {seal(laughs("[*l%d, *l%d, *l%d, *l%d, *l%d, *l%d, *l%d, *l%d, *l%d, *l%d]")), "nests or repeats", secret.ErrUnavailable},
		"many merges":       {seal(laughs("{<<: [*l%d, *l%d, *l%d, *l%d, *l%d, *l%d, *l%d, *l%d, *l%d, *l%d]}")), "nests or repeats", secret.ErrUnavailable},
		"long laughs":       {seal("password: &p " + strings.Repeat("x", 500_000) + "\nb: [*p, *p, *p, *p, *p, *p, *p, *p, *p, *p]"), "nests or repeats", secret.ErrUnavailable},
		"key gone":          {seal("user: " + canary), `has no key "password", it has "user"`, secret.ErrNotFound},
		"null":              {seal("password:"), "null", secret.ErrNotFound},
	} {
		t.Run(name, func(t *testing.T) {
			seal(good)
			k := newKeeper(t, config.Secrets{Age: config.AgeIdentity{IdentityFile: keyFile}, Items: []config.Secret{ageItem("password", path, "password")}}, secret.Deps{})
			refresh(t, k)
			write(t, path, c.content)
			_, err := refuse(t, k)
			mustSay(t, err, "secret password from age:"+path, c.want)
			mustBeOnly(t, err, c.kind)
			mustHide(t, "error", err.Error())
			if c.kind == secret.ErrUnavailable {
				mustHold(t, k, "password", canary)
			} else {
				mustLack(t, k, "password")
			}
		})
	}
}

// laughs writes a document whose aliases multiply by ten on each of nine levels.
func laughs(level string) string {
	var b strings.Builder
	b.WriteString("l0: &l0 {a: b}\n")
	for i := 1; i < 10; i++ {
		n, before := string(rune('0'+i)), string(rune('0'+i-1))
		b.WriteString("l" + n + ": &l" + n + " " + strings.ReplaceAll(level, "%d", before) + "\n")
	}
	return b.String()
}

func TestTheWrongIdentityIsADenialThatShowsNoKey(t *testing.T) {
	dir := t.TempDir()
	identity, stranger := newIdentity(t), newIdentity(t)
	keyFile := filepath.Join(dir, "age.key")
	path := sealed(t, filepath.Join(dir, "s.age"), "a: b", false, identity.Recipient())
	secretPart := stranger.String()[len("AGE-SECRET-KEY-1"):][:20]
	for name, c := range map[string]struct{ content, want string }{
		"another's":  {stranger.String(), "not encrypted for this node's identity"},
		"cut off":    {stranger.String()[:40], "no usable age identity"},
		"public key": {identity.Recipient().String(), "no usable age identity"},
		"empty":      {"", "no usable age identity"},
		"garbage":    {"# fine\nAGE-SECRET-KEY-1" + secretPart + "\x01\n", "no usable age identity"},
	} {
		t.Run(name, func(t *testing.T) {
			write(t, keyFile, c.content)
			_, err := refuse(t, newKeeper(t, config.Secrets{Age: config.AgeIdentity{IdentityFile: keyFile}, Items: []config.Secret{ageItem("a", path, "a")}}, secret.Deps{}))
			mustSay(t, err, c.want)
			mustBeOnly(t, err, secret.ErrDenied)
			if strings.Contains(err.Error(), secretPart) {
				t.Errorf("the error shows the key: %v", err)
			}
		})
	}
}
