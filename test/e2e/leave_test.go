package e2e

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestADrainThatWasCutOffIsEndedByTheNextAgent(t *testing.T) {
	t.Parallel()
	n := newNode(t, "stories/drained")
	g := n.gateEngine()
	a := n.boot()
	stopping := g.hold(t, "the first stop", request(http.MethodPost, "/containers/[^/]+/stop"))
	asked := make(chan struct{})
	go func() {
		defer close(asked)
		_, _ = n.command("drain", "--reason", "maintenance").CombinedOutput() // it is cut off, too
	}()
	stopping.awaitArrival(a)
	a.kill()
	<-asked
	stopping.release()

	next := n.start()
	next.await("the drain's end", func(e event) bool { return e.Msg == "drain done" && strings.Contains(e.line, "maintenance") })
	for name, c := range n.inspect() {
		if c.Container.State.Running {
			t.Errorf("%s runs, want all stopped", name)
		}
	}
	n.checkEmptyStore()
	if code, body := n.health(); code != 503 || !strings.Contains(body, "maintenance") {
		t.Errorf("/health: got %d %s, want 503 with the reason", code, body)
	}
	if out, stderr, code := n.flowagent("drain"); code != 0 {
		t.Errorf("a drain of the drained node: got %q, %q and code %d, want 0", out, stderr, code)
	}
	if _, err := os.Stat(filepath.Join(n.run(), "leaving.json")); err == nil {
		t.Error("the drain is still noted as cut off")
	}
	next.stop()
	n.boot() // an operator who starts the agent wants the node
	n.checkTidy()
}

func TestACutOffDrainWhoseTimeIsUpStopsAtOnce(t *testing.T) {
	t.Parallel()
	n := newNode(t, "stories/drained")
	n.boot().kill()
	note, err := json.Marshal(map[string]any{"reason": "spot notice", "trigger": "spot", "until": time.Now().Add(-time.Minute)})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(n.run(), "leaving.json"), note, 0o600); err != nil {
		t.Fatal(err)
	}
	next := n.start()
	next.await("the drain's end", func(e event) bool { return e.Msg == "drain done" })
	for name, c := range n.inspect() {
		if c.Container.State.Running {
			t.Errorf("%s runs, want all stopped", name)
		}
	}
	n.checkEmptyStore()
}

func TestADamagedNoteOfADrainIsNotPassedOver(t *testing.T) {
	t.Parallel()
	n := newNode(t, "stories/drained")
	n.boot().stop()
	path := filepath.Join(n.run(), "leaving.json")
	if err := os.WriteFile(path, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	a := n.start()
	if code := a.wait(); code != 1 || !strings.Contains(a.said(), "remove "+path) {
		t.Errorf("got exit code %d and %s, want 1 and what to do", code, a.said())
	}
}

func TestDrainHooksRunAfterTheServicesAndFailAlone(t *testing.T) {
	t.Parallel()
	n := newNode(t, "stories/drained")
	stamp := filepath.Join(n.dir, "stamp")
	n.dropIn("50-hooks.yaml", `drain:
  hooks:
    - {name: broken, argv: [/bin/sh, -c, "echo no route; exit 3"]}
    - {name: hangs, argv: [/bin/sleep, "3600"], timeout: 200ms}
    - {name: ships, argv: [/usr/bin/touch, `+stamp+`]}
`)
	a := n.boot()
	_, stderr, code := n.flowagent("drain")
	if code != 1 || !strings.Contains(stderr, "broken: /bin/sh exits with 3: no route") || !strings.Contains(stderr, "hangs: ") || strings.Contains(stderr, "ships") {
		t.Errorf("got exit code %d and %s, want 1 and the hooks that failed", code, stderr)
	}
	info, err := os.Stat(stamp)
	if err != nil {
		t.Fatalf("the last hook did not run: %v", err)
	}
	for name, c := range n.inspect() {
		ended, err := time.Parse(time.RFC3339Nano, c.Container.State.FinishedAt)
		if err != nil || c.Container.State.Running || ended.After(info.ModTime()) {
			t.Errorf("%s: running %t, ended at %s (%v), want it ended before the hook at %s", name, c.Container.State.Running, ended, err, info.ModTime())
		}
	}
	n.checkEmptyStore()
	a.await("the hook's event", func(e event) bool { return e.Msg == "drain hook done" && strings.Contains(e.line, "ships") })
}

func TestADrainWaitsForTheRequestUnderWayAndNotForAnIdleConnection(t *testing.T) {
	t.Parallel()
	n := newNode(t, "stories/requests")
	host, _, _ := strings.Cut(n.address, ":")
	n.dropIn("50-host.yaml", fmt.Sprintf("workload: {variables: {HOST: %q}}\n", host))
	a := n.boot()
	dial := func() net.Conn {
		t.Helper()
		conn, err := net.Dial("tcp", host+":8080")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		return conn
	}
	dial() // a load balancer's, on which nobody asks
	asking := dial()
	// Its service would be killed a second after it is told to stop, and closes its connections at once.
	if _, err := fmt.Fprintf(asking, "GET /slow/3s HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	drained := make(chan string, 1)
	go func() {
		out, _ := n.command("drain").CombinedOutput()
		drained <- string(out)
	}()
	response, err := http.ReadResponse(bufio.NewReader(asking), nil)
	if err != nil {
		t.Fatalf("the request that was under way: %v", err)
	}
	defer response.Body.Close()
	if body, err := io.ReadAll(response.Body); err != nil || string(body) != "done\n" {
		t.Errorf("the request that was under way: got %q and %v, want its answer", body, err)
	}
	if got := <-drained; got != "drained\n" {
		t.Errorf("flowagent drain: got %q, want drained", got)
	}
	for _, step := range n.status().Drain.Steps {
		if step.Error != "" {
			t.Errorf("%s: %s", step.Name, step.Error)
		}
	}
	if strings.Contains(a.journal.String(), "requests are still under way") {
		t.Error("the idle connection held the drain until its time was up")
	}
}
