package e2e

import (
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/moby/moby/client"
	"golang.org/x/sys/unix"
)

func TestADrainStopsServicesInOrderAndWipesTheSecrets(t *testing.T) {
	t.Parallel()
	n := newNode(t, "stories/drained")
	g := n.gateEngine()
	a := n.boot()
	stopping := g.hold(t, "the first stop", request(http.MethodPost, "/containers/[^/]+/stop"))
	drained := make(chan string, 1)
	go func() {
		out, err := n.command("drain", "--reason", "maintenance").CombinedOutput()
		if err != nil {
			out = append(out, err.Error()...)
		}
		drained <- string(out)
	}()
	stopping.awaitArrival(a)
	if code, body := n.health(); code != 503 || !strings.Contains(body, "maintenance") {
		t.Errorf("/health during the drain: got %d %s, want 503 with the reason", code, body)
	}
	if state := n.status().State; state != "draining" {
		t.Errorf("status during the drain: got %s, want draining", state)
	}
	stopping.release()
	if got := <-drained; got != "drained\n" {
		t.Errorf("flowagent drain: got %q, want drained", got)
	}
	var ends []time.Time
	for _, service := range []string{"worker", "api", "database"} {
		state := n.container(service).State
		if state.Running || state.ExitCode != 0 {
			t.Errorf("%s: got running %v with exit code %d, want it ended with 0", service, state.Running, state.ExitCode)
		}
		end, err := time.Parse(time.RFC3339Nano, state.FinishedAt)
		if err != nil {
			t.Fatal(err)
		}
		ends = append(ends, end)
	}
	if !ends[0].Before(ends[1]) || !ends[1].Before(ends[2]) {
		t.Errorf("worker, api and database ended at %v, want that order", ends)
	}
	n.checkEmptyStore()
	if code, _ := n.health(); code != 503 {
		t.Errorf("/health after the drain: got %d, want 503", code)
	}

	// A refresh brings no secret back, and a second drain is none.
	n.rotate("e2e/key", "key-number-two")
	_ = n.refresh() // whether it is refused is not this test's concern
	n.checkEmptyStore()
	if out, stderr, code := n.flowagent("drain"); code != 0 {
		t.Errorf("a second drain: got %q, %q and code %d, want 0", out, stderr, code)
	}
	n.checkEmptyStore()

	a.stop()
	n.checkEmptyStore()
	n.boot()
	n.checkReads("worker", "/run/secrets/key", "key-number-two")
	n.checkTidy()
}

func TestAnAgentThatDrainsOnStopLeavesNothingRunning(t *testing.T) {
	t.Parallel()
	n := newNode(t, "stories/drained")
	a := n.boot("--drain-on-stop")
	a.stop()
	for name, c := range n.inspect() {
		if c.Container.State.Running {
			t.Errorf("%s still runs", name)
		}
	}
	n.checkEmptyStore()
}

// After a reboot the store is an empty directory on a disk, and the engine starts containers before any agent runs. Its
// own start of a container is what it does then.
func TestAfterARebootNoContainerRunsWithoutItsSecrets(t *testing.T) {
	t.Parallel()
	n := newNode(t, "stories/drained")
	n.boot().kill()
	before := n.boxes()
	for name, c := range n.inspect() {
		if policy := c.Container.HostConfig.RestartPolicy.Name; policy != "unless-stopped" {
			t.Errorf("%s: got restart policy %s, want the declared one", name, policy)
		}
		now := 0
		if _, err := n.engine.ContainerStop(t.Context(), c.Container.ID, client.ContainerStopOptions{Timeout: &now}); err != nil {
			t.Fatal(err)
		}
	}
	if err := unix.Unmount(n.store(), 0); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(n.run()); err != nil {
		t.Fatal(err)
	}
	for service, b := range before {
		if _, err := n.engine.ContainerStart(t.Context(), b.ID, client.ContainerStartOptions{}); err == nil {
			t.Errorf("the engine started %s without its secrets", service)
		}
		if _, err := os.Stat(filepath.Join(n.store(), service)); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("the engine made a directory in place of the secrets of %s: %v", service, err)
		}
	}
	n.boot()
	for service := range before {
		n.checkReads(service, "/run/secrets/key", "key-number-one")
	}
	n.checkTidy()
}

// checkEmptyStore fails when the store has anything in it, or is no mount.
func (n *node) checkEmptyStore() {
	n.t.Helper()
	var here, above unix.Stat_t
	if err := errors.Join(unix.Stat(n.store(), &here), unix.Stat(n.run(), &above)); err != nil {
		n.t.Fatal(err)
	}
	if here.Dev == above.Dev {
		n.t.Errorf("%s is no mount", n.store())
	}
	if left := tree(n.t, n.store()); len(left) > 1 { // itself
		n.t.Errorf("the store holds %v, want nothing", left)
	}
}
