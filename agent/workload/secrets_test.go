package workload

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/flowviz/flowagent/agent/config"
)

func TestSecretsHonourShortAndLongForm(t *testing.T) {
	p := mustLoad(t, `
services:
  api:
    image: x
    secrets:
      - plain
      - {source: renamed, target: server.key, uid: "1000", gid: "2000", mode: 0440}
      - {source: plain, target: /etc/app/key, mode: "0400"}
  idle: {image: x, profiles: [never], secrets: [renamed]}
secrets:
  plain: {external: true}
  renamed: {external: true, name: flowviz.tls}
`)
	want := []SecretUse{
		{Service: "api", Name: "plain", Item: "plain", Target: "/run/secrets/plain", File: "plain", Mode: 0o444},
		{Service: "api", Name: "renamed", Item: "flowviz.tls", Target: "/run/secrets/server.key", File: "server.key", UID: 1000, GID: 2000, Mode: 0o440},
		{Service: "api", Name: "plain", Item: "plain", Target: "/etc/app/key", File: "@%2Fetc%2Fapp%2Fkey", Mode: fs.FileMode(0o400), ForcesRestart: true},
	}
	if diff := cmp.Diff(want, p.Secrets(), cmpopts.IgnoreUnexported(SecretUse{})); diff != "" {
		t.Errorf("secrets (-want +got):\n%s", diff)
	}
}

func TestLocalSecretsAreReadWhereComposeReadsThem(t *testing.T) {
	t.Setenv("ONLY_AGENT", "from the agent")
	t.Setenv("EVERYWHERE", "from the agent")
	dir := write(t, map[string]string{
		"compose.yaml": `
services: {a: {image: x, secrets: [file, variable, dotenv, agent, everywhere]}}
secrets:
  file: {file: ./secret.txt}
  variable: {environment: VARIABLE}
  dotenv: {environment: DOTENV}
  agent: {environment: ONLY_AGENT}
  everywhere: {environment: EVERYWHERE}
`,
		".env":       "DOTENV=from .env\nVARIABLE=from .env\nEVERYWHERE=from .env\n",
		"secret.txt": "from a file\n",
	})
	p, err := loadIn(t, dir, func(w *config.Workload) { w.Variables = map[string]string{"VARIABLE": "from variables"} })
	if err != nil {
		t.Fatal(err)
	}
	got := make(map[string]string)
	for _, use := range p.Secrets() {
		value, err := use.Value()
		if err != nil {
			t.Errorf("%s: %v", use.Name, err)
		}
		got[use.Name] = string(value.Reveal())
	}
	want := map[string]string{"file": "from a file\n", "variable": "from variables", "dotenv": "from .env", "agent": "from the agent", "everywhere": "from .env"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("values (-want +got):\n%s", diff)
	}
	if err := os.WriteFile(filepath.Join(dir, "secret.txt"), []byte("rotated"), 0o600); err != nil {
		t.Fatal(err)
	}
	value, err := p.Secrets()[0].Value()
	if err != nil || string(value.Reveal()) != "rotated" {
		t.Errorf("after the file changed: got %q and error %v", value.Reveal(), err)
	}
}

func TestLocalSecretThatIsNotThereSaysWhatToDo(t *testing.T) {
	p := mustLoad(t, `
services: {a: {image: x, secrets: [file, directory, variable, external]}}
secrets:
  file: {file: ./nope.txt}
  directory: {file: .}
  variable: {environment: WORKLOAD_TEST_UNSET}
  external: {external: true}
`)
	want := map[string]string{
		"file": "nope.txt: no such file or directory: write the file", "directory": "not a regular file",
		"variable": "WORKLOAD_TEST_UNSET is not set", "external": `item "external"`,
	}
	for _, use := range p.Secrets() {
		_, err := use.Value()
		if err == nil || !strings.Contains(err.Error(), want[use.Name]) {
			t.Errorf("%s: got error %v, want %q in it", use.Name, err, want[use.Name])
		}
	}
}

func TestLocalSecretLargerThanAStoreIsRefused(t *testing.T) {
	dir := write(t, map[string]string{
		"compose.yaml": "services: {a: {image: x, secrets: [f]}}\nsecrets: {f: {file: ./big}}\n",
		"big":          strings.Repeat("x", maxLocalSecret+1),
	})
	p, err := loadIn(t, dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.Secrets()[0].Value(); err == nil || !strings.Contains(err.Error(), "larger than") {
		t.Errorf("got error %v, want one about the size", err)
	}
}
