package e2e

import (
	"fmt"
	"net"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/flowviz/flowagent/test/lab"
)

// checkDatabase adds a check of a real PostgreSQL server to the node's configuration.
func checkDatabase(n *node, port int, extra string) {
	n.dropIn("50-checks.yaml", fmt.Sprintf(`health:
  checks:
    - {name: database, scope: shared, postgres: {host: 127.0.0.1, port: %d}, interval: 1s, timeout: 500ms%s}
`, port, extra))
}

func awaitHealth(t *testing.T, n *node, wantCode int, wantText string) {
	t.Helper()
	eventually(t, fmt.Sprintf("/health %d with %s", wantCode, wantText), func() bool {
		code, body := n.health()
		return code == wantCode && strings.Contains(body, wantText)
	})
}

func TestADatabaseThatGoesAwayIsAWarningOnANodeThatServes(t *testing.T) {
	t.Parallel()
	database := lab.Postgres(t, lab.PostgresConfig{})
	n := newNode(t, "stories/plain")
	checkDatabase(n, database.Port, "")
	a := n.boot()
	awaitHealth(t, n, 200, `"status":"pass"`)

	database.Signal(syscall.SIGSTOP) // takes connections and never answers
	t.Cleanup(func() { database.Signal(syscall.SIGCONT) })
	awaitHealth(t, n, 200, `"status":"warn"`)
	if stdout, _, code := n.flowagent("status"); code != 0 || !strings.Contains(stdout, "database") {
		t.Errorf("status: got code %d and no word of the check in:\n%s", code, stdout)
	}

	// A new agent on this node must not take it out either: it was admitted.
	before := n.boxes()
	a.stop()
	n.boot()
	awaitHealth(t, n, 200, `"status":"warn"`)
	n.checkUntouched(before)

	database.Signal(syscall.SIGCONT)
	awaitHealth(t, n, 200, `"status":"pass"`)
}

func TestADatabaseThatGatesTakesTheNodeOutAndBringsItBack(t *testing.T) {
	t.Parallel()
	database := lab.Postgres(t, lab.PostgresConfig{})
	n := newNode(t, "stories/plain")
	checkDatabase(n, database.Port, ", gate: always")
	n.boot()
	database.Signal(syscall.SIGSTOP)
	t.Cleanup(func() { database.Signal(syscall.SIGCONT) })
	awaitHealth(t, n, 503, `"status":"fail"`)
	if state := n.status().State; state != "failing" {
		t.Errorf("status: got %s, want failing", state)
	}
	database.Signal(syscall.SIGCONT)
	awaitHealth(t, n, 200, `"status":"pass"`)
}

func TestANewNodeThatCannotReachTheDatabaseIsNeverReadyUntilItCan(t *testing.T) {
	t.Parallel()
	listener, err := net.Listen("tcp", "127.0.0.1:0") // a port that nobody else takes, and that never speaks
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	_, text, _ := net.SplitHostPort(listener.Addr().String())
	port, err := strconv.Atoi(text)
	if err != nil {
		t.Fatal(err)
	}
	n := newNode(t, "stories/plain")
	checkDatabase(n, port, "")
	a := n.start()
	eventually(t, "a failed probe", func() bool {
		client := n.ask()
		status, err := client.Status(t.Context())
		return err == nil && len(status.Checks) == 1 && status.Checks[0].Failed >= 3
	})
	if code, body := n.health(); code != 503 || !strings.Contains(body, "database") {
		t.Errorf("/health: got %d %s, want 503 that names the check", code, body)
	}
	// What an operator does meanwhile still works.
	if err := n.refresh(); err != nil {
		t.Errorf("a refresh on a node that waits: %v", err)
	}

	// The database moves to where it can be reached.
	database := lab.Postgres(t, lab.PostgresConfig{})
	a.stop()
	checkDatabase(n, database.Port, "")
	n.boot()
	awaitHealth(t, n, 200, `"status":"pass"`)
	n.checkTidy()
}

func TestMetricsTellOfTheNodeAndNoSecret(t *testing.T) {
	t.Parallel()
	n := newNode(t, "stories/plain")
	n.boot()
	code, body := n.get("/metrics")
	if code != 200 {
		t.Fatalf("/metrics: got %d %s", code, body)
	}
	for _, line := range []string{
		`flowagent_node_ready 1`,
		`flowagent_secret_state{secret="key",state="fresh"} 1`,
		`flowagent_secret_refreshes_total{result="failed"} 0`,
		`flowagent_boot_stage_failed{stage="workload"} 0`,
	} {
		if !strings.Contains(body, line+"\n") {
			t.Errorf("/metrics has no %s in:\n%s", line, body)
		}
	}
	if strings.Contains(body, "key-number-one") {
		t.Error("/metrics shows a secret")
	}
}
