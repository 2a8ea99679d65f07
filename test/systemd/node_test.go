package systemd

import (
	"context"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/moby/moby/client"

	"github.com/flowviz/flowagent/test/lab"
)

// patience bounds every wait. What is waited for takes some seconds; the rest is for a loaded CI machine.
const patience = 90 * time.Second

const (
	service = "flowagent.service"
	secret  = "s3cret-number-one"

	configuration = `apiVersion: flowagent/v1
kind: Node
node: {environment: test, provider: local}
secrets:
  refresh: 0s
  items:
    - {name: key, from: {file: {path: /etc/flowagent/key}}}
workload:
  project: service
  files: [compose.yaml]
  ready: {stableFor: 300ms}
  cleanUp: {minFree: 0}
health:
  checks:
    - {name: web, http: {url: "http://127.0.0.1:8080/health"}}
    - {name: engine, systemd: {unit: docker.service}, gate: never}
    - {name: disk, disk: {path: /var/lib/docker, warn: 2MB, fail: 1MB}}
    - {name: program, command: {argv: [/usr/bin/test, -r, /etc/flowagent/key]}}
`
	// The user is nobody whom root's sandbox knows, and reads a secret that is its own.
	compose = `services:
  web:
    image: app:1
    command: [serve]
    restart: always
    user: "10001:10001"
    ports: ["127.0.0.1:8080:8080"]
    secrets: [{source: key, uid: "10001", gid: "10001", mode: 0400}]
secrets:
  key: {external: true}
`
)

// node is a machine with flowagent installed and configured, and not started yet.
type node struct {
	*lab.MachineServer
	t *testing.T
}

func newNode(t *testing.T) *node {
	t.Helper()
	n := &node{lab.Machine(t), t}
	err := filepath.WalkDir(installed, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		info, err := entry.Info()
		if err == nil {
			n.PutFile(t, strings.TrimPrefix(path, installed), path, info.Mode().Perm())
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	n.Run(t, "systemd-sysusers")
	n.Put(t, "/etc/flowagent/key", []byte(secret), 0o600)
	n.write("config.yaml", configuration)
	n.write("compose.yaml", compose)
	n.AppImage(t, "app:1")
	n.systemctl("daemon-reload")
	return n
}

// write puts a file beside config.yaml.
func (n *node) write(name, content string) {
	n.t.Helper()
	n.Put(n.t, "/etc/flowagent/"+name, []byte(content), 0o644)
}

// dropIn changes the unit, as `systemctl edit` does.
func (n *node) dropIn(content string) {
	n.t.Helper()
	n.Put(n.t, "/etc/systemd/system/"+service+".d/50-test.conf", []byte(content), 0o644)
	n.systemctl("daemon-reload")
}

func (n *node) systemctl(arguments ...string) {
	n.t.Helper()
	n.Run(n.t, "systemctl", arguments...)
}

// property is one of the service's, as `systemctl show` prints it.
func (n *node) property(name string) string {
	n.t.Helper()
	return strings.TrimSpace(n.Run(n.t, "systemctl", "show", "--property="+name, "--value", service))
}

// start starts the service, which is over when the node's workload is up, and waits until it is ready.
func (n *node) start() {
	n.t.Helper()
	n.systemctl("start", service)
	n.awaitReady()
}

func (n *node) awaitReady() {
	n.t.Helper()
	n.Run(n.t, "flowagent", "status", "--wait", patience.String())
}

// eventually looks until something is as wanted.
func (n *node) eventually(what string, look func() bool) {
	n.t.Helper()
	end := time.NewTimer(patience)
	defer end.Stop()
	ticker := time.NewTicker(100 * time.Millisecond)
	defer ticker.Stop()
	for !look() {
		select {
		case <-ticker.C:
		case <-end.C:
			n.t.Fatalf("not seen in %s: %s", patience, what)
		}
	}
}

// get asks the health port once. An error says how the connection failed.
func (n *node) get(path string) (code int, body string, err error) {
	ctx, cancel := context.WithTimeout(n.t.Context(), patience)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://127.0.0.1:9180"+path, nil)
	if err != nil {
		return 0, "", err
	}
	response, err := n.Client().Do(request)
	if err != nil {
		return 0, "", err
	}
	defer response.Body.Close()
	content, err := io.ReadAll(response.Body)
	return response.StatusCode, string(content), err
}

// kill sends a signal to a process; the shell does it, because the machine has no program for it.
func (n *node) kill(signal, pid string) {
	n.t.Helper()
	n.Run(n.t, "sh", "-c", "kill -"+signal+" "+pid)
}

// web is what tells that nobody touched the container: it would be another one, or have another start.
func (n *node) web() string {
	n.t.Helper()
	engine := n.Engine(n.t)
	list, err := engine.ContainerList(n.t.Context(), client.ContainerListOptions{All: true, Filters: make(client.Filters).Add("label", "com.docker.compose.service=web")})
	if err != nil {
		n.t.Fatal(err)
	}
	if len(list.Items) != 1 {
		n.t.Fatalf("got %d containers of web, want one", len(list.Items))
	}
	c, err := engine.ContainerInspect(n.t.Context(), list.Items[0].ID, client.ContainerInspectOptions{})
	if err != nil {
		n.t.Fatal(err)
	}
	return fmt.Sprintf("%s started at %s, restarted %d times", c.Container.ID, c.Container.State.StartedAt, c.Container.RestartCount)
}

// checkUntouched fails when the container is not as it was.
func (n *node) checkUntouched(before, after string) {
	n.t.Helper()
	if now := n.web(); now != before {
		n.t.Errorf("%s: the container was %s and is %s", after, before, now)
	}
}

// said returns the service's log as a person reads it, and fails when the secret is in it.
func (n *node) said() string {
	n.t.Helper()
	var b strings.Builder
	for _, entry := range n.Journal(n.t, service) {
		b.WriteString(entry["MESSAGE"] + "\n")
		for name, value := range entry {
			if strings.Contains(value, secret) {
				n.t.Errorf("the journal's field %s has the secret: %s", name, value)
			}
		}
	}
	return b.String()
}

// journalctl prints the messages of all that was written so far, as a person asks for it.
func (n *node) journalctl(arguments ...string) string {
	n.t.Helper()
	n.Run(n.t, "journalctl", "--sync")
	return n.Run(n.t, "journalctl", append([]string{"--no-pager", "--output=cat"}, arguments...)...)
}

// mode is a file's permissions and owner inside.
func (n *node) mode(path string) string {
	n.t.Helper()
	return strings.TrimSpace(n.Run(n.t, "stat", "--dereference", "--format=%a %u:%g", path))
}
