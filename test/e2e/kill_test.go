package e2e

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"syscall"
	"testing"
)

// request matches a request to the engine by its method and path, without the API's version.
func request(method, path string) func(*http.Request) bool {
	pattern := regexp.MustCompile(`^(/v1\.\d+)?` + path + `$`)
	return func(r *http.Request) bool { return r.Method == method && pattern.MatchString(r.URL.Path) }
}

const (
	creation = "/containers/create"
	starting = "/containers/[^/]+/start"
	listing  = "/containers/json"
)

func TestAnAgentThatIsKilledWhileItBootsIsFollowedByOneThatConverges(t *testing.T) {
	t.Parallel()
	engine := func(method, path string) func(*node, *gate) *stop {
		return func(n *node, g *gate) *stop { return g.hold(n.t, method+" "+path, request(method, path)) }
	}
	secrets := func(n *node, _ *gate) *stop { return n.holdAWS("BatchGetSecretValue") }
	for _, test := range []struct {
		while string
		// first and again make the first agent of a machine, and one with everything running, wait at the place.
		first, again func(*node, *gate) *stop
	}{
		{"it finds the engine", engine("HEAD", "/_ping"), engine("HEAD", "/_ping")},
		{"it fetches secrets", secrets, secrets},
		{"it looks for images", engine("GET", "/images/.*/json"), engine("GET", "/images/.*/json")},
		{"it looks for containers", engine("GET", listing), engine("GET", listing)},
		{"compose creates containers", engine("POST", creation), nil},
		{"compose starts containers", engine("POST", starting), nil},
	} {
		t.Run(test.while, func(t *testing.T) {
			t.Parallel()
			n := newNode(t, "stories/killed")
			g := n.gateEngine()
			killAt(n, test.first(n, g))
			serving := n.boot()
			n.checkConverged("key-number-one")
			before := n.boxes()

			serving.kill()
			if test.again != nil {
				killAt(n, test.again(n, g))
				n.checkUntouched(before)
			}
			n.boot()
			n.checkConverged("key-number-one")
			n.checkUntouched(before)
		})
	}
}

func TestAnAgentThatIsKilledWhileItAsksWhoItIsIsFollowedByOneThatConverges(t *testing.T) {
	t.Parallel()
	n := newNode(t, "stories/killed")
	n.onEC2("#!/bin/sh\necho not a flowagent document\n")
	n.dropIn("50-ec2.yaml", "node: {provider: ec2}\n")
	g := n.gateMetadata()
	token := func(r *http.Request) bool { return r.Method == http.MethodPut }
	killAt(n, g.hold(t, "the request for a session token", token))
	killAt(n, g.hold(t, "the request for user data", func(r *http.Request) bool { return r.URL.Path == "/latest/user-data" }))
	serving := n.boot()
	n.checkConverged("key-number-one")
	before := n.boxes()
	serving.kill()
	killAt(n, g.hold(t, "the request for a session token", token))
	n.boot()
	n.checkUntouched(before)
}

func TestAnAgentThatIsKilledWhileItPullsIsFollowedByOneThatConverges(t *testing.T) {
	t.Parallel()
	n := newNode(t, "stories/killed")
	n.useSlowRegistry()
	killAt(n, n.slow.hold(t))
	n.boot()
	n.checkConverged("key-number-one")
}

func TestAnAgentThatIsKilledWhileAServiceWarmsUpIsFollowedByOneThatConverges(t *testing.T) {
	t.Parallel()
	n := newNode(t, "stories/killed")
	cold := filepath.Join(n.etc(), "mood", "cold") // while it is there, the service warms up
	if err := errors.Join(os.Mkdir(filepath.Dir(cold), 0o755), os.WriteFile(cold, nil, 0o644)); err != nil {
		t.Fatal(err)
	}
	n.write("cold.yaml", `services:
  web: {command: [serve, -unhealthy-file, /mood/cold], volumes: ["./mood:/mood"], healthcheck: {start_period: 10m}}
`)
	n.dropIn("50-cold.yaml", "workload: {files: [../compose.yaml, ../cold.yaml]}\n")
	a := n.start()
	eventually(t, "web waiting to be healthy", func() bool {
		status, err := n.ask().Status(t.Context())
		if err != nil {
			return false
		}
		for _, service := range status.Workload.Services {
			if service.Name == "web" && service.Phase == "starting" {
				return len(service.Containers) == 1 && service.Containers[0].Status == "running"
			}
		}
		return false
	})
	started := n.boxes()
	a.kill()
	if err := os.Remove(cold); err != nil {
		t.Fatal(err)
	}
	n.boot()
	n.checkConverged("key-number-one")
	n.checkUntouched(started)
}

// A recreate is five requests of compose. Systemd, when it ends a unit, kills compose with the agent; where nobody does,
// compose goes on.
func TestAnAgentThatIsKilledWhileItRecreatesAServiceIsFollowedByOneThatConverges(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		method, path string
		orphan       []bool
	}{
		{"POST", creation, []bool{false, true}},
		{"POST", "/containers/[^/]+/stop", []bool{false}},
		{"DELETE", "/containers/[^/]+", []bool{false, true}},
		{"POST", "/containers/[^/]+/rename", []bool{false}},
		{"POST", starting, []bool{false}},
	} {
		for _, orphan := range test.orphan {
			name := fmt.Sprintf("%s %s", test.method, test.path)
			if orphan {
				name += ", compose goes on"
			}
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				n := newNode(t, "stories/killed")
				g := n.gateEngine()
				a := n.boot()
				before := n.boxes()
				place := g.hold(t, name, request(test.method, test.path))
				n.rotate("e2e/key", "key-number-two")
				refreshed := make(chan error, 1)
				go func() { refreshed <- n.refresh() }()
				place.awaitArrival(a)
				a.kill()
				if err := <-refreshed; err == nil {
					t.Error("refresh: got no error from an agent that was killed")
				}
				if !orphan {
					for _, pid := range n.plugins() {
						_ = syscall.Kill(pid, syscall.SIGKILL)
					}
				}
				place.release()
				n.boot()
				n.checkConverged("key-number-two")
				n.checkUntouched(before, "steady")
				if n.boxes()["web"].ID == before["web"].ID {
					t.Error("the container of web is the same, want one with the new secret")
				}
			})
		}
	}
}

// killAt runs an agent up to a place and kills it there; whoever else waits at the place then goes on.
func killAt(n *node, place *stop) {
	n.t.Helper()
	a := n.start()
	place.awaitArrival(a)
	a.kill()
	place.release()
}

// checkConverged looks at what an agent that came after a killed one made of it.
func (n *node) checkConverged(key string) {
	n.t.Helper()
	n.checkTidy()
	n.checkReads("web", "/run/secrets/key", key)
	n.checkReads("steady", "/run/secrets/steady_key", "steady-number-one")
	if boxes := n.boxes(); len(boxes) != 2 {
		n.t.Errorf("got the containers %v, want those of web and steady", boxes)
	}
	if pids := n.plugins(); len(pids) > 0 {
		n.t.Errorf("compose is still at work for a ready node: %v", pids)
	}
	if code, body := n.health(); code != 200 {
		n.t.Errorf("/health: got %d %s, want 200", code, body)
	}
}
