package e2e

import (
	"maps"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/flowviz/flowagent/internal/awsfake"
)

// A node serves; its agent is replaced by one with a configuration that can't work. That one has to say so, once, and
// leave everything as it is.
func TestABadConfigurationIsRefusedAndWhatServesGoesOn(t *testing.T) {
	for _, dir := range cases(t, "refusals") {
		t.Run(filepath.Base(dir), func(t *testing.T) {
			t.Parallel()
			n := newNode(t, "stories/plain")
			n.boot().stop()
			before := n.untouched()
			n.furnish(dir)
			if n.scene.Refused == nil {
				t.Fatalf("%s/case.yaml has no field refused", dir)
			}
			n.start().checkRefused(n.scene.Refused)
			before.check()
			n.checkReads("web", "/run/secrets/key", "key-number-one")
		})
	}
}

// checkRefused waits for the agent's end and looks at what it says.
func (a *process) checkRefused(want *refusal) {
	a.n.t.Helper()
	if code := a.wait(); code != want.Exit {
		a.n.t.Errorf("got exit code %d, want %d", code, want.Exit)
	}
	text, said := a.journal.String(), a.said()
	if strings.Count("\n"+text, "\nflowagent: ") != 1 {
		a.n.t.Errorf("got %q, want one line that begins with flowagent:", said)
	}
	for _, part := range want.Says {
		if !strings.Contains(said, part) {
			a.n.t.Errorf("got %q, want %q in it", said, part)
		}
	}
	if got := a.journal.failures(); len(got) > 1 {
		a.n.t.Errorf("got %q, want a failure under the stage that failed only", got)
	}
	for _, part := range want.Warns {
		if _, later := a.journal.find(func(e event) bool { return e.Level == "WARN" && strings.Contains(e.line, part) }); later != nil {
			a.n.t.Errorf("got no warning with %q", part)
		}
	}
	for _, part := range want.Never {
		if strings.Contains(text, part) {
			a.n.t.Errorf("got %q, want it without %q", text, part)
		}
	}
}

// before is what a failed start must not change.
type before struct {
	n               *node
	boxes           map[string]box
	store           map[string]string
	override, state map[string]string
}

func (n *node) untouched() *before {
	n.t.Helper()
	return &before{n, n.boxes(), tree(n.t, n.store()), n.override(), n.stateFiles()}
}

func (n *node) override() map[string]string {
	found := tree(n.t, n.run())
	return map[string]string{"override": found["/compose.override.yaml"]}
}

// stateFiles leaves out the record, which tells of the failed start.
func (n *node) stateFiles() map[string]string {
	found := tree(n.t, n.state())
	delete(found, "/boot.json")
	return found
}

func (b *before) check() {
	b.n.t.Helper()
	b.n.checkUntouched(b.boxes)
	for what, pair := range map[string][2]map[string]string{
		"the store":    {b.store, tree(b.n.t, b.n.store())},
		"the override": {b.override, b.n.override()},
		"the state":    {b.state, b.n.stateFiles()},
	} {
		if !maps.Equal(pair[0], pair[1]) {
			b.n.t.Errorf("%s changed: got %v, want %v", what, pair[1], pair[0])
		}
	}
	b.n.checkTidy()
}

func TestASecretInTheEnvironmentIsRefusedBeforeAnythingStarts(t *testing.T) {
	t.Parallel()
	n := newNode(t, "stories/plain")
	n.copyIn("refusals/secret-in-an-environment")
	n.start().checkRefused(&refusal{Exit: 2, Says: []string{`service "web"`, "environment.DATABASE_URL"}})
	if boxes := n.boxes(); len(boxes) > 0 {
		t.Errorf("got containers %v, want none", boxes)
	}
}

func TestALiteralPasswordThatIsNoKnownSecretIsOnlyWarnedAbout(t *testing.T) {
	t.Parallel()
	n := newNode(t, "stories/plain")
	n.secrets = append(n.secrets, "a-literal-password")
	compose, err := os.ReadFile("stories/plain/compose.yaml")
	if err != nil {
		t.Fatal(err)
	}
	n.write("compose.yaml", strings.Replace(string(compose), "    command:", "    environment: {DB_PASSWORD: a-literal-password}\n    command:", 1))
	a := n.boot()
	a.await("a warning about DB_PASSWORD", func(e event) bool {
		return e.Level == "WARN" && strings.Contains(e.line, "DB_PASSWORD") && strings.Contains(e.line, "web")
	})
}

func TestNobodyAnswersForAnAgentThatIsNotThere(t *testing.T) {
	t.Parallel()
	n := newNode(t, "stories/plain")
	for _, command := range [][]string{{"status"}, {"drain"}, {"secrets", "list"}, {"secrets", "refresh"}} {
		stdout, stderr, code := n.flowagent(command...)
		if code != 3 || stdout != "" || !strings.Contains(stderr, "is it running?") {
			t.Errorf("flowagent %s: got %q, %q and code %d, want a question and 3", strings.Join(command, " "), stdout, stderr, code)
		}
	}
}

func TestASecondAgentOfANodeIsRefused(t *testing.T) {
	t.Parallel()
	n := newNode(t, "stories/plain")
	first := n.boot()
	before := n.untouched()
	n.start().checkRefused(&refusal{Exit: 1, Says: []string{"another agent is running", "stop it first"}})
	before.check()
	if status := n.status(); status.State != "ready" {
		t.Errorf("the first agent: got %s, want ready", status.State)
	}
	checkRecord(t, n)
	first.stop()
}

func TestAHealthPortThatIsTakenIsRefused(t *testing.T) {
	t.Parallel()
	n := newNode(t, "stories/plain")
	n.boot().stop()
	before := n.untouched()
	listener, err := net.Listen("tcp", n.address)
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	n.start().checkRefused(&refusal{Exit: 1, Says: []string{n.address, "free the port, or set health.listen"}})
	before.check()
}

func TestADeadEngineIsWaitedForAndThenRefused(t *testing.T) {
	t.Parallel()
	n := newNode(t, "stories/plain")
	n.boot().stop()
	before := n.untouched()
	n.socket = filepath.Join(n.dir, "no-engine.sock")
	n.settle()
	a := n.start()
	a.await("another try", func(e event) bool { return e.Msg == "stage tries again" && e.Phase == "engine" })
	if code, body := n.health(); code != 503 {
		t.Errorf("/health meanwhile: got %d %s, want 503", code, body)
	}
	a.checkRefused(&refusal{Exit: 1, Says: []string{"no-engine.sock", "systemctl start docker"}})
	before.check()
}

func TestAnEngineThatComesUpLateIsWaitedFor(t *testing.T) {
	t.Parallel()
	n := newNode(t, "stories/plain")
	engine := n.socket
	n.socket = filepath.Join(n.dir, "late.sock")
	n.settle()
	a := n.start()
	a.await("another try", func(e event) bool { return e.Msg == "stage tries again" && e.Phase == "engine" })
	if err := os.Symlink(engine, n.socket); err != nil {
		t.Fatal(err)
	}
	a.awaitReady()
}

func TestAStoreThatIsTooSmallKeepsWhatItHas(t *testing.T) {
	t.Parallel()
	n := newNode(t, "stories/plain")
	mountTmpfs(t, n.store(), "mode=0700,size=64k")
	a := n.boot()
	before := n.untouched()
	large := strings.Repeat("key-number-two, a large one; ", 2200) // Secrets Manager takes 64 KiB
	n.rotate("e2e/key", large)
	if err := n.refresh(); err == nil || !strings.Contains(err.Error(), "the secret store is full") || !strings.Contains(err.Error(), "remount,size=") {
		t.Errorf("refresh: got %v, want it to say that the store is full and what helps", err)
	}
	if problems := strings.Join(n.status().Problems, "; "); !strings.Contains(problems, "the secret store is full") {
		t.Errorf("problems in the status: got %q, want the full store", problems)
	}
	before.check()
	n.checkReads("web", "/run/secrets/key", "key-number-one")

	a.stop()
	n.start().checkRefused(&refusal{Exit: 1, Says: []string{"the secret store is full", "remount,size="}})
	before.check()
	n.checkReads("web", "/run/secrets/key", "key-number-one")

	if err := unix.Mount("", n.store(), "", unix.MS_REMOUNT|unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "size=1m"); err != nil {
		t.Fatal(err)
	}
	n.boot()
	n.checkReads("web", "/run/secrets/key", large)
	n.checkUntouched(before.boxes)
}

func TestAStoreWithoutItsProtectionsIsRefused(t *testing.T) {
	t.Parallel()
	n := newNode(t, "stories/plain")
	mountTmpfs(t, n.store(), "mode=0700,size=64k")
	if err := unix.Mount("", n.store(), "", unix.MS_REMOUNT, "mode=0700,size=64k"); err != nil { // without nosuid, nodev, noexec
		t.Fatal(err)
	}
	n.start().checkRefused(&refusal{Exit: 1, Says: []string{n.store(), "mount -o remount,"}})
	if left := tree(t, n.store()); len(left) > 1 {
		t.Errorf("the store holds %v, want nothing", left)
	}
}

func TestAFullDiskForTheStateIsRefusedAtFirstAndAWarningLater(t *testing.T) {
	t.Parallel()
	n := newNode(t, "stories/plain")
	mountTmpfs(t, n.state(), "mode=0700,size=64k")
	fill(t, n.state())
	n.start().checkRefused(&refusal{Exit: 1, Says: []string{n.state(), "not full"}})
	if boxes := n.boxes(); len(boxes) > 0 {
		t.Errorf("got containers %v, want none", boxes)
	}
	filler := filepath.Join(n.state(), "filler")
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	n.boot().stop()
	before := n.boxes()
	record, err := os.ReadFile(filepath.Join(n.state(), "boot.json"))
	if err != nil {
		t.Fatal(err)
	}
	fill(t, n.state())
	a := n.boot()
	a.await("a warning about the record", func(e event) bool {
		return e.Level == "WARN" && strings.Contains(e.line, "boot not recorded") && strings.Contains(e.line, "not full")
	})
	n.checkUntouched(before)
	if now, err := os.ReadFile(filepath.Join(n.state(), "boot.json")); err != nil || string(now) != string(record) {
		t.Errorf("boot.json: got %q and %v, want it as it was", now, err)
	}
	for _, name := range names(t, n.state()) {
		if strings.HasPrefix(name, ".") {
			t.Errorf("%s was left in the state directory", name)
		}
	}
}

func TestARegistryThatLiesAboutADigestIsRefused(t *testing.T) {
	t.Parallel()
	n := newNode(t, "stories/plain")
	n.useSlowRegistry()
	honest := n.digest(n.app)
	liar := n.lyingRegistry(honest, n.digest(n.push(n.slow.address+"/"+n.project+"/app:2", nil)))
	n.app = strings.Replace(strings.TrimSuffix(n.app, ":1"), n.slow.address, liar, 1) + "@" + honest
	n.dropIn("60-liar.yaml", `registries: [{host: "`+liar+`", username: `+n.registry.Username+`, passwordSecret: registry_password}]
workload: {pull: {pin: digest, totalTimeout: 20s}}
`)
	n.settle()
	n.start().checkRefused(&refusal{Exit: 1, Says: []string{honest, "digest"}})
	if boxes := n.boxes(); len(boxes) > 0 {
		t.Errorf("got containers %v, want none", boxes)
	}
	if image, err := n.engine.ImageInspect(t.Context(), n.app); err == nil {
		t.Errorf("the engine has %s under the digest that it isn't", image.ID)
	}
}

func TestAMigrationThatFailsIsToldWithItsLastLinesAndNoSecret(t *testing.T) {
	t.Parallel()
	n := newNode(t, "stories/plain")
	n.boot().stop()
	before := n.boxes()
	compose, err := os.ReadFile("stories/plain/compose.yaml")
	if err != nil {
		t.Fatal(err)
	}
	n.write("compose.yaml", strings.Replace(string(compose), "services:\n", `services:
  migrate:
    image: ${APP}
    command: [cat, /run/secrets/key, /no/such/migration]
    network_mode: none
    secrets: [key]
`, 1))
	n.start().checkRefused(&refusal{Exit: 1, Says: []string{`service "migrate"`, "exit code 1", "/no/such/migration", "docker logs " + n.project + "-migrate-1"}})
	if got := n.logs("migrate"); !strings.Contains(got, "key-number-one") {
		t.Fatalf("migrate wrote %q, want the secret, or this test tests nothing", got)
	}
	n.checkUntouched(before, "web")
	n.checkReads("web", "/run/secrets/key", "key-number-one")
}

func TestAWSThatIsDownForAMomentDelaysABootAndNoMore(t *testing.T) {
	t.Parallel()
	n := newNode(t, "stories/plain")
	n.aws.Inject("GetSecretValue", 4, awsfake.Unavailable()) // more than the SDK's own three tries
	a := n.start()
	a.await("another try", func(e event) bool { return e.Msg == "stage tries again" && e.Phase == "secrets" })
	for _, stage := range a.awaitReady().Stages {
		if stage.Name == "secrets" && stage.Attempts < 2 {
			t.Errorf("the stage secrets: got %d attempts, want 2 or more", stage.Attempts)
		}
	}
}
