package e2e

import (
	"encoding/json"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/flowviz/flowagent/agent/report"
)

func TestANodeBootsFromItsConfiguration(t *testing.T) {
	for _, dir := range cases(t, "boots") {
		t.Run(filepath.Base(dir), func(t *testing.T) {
			t.Parallel()
			n := newNode(t, dir)
			want := n.scene.Ready
			if want == nil {
				t.Fatalf("%s/case.yaml has no field ready", dir)
			}
			a := n.start()
			checkStatus(t, a.awaitReady(), want)
			for service, files := range want.Files {
				for path, content := range files {
					n.checkReads(service, path, content)
				}
			}
			for service, files := range want.Modes {
				for path, mode := range files {
					got, err := n.inside(service, "stat", path)
					if got = strings.TrimSuffix(strings.TrimSpace(got), " "+path); err != nil || got != mode {
						t.Errorf("%s in %s: got mode %q and %v, want %q", path, service, got, err, mode)
					}
				}
			}
			if code, body := n.health(); code != 200 || !strings.Contains(body, `"status":"pass"`) {
				t.Errorf("/health: got %d %s, want 200 and pass", code, body)
			}
			checkRecord(t, n)
			a.stop()
		})
	}
}

// checkStatus compares the parts of a status that a case has an opinion on.
func checkStatus(t *testing.T, got report.Status, want *readiness) {
	t.Helper()
	if string(got.Node.Provider) != want.Provider || got.Environment != want.Environment {
		t.Errorf("got provider %q and environment %q, want %q and %q", got.Node.Provider, got.Environment, want.Provider, want.Environment)
	}
	services := map[string]string{}
	for _, s := range got.Workload.Services {
		services[s.Name] = string(s.Phase)
	}
	if diff := cmp.Diff(want.Services, services); diff != "" {
		t.Errorf("services (-want +got):\n%s", diff)
	}
	secrets := map[string]string{}
	for _, s := range got.Secrets {
		secrets[s.Name] = string(s.State)
		if s.FetchedAt.IsZero() || s.Error != "" {
			t.Errorf("secret %s: got fetched at %v and error %q, want a time and none", s.Name, s.FetchedAt, s.Error)
		}
	}
	if len(want.Secrets) > 0 || len(secrets) > 0 {
		if diff := cmp.Diff(want.Secrets, secrets); diff != "" {
			t.Errorf("secrets (-want +got):\n%s", diff)
		}
	}
	stages := map[string]bool{}
	for _, s := range got.Stages {
		stages[s.Name] = true
		if s.Error != "" || s.Ended.IsZero() {
			t.Errorf("stage %s: got ended at %v with error %q, want it done", s.Name, s.Ended, s.Error)
		}
	}
	for _, name := range []string{"node", "project", "engine", "secrets", "images", "workload"} {
		if !stages[name] {
			t.Errorf("the status has no stage %s", name)
		}
	}
}

// checkRecord looks at what is left of the boot for after a reboot.
func checkRecord(t *testing.T, n *node) {
	t.Helper()
	record, err := report.ReadRecord(n.record())
	if err != nil {
		t.Fatal(err)
	}
	if record.Ready.IsZero() || record.Error != "" || record.Starts < 1 {
		shown, _ := json.Marshal(record) // a record always encodes
		t.Errorf("boot.json: got %s, want a ready boot", shown)
	}
}
