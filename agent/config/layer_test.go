package config

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func writeFile(t *testing.T, path, data string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(data), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestDropInsAreReadInTheOrderOfTheirNames(t *testing.T) {
	dir := t.TempDir()
	main := filepath.Join(dir, "config.yaml")
	writeFile(t, main, base)
	writeFile(t, filepath.Join(dir, "config.d", "20-site.yaml"), "node: {environment: site}\n")
	writeFile(t, filepath.Join(dir, "config.d", "10-image.yaml"), "node: {environment: image}\n")
	writeFile(t, filepath.Join(dir, "config.d", ".30-site.yaml.swp.yaml"), "junk: [\n")
	writeFile(t, filepath.Join(dir, "config.d", "README"), "not a drop-in\n")

	loaded, err := Load(main)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{main, filepath.Join(dir, "config.d", "10-image.yaml"), filepath.Join(dir, "config.d", "20-site.yaml")}
	if diff := cmp.Diff(want, loaded.Layers); diff != "" {
		t.Errorf("layers (-want +got):\n%s", diff)
	}
	if got := loaded.Config.Node.Environment; got != "site" {
		t.Errorf("environment: got %q, want the later file's", got)
	}
}

func TestAMissingMainFileIsNotFoundAndSaysWhatToDo(t *testing.T) {
	path := filepath.Join(t.TempDir(), "config.yaml")
	_, err := Load(path)
	if !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "flowagent config init --config "+path) {
		t.Errorf("got %v, want fs.ErrNotExist and the command that writes one", err)
	}
}

func TestEveryUnreadableFileIsNamed(t *testing.T) {
	dir := t.TempDir()
	main := filepath.Join(dir, "config.yaml")
	if err := os.Mkdir(main, 0o755); err != nil {
		t.Fatal(err)
	}
	writeFile(t, filepath.Join(dir, "config.d", "10-a.yml"), "node: {}\n")
	writeFile(t, filepath.Join(dir, "config.d", "20-b.json"), "{}\n")
	if err := os.Symlink("nowhere", filepath.Join(dir, "config.d", "30-c.yaml")); err != nil {
		t.Fatal(err)
	}
	pipe := filepath.Join(dir, "config.d", "40-d.yaml")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := Load(main) // must not wait for somebody to write to the pipe
	if err == nil {
		t.Fatal("got no error")
	}
	for _, want := range []string{"config.yaml is not a regular file", "10-a.yml is not read: rename it to end in .yaml", "20-b.json", "30-c.yaml", "40-d.yaml is not a regular file"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want it to mention %q", err, want)
		}
	}
}

func TestAFileOverTheLimitIsRefusedWithoutBeingRead(t *testing.T) {
	path := filepath.Join(t.TempDir(), "config.yaml")
	writeFile(t, path, base+"#"+strings.Repeat("x", 10<<20))
	_, err := Load(path)
	if err == nil || !strings.Contains(err.Error(), "larger than 1048576 bytes") {
		t.Errorf("got %v, want the limit", err)
	}
	l, err := ReadFile(path)
	if err != nil || len(l.Data) != maxLayerSize+1 {
		t.Errorf("read %d bytes, %v; want one more than the limit", len(l.Data), err)
	}
}

func TestALayersPathIsAbsoluteSoThatRelativeOnesInItHaveAStart(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	writeFile(t, "config.yaml", "apiVersion: flowagent/v1\nkind: Node\nworkload: {project: app, files: [compose.yaml, ../up.yaml]}\n")
	loaded, err := Load("config.yaml")
	if err != nil {
		t.Fatal(err)
	}
	want := []string{filepath.Join(dir, "compose.yaml"), filepath.Join(filepath.Dir(dir), "up.yaml")}
	if diff := cmp.Diff(want, loaded.Config.Workload.Files); diff != "" {
		t.Errorf("files (-want +got):\n%s", diff)
	}
}

func TestUserDataIsRecognisedByItsHeader(t *testing.T) {
	for _, c := range []struct {
		name, data string
		want       bool
	}{
		{"block style", "apiVersion: flowagent/v1\nkind: Node\n", true},
		{"the header last", "# a node\n---\nnode: {}\nkind: Node\n\"apiVersion\" : 'flowagent/v1'\n", true},
		{"a byte order mark", "\xef\xbb\xbfapiVersion: flowagent/v1\n", true},
		{"line ends of Windows", "kind: Node\r\napiVersion: flowagent/v1\r\n", true},
		{"JSON", `{"apiVersion": "flowagent/v1", "kind": "Node"}`, true},
		{"indented JSON", "{\n  \"kind\": \"Node\",\n  \"apiVersion\": \"flowagent/v1\"\n}", true},
		{"JSON on one line, the header last", `# x
{"kind": "Node", "apiVersion":"flowagent/v1"}`, true},
		{"on the line of the document's start", "--- {apiVersion: flowagent/v1}\n", true},
		{"further down in another document", "data:\n  apiVersion: flowagent/v1\n", false},
		{"another version, to be refused and not ignored", "apiVersion: flowagent/v9\n", true},
		{"broken further down", "apiVersion: flowagent/v1\nnode: [\n", true},
		{"nothing", "", false},
		{"a script that writes one", "#!/bin/sh\ncat > /etc/flowagent/config.yaml <<EOF\napiVersion: flowagent/v1\nEOF\n", false},
		{"a cloud-config that writes one", "#cloud-config\nwrite_files:\n- content: |\n    apiVersion: flowagent/v1\n", false},
		{"a MIME archive", "MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=x\n\n--x\n\napiVersion: flowagent/v1\n", false},
		{"another program's document", "apiVersion: node.eks.aws/v1alpha1\nkind: NodeConfig\n", false},
		{"compressed", "\x1f\x8b\x08\x00apiVersion", false},
		{"mentioned in a comment", "# apiVersion: flowagent/v1\n", false},
	} {
		if got := IsDocument([]byte(c.data)); got != c.want {
			t.Errorf("%s: got %v, want %v", c.name, got, c.want)
		}
	}
}
