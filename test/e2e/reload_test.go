package e2e

import (
	"bufio"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/flowviz/flowagent/agent/report"
)

const fileCheck = `health:
  checks:
    - {name: stamp, file: {path: @STAMP@}, interval: 200ms}
drain: {budget: 3m}
`

// stamped adds a check of a file, which it makes, and returns the file's path.
func stamped(n *node) string {
	n.t.Helper()
	stamp := filepath.Join(n.dir, "stamp")
	if err := os.WriteFile(stamp, []byte("x"), 0o600); err != nil {
		n.t.Fatal(err)
	}
	n.dropIn("50-checks.yaml", strings.ReplaceAll(fileCheck, "@STAMP@", stamp))
	return stamp
}

func (n *node) checkNames() []string {
	n.t.Helper()
	var names []string
	for _, c := range n.status().Checks {
		names = append(names, c.Name)
	}
	return names
}

func TestAReloadAppliesWhatCanChangeLiveAndNamesTheRest(t *testing.T) {
	t.Parallel()
	n := newNode(t, "stories/plain")
	a := n.boot()
	before := n.boxes()
	stamp := stamped(n)
	n.dropIn("60-more.yaml", "node: {environment: moved}\nworkload: {pull: {parallel: 3}}\nsecrets: {refresh: 1h}\n")
	compose, err := os.ReadFile(filepath.Join(n.etc(), "compose.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	n.write("compose.yaml", strings.Replace(string(compose), "[serve]", "[serve, -ready-after, 1ms]", 1))

	stdout, stderr, code := n.flowagent("reload", "--output", "json")
	if code != 0 {
		t.Fatalf("reload: got exit code %d: %s", code, stderr)
	}
	var got report.Reload
	if err := json.Unmarshal([]byte(stdout), &got); err != nil {
		t.Fatal(err)
	}
	if want := []string{"node.environment", "health.checks[stamp]", "drain.budget"}; !slices.Equal(got.Applied, want) {
		t.Errorf("applied: got %q, want %q", got.Applied, want)
	}
	if want := []string{"secrets.refresh", "workload.pull.parallel", "what the Compose files say"}; !slices.Equal(got.Restart, want) {
		t.Errorf("needs a restart: got %q, want %q", got.Restart, want)
	}
	awaitHealth(t, n, 200, `"stamp"`)
	if status := n.status(); status.Environment != "moved" || !strings.Contains(strings.Join(status.Problems, "\n"), "workload.pull.parallel") {
		t.Errorf("status: got environment %q and problems %q, want moved and a word of what waits for a restart", status.Environment, status.Problems)
	}
	if err := os.Remove(stamp); err != nil {
		t.Fatal(err)
	}
	awaitHealth(t, n, 503, "stamp")
	n.checkUntouched(before)

	// By signal, too; and what was taken out is gone.
	n.dropIn("50-checks.yaml", "")
	a.signal(syscall.SIGHUP)
	a.await("a reload", func(e event) bool {
		return e.Msg == "configuration reloaded" && strings.Contains(e.line, `"applied":["health.checks[stamp]","drain.budget"]`)
	})
	awaitHealth(t, n, 200, `"status":"pass"`)
	if names := n.checkNames(); len(names) > 0 {
		t.Errorf("checks: got %q, want none", names)
	}

	// A restart does the rest, and recreates just the service whose definition changed.
	a.stop()
	n.boot()
	if n.boxes()["web"].ID == before["web"].ID {
		t.Error("the container is the same after a restart, want one of the new definition")
	}
	if problems := n.status().Problems; len(problems) > 0 {
		t.Errorf("after the restart: got problems %q, want none", problems)
	}
}

func TestAReloadOfAWrongConfigurationChangesNothing(t *testing.T) {
	t.Parallel()
	n := newNode(t, "stories/plain")
	stamped(n)
	a := n.boot()
	before := n.boxes()
	for _, c := range []struct{ what, file, content, want string }{
		{"configuration", "config.d/60-more.yaml", "helth: {}\n", "helth: unknown field (did you mean `health`?)"},
		{"drain order", "config.d/60-more.yaml", "drain: {order: [nobody]}\n", `no service "nobody" in the Compose files`},
		{"Compose file", "compose.yaml", "services: {web: {imagine: x}}\n", "imagine"},
	} {
		old, _ := os.ReadFile(filepath.Join(n.etc(), c.file)) // nothing, where there was no file
		n.write(c.file, c.content)
		if _, stderr, code := n.flowagent("reload"); code != 2 || !strings.Contains(stderr, c.want) {
			t.Errorf("%s: got exit code %d and %s, want 2 and %s", c.what, code, stderr, c.want)
		}
		a.signal(syscall.SIGHUP)
		a.await("a refused reload", func(e event) bool {
			return strings.HasPrefix(e.Msg, "configuration not reloaded") && strings.Contains(e.line, c.want[:5])
		})
		n.write(c.file, string(old))
	}
	if names := n.checkNames(); !slices.Equal(names, []string{"stamp"}) {
		t.Errorf("checks: got %q, want the one that was there", names)
	}
	n.checkUntouched(before)
	if stdout, stderr, code := n.flowagent("reload"); code != 0 || stdout != "nothing changed\n" {
		t.Errorf("as it was: got exit code %d, %q and %s; want 0 and nothing changed", code, stdout, stderr)
	}
}

func TestAReloadLeavesChecksThatNeedANewSecretToARestart(t *testing.T) {
	t.Parallel()
	n := newNode(t, "stories/plain")
	stamped(n)
	n.createSecret("e2e/token", "token-number-one")
	a := n.boot()
	n.dropIn("60-more.yaml", `secrets:
  items: [{name: token, from: {secretsManager: {id: e2e/token}}}]
health:
  checks:
    - {name: cache, redis: {address: "127.0.0.1:1", passwordSecret: token}, gate: never}
`)
	stdout, stderr, code := n.flowagent("reload")
	if want := "needs a restart of the agent: secrets.items[token], health.checks[cache]\n"; code != 0 || stdout != want {
		t.Errorf("got exit code %d, %q and %s; want 0 and %q", code, stdout, stderr, want)
	}
	if names := n.checkNames(); !slices.Equal(names, []string{"stamp"}) {
		t.Errorf("checks: got %q, want the old ones only", names)
	}
	a.stop()
	n.boot()
	if names := n.checkNames(); !slices.Equal(names, []string{"cache", "stamp"}) && !slices.Equal(names, []string{"stamp", "cache"}) {
		t.Errorf("checks after a restart: got %q, want both", names)
	}
}

func TestAWatchedStatusFollowsTheNodeAcrossARestart(t *testing.T) {
	t.Parallel()
	n := newNode(t, "stories/plain")
	stamp := stamped(n)
	a := n.boot()
	cmd := n.command("status", "--watch")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = cmd.Process.Kill() }() // it has ended by then unless the test failed
	lines := bufio.NewScanner(out)
	next := func(want string) {
		t.Helper()
		for lines.Scan() {
			if strings.Contains(lines.Text(), want) {
				return
			}
		}
		t.Fatalf("the watch ended without a line with %q: %v", want, lines.Err())
	}
	next("ready in ")
	if err := os.Remove(stamp); err != nil {
		t.Fatal(err)
	}
	next("failing: stamp")
	a.stop()
	next("no agent answers")
	if err := os.WriteFile(stamp, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	n.boot()
	next("ready in ")
	if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("after Ctrl-C: got %v, want exit code 0", err)
	}
}
