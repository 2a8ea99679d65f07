package agent

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/flowviz/flowagent/agent/workload"
)

func TestOwed_GoesToWhatRunsSinceBeforeTheWriteAndWasToldOfAnotherVersion(t *testing.T) {
	written := time.Date(2026, 11, 1, 3, 0, 0, 0, time.UTC)
	service := func(name, status string, started time.Time) workload.ServiceState {
		return workload.ServiceState{Name: name, Containers: []workload.ContainerState{{Status: status, StartedAt: started}}}
	}
	state := workload.State{Services: []workload.ServiceState{
		service("old", "running", written.Add(-time.Hour)),
		service("other", "running", written.Add(-time.Hour)),
		service("new", "running", written.Add(time.Second)),
		service("stopped", "exited", written.Add(-time.Hour)),
		service("first", "running", written.Add(-time.Hour)),
	}}
	told, now := map[call]string{}, map[call]string{}
	for _, s := range state.Services {
		told[call{s.Name, "SIGHUP"}], now[call{s.Name, "SIGHUP"}] = "1", "2"
	}
	told[call{"other", "SIGHUP"}] = "2"   // knows already
	delete(told, call{"first", "SIGHUP"}) // was never told anything: its first boot
	now[call{"gone", "SIGHUP"}] = "2"     // no such service any more
	told[call{"gone", "SIGHUP"}] = "1"
	want := []call{{"old", "SIGHUP"}}
	if diff := cmp.Diff(want, owed(told, now, state, written), cmp.AllowUnexported(call{})); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestCallbook_RemembersAndRefusesADamagedPage(t *testing.T) {
	book := callbook{filepath.Join(t.TempDir(), "signalled.json")}
	if got, err := book.read(); got != nil || err != nil {
		t.Errorf("before anything was written: got %v, %v", got, err)
	}
	want := map[call]string{{"api", "SIGHUP"}: "1", {"worker", "SIGUSR1"}: "2"}
	if err := book.write(want); err != nil {
		t.Fatal(err)
	}
	got, err := book.read()
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(call{})); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if err := os.WriteFile(book.path, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := book.read(); err == nil {
		t.Error("a damaged page was read")
	}
}
