package e2e

import (
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"

	"github.com/flowviz/flowagent/test/lab"
)

func TestNoSecretIsAnywhereButInItsFile(t *testing.T) {
	t.Parallel()
	n := newNode(t, "stories/plain") // for the machine; the case's own files follow
	birds := &canaries{}
	n.copyIn("stories/canary")
	n.write("canary.txt", birds.text())
	n.write(".env", "E2E_CANARY="+birds.plain()+"\n")
	n.createSecret("e2e/text", birds.text())
	n.createSecret("e2e/document", `{"db": {"password": "`+birds.plain()+`"}}`)
	n.createSecret("e2e/bytes", "replaced by bytes before anything reads it")
	n.rotateBinary("e2e/bytes", birds.binary())
	n.useSlowRegistry()
	birds.add("the registry's password", []byte(n.registry.Password))

	g := n.gateEngine()
	creating := g.hold(t, "compose at work", request(http.MethodPost, creation))
	a := n.start("--log-format", "text")
	creating.awaitArrival(a)
	if len(n.plugins()) == 0 {
		t.Fatal("compose is not at work")
	}
	birds.checkCaged(n, "while compose is at work", false)
	creating.release()
	a.awaitReady()
	birds.checkCaged(n, "after the boot", false)

	if err := n.refresh(); err != nil {
		t.Fatal(err)
	}
	birds.checkCaged(n, "after a refresh", false)

	rotated := birds.text()
	n.rotate("e2e/text", rotated)
	n.rotate("e2e/document", `{"db": {"password": "`+birds.plain()+`"}}`)
	n.rotateBinary("e2e/bytes", birds.binary())
	if err := n.refresh(); err != nil {
		t.Fatal(err)
	}
	n.awaitLog("listens", "SIGHUP")
	n.checkReads("web", "/run/secrets/text", rotated)
	n.checkReads("local", "/etc/outside", rotated)
	birds.checkCaged(n, "after a rotation", false)

	a.stop()
	n.boot() // its log is JSON
	birds.checkCaged(n, "after an upgrade", false)
	if _, stderr, code := n.flowagent("drain"); code != 0 {
		t.Fatal(stderr)
	}
	birds.checkCaged(n, "after a drain", true)
}

// A search that finds nothing proves nothing, unless it finds what is there: a canary in each place, in one form or
// another.
func TestTheSearchForSecretsFindsThemInEveryPlace(t *testing.T) {
	t.Parallel()
	n := newNode(t, "stories/plain")
	birds := &canaries{}
	value := birds.text()
	leaked := func(form string) string { return formsOf([]byte(value))[form] }

	n.app = "e2e/leaks:1"
	lab.AppImageWith(t, n.app, map[string][]byte{"/leaked": []byte(leaked("base64, 1 byte in"))})
	t.Cleanup(n.halt)
	for name, config := range map[string]container.Config{
		"serves": {Cmd: []string{"serve", "-unhealthy-file", leaked("escaped for a query")}, Env: []string{"PASSWORD=" + leaked("base64")},
			Labels: map[string]string{"password": leaked("hex")}},
		"prints": {Cmd: []string{"exit", "0", "-print", value}},
		"writes": {Cmd: []string{"write", "/tmp/leaked", leaked("quoted")}},
	} {
		n.runContainer(name, config)
	}
	for _, dir := range []string{n.run(), n.state(), n.env["TMPDIR"], n.env["DOCKER_CONFIG"]} {
		if err := errors.Join(os.MkdirAll(dir, 0o755), os.WriteFile(filepath.Join(dir, "leaked"), []byte(leaked("HEX")), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	ended := make(chan struct{})
	close(ended)
	printed := &process{n: n, journal: newJournal(), done: ended}
	if _, err := printed.journal.Write([]byte(leaked("escaped for JSON") + "\n")); err != nil {
		t.Fatal(err)
	}
	n.agents = append(n.agents, printed)

	found := birds.search(n, true)
	for _, kind := range []string{
		inspected, environments, arguments, engineFiles, containerLogs, containerFiles, containerLayers, imageLayers,
		agentOutput, runFiles, stateFiles, temporaryFiles, dockerFiles,
	} {
		if !slices.ContainsFunc(found, func(f find) bool { return f.kind == kind }) {
			t.Errorf("the search found nothing in the %s, where a canary is", kind)
		}
	}
	if innocent := (&canaries{}); len(innocent.search(n, false)) > 0 {
		t.Error("the search for nothing found something")
	}
}

// runContainer starts a container that counts as one of the node's, and waits for the end of one that prints or writes.
func (n *node) runContainer(service string, config container.Config) {
	n.t.Helper()
	config.Image = n.app
	labels := map[string]string{"com.docker.compose.project": n.project, "com.docker.compose.service": service}
	for name, value := range config.Labels {
		labels[name] = value
	}
	config.Labels = labels
	created, err := n.engine.ContainerCreate(n.t.Context(), client.ContainerCreateOptions{
		Name: n.project + "-" + service, Config: &config, HostConfig: &container.HostConfig{NetworkMode: "none"},
	})
	if err != nil {
		n.t.Fatal(err)
	}
	if _, err := n.engine.ContainerStart(n.t.Context(), created.ID, client.ContainerStartOptions{}); err != nil {
		n.t.Fatal(err)
	}
	if config.Cmd[0] == "serve" {
		n.awaitLog(service, "listening")
		return
	}
	eventually(n.t, strings.Join(config.Cmd[:1], " ")+" has ended", func() bool { return n.container(service).State.Status == "exited" })
}
