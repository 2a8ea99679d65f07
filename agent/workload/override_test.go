package workload

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/flowviz/flowagent/agent/config"
)

var update = flag.Bool("update", false, "write testdata/*.golden from what is made now")

const digest = "@sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"

func TestOverrideMountsSecretsPinsImagesAndLabels(t *testing.T) {
	for name, test := range map[string]struct {
		compose        string
		pinned, labels map[string]string
	}{
		"nothing": {compose: "services: {a: {image: x}}"},
		"secrets": {compose: `
services:
  api:
    image: api:1
    restart: always
    secrets: [db_password, {source: tls, target: server.key, uid: "1000", gid: "1000", mode: 0440}]
  web: {image: "web:1"}
  worker: {image: "api:1", secrets: [{source: tls, target: /etc/ssl/worker.key}], profiles: [jobs]}
  db: {image: "db:1", secrets: [{source: db_password, target: /run/secrets/x}, {source: tls, target: /etc/ssl/db.key}]}
secrets:
  db_password: {external: true}
  tls: {external: true, name: flowviz-tls}
`},
		"only-outside": {compose: `
services:
  api: {image: "api:1", secrets: [{source: k, target: "/etc/a key$$1"}]}
secrets: {k: {environment: KEY}}
`},
		"pinned-and-labelled": {
			compose: `services: {api: {image: "registry.local:5000/api:1"}, worker: {image: "registry.local:5000/api:1"}, db: {image: db}}`,
			pinned:  map[string]string{"registry.local:5000/api:1": "registry.local:5000/api" + digest, "db": "db"},
			labels:  map[string]string{"api": `v"1$x`},
		},
	} {
		t.Run(name, func(t *testing.T) {
			p := mustLoad(t, test.compose)
			got, err := p.Override(test.pinned, test.labels)
			if err != nil {
				t.Fatal(err)
			}
			golden := filepath.Join("testdata", "override-"+name+".golden")
			if *update {
				if err := os.WriteFile(golden, got, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), string(got)); diff != "" {
				t.Errorf("override (-want +got); -update writes it:\n%s", diff)
			}
		})
	}
}

func TestOverrideRefusesAPinWithoutDigestAndALabelWithoutService(t *testing.T) {
	p := mustLoad(t, "services: {a: {image: x}}")
	_, err := p.Override(map[string]string{"x": "x:1"}, map[string]string{"b": "1"})
	for _, want := range []string{`"x:1", which has no digest`, `"b", which is not an active service`} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got error %v, want %q in it", err, want)
		}
	}
}

func TestWriteOverrideTellsWhetherAnythingChanged(t *testing.T) {
	dir := write(t, map[string]string{"compose.yaml": "services: {a: {image: x}}"})
	run := filepath.Join(dir, "run")
	p, err := Load(t.Context(), config.Workload{Project: "app", Files: []string{filepath.Join(dir, "compose.yaml")}}, run, filepath.Join(run, "secrets"))
	if err != nil {
		t.Fatal(err)
	}
	for i, step := range []struct {
		label string
		want  bool
	}{{"1", true}, {"1", false}, {"2", true}} {
		got, err := p.WriteOverride(nil, map[string]string{"a": step.label})
		if err != nil || got != step.want {
			t.Errorf("write %d: got changed %v and error %v, want %v and none", i, got, err, step.want)
		}
	}
	info, err := os.Stat(filepath.Join(run, "compose.override.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	if got := info.Mode().Perm(); got != 0o600 {
		t.Errorf("got mode %o, want 600", got)
	}
	entries, err := os.ReadDir(run)
	if err != nil || len(entries) != 1 {
		t.Errorf("got %v (%v), want just the override: something half-written is left", entries, err)
	}
}

func TestWriteOverrideKeepsTheOldFileWhenItCannotWrite(t *testing.T) {
	dir := write(t, map[string]string{"compose.yaml": "services: {a: {image: x}}", "run": "a file where a directory belongs"})
	p, err := Load(t.Context(), config.Workload{Project: "app", Files: []string{filepath.Join(dir, "compose.yaml")}}, filepath.Join(dir, "run"), dir)
	if err != nil {
		t.Fatal(err)
	}
	if changed, err := p.WriteOverride(nil, nil); err == nil || changed {
		t.Errorf("got changed %v and error %v, want an error", changed, err)
	}
}
