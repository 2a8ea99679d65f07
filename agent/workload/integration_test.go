package workload

import (
	"bufio"
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"

	"github.com/flowviz/flowagent/agent/config"
	"github.com/flowviz/flowagent/agent/secret"
	"github.com/flowviz/flowagent/test/lab"
)

const testImage = "workload-test/app:1"

// ready is how long tests wait: long for a busy machine, and short to be stable.
var ready = config.Ready{Timeout: config.Duration(time.Minute), StableFor: config.Duration(300 * time.Millisecond)}

// site is one project on the lab's engine, gone after the test.
type site struct {
	t      *testing.T
	dir    string // of compose.yaml; its run directory is below
	name   string
	engine *client.Client
	known  []secret.Value
	cfg    config.Workload
}

func newSite(t *testing.T, compose string) *site {
	t.Helper()
	address := lab.Engine(t)
	lab.AppImage(t, testImage)
	engine, err := client.New(client.WithHost(address))
	if err != nil {
		t.Fatal(err)
	}
	dir := write(t, map[string]string{"compose.yaml": compose})
	s := &site{t: t, dir: dir, name: "workload-" + strconv.Itoa(os.Getpid()) + "-" + strings.ToLower(filepath.Base(filepath.Dir(dir))), engine: engine}
	s.name = strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || r == '-' || r == '_' {
			return r
		}
		return -1
	}, s.name)
	s.cfg = config.Workload{Project: s.name, Files: []string{filepath.Join(dir, "compose.yaml")}, Engine: config.EngineAddress(address)}
	t.Cleanup(func() {
		s.remove()
		_ = engine.Close()
	})
	return s
}

// remove takes the project's containers and networks away. The test's own context is done by then.
func (s *site) remove() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	mine := make(client.Filters).Add("label", labelProject+"="+s.name)
	containers, err := s.engine.ContainerList(ctx, client.ContainerListOptions{All: true, Filters: mine})
	if err != nil {
		s.t.Error(err)
	}
	for _, c := range containers.Items {
		if _, err := s.engine.ContainerRemove(ctx, c.ID, client.ContainerRemoveOptions{Force: true, RemoveVolumes: true}); err != nil {
			s.t.Error(err)
		}
	}
	networks, err := s.engine.NetworkList(ctx, client.NetworkListOptions{Filters: mine})
	if err != nil {
		s.t.Error(err)
	}
	for _, n := range networks.Items {
		if _, err := s.engine.NetworkRemove(ctx, n.ID, client.NetworkRemoveOptions{}); err != nil {
			s.t.Error(err)
		}
	}
}

func (s *site) rewrite(compose string) {
	s.t.Helper()
	if err := os.WriteFile(filepath.Join(s.dir, "compose.yaml"), []byte(compose), 0o644); err != nil {
		s.t.Fatal(err)
	}
}

func (s *site) store() string { return filepath.Join(s.dir, "run", "secrets") }

// runner loads the files and writes the override.
func (s *site) runner(labels map[string]string, profiles ...string) *Runner {
	s.t.Helper()
	s.cfg.Profiles = profiles
	p, err := Load(s.t.Context(), s.cfg, filepath.Join(s.dir, "run"), s.store())
	if err != nil {
		s.t.Fatal(err)
	}
	if _, err := p.WriteOverride(nil, labels); err != nil {
		s.t.Fatal(err)
	}
	plugin := lab.ComposePlugin(s.t)
	return NewRunner(p, Options{Engine: s.engine, Plugin: func() (string, error) { return plugin, nil }, Known: func() []secret.Value { return s.known }})
}

func (s *site) start(r *Runner) {
	s.t.Helper()
	if err := r.Start(s.t.Context(), ready, nil); err != nil {
		s.t.Fatal(err)
	}
}

// put makes one generation of a service's secrets, as the store does.
func (s *site) put(service, generation string, files map[string]string) {
	s.t.Helper()
	room := filepath.Join(s.store(), service)
	if err := os.MkdirAll(filepath.Join(room, generation), 0o755); err != nil {
		s.t.Fatal(err)
	}
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(room, generation, name), []byte(content), 0o444); err != nil {
			s.t.Fatal(err)
		}
		if err := os.Symlink("..data/"+name, filepath.Join(room, name)); err != nil && !errors.Is(err, os.ErrExist) {
			s.t.Fatal(err)
		}
	}
	if err := errors.Join(os.Symlink(generation, filepath.Join(room, "..data_new")), os.Rename(filepath.Join(room, "..data_new"), filepath.Join(room, "..data"))); err != nil {
		s.t.Fatal(err)
	}
}

// containerOf is the service's only container.
func (s *site) containerOf(r *Runner, service string) ContainerState {
	s.t.Helper()
	state, err := r.State(s.t.Context())
	if err != nil {
		s.t.Fatal(err)
	}
	for _, candidate := range state.Services {
		if candidate.Name == service && len(candidate.Containers) == 1 {
			return candidate.Containers[0]
		}
	}
	s.t.Fatalf("service %s has not one container: %+v", service, state)
	return ContainerState{}
}

func (s *site) log(c ContainerState) string {
	s.t.Helper()
	return strings.Join((&Runner{engine: s.engine, project: &Project{}}).lastLines(s.t.Context(), c), "\n")
}

// awaitHeedful waits until the services' programs, trap or sleep, heed signals as they are to.
func (s *site) awaitHeedful(r *Runner, services ...string) {
	s.t.Helper()
	for _, service := range services {
		s.awaitLine(s.containerOf(r, service), "ready")
	}
}

// awaitLine waits until the container has written the line.
func (s *site) awaitLine(c ContainerState, want string) {
	s.t.Helper()
	logs, err := s.engine.ContainerLogs(s.t.Context(), c.ID, client.ContainerLogsOptions{ShowStdout: true, Follow: true})
	if err != nil {
		s.t.Fatal(err)
	}
	defer logs.Close()
	lines := bufio.NewScanner(logs)
	for lines.Scan() {
		if strings.HasSuffix(lines.Text(), want) { // after the frame's header
			return
		}
	}
	s.t.Fatalf("the log of %s ended without %q: %v", c.Name, want, lines.Err())
}

// exec runs the image's program in the container and returns what it prints.
func (s *site) exec(c ContainerState, args ...string) string {
	s.t.Helper()
	created, err := s.engine.ExecCreate(s.t.Context(), c.ID, client.ExecCreateOptions{AttachStdout: true, AttachStderr: true, TTY: true, Cmd: append([]string{"/app"}, args...)})
	if err != nil {
		s.t.Fatal(err)
	}
	attached, err := s.engine.ExecAttach(s.t.Context(), created.ID, client.ExecAttachOptions{TTY: true})
	if err != nil {
		s.t.Fatal(err)
	}
	defer attached.Close()
	var out tail
	if _, err := attached.Reader.WriteTo(&out); err != nil {
		s.t.Fatal(err)
	}
	return strings.Join(out.lines(100), "\n")
}

func TestUpTwiceTouchesNoContainer(t *testing.T) {
	s := newSite(t, `
services:
  web: {image: "workload-test/app:1", command: [serve], restart: always}
  worker: {image: "workload-test/app:1", command: [trap], depends_on: [web]}
`)
	s.start(s.runner(nil))
	r := s.runner(nil)
	before := []ContainerState{s.containerOf(r, "web"), s.containerOf(r, "worker")}
	s.start(r)
	after := []ContainerState{s.containerOf(r, "web"), s.containerOf(r, "worker")}
	for i := range before {
		if before[i].ID != after[i].ID || !before[i].StartedAt.Equal(after[i].StartedAt) {
			t.Errorf("%s was touched: got %s started %s, want %s started %s", before[i].Name, after[i].ID, after[i].StartedAt, before[i].ID, before[i].StartedAt)
		}
	}
}

func TestChangedLabelRecreatesOnlyItsService(t *testing.T) {
	s := newSite(t, `
services:
  web: {image: "workload-test/app:1", command: [serve]}
  worker: {image: "workload-test/app:1", command: [trap], depends_on: [web]}
`)
	r := s.runner(map[string]string{"web": "1", "worker": "1"})
	s.start(r)
	web, worker := s.containerOf(r, "web"), s.containerOf(r, "worker")
	if web.ContentVersion != "1" {
		t.Errorf("got version %q, want 1", web.ContentVersion)
	}
	r = s.runner(map[string]string{"web": "2", "worker": "1"})
	if err := r.Up(t.Context(), "web"); err != nil {
		t.Fatal(err)
	}
	if got := s.containerOf(r, "web"); got.ID == web.ID || got.ContentVersion != "2" {
		t.Errorf("web: got container %s with version %q, want a new one with version 2", shortID(got.ID), got.ContentVersion)
	}
	if got := s.containerOf(r, "worker"); got.ID != worker.ID || !got.StartedAt.Equal(worker.StartedAt) {
		t.Errorf("worker was touched")
	}
}

func TestProfileSwitchStopsWhatLeft(t *testing.T) {
	const compose = `
services:
  web: {image: "workload-test/app:1", command: [serve]}
  blue: {image: "workload-test/app:1", command: [trap], profiles: [blue], stop_signal: SIGINT}
  green: {image: "workload-test/app:1", command: [trap], profiles: [green]}
  old: {image: "workload-test/app:1", command: [trap], profiles: [blue]}
`
	s := newSite(t, compose)
	r := s.runner(nil, "blue")
	s.start(r)
	web := s.containerOf(r, "web")
	s.rewrite(strings.Replace(compose, "  old: {image", "  #old: {image", 1))
	r = s.runner(nil, "green")
	left, err := r.StopLeft(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var services []string
	for _, c := range left {
		services = append(services, c.Service)
	}
	if diff := cmp.Diff([]string{"blue", "old"}, services); diff != "" {
		t.Errorf("stopped (-want +got):\n%s", diff)
	}
	s.start(r)
	state, err := r.State(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if got, want := state.String(), "green=running web=running"; got != want || len(state.Left) != 0 {
		t.Errorf("got %s and left %v, want %s and none", got, state.Left, want)
	}
	if got := s.containerOf(r, "web"); got.ID != web.ID {
		t.Error("web, which is in both, was recreated")
	}
}

func TestSecretsAreMountedReadOnlyAndRotateLive(t *testing.T) {
	lab.Root(t) // files of other owners
	s := newSite(t, `
services:
  web:
    image: "workload-test/app:1"
    command: [serve]
    read_only: true
    tmpfs: [/run]
    secrets: [password, {source: cert, target: /etc/ssl/web.key}, {source: unset, target: token}]
secrets:
  password: {external: true}
  cert: {external: true}
  unset: {environment: WORKLOAD_TEST_UNSET}
`)
	s.put("web", "..1", map[string]string{"password": "first", "token": "t", "@%2Fetc%2Fssl%2Fweb.key": "cert-1"})
	path := filepath.Join(s.store(), "web", "..1", "password")
	if err := errors.Join(os.Chown(path, 1000, 2000), os.Chmod(path, 0o440)); err != nil {
		t.Fatal(err)
	}
	r := s.runner(nil)
	s.start(r)
	c := s.containerOf(r, "web")
	if got, want := s.exec(c, "stat", "/run/secrets/password"), "0440 1000:2000 /run/secrets/password"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got, want := s.exec(c, "cat", "/run/secrets/password", "/run/secrets/token", "/etc/ssl/web.key"), "firsttcert-1"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got := s.exec(c, "write", "/run/secrets/x", "y"); !strings.Contains(got, "read-only file system") {
		t.Errorf("writing below /run/secrets: got %q, want it refused", got)
	}
	s.put("web", "..2", map[string]string{"password": "second", "token": "t", "@%2Fetc%2Fssl%2Fweb.key": "cert-2"})
	if got, want := s.exec(c, "cat", "/run/secrets/password"), "second"; got != want {
		t.Errorf("after a rotation: got %q, want %q", got, want)
	}
	if got, want := s.exec(c, "cat", "/etc/ssl/web.key"), "cert-1"; got != want {
		t.Errorf("single file after a rotation: got %q, want %q; if it does rotate, ForcesRestart is needless", got, want)
	}
	r = s.runner(map[string]string{"web": "2"})
	s.start(r)
	if got, want := s.exec(s.containerOf(r, "web"), "cat", "/etc/ssl/web.key"), "cert-2"; got != want {
		t.Errorf("single file after the service was recreated: got %q, want %q", got, want)
	}
}

func TestContainerWithoutItsSecretsDoesNotStartAndKeepsItsPolicy(t *testing.T) {
	s := newSite(t, `
services: {web: {image: "workload-test/app:1", command: [serve], restart: always, secrets: [password]}}
secrets: {password: {external: true}}
`)
	s.put("web", "..1", map[string]string{"password": "first"})
	r := s.runner(nil)
	s.start(r)
	c := s.containerOf(r, "web")
	if err := r.Stop(t.Context(), nil, time.Minute); err != nil {
		t.Fatal(err)
	}
	// What a reboot does: the tmpfs is empty when the engine starts containers again.
	if err := os.RemoveAll(s.store()); err != nil {
		t.Fatal(err)
	}
	if _, err := s.engine.ContainerStart(t.Context(), c.ID, client.ContainerStartOptions{}); err == nil {
		t.Fatal("the engine started a container without its secrets")
	}
	if _, err := os.Stat(s.store()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the engine made the missing directory (%v)", err)
	}
	s.put("web", "..1", map[string]string{"password": "first"})
	s.start(r)
	after := s.containerOf(r, "web")
	if after.ID != c.ID || after.Status != "running" {
		t.Errorf("got container %s %s, want %s running", shortID(after.ID), after.Status, shortID(c.ID))
	}
	inspected, err := s.engine.ContainerInspect(t.Context(), c.ID, client.ContainerInspectOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if got := inspected.Container.HostConfig.RestartPolicy.Name; got != container.RestartPolicyAlways {
		t.Errorf("got restart policy %s, want the declared always", got)
	}
}

func TestOneShotThatEndsWithZeroIsDone(t *testing.T) {
	s := newSite(t, `
services:
  migrate: {image: "workload-test/app:1", command: [exit, "0", -print, migrated]}
  web: {image: "workload-test/app:1", command: [serve], depends_on: {migrate: {condition: service_completed_successfully}}}
`)
	r := s.runner(nil)
	var seen []string
	if err := r.Start(t.Context(), ready, func(state State) { seen = append(seen, state.String()) }); err != nil {
		t.Fatal(err)
	}
	if len(seen) == 0 || seen[len(seen)-1] != "migrate=done web=running" {
		t.Errorf("got progress %q, want it to end with migrate=done web=running", seen)
	}
}

func TestOneShotThatIsDoneRunsAgainOnlyWhenSomethingChanged(t *testing.T) {
	const compose = `
services:
  migrate: {image: "workload-test/moved:1", command: [exit, "0", -print, migrated]}
  web: {image: "workload-test/app:1", command: [serve], depends_on: {migrate: {condition: service_completed_successfully}}}
`
	const moved = "workload-test/moved:1"
	s := newSite(t, compose)
	if _, err := s.engine.ImageTag(t.Context(), client.ImageTagOptions{Source: testImage, Target: moved}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_, _ = s.engine.ImageRemove(context.Background(), moved, client.ImageRemoveOptions{Force: true}) // a leftover harms nobody
	})
	r := s.runner(nil)
	s.start(r)
	last := s.containerOf(r, "migrate")
	for _, change := range []struct {
		what string
		make func()
		runs bool
	}{
		{"nothing changed", func() {}, false},
		{"another service runs with other secrets", func() { r = s.runner(map[string]string{"web": "2"}) }, true},
		{"nothing changed after that", func() {}, false},
		{"the files changed", func() {
			s.rewrite(strings.Replace(compose, "migrated]", "migrated, -print, again]", 1))
			r = s.runner(map[string]string{"web": "2"})
		}, true},
		{"a service was stopped", func() {
			if _, err := s.engine.ContainerStop(t.Context(), s.containerOf(r, "web").ID, client.ContainerStopOptions{}); err != nil {
				t.Fatal(err)
			}
		}, true},
		{"a service is gone", func() { s.removeContainer(s.containerOf(r, "web")) }, true},
		{"the image's tag is another's", func() {
			web := s.containerOf(r, "web")
			if _, err := s.engine.ContainerCommit(t.Context(), web.ID, client.ContainerCommitOptions{Reference: moved}); err != nil {
				t.Fatal(err)
			}
		}, true},
		{"nothing changed at last", func() {}, false},
	} {
		change.make()
		s.start(r)
		now := s.containerOf(r, "migrate")
		if ran := now.ID != last.ID || !now.StartedAt.Equal(last.StartedAt); ran != change.runs {
			t.Errorf("%s: migrate ran again: %t, want %t", change.what, ran, change.runs)
		}
		last = now
	}
}

func TestFailedOneShotEndsTheWaitWithItsLastLines(t *testing.T) {
	s := newSite(t, `
services:
  web: {image: "workload-test/app:1", command: [serve]}
  migrate: {image: "workload-test/app:1", command: [exit, "3", -print, "cannot log in as app with `+canary+`"]}
`)
	s.known = []secret.Value{secret.NewValue([]byte(canary))}
	// On a busy machine migrate may still be seen running when compose ends: without stableFor that would do.
	err := s.runner(nil).Start(t.Context(), config.Ready{StableFor: config.Duration(time.Minute)}, nil)
	var notReady *NotReadyError
	if !errors.As(err, &notReady) || len(notReady.Failures) != 1 {
		t.Fatalf("got error %v, want a NotReadyError with one failure", err)
	}
	failure := notReady.Failures[0]
	if failure.Service != "migrate" || failure.Reason != "ended with exit code 3" || !slices.Equal(failure.Log, []string{"cannot log in as app with [redacted]"}) {
		t.Errorf("got %+v, want migrate's exit code 3 and its line without the secret", failure)
	}
	if text := err.Error(); strings.Contains(text, canary) || !strings.Contains(text, "docker logs "+failure.Container) {
		t.Errorf("got message %q, want no secret and what to do next", text)
	}
}

func TestFailedDependencyCarriesItsLastLines(t *testing.T) {
	s := newSite(t, `
services:
  migrate: {image: "workload-test/app:1", command: [exit, "4", -print, "relation does not exist"]}
  web: {image: "workload-test/app:1", command: [serve], depends_on: {migrate: {condition: service_completed_successfully}}}
`)
	err := s.runner(nil).Up(t.Context())
	if err == nil {
		t.Fatal("got no error")
	}
	for _, want := range []string{"didn't complete successfully", `service "migrate" ended with exit code 4`, "| relation does not exist"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("got error %q, want %q in it", err, want)
		}
	}
}

func TestFailedOneShotOfTheLastStartIsTriedAgain(t *testing.T) {
	s := newSite(t, `
services:
  migrate: {image: "workload-test/app:1", command: [cat, /data/schema], volumes: ["./data:/data"]}
  web: {image: "workload-test/app:1", command: [serve], depends_on: {migrate: {condition: service_completed_successfully}}}
`)
	if err := os.Mkdir(filepath.Join(s.dir, "data"), 0o755); err != nil {
		t.Fatal(err)
	}
	r := s.runner(nil)
	if err := r.Start(t.Context(), ready, nil); err == nil {
		t.Fatal("got no error for a migration that fails")
	}
	if err := os.WriteFile(filepath.Join(s.dir, "data", "schema"), []byte("ok"), 0o644); err != nil {
		t.Fatal(err)
	}
	s.start(r)
}

func TestCrashLoopFailsBeforeTheTimeout(t *testing.T) {
	s := newSite(t, `services: {web: {image: "workload-test/app:1", command: [exit, "7", -print, "no such table"], restart: always}}`)
	// An engine that is slow to tell of an end mustn't make a container stable that ends at once.
	err := s.runner(nil).Start(t.Context(), config.Ready{StableFor: config.Duration(time.Minute)}, nil)
	var notReady *NotReadyError
	if !errors.As(err, &notReady) || notReady.Waited != 0 {
		t.Fatalf("got error %v, want a NotReadyError before any timeout", err)
	}
	if f := notReady.Failures[0]; !strings.Contains(f.Reason, "crash loop") || !slices.Contains(f.Log, "no such table") {
		t.Errorf("got %+v, want a crash loop with its last lines", f)
	}
}

const probed = `
services:
  web:
    image: "workload-test/app:1"
    command: [serve%s]
    healthcheck: {test: [CMD, /app, healthcheck, "http://127.0.0.1:8080/health"], interval: 1s, timeout: 1s, retries: 1}
`

func TestUnhealthyServiceIsGivenTheWholeTimeout(t *testing.T) {
	s := newSite(t, strings.Replace(probed, "%s", ", -ready-after, 1h", 1))
	r := s.runner(nil)
	if err := r.Up(t.Context()); err != nil {
		t.Fatal(err)
	}
	// How long compose and the first check take isn't known, so the timeout begins after them.
	unhealthy, cancel := context.WithCancel(t.Context())
	defer cancel()
	err := r.WaitReady(unhealthy, config.Ready{}, func(state State) {
		if state.Services[0].Phase == PhaseUnhealthy {
			cancel()
		}
	})
	if !errors.Is(err, context.Canceled) {
		t.Fatalf("got error %v, want that web is unhealthy", err)
	}
	err = r.WaitReady(t.Context(), config.Ready{Timeout: config.Duration(4 * time.Second)}, nil)
	var notReady *NotReadyError
	if !errors.As(err, &notReady) || notReady.Waited != 4*time.Second || len(notReady.Failures) != 1 {
		t.Fatalf("got error %v, want a NotReadyError after 4s", err)
	}
	f := notReady.Failures[0]
	if f.Phase != PhaseUnhealthy || !strings.Contains(f.Check, "status 503") || len(f.Log) == 0 {
		t.Errorf("got %+v, want web unhealthy with the check's output and its log", f)
	}
}

// newMoody is a site whose service web is unhealthy until it is cheered up.
func newMoody(t *testing.T) (s *site, cheerUp func()) {
	t.Helper()
	s = newSite(t, strings.Replace(probed, "%s", ", -unhealthy-file, /mood/bad", 1)+`    volumes: ["./mood:/mood"]`)
	bad := filepath.Join(s.dir, "mood", "bad")
	if err := errors.Join(os.Mkdir(filepath.Dir(bad), 0o755), os.WriteFile(bad, nil, 0o644)); err != nil {
		t.Fatal(err)
	}
	return s, func() {
		if err := os.Remove(bad); err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Error(err)
		}
	}
}

func TestUnhealthyServiceMayRecover(t *testing.T) {
	s, cheerUp := newMoody(t)
	var phases []Phase
	if err := s.runner(nil).Start(t.Context(), ready, func(state State) {
		phases = append(phases, state.Services[0].Phase)
		if state.Services[0].Phase == PhaseUnhealthy {
			cheerUp()
		}
	}); err != nil {
		t.Fatal(err)
	}
	if !slices.Contains(phases, PhaseUnhealthy) || phases[len(phases)-1] != PhaseRunning {
		t.Errorf("got phases %v, want unhealthy on the way to running", phases)
	}
}

func TestEveryReplicaMustBeReady(t *testing.T) {
	s := newSite(t, `services: {web: {image: "workload-test/app:1", command: [serve], scale: 3}}`)
	r := s.runner(nil)
	s.start(r)
	state, err := r.State(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if got := state.Services[0]; got.Wanted != 3 || len(got.Containers) != 3 || got.Containers[2].Number != 3 {
		t.Errorf("got %+v, want three containers", got)
	}
}

func TestMissingImageIsNotPulled(t *testing.T) {
	s := newSite(t, `services: {web: {image: "workload-test/missing:1", pull_policy: always}}`)
	err := s.runner(nil).Start(t.Context(), ready, nil)
	if err == nil || !strings.Contains(err.Error(), "No such image: workload-test/missing:1: pull or load it first") {
		t.Errorf("got error %v, want one that names the image and what to do", err)
	}
}

func TestImageThatCannotStartFailsWithTheEnginesReason(t *testing.T) {
	s := newSite(t, `services: {web: {image: "workload-test/app:1", entrypoint: [/nope]}}`)
	err := s.runner(nil).Start(t.Context(), ready, nil)
	if err == nil || !strings.Contains(err.Error(), "/nope") {
		t.Errorf("got error %v, want one about /nope", err)
	}
}

func TestDeadEngineIsNamedWithWhatToDo(t *testing.T) {
	s := newSite(t, `services: {web: {image: "workload-test/app:1"}}`)
	socket := "unix://" + filepath.Join(t.TempDir(), "dead.sock")
	s.cfg.Engine = config.EngineAddress(socket)
	r := s.runner(nil)
	dead, err := client.New(client.WithHost(socket))
	if err != nil {
		t.Fatal(err)
	}
	defer dead.Close()
	r.engine = dead
	_, stateErr := r.State(t.Context())
	_, leftErr := r.StopLeft(t.Context())
	for name, err := range map[string]error{
		"Start": r.Start(t.Context(), ready, nil), "Up": r.Up(t.Context()), "WaitReady": r.WaitReady(t.Context(), ready, nil),
		"State": stateErr, "StopLeft": leftErr, "Stop": r.Stop(t.Context(), nil, time.Second), "Signal": r.Signal(t.Context(), []string{"web"}, "SIGHUP"),
	} {
		if err == nil || !strings.Contains(err.Error(), socket) || !strings.Contains(err.Error(), "systemctl start docker") {
			t.Errorf("%s: got error %v, want the socket and what to do", name, err)
		}
	}
}

func TestStopFollowsTheOrderAndSignalsOfTheServices(t *testing.T) {
	s := newSite(t, `
services:
  web: {image: "workload-test/app:1", command: [trap, -linger, 300ms], depends_on: [db], restart: always}
  worker: {image: "workload-test/app:1", command: [trap, -linger, 300ms], depends_on: [db], stop_signal: SIGINT}
  db: {image: "workload-test/app:1", command: [trap]}
  deaf: {image: "workload-test/app:1", command: [sleep], stop_grace_period: 1s}
`)
	r := s.runner(nil)
	s.start(r)
	s.awaitHeedful(r, "web", "worker", "db", "deaf")
	if err := r.Stop(t.Context(), []string{"worker"}, time.Minute); err != nil {
		t.Fatal(err)
	}
	web, worker, db, deaf := s.containerOf(r, "web"), s.containerOf(r, "worker"), s.containerOf(r, "db"), s.containerOf(r, "deaf")
	if !worker.FinishedAt.Before(web.FinishedAt) || !web.FinishedAt.Before(db.FinishedAt) {
		t.Errorf("got ends worker %s, web %s, db %s, want them in this order", worker.FinishedAt, web.FinishedAt, db.FinishedAt)
	}
	for c, want := range map[*ContainerState]struct {
		log  string
		code int
	}{&web: {"SIGTERM", 0}, &worker: {"SIGINT", 0}, &db: {"SIGTERM", 0}, &deaf: {"ready", 137}} {
		if got := s.log(*c); !strings.HasSuffix(got, want.log) || c.ExitCode != want.code || c.Status != "exited" {
			t.Errorf("%s: got log %q, exit code %d and status %s, want %s, %d and exited", c.Name, got, c.ExitCode, c.Status, want.log, want.code)
		}
	}
	if err := r.Stop(t.Context(), nil, time.Minute); err != nil {
		t.Errorf("stopping what is stopped: got %v, want no error", err)
	}
	if err := r.Stop(t.Context(), []string{"wrk"}, time.Minute); err == nil || !strings.Contains(err.Error(), `no service "wrk"`) {
		t.Errorf("got error %v, want one about the unknown service", err)
	}
}

func TestStopWithoutBudgetKills(t *testing.T) {
	s := newSite(t, `services: {deaf: {image: "workload-test/app:1", command: [sleep], stop_grace_period: 10m}}`)
	r := s.runner(nil)
	s.start(r)
	s.awaitHeedful(r, "deaf")
	if err := r.Stop(t.Context(), nil, 0); err != nil {
		t.Fatal(err)
	}
	if c := s.containerOf(r, "deaf"); c.Status != "exited" || c.ExitCode != 137 {
		t.Errorf("got %s with exit code %d, want exited with 137", c.Status, c.ExitCode)
	}
}

func TestStopRunsPreStopHooks(t *testing.T) {
	s := newSite(t, `
services:
  web:
    image: "workload-test/app:1"
    command: [trap]
    volumes: ["./data:/data"]
    pre_stop: [{command: [/app, write, /data/hook, ran]}]
`)
	if err := os.Mkdir(filepath.Join(s.dir, "data"), 0o755); err != nil {
		t.Fatal(err)
	}
	r := s.runner(nil)
	s.start(r)
	if err := r.Stop(t.Context(), nil, time.Minute); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(filepath.Join(s.dir, "data", "hook")); err != nil || string(got) != "ran" {
		t.Errorf("got %q and error %v, want the hook's file", got, err)
	}
	if c := s.containerOf(r, "web"); c.Status != "exited" {
		t.Errorf("got %s, want exited", c.Status)
	}
}

func TestSignalReachesTheMainProcess(t *testing.T) {
	s := newSite(t, `services: {worker: {image: "workload-test/app:1", command: [trap]}, web: {image: "workload-test/app:1", command: [trap]}}`)
	r := s.runner(nil)
	s.start(r)
	s.awaitHeedful(r, "worker", "web")
	if err := r.Signal(t.Context(), []string{"worker"}, "SIGHUP"); err != nil {
		t.Fatal(err)
	}
	if err := r.Stop(t.Context(), nil, time.Minute); err != nil {
		t.Fatal(err)
	}
	if got, want := s.log(s.containerOf(r, "worker")), "ready\nSIGHUP\nSIGTERM"; got != want {
		t.Errorf("worker: got log %q, want %q", got, want)
	}
	if got, want := s.log(s.containerOf(r, "web")), "ready\nSIGTERM"; got != want {
		t.Errorf("web: got log %q, want %q", got, want)
	}
	if err := r.Signal(t.Context(), []string{"wroker"}, "SIGHUP"); err == nil || !strings.Contains(err.Error(), `did you mean "worker"?`) {
		t.Errorf("got error %v, want a suggestion", err)
	}
}

func TestCancelledUpEndsCompose(t *testing.T) {
	s := newSite(t, strings.Replace(probed, "%s", ", -ready-after, 1h", 1)+`
    depends_on: {gate: {condition: service_healthy}}
  gate:
    image: "workload-test/app:1"
    command: [serve, -ready-after, 1h]
    healthcheck: {test: [CMD, /app, healthcheck, "http://127.0.0.1:8080/health"], interval: 1s, retries: 1000}
`)
	r := s.runner(nil)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	err := r.Start(ctx, ready, func(state State) {
		// Compose has made all containers and waits for this one.
		if state.Services[0].Name == "gate" && state.Services[0].Reason == "is not healthy yet" {
			cancel()
		}
	})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got error %v, want context.Canceled", err)
	}
	// The lock is free when nothing of compose runs any more.
	lock, err := lockFile(t.Context(), filepath.Join(s.dir, "run", "compose.lock"))
	if err != nil {
		t.Fatal(err)
	}
	_ = lock.Close()
}

func TestComposeWaitsForOneThatAnotherAgentLeft(t *testing.T) {
	s := newSite(t, `services: {web: {image: "workload-test/app:1", command: [serve]}}`)
	r := s.runner(nil)
	lock, err := lockFile(t.Context(), filepath.Join(s.dir, "run", "compose.lock"))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if err := r.Up(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("while another runs: got error %v, want the deadline", err)
	}
	if err := lock.Close(); err != nil {
		t.Fatal(err)
	}
	if err := r.Up(t.Context()); err != nil {
		t.Errorf("after it ended: got %v, want no error", err)
	}
}

func TestWaitReadyFollowsWhatOthersStart(t *testing.T) {
	s := newSite(t, `services: {web: {image: "workload-test/app:1", command: [serve]}}`)
	r := s.runner(nil)
	s.start(r)
	if err := r.Stop(t.Context(), nil, time.Minute); err != nil {
		t.Fatal(err)
	}
	c := s.containerOf(r, "web")
	s.rewrite(`services: {web: {image: "workload-test/app:1", command: [serve], restart: always}}`)
	r = s.runner(nil)
	started := false
	err := r.WaitReady(t.Context(), ready, func(state State) {
		if !started && state.Services[0].Phase == PhaseStopped {
			started = true
			if _, err := s.engine.ContainerStart(t.Context(), c.ID, client.ContainerStartOptions{}); err != nil {
				t.Error(err)
			}
		}
	})
	if err != nil || !started {
		t.Errorf("got error %v, started %v, want ready after somebody started it", err, started)
	}
}
