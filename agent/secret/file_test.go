package secret_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/flowviz/flowagent/agent/config"
	"github.com/flowviz/flowagent/agent/secret"
)

func TestAFileIsTakenByteForByteAndThroughLinks(t *testing.T) {
	dir := t.TempDir()
	content := "pass\r\nword\x00\xff\n"
	write(t, filepath.Join(dir, "real"), content)
	link := filepath.Join(dir, "link")
	if err := os.Symlink("real", link); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "empty"), "")
	k := newKeeper(t, items(fileItem("a", link, ""), fileItem("empty", filepath.Join(dir, "empty"), "")), secret.Deps{})
	refresh(t, k)
	mustHold(t, k, "a", content)
	mustHold(t, k, "empty", "")
	if v := statusOf(t, k, "a").Version; v != "" {
		t.Errorf("version of a file: got %q, want none", v)
	}
}

func TestAFileThatIsNoneSaysWhatToDo(t *testing.T) {
	dir := t.TempDir()
	large := filepath.Join(dir, "large")
	write(t, large, strings.Repeat("x", 1<<20+1))
	write(t, filepath.Join(dir, "limit"), strings.Repeat("x", 1<<20))
	loop := filepath.Join(dir, "loop")
	if err := os.Symlink("loop", loop); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		path, want string
		kind       error
	}{
		{filepath.Join(dir, "absent"), "create it or correct the path", secret.ErrNotFound},
		{filepath.Join(large, "below"), "correct the path", secret.ErrNotFound},
		{dir, "not a regular file", secret.ErrNotFound},
		{"/dev/null", "not a regular file", secret.ErrNotFound},
		{loop, "correct the path", secret.ErrNotFound},
		{large, "larger than 1048576 bytes", secret.ErrUnavailable},
	} {
		_, err := refuse(t, newKeeper(t, items(fileItem("a", c.path, "")), secret.Deps{}))
		mustSay(t, err, c.path, c.want)
		mustBeOnly(t, err, c.kind)
	}
	refresh(t, newKeeper(t, items(fileItem("a", filepath.Join(dir, "limit"), "")), secret.Deps{}))
}

func TestACredentialComesFromTheUnit(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "db"), `{"password": "x"}`)
	credential := func(name, key string) config.Secret {
		return config.Secret{Name: "c", From: config.Source{Credential: &config.CredentialSource{Name: name, Key: key}}}
	}
	k := newKeeper(t, items(credential("db", "password")), secret.Deps{CredentialsDirectory: dir})
	refresh(t, k)
	mustHold(t, k, "c", "x")
	if got, want := statusOf(t, k, "c").Source, "credential:db#password"; got != want {
		t.Errorf("source: got %q, want %q", got, want)
	}

	_, err := refuse(t, newKeeper(t, items(credential("absent", "")), secret.Deps{CredentialsDirectory: dir}))
	mustSay(t, err, "LoadCredential=absent")
	mustBeOnly(t, err, secret.ErrNotFound)
	_, err = refuse(t, newKeeper(t, items(credential("db", "")), secret.Deps{}))
	mustSay(t, err, "systemd passed no credentials", "LoadCredential=db")
	mustBeOnly(t, err, secret.ErrNotFound)
}
