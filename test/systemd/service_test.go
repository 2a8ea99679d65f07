package systemd

import (
	"context"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

func TestTheServiceStartsTheNodeInItsSandbox(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.Run(t, "systemd-analyze", "verify", "/usr/lib/systemd/system/"+service, "/usr/lib/systemd/system/flowagent.socket", "/usr/lib/systemd/system/flowagent-secrets.service")
	n.start()
	n.Run(t, "systemd-analyze", "security", "--threshold=30", service) // exits with 1 above an exposure of 3.0
	n.eventually("four checks up in /health", func() bool {
		code, body, err := n.get("/health?verbose")
		return err == nil && code == 200 && strings.Count(body, "[+]") == 4
	})
	n.eventually("ready in the status of systemctl", func() bool { return n.property("StatusText") == "ready" })

	// Where the engine, outside the sandbox, sees them; on memory; with the owner that the Compose file names.
	if got, want := n.mode("/run/flowagent/secrets/web/key"), "400 10001:10001"; got != want {
		t.Errorf("the secret's file: got %s, want %s", got, want)
	}
	if got := strings.TrimSpace(n.Run(t, "findmnt", "--noheadings", "--output=FSTYPE", "/run/flowagent/secrets")); got != "tmpfs" {
		t.Errorf("secrets are on %q, want tmpfs", got)
	}
	// Root has no right of its own to read what only another user may.
	if _, _, code := n.Try(t, "setpriv", "--reuid=10002", "--regid=10002", "--clear-groups", "cat", "/run/flowagent/secrets/web/key"); code == 0 {
		t.Error("another user can read the secret")
	}

	// Members of the group may ask; nobody else.
	group := strings.Split(n.Run(t, "getent", "group", "flowagent"), ":")[2]
	n.Run(t, "setpriv", "--reuid=10002", "--regid="+group, "--clear-groups", "flowagent", "status")
	if _, stderr, code := n.Try(t, "setpriv", "--reuid=10002", "--regid=10002", "--clear-groups", "flowagent", "status"); code != 3 || !strings.Contains(stderr, "member of group flowagent") {
		t.Errorf("a stranger's status: got code %d and %s, want 3 and whom to ask", code, stderr)
	}
}

func TestTheJournalHasFieldsAndReadableLines(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.start()
	found := false
	for _, entry := range n.Journal(t, service) {
		if entry["FLOWAGENT_EVENT"] == "stage done" && entry["FLOWAGENT_PHASE"] == "workload" {
			found = true
			if entry["PRIORITY"] != "6" || entry["SYSLOG_IDENTIFIER"] != "flowagent" || !strings.HasPrefix(entry["MESSAGE"], "stage done phase=workload elapsed=") {
				t.Errorf("got %v, want an info message that says the same", entry)
			}
		}
	}
	if !found {
		t.Errorf("no event says that the workload's stage is done:\n%s", n.said())
	}
	// What an operator searches with.
	if out := n.journalctl("FLOWAGENT_CHECK=web"); !strings.Contains(out, "check is up") {
		t.Errorf("the journal by check: got %s, want that it is up", out)
	}
	n.said()
}

// hammer asks /health from several clients, each with new connections, until stop is called, which returns how often
// the port was closed to them and how many got an answer.
func (n *node) hammer() (stop func() (refused, answered int64)) {
	ctx, cancel := context.WithCancel(n.t.Context())
	var refusals, answers atomic.Int64
	var group sync.WaitGroup
	for range 4 {
		group.Go(func() {
			for ctx.Err() == nil {
				if _, _, err := n.get("/health"); err != nil {
					refusals.Add(1)
					n.t.Logf("/health: %v", err)
				} else {
					answers.Add(1)
				}
			}
		})
	}
	return func() (int64, int64) {
		cancel()
		group.Wait()
		return refusals.Load(), answers.Load()
	}
}

func TestNoUpgradeCrashOrReloadTouchesAContainerOrClosesThePort(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.start()
	before := n.web()

	stop := n.hammer()
	for range 3 {
		n.systemctl("restart", service) // what an upgrade of the package does
	}
	n.awaitReady()
	if refused, answered := stop(); refused > 0 || answered == 0 {
		t.Errorf("while the agent was restarted: got %d refusals and %d answers, want none refused", refused, answered)
	}
	n.checkUntouched(before, "restarts")

	n.systemctl("daemon-reload")
	n.systemctl("reload", service)
	n.checkUntouched(before, "reloads")

	pid := n.property("MainPID")
	n.kill("KILL", pid)
	n.eventually("another agent after a crash", func() bool { now := n.property("MainPID"); return now != pid && now != "0" })
	// The port was open all the time: this connection waits for the new agent.
	if _, _, err := n.get("/health"); err != nil {
		t.Errorf("/health after a crash: %v", err)
	}
	n.awaitReady()
	n.checkUntouched(before, "a crash")
	if got := n.property("NRestarts"); got != "1" {
		t.Errorf("restarts by systemd: got %s, want 1", got)
	}
	n.said()
}

func TestAnAgentThatHangsIsReplaced(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	// The unit's own limits are longer than a test needs; a shorter one would also replace an agent on a machine that stalls.
	n.dropIn("[Service]\nWatchdogSec=15\nTimeoutAbortSec=2\n")
	n.start()
	before := n.web()
	pid := n.property("MainPID")
	n.kill("STOP", pid)
	n.eventually("another agent", func() bool { now := n.property("MainPID"); return now != pid && now != "0" })
	n.awaitReady()
	if !strings.Contains(n.journalctl("--unit="+service), "Watchdog timeout") {
		t.Error("the journal doesn't say that it was the watchdog")
	}
	n.checkUntouched(before, "a hang")
}

func TestAStopClosesThePortAndLeavesTheWorkload(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.start()
	before := n.web()
	n.systemctl("stop", service)
	// systemd says that the stop is done a moment before it lets go of the port that it kept.
	n.eventually("the port is closed", func() bool {
		_, _, err := n.get("/health")
		return err != nil && strings.Contains(err.Error(), "connection refused")
	})
	if got := n.property("ActiveState"); got != "inactive" {
		t.Errorf("after a probe: got %s, want inactive: a probe starts nothing", got)
	}
	n.checkUntouched(before, "a stop")
	n.start()
	n.checkUntouched(before, "a start")
}

func TestAnotherPortAfterARestartClosesTheOldOne(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.start()
	n.write("config.d/50-port.yaml", "health: {listen: \"127.0.0.1:9181\"}\n")
	n.systemctl("restart", service)
	n.awaitReady()
	if _, _, err := n.get("/health"); err == nil {
		t.Error("the old port still answers")
	}
	conn, err := n.Dial(t.Context(), "tcp", "127.0.0.1:9181")
	if err != nil {
		t.Fatalf("the new port: %v", err)
	}
	_ = conn.Close() // that it opened was the question
	if got := n.property("NFileDescriptorStore"); got != "1" {
		t.Errorf("systemd holds %s ports, want the new one only", got)
	}
}

func TestAReloadIsSystemctlsToo(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.start()
	n.write("config.d/50-checks.yaml", "health: {checks: [{name: stamp, file: {path: /etc/hostname}}]}\n")
	n.systemctl("reload", service)
	n.eventually("the new check", func() bool {
		code, body, err := n.get("/health?verbose")
		return err == nil && code == 200 && strings.Contains(body, "[+] stamp")
	})
	n.write("config.d/50-checks.yaml", "helth: {}\n")
	if _, stderr, code := n.Try(t, "systemctl", "reload", service); code == 0 {
		t.Errorf("a reload of a wrong configuration: got exit code 0 and %s", stderr)
	}
	if log := n.said(); !strings.Contains(log, "applied: health.checks[stamp]") || !strings.Contains(log, "did you mean `health`?") {
		t.Errorf("the journal doesn't tell of both reloads:\n%s", log)
	}
	if got := n.property("ActiveState"); got != "active" {
		t.Errorf("after a refused reload: got %s, want active", got)
	}
	if code, _, err := n.get("/health"); err != nil || code != 200 {
		t.Errorf("/health after a refused reload: got %d, %v; want 200", code, err)
	}
}

func TestAWrongConfigurationIsNotTriedAgain(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.write("config.d/50-typo.yaml", "helth: {}\n")
	if _, _, code := n.Try(t, "systemctl", "start", service); code == 0 {
		t.Fatal("the service started with a wrong configuration")
	}
	if state, restarts, status := n.property("ActiveState"), n.property("NRestarts"), n.property("ExecMainStatus"); state != "failed" || restarts != "0" || status != "2" {
		t.Errorf("got state %s, %s restarts and exit code %s; want failed, 0 and 2", state, restarts, status)
	}
	if got := n.property("StatusText"); !strings.Contains(got, "did you mean `health`?") {
		t.Errorf("status in systemctl: got %q, want what is wrong", got)
	}
	// By the agent's own field: what the journal itself would note of a process that is gone by then, it can't.
	said := n.journalctl("--priority=err", "OBJECT_SYSTEMD_UNIT="+service)
	for _, want := range []string{"stage failed phase=config", "flowagent: "} {
		if !strings.Contains(said, want) || !strings.Contains(said, "did you mean `health`?") {
			t.Errorf("errors of the unit: got %q, want %q in it, and what is wrong", said, want)
		}
	}
	n.write("config.d/50-typo.yaml", "")
	n.start()
}

func TestAReadyNodeComesBackByItselfAfterAReboot(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.systemctl("enable", "--now", service)
	n.awaitReady()
	before := n.web()
	n.Reboot(t)
	n.AwaitBooted(t)
	n.awaitReady()
	// /run was empty: what the container reads was fetched anew, into a tmpfs that was mounted before it started.
	if got, want := n.mode("/run/flowagent/secrets/web/key"), "400 10001:10001"; got != want {
		t.Errorf("the secret's file: got %s, want %s", got, want)
	}
	if code, _, err := n.get("/health"); err != nil || code != 200 {
		t.Errorf("/health: got %d, %v; want 200", code, err)
	}
	if after := n.web(); after == before || after[:12] != before[:12] {
		t.Errorf("the container was %s and is %s, want the same one started again", before, after)
	}
	if got := n.property("NRestarts"); got != "0" {
		t.Errorf("the boot took %s restarts of the agent, want none", got)
	}
	n.said()
}

func TestTheAgentOutlivesTheEnginesRestart(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.start()
	pid := n.property("MainPID")
	n.systemctl("restart", "docker.service")
	n.eventually("the node ready again", func() bool {
		code, body, err := n.get("/health?verbose")
		return err == nil && code == 200 && strings.Count(body, "[+]") == 4
	})
	if now := n.property("MainPID"); now != pid {
		t.Errorf("the agent was process %s and is %s, want the same", pid, now)
	}
}

func TestASocketUnitHoldsThePortWhereAnOperatorWantsOne(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.systemctl("enable", "--now", "flowagent.socket")
	n.eventually("the node started by the first probe", func() bool {
		code, _, err := n.get("/health")
		return err == nil && code == 200
	})
	if got := n.property("NFileDescriptorStore"); got != "0" {
		t.Errorf("systemd stores %s ports beside the socket unit's, want none", got)
	}
	n.systemctl("stop", "flowagent.socket", service)
	if _, _, err := n.get("/health"); err == nil {
		t.Error("the port is open after both were stopped")
	}
}

func TestABootThatTakesLongIsWaitedForAndOneThatFailsIsTriedAgain(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	// Far above what an agent needs for its first word, also on a busy machine.
	n.dropIn("[Service]\nTimeoutStartSec=10\nRestartSec=1\n")
	// Longer than the unit would wait for an agent that doesn't ask for more time.
	n.write("compose.yaml", strings.Replace(compose, "[serve]", "[serve, -ready-after, 12s]\n    healthcheck: {test: [CMD, /app, healthcheck, \"http://127.0.0.1:8080/health\"], interval: 1s, retries: 30, start_period: 30s}", 1))
	begin := time.Now()
	n.start()
	if took := time.Since(begin); took < 12*time.Second {
		t.Fatalf("the boot took %s: it was not the long one that this is about", took)
	}
	n.systemctl("stop", service)

	n.write("config.d/50-pull.yaml", "workload: {pull: {policy: never}}\n")
	n.write("compose.yaml", strings.Replace(compose, "app:1", "app:2", 1)) // which isn't there
	if _, _, code := n.Try(t, "systemctl", "start", service); code == 0 {
		t.Fatal("the service started without its image")
	}
	n.eventually("a second try", func() bool {
		count, err := strconv.Atoi(n.property("NRestarts"))
		return err == nil && count > 0
	})
	n.write("compose.yaml", compose)
	n.awaitReady()
}

func TestADrainSeesConnectionsFromItsSandbox(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.write("config.d/50-drain.yaml", "drain: {idleAfter: 1s}\n")
	n.start()
	conn, err := n.Dial(t.Context(), "tcp", "127.0.0.1:8080") // on which nobody asks
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	n.Run(t, "flowagent", "drain")
	log := n.said()
	for _, bad := range []string{"requests under way can't be counted", "idle connections can't be told apart", "requests are still under way"} {
		if strings.Contains(log, bad) {
			t.Errorf("the journal says %q, want connections counted and told apart:\n%s", bad, log)
		}
	}
	n.eventually("the drained node's 503", func() bool {
		code, body, err := n.get("/health")
		return err == nil && code == 503 && strings.Contains(body, "drained")
	})
}

func TestAShutdownOfTheMachineDrainsTheNode(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	// Far above what an agent needs to ask for more time, also on a busy machine; and the drain takes longer.
	n.dropIn("[Service]\nTimeoutStopSec=10\n")
	n.write("config.d/50-drain.yaml", "drain: {deregisterDelay: 12s}\n")
	n.systemctl("enable", "--now", service)
	n.awaitReady()
	before := n.web()
	n.systemctl("restart", service) // which is told to stop just the same
	n.awaitReady()
	n.checkUntouched(before, "a restart")

	n.PowerOff(t)
	n.PowerOn(t)
	n.AwaitBooted(t)
	var told []string
	for _, entry := range n.Journal(t, service, "--boot=-1") {
		told = append(told, entry["FLOWAGENT_EVENT"])
	}
	log := strings.Join(told, "\n")
	for _, want := range []string{"drain started", "container stopped", "drain done"} {
		if strings.Count(log, want+"\n") != 1 {
			t.Errorf("the events of the boot before don't have %q once:\n%s", want, log)
		}
	}
	n.awaitReady() // a node that was drained by a shutdown serves again after it
}
