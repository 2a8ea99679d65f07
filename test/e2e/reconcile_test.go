package e2e

import (
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/moby/moby/client"

	"github.com/flowviz/flowagent/test/lab"
)

// What an agent says about a service that it keeps up.
const (
	saysLost    = "service has to be brought back"
	saysBack    = "service is back"
	saysGivenUp = "service given up"
	saysLeft    = "service was stopped on purpose and is left alone"
)

func newKept(t *testing.T) *node {
	t.Helper()
	address := lab.Engine(t)
	lab.AppImage(t, localImage)
	return newKeptOn(t, address)
}

func newKeptOn(t *testing.T, address string) *node {
	t.Helper()
	n := newNodeOn(t, "stories/kept", address)
	if err := os.Mkdir(filepath.Join(n.etc(), "data"), 0o755); err != nil {
		t.Fatal(err)
	}
	return n
}

func says(what, service string) func(event) bool {
	return func(e event) bool { return e.Msg == what && strings.Contains(e.line, `"service":"`+service+`"`) }
}

func (a *process) awaitSays(what, service string) { a.await(service+": "+what, says(what, service)) }

// saysCount is how often an agent said something about a service.
func (a *process) saysCount(what, service string) int {
	count := 0
	a.journal.find(func(e event) bool {
		if says(what, service)(e) {
			count++
		}
		return false
	})
	return count
}

// remove is `docker rm --force`.
func (n *node) remove(service string) {
	n.t.Helper()
	if _, err := n.engine.ContainerRemove(n.t.Context(), n.container(service).ID, client.ContainerRemoveOptions{Force: true}); err != nil {
		n.t.Fatal(err)
	}
}

func (n *node) stopContainer(service string) {
	n.t.Helper()
	if _, err := n.engine.ContainerStop(n.t.Context(), n.container(service).ID, client.ContainerStopOptions{}); err != nil {
		n.t.Fatal(err)
	}
}

func (n *node) startContainer(service string) {
	n.t.Helper()
	if _, err := n.engine.ContainerStart(n.t.Context(), n.container(service).ID, client.ContainerStartOptions{}); err != nil {
		n.t.Fatal(err)
	}
}

// compose is the operator's own docker compose, with the files and the variables of the node.
func (n *node) compose(arguments ...string) {
	n.t.Helper()
	flags := []string{"-p", n.project, "-f", filepath.Join(n.etc(), "compose.yaml"), "-f", filepath.Join(n.run(), "compose.override.yaml")}
	cmd := exec.Command(filepath.Join(n.dir, "docker/cli-plugins/docker-compose"), append(flags, arguments...)...)
	cmd.Env = append(n.environment(), "DOCKER_HOST=unix://"+n.socket, "APP="+n.app)
	if out, err := cmd.CombinedOutput(); err != nil {
		n.t.Fatalf("docker compose %s: %v\n%s", strings.Join(arguments, " "), err, out)
	}
}

func (n *node) checkMetric(line string) {
	n.t.Helper()
	if _, text := n.get("/metrics"); !strings.Contains(text, "\n"+line+"\n") {
		n.t.Errorf("/metrics has no line %s", line)
	}
}

func TestAServiceThatIsRemovedWithForceComesBack(t *testing.T) {
	t.Parallel()
	n := newKept(t)
	a := n.boot()
	before := n.boxes()
	n.remove("web")
	a.awaitSays(saysBack, "web")
	n.checkReads("web", "/run/secrets/key", "key-number-one")
	n.checkUntouched(before, "worker", "moody", "picky", "job")
	n.checkMetric(`flowagent_service_recoveries_total{result="recovered",service="web"} 1`)
	n.checkMetric(`flowagent_service_given_up{service="web"} 0`)
	n.checkTidy()
}

func TestWhatAnOperatorStoppedIsLeftAloneUntilItRunsAgain(t *testing.T) {
	t.Parallel()
	n := newKept(t)
	a := n.boot()
	n.stopContainer("worker")
	if _, err := n.engine.ContainerKill(t.Context(), n.container("picky").ID, client.ContainerKillOptions{Signal: "KILL"}); err != nil {
		t.Fatal(err)
	}
	n.stopContainer("moody")
	n.remove("moody")
	for _, service := range []string{"worker", "picky", "moody"} {
		a.awaitSays(saysLeft, service)
	}
	before := n.boxes()
	n.remove("web")
	a.awaitSays(saysBack, "web")
	n.checkUntouched(before, "worker", "picky", "moody", "job")

	n.startContainer("worker")
	eventually(t, "the worker runs", func() bool { return n.container("worker").State.Running })
	n.remove("worker")
	a.awaitSays(saysBack, "worker")
	n.checkUntouched(before, "picky", "moody", "job")

	// A new agent brings the node to what is configured.
	a.stop()
	n.boot()
	for service := range n.boxes() {
		if running := n.container(service).State.Running; running != (service != "job") {
			t.Errorf("%s: got running %v", service, running)
		}
	}
}

func TestWhatAnOperatorMakesAnewIsNoLoss(t *testing.T) {
	t.Parallel()
	n := newKept(t)
	a := n.boot()
	before := n.boxes()
	said := map[string]int{}
	// Whatever is stopped for five seconds (settleTime of agent/workload) is rightly taken for stopped on purpose. Where the
	// machine was too busy for less, it shows nothing, and comes once more.
	atOnce := func(services []string, arguments ...string) {
		t.Helper()
		for end := time.Now().Add(patience); ; {
			for _, service := range services {
				said[service] = a.saysCount(saysLost, service) + a.saysCount(saysLeft, service)
			}
			began := time.Now()
			n.compose(append(arguments, services...)...)
			if time.Since(began) < 5*time.Second {
				return
			}
			if time.Now().After(end) {
				t.Fatalf("docker compose %s never took less than five seconds", arguments[0])
			}
		}
	}
	atOnce([]string{"worker", "moody"}, "up", "--detach", "--force-recreate", "--no-deps")
	atOnce([]string{"picky"}, "restart")
	now := n.boxes()
	n.remove("web")
	a.awaitSays(saysBack, "web")
	n.checkUntouched(now, "worker", "moody", "picky", "job")
	for _, service := range []string{"worker", "moody", "picky"} {
		if now[service] == before[service] {
			t.Errorf("%s wasn't made anew: the test shows nothing", service)
		}
		if got := a.saysCount(saysLost, service) + a.saysCount(saysLeft, service); got > said[service] {
			t.Errorf("%s was taken for lost, or for stopped on purpose", service)
		}
	}

	n.compose("down")
	for service := range now {
		if service != "job" {
			a.awaitSays(saysLeft, service)
		}
	}
	if left := n.boxes(); len(left) > 0 {
		t.Errorf("got the containers %v after docker compose down", left)
	}
}

func TestAReloadDecidesWhatIsLeftAlone(t *testing.T) {
	t.Parallel()
	n := newKept(t)
	n.dropIn("50-leave.yaml", "workload: {reconcile: {leave: [web]}}\n")
	a := n.boot()
	n.remove("web")
	n.remove("worker")
	a.awaitSays(saysBack, "worker")
	if got := a.saysCount(saysLost, "web"); got > 0 {
		t.Error("web was to be brought back")
	}
	n.dropIn("50-leave.yaml", "workload: {reconcile: {leave: []}}\n")
	if out, stderr, code := n.flowagent("reload"); code != 0 {
		t.Fatalf("reload: got %q, %q and code %d, want 0", out, stderr, code)
	}
	a.awaitSays(saysBack, "web")
}

func TestAServiceThatStaysUnhealthyIsRestarted(t *testing.T) {
	t.Parallel()
	n := newKept(t)
	a := n.boot()
	before := n.boxes()
	if _, err := n.inside("moody", "write", "/mood/bad", ""); err != nil {
		t.Fatal(err)
	}
	a.awaitSays(saysBack, "moody")
	if now := n.boxes()["moody"]; now.ID != before["moody"].ID || now.StartedAt == before["moody"].StartedAt {
		t.Errorf("got %v after %v, want the same container with another start", now, before["moody"])
	}
	n.checkUntouched(before, "web", "worker", "picky", "job")
}

func TestAServiceThatCannotComeBackIsGivenUp(t *testing.T) {
	t.Parallel()
	n := newKept(t)
	n.dropIn("50-tries.yaml", "workload: {reconcile: {tries: 2}}\n")
	a := n.boot()
	data := filepath.Join(n.etc(), "data")
	if err := os.Remove(data); err != nil {
		t.Fatal(err)
	}
	n.remove("picky")
	a.awaitSays(saysGivenUp, "picky")
	if got := a.saysCount(saysLost, "picky"); got != 2 {
		t.Errorf("got %d tries, want 2", got)
	}
	problems := strings.Join(n.status().Problems, "\n")
	for _, want := range []string{`service "picky" was given up after 2 tries`, data, "correct the cause"} {
		if !strings.Contains(problems, want) {
			t.Errorf("status: got the problems %q, want %q among them", problems, want)
		}
	}
	n.checkMetric(`flowagent_service_given_up{service="picky"} 1`)
	n.checkMetric(`flowagent_service_recoveries_total{result="failed",service="picky"} 2`)

	if err := os.Mkdir(data, 0o755); err != nil {
		t.Fatal(err)
	}
	n.compose("up", "--detach", "picky")
	eventually(t, "the status has no problem any more", func() bool { return len(n.status().Problems) == 0 })
	n.checkMetric(`flowagent_service_given_up{service="picky"} 0`)
}

// Engine 20.10 stops what the one before left running, and takes that for a reason not to start unless-stopped services.
func TestServicesComeBackAfterTheEngineWasAway(t *testing.T) {
	t.Parallel()
	for name, killed := range map[string]bool{"restarted": false, "killed": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			engine := lab.OwnEngine(t, localImage)
			n := newKeptOn(t, engine.Address)
			a := n.boot()
			n.stopContainer("picky")
			a.awaitSays(saysLeft, "picky")
			before := n.boxes()
			if err := engine.Restart(t.Context(), killed); err != nil {
				t.Fatal(err)
			}
			a.awaitSays(saysBack, "web")
			a.awaitSays(saysBack, "moody")
			eventually(t, "the worker runs", func() bool { return n.container("worker").State.Running })
			n.checkUntouched(before, "picky", "job")
			n.checkReads("web", "/run/secrets/key", "key-number-one")
			for _, service := range []string{"web", "worker", "moody"} {
				if got := a.saysCount(saysLeft, service); got > 0 {
					t.Errorf("%s was taken for stopped on purpose", service)
				}
			}
		})
	}
}

func TestADrainIsNotHeldUpByARecovery(t *testing.T) {
	t.Parallel()
	n := newKept(t)
	g := n.gateEngine()
	a := n.boot()
	n.remove("web")
	creating := g.hold(t, "the service is made again", request(http.MethodPost, creation))
	creating.awaitArrival(a)
	n.remove("worker") // which mustn't begin after the drain
	if out, stderr, code := n.flowagent("drain"); code != 0 {
		t.Fatalf("drain: got %q, %q and code %d, want 0", out, stderr, code)
	}
	for service := range n.boxes() {
		if n.container(service).State.Running {
			t.Errorf("%s runs after the drain", service)
		}
	}
	n.checkEmptyStore()
	creating.release()
	a.stop()
	if len(a.n.plugins()) > 0 {
		t.Error("compose still runs")
	}
	if got := a.saysCount(saysLost, "worker"); got > 0 {
		t.Error("the worker was to be brought back after the drain")
	}
}

func TestARotationIsNoLossOfAService(t *testing.T) {
	t.Parallel()
	n := newNode(t, "stories/rotated")
	a := n.boot()
	n.rotate("e2e/restarted", "restarted-number-two")
	if err := n.refresh(); err != nil {
		t.Fatal(err)
	}
	n.checkReads("ends", "/run/secrets/restarted", "restarted-number-two")
	n.remove("bystander")
	a.awaitSays(saysBack, "bystander")
	for _, what := range []string{saysLost, saysLeft} {
		if got := a.saysCount(what, "ends"); got > 0 {
			t.Errorf("ends: %s", what)
		}
	}
	n.remove("ends") // and is brought back with the version that it had
	a.awaitSays(saysBack, "ends")
	n.checkReads("ends", "/run/secrets/restarted", "restarted-number-two")
}
