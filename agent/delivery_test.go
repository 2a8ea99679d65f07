package agent

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/flowviz/flowagent/agent/config"
	"github.com/flowviz/flowagent/agent/secret"
	"github.com/flowviz/flowagent/agent/workload"
	"github.com/flowviz/flowagent/test/lab"
)

const composeFile = `
services:
  api:
    image: example/api
    secrets: [db, session]
  worker:
    image: example/worker
    secrets: [{source: db, target: db_password, uid: "1000", mode: 0400}]
  edge:
    image: example/edge
    secrets: [{source: certificate, target: /etc/edge/tls.pem}]
secrets:
  db: {external: true}
  session: {external: true}
  certificate: {file: ./tls.pem}
`

// site is a project whose secrets can be changed.
type site struct {
	*delivery
	dir      string
	password map[string]string
}

func newSite(t *testing.T, items ...config.Secret) *site {
	t.Helper()
	lab.Root(t)
	dir := t.TempDir()
	s := &site{dir: dir, password: map[string]string{"db": "db-1", "session": "session-1"}}
	s.write(t, "compose.yaml", composeFile)
	s.write(t, "tls.pem", "certificate-1")
	storeDir := filepath.Join(dir, "secrets")
	project, err := workload.Load(t.Context(), config.Workload{Project: "shop", Files: []string{filepath.Join(dir, "compose.yaml")}}, dir, storeDir)
	if err != nil {
		t.Fatal(err)
	}
	store, err := secret.OpenStore(storeDir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := store.Close(); err != nil {
			t.Error(err)
		}
		if err := unix.Unmount(storeDir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	fingerprints, err := secret.OpenFingerprinter(filepath.Join(dir, "key"))
	if err != nil {
		t.Fatal(err)
	}
	s.delivery = newDelivery(config.Secrets{Items: items}, project, nil, store, fingerprints)
	s.values = func(item string) (secret.Value, bool) {
		value, found := s.password[item]
		return secret.NewValue([]byte(value)), found
	}
	return s
}

func (s *site) write(t *testing.T, name, content string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(s.dir, name), []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

// deliver writes and returns what it did as service/file.
func (s *site) deliver(t *testing.T) (changed []string, uses []workload.SecretUse) {
	t.Helper()
	uses, err := s.delivery.write()
	if err != nil {
		t.Fatal(err)
	}
	for _, use := range uses {
		changed = append(changed, use.Service+"/"+use.Name)
	}
	return changed, uses
}

func (s *site) content(t *testing.T, service, file string) string {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(s.store.Path(service), file))
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}

func restarting(name string) config.Secret {
	return config.Secret{Name: name, OnChange: config.OnChange{Restart: true}}
}

func signalling(name, signal string) config.Secret {
	return config.Secret{Name: name, OnChange: config.OnChange{Signal: signal}}
}

func TestDelivery_WritesEachServiceItsOwnSecretsAndThenOnlyWhatChanged(t *testing.T) {
	s := newSite(t)
	changed, _ := s.deliver(t)
	if diff := cmp.Diff([]string{"api/db", "api/session", "edge/certificate", "worker/db"}, changed); diff != "" {
		t.Errorf("first delivery (-want +got):\n%s", diff)
	}
	if got := s.content(t, "worker", "db_password"); got != "db-1" {
		t.Errorf("worker's file: got %q, want db-1", got)
	}
	if _, err := os.Stat(filepath.Join(s.store.Path("worker"), "session")); err == nil {
		t.Error("worker can read a secret that only api declares")
	}
	if changed, _ := s.deliver(t); changed != nil {
		t.Errorf("nothing changed: got %v", changed)
	}
	s.password["session"] = "session-2"
	if changed, _ := s.deliver(t); !cmp.Equal(changed, []string{"api/session"}) {
		t.Errorf("one value changed: got %v", changed)
	}
}

func TestDelivery_RecreatesOnlyServicesWhoseSecretAsksForIt(t *testing.T) {
	s := newSite(t, restarting("session"))
	s.deliver(t)
	before := s.labels()
	if before["api"] == "" || before["worker"] != "" || before["edge"] == "" {
		t.Errorf("labels: got %v, want them for api (restart) and edge (single file) alone", before)
	}

	s.password["db"] = "db-2"
	_, uses := s.deliver(t)
	if restart := s.recreations(uses); restart != nil {
		t.Errorf("a secret with onChange none recreates %v", restart)
	}
	if diff := cmp.Diff(before, s.labels()); diff != "" {
		t.Errorf("it changed labels (-want +got):\n%s", diff)
	}

	s.password["session"] = "session-2"
	_, uses = s.deliver(t)
	if restart := s.recreations(uses); !cmp.Equal(restart, []string{"api"}) {
		t.Errorf("a secret with onChange restart: got %v, want api", restart)
	}
	after := s.labels()
	if after["api"] == before["api"] || after["edge"] != before["edge"] {
		t.Errorf("labels: got %v after %v, want only api's changed", after, before)
	}
}

func TestDelivery_ATargetOutsideRunSecretsForcesARecreate(t *testing.T) {
	s := newSite(t)
	s.deliver(t)
	s.write(t, "tls.pem", "certificate-2")
	_, uses := s.deliver(t)
	if restart := s.recreations(uses); !cmp.Equal(restart, []string{"edge"}) {
		t.Errorf("got %v, want edge", restart)
	}
}

func TestDelivery_ACallsVersionFollowsItsSecretsAlone(t *testing.T) {
	s := newSite(t, signalling("db", "SIGHUP"), restarting("session"))
	api, worker := call{"api", "SIGHUP"}, call{"worker", "SIGHUP"}
	before := s.versions()
	if len(before) != 2 || before[api] == "" || before[worker] == "" {
		t.Fatalf("got %v, want a version for api and worker", before)
	}
	s.password["session"] = "session-2"
	if diff := cmp.Diff(before, s.versions(), cmp.AllowUnexported(call{})); diff != "" {
		t.Errorf("another secret changed (-want +got):\n%s", diff)
	}
	s.password["db"] = "db-2"
	after := s.versions()
	if after[api] == before[api] || after[worker] == before[worker] {
		t.Errorf("their secret changed: got %v after %v", after, before)
	}
	delete(s.password, "db")
	if got := s.versions(); len(got) != 0 {
		t.Errorf("their secret was withdrawn: got %v, want nothing to tell", got)
	}
}

func TestDelivery_AWithdrawnSecretGoesAndNobodyIsRecreatedForIt(t *testing.T) {
	s := newSite(t, restarting("session"))
	s.deliver(t)
	delete(s.password, "session")
	changed, uses := s.deliver(t)
	if !cmp.Equal(changed, []string{"api/session"}) {
		t.Errorf("got %v, want api/session", changed)
	}
	if _, err := os.Stat(filepath.Join(s.store.Path("api"), "session")); !os.IsNotExist(err) {
		t.Errorf("the file is still there: %v", err)
	}
	if restart := s.recreations(uses); restart != nil {
		t.Errorf("recreated without the secret: %v", restart)
	}
}

func TestDelivery_PrunesWhatBelongsToNoService(t *testing.T) {
	s := newSite(t)
	s.deliver(t)
	if _, err := s.store.Apply("left", []secret.File{{Name: "token", Value: secret.NewValue([]byte("old"))}}); err != nil {
		t.Fatal(err)
	}
	if err := s.prune(); err != nil {
		t.Fatal(err)
	}
	got, err := s.store.Services()
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"api", "edge", "worker"}, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestDelivery_AServiceWhoseSecretCannotBeReadKeepsWhatItHas(t *testing.T) {
	s := newSite(t)
	s.deliver(t)
	if err := os.Remove(filepath.Join(s.dir, "tls.pem")); err != nil {
		t.Fatal(err)
	}
	s.password["db"] = "db-2"
	uses, err := s.delivery.write()
	if err == nil {
		t.Error("no error for a file that is gone")
	}
	var entries []os.DirEntry
	entries, readErr := os.ReadDir(s.store.Path("edge"))
	if readErr != nil || len(entries) == 0 {
		t.Errorf("edge lost its secret: %v, %v", entries, readErr)
	}
	if len(uses) != 2 {
		t.Errorf("the others' changes: got %d, want api's and worker's", len(uses))
	}
}
