package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	sm "github.com/aws/aws-sdk-go-v2/service/secretsmanager"
	"github.com/moby/moby/client"
	"golang.org/x/sys/unix"

	"github.com/flowviz/flowagent/agent/control"
	"github.com/flowviz/flowagent/agent/report"
	"github.com/flowviz/flowagent/internal/awsfake"
	"github.com/flowviz/flowagent/test/lab"
)

// patience bounds every wait. Nothing here needs more than some seconds; the rest is for a loaded CI machine.
const patience = 90 * time.Second

// localImage is ${APP} where a case asks for no registry.
const localImage = "e2e/app:1"

// node is one machine: its files, its part of the engine, and its agents, one after the other.
type node struct {
	t       *testing.T
	dir     string // everything of it, on a disk but for the mounts below
	project string
	address string // of health.listen
	app     string // the image under ${APP}
	env     map[string]string
	engine  *client.Client
	socket  string // path of the engine's

	scene    scene
	expand   map[string]string
	secrets  []string // what no agent may print
	registry *lab.RegistryServer
	slow     *narrow // in front of registry
	aws      *awsfake.Server
	metadata *lab.MetadataServer // of an instance
	userData string
	vault    *sm.Client
	agents   []*process
}

var nodes atomic.Int64

// newNode makes a machine from a case's directory. Everything of it is gone after the test.
func newNode(t *testing.T, dir string) *node {
	t.Helper()
	address := lab.Engine(t)
	lab.AppImage(t, localImage)
	return newNodeOn(t, dir, address)
}

// newNodeOn makes a machine whose engine is the one at address, which has localImage.
func newNodeOn(t *testing.T, dir, address string) *node {
	t.Helper()
	lab.Root(t)
	plugin := lab.ComposePlugin(t)
	engine, err := client.New(client.WithHost(address))
	if err != nil {
		t.Fatal(err)
	}
	// Not t.TempDir: a socket's path has at most 107 bytes (unix(7)).
	home, err := os.MkdirTemp("", "e2e-")
	if err != nil {
		t.Fatal(err)
	}
	number := nodes.Add(1)
	n := &node{
		t: t, dir: home, engine: engine, socket: strings.TrimPrefix(address, "unix://"), app: localImage,
		project: fmt.Sprintf("e2e-%d-%d", os.Getpid(), number),
		// A loopback address that nobody else uses needs no search for a free port. Package faults, which may run beside
		// this one, has 127.126.0.0 and up.
		address: fmt.Sprintf("127.%d.%d.%d:9180", 1+os.Getpid()%125, number/250, 1+number%250),
		env:     map[string]string{},
	}
	t.Cleanup(func() { _ = engine.Close() })
	t.Cleanup(n.clean)
	for _, sub := range []string{"etc/config.d", "docker/cli-plugins", "home", "tmp"} {
		if err := os.MkdirAll(filepath.Join(home, sub), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(plugin, filepath.Join(home, "docker/cli-plugins/docker-compose")); err != nil {
		t.Fatal(err)
	}
	n.env["GORACE"] = "atexit_sleep_ms=0" // by default every program built with the race detector ends a second late
	n.env["DOCKER_CONFIG"], n.env["HOME"], n.env["TMPDIR"] = filepath.Join(home, "docker"), filepath.Join(home, "home"), filepath.Join(home, "tmp")
	n.furnish(dir)
	n.settle()
	return n
}

func (n *node) etc() string    { return filepath.Join(n.dir, "etc") }
func (n *node) run() string    { return filepath.Join(n.dir, "run") }
func (n *node) state() string  { return filepath.Join(n.dir, "state") }
func (n *node) record() string { return filepath.Join(n.state(), "boot.json") }
func (n *node) store() string  { return filepath.Join(n.run(), "secrets") }

// write puts a file beside config.yaml; only root can read it, as with all that an operator puts there.
func (n *node) write(name, content string) {
	n.t.Helper()
	path := filepath.Join(n.etc(), name)
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		n.t.Fatal(err)
	}
}

// settle writes the drop-in with what differs from run to run.
func (n *node) settle() {
	n.t.Helper()
	n.write("config.d/90-e2e.yaml", fmt.Sprintf(`workload:
  project: %s
  engine: unix://%s
  variables: {APP: %q}
  cleanUp: {minFree: 0}
health: {listen: %q}
`, n.project, n.socket, n.app, n.address))
}

// dropIn adds to the configuration, after the case's own and before the harness's.
func (n *node) dropIn(name, content string) {
	n.t.Helper()
	n.write("config.d/"+name, content)
}

// process is one agent.
type process struct {
	n       *node
	pid     int
	journal *journal
	done    chan struct{}
	code    int // valid once done is closed
}

// start runs an agent, which ends with the test at the latest. Arguments are added to those of `flowagent run`.
func (n *node) start(arguments ...string) *process {
	n.t.Helper()
	a := &process{n: n, journal: newJournal(), done: make(chan struct{})}
	cmd := n.command(append([]string{"run", "--log-format", "json"}, arguments...)...)
	cmd.Stdout, cmd.Stderr = a.journal, a.journal
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	started := make(chan error)
	go func() {
		// The kernel sends Pdeathsig when the thread that forked ends: keep it.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err != nil {
			return
		}
		_ = cmd.Wait() // its exit code tells
		a.code = cmd.ProcessState.ExitCode()
		close(a.done)
	}()
	if err := <-started; err != nil {
		n.t.Fatal(err)
	}
	a.pid = cmd.Process.Pid
	n.agents = append(n.agents, a)
	return a
}

// boot runs an agent and waits until the node is ready.
func (n *node) boot(arguments ...string) *process {
	n.t.Helper()
	a := n.start(arguments...)
	a.awaitReady()
	return a
}

func (n *node) command(arguments ...string) *exec.Cmd {
	cmd := exec.Command(agentBinary, append([]string{
		"--config", filepath.Join(n.etc(), "config.yaml"), "--run-dir", n.run(), "--state-dir", n.state(),
	}, arguments...)...)
	cmd.Dir = n.dir
	cmd.Env = n.environment()
	cmd.WaitDelay = 5 * time.Second // for a child that has its output open
	return cmd
}

// flowagent runs another command of the binary and returns what it printed and its exit code.
func (n *node) flowagent(arguments ...string) (stdout, stderr string, code int) {
	n.t.Helper()
	cmd := n.command(arguments...)
	var out, problems bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &problems
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		n.t.Fatal(err)
	}
	n.checkPrinted("flowagent "+arguments[0], out.String()+problems.String())
	return out.String(), problems.String(), cmd.ProcessState.ExitCode()
}

// awaitReady waits, as an operator would, and then until the agent has noted that its node is ready. It returns the status,
// in which the boot is over.
func (a *process) awaitReady() report.Status {
	a.n.t.Helper()
	stdout, stderr, code := a.n.flowagent("status", "--wait", patience.String(), "--output", "json")
	if code != 0 {
		a.n.t.Fatalf("the node is not ready: %s", stderr)
	}
	var status report.Status
	if err := json.Unmarshal([]byte(stdout), &status); err != nil {
		a.n.t.Fatal(err)
	}
	// The record comes last.
	eventually(a.n.t, "the boot's record", func() bool {
		_, untold := a.journal.find(func(e event) bool { return e.Msg == "boot not recorded" })
		record, err := report.ReadRecord(a.n.record())
		return untold == nil || err == nil && record.Started.Equal(status.Started) && !record.Ready.IsZero()
	})
	return a.n.status()
}

// await returns the first event that matches.
func (a *process) await(what string, match func(event) bool) event {
	a.n.t.Helper()
	timeout := time.NewTimer(patience)
	defer timeout.Stop()
	for {
		found, changed := a.journal.find(match)
		if changed == nil {
			return found
		}
		select {
		case <-changed:
		case <-a.done:
			if found, changed := a.journal.find(match); changed == nil {
				return found
			}
			a.n.t.Fatalf("the agent ended with %d without this: %s", a.code, what)
		case <-timeout.C:
			a.n.t.Fatalf("not seen in %s: %s", patience, what)
		}
	}
}

// wait returns the exit code of an agent that ends by itself.
func (a *process) wait() int {
	a.n.t.Helper()
	timeout := time.NewTimer(patience)
	defer timeout.Stop()
	select {
	case <-a.done:
	case <-timeout.C:
		a.n.t.Fatalf("the agent didn't end in %s", patience)
	}
	return a.code
}

// kill ends the agent at once, with whatever it was doing.
func (a *process) kill() {
	a.n.t.Helper()
	a.signal(syscall.SIGKILL)
	a.wait()
}

// stop asks the agent to end, as systemd does, and expects that it ends well.
func (a *process) stop() {
	a.n.t.Helper()
	a.signal(syscall.SIGTERM)
	if code := a.wait(); code != 0 {
		a.n.t.Errorf("after SIGTERM: got exit code %d, want 0", code)
	}
}

func (a *process) signal(s syscall.Signal) {
	select {
	case <-a.done: // its number may be somebody else's by now
	default:
		_ = syscall.Kill(a.pid, s)
	}
}

// said is the last thing that an agent which ended with an error printed: what a person reads.
func (a *process) said() string {
	text := a.journal.String()
	if i := strings.LastIndex(text, "\nflowagent: "); i >= 0 {
		return text[i+1:]
	}
	if strings.HasPrefix(text, "flowagent: ") {
		return text
	}
	return ""
}

// ask is the agent's control interface.
func (n *node) ask() *control.Client { return control.NewClient(filepath.Join(n.run(), "agent.sock")) }

func (n *node) status() report.Status {
	n.t.Helper()
	status, err := n.ask().Status(n.t.Context())
	if err != nil {
		n.t.Fatal(err)
	}
	return status
}

// refresh has the agent fetch its secrets and deliver them. An error is what a source said.
func (n *node) refresh() error {
	_, err := n.ask().RefreshSecrets(n.t.Context())
	return err
}

// secretState is what the status says about one secret.
func (n *node) secretState(name string) string {
	n.t.Helper()
	for _, s := range n.status().Secrets {
		if s.Name == name {
			return string(s.State)
		}
	}
	n.t.Fatalf("the status has no secret %s", name)
	return ""
}

// health returns the status code and body of /health.
func (n *node) health() (int, string) {
	n.t.Helper()
	return n.get("/health")
}

// get is a page of the health port.
func (n *node) get(path string) (int, string) {
	n.t.Helper()
	code, body, err := n.tryGet(path)
	if err != nil {
		n.t.Fatal(err)
	}
	return code, body
}

// tryHealth is health where no answer is one, too.
func (n *node) tryHealth() (int, string, error) { return n.tryGet("/health") }

func (n *node) tryGet(path string) (int, string, error) {
	ctx, cancel := context.WithTimeout(n.t.Context(), patience)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+n.address+path, nil)
	if err != nil {
		return 0, "", err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return 0, "", err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	return response.StatusCode, string(body), err
}

// checkPrinted fails when text has a secret, or what no program prints on purpose.
func (n *node) checkPrinted(who, text string) {
	n.t.Helper()
	for _, secret := range n.secrets {
		if strings.Contains(text, secret) {
			n.t.Errorf("%s printed the secret %q", who, secret)
		}
	}
	for _, sign := range []string{"DATA RACE", "panic: ", "goroutine 1 ["} {
		if i := strings.Index(text, sign); i >= 0 {
			n.t.Errorf("%s printed %q:\n%s", who, sign, text[i:min(len(text), i+4000)])
		}
	}
}

// halt ends what runs for the node: agents, compose, containers. Twice does no harm.
func (n *node) halt() {
	for _, a := range n.agents {
		a.signal(syscall.SIGKILL)
		<-a.done
	}
	for _, pid := range n.plugins() {
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
	// The test's own context is done by now.
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	n.removeContainers(ctx)
}

// clean removes all that the node left on this machine, and looks at what its agents printed.
func (n *node) clean() {
	n.halt()
	for _, a := range n.agents {
		n.checkPrinted("the agent", a.journal.String())
		if n.t.Failed() {
			n.t.Logf("an agent of %s, which ended with %d:\n%s", n.project, a.code, a.journal)
		}
	}
	for _, mount := range []string{n.store(), n.state()} {
		for unix.Unmount(mount, unix.MNT_DETACH) == nil { // whatever is mounted there, however often
			continue
		}
	}
	if err := os.RemoveAll(n.dir); err != nil {
		n.t.Error(err)
	}
}

// plugins are the compose processes at work for this node.
func (n *node) plugins() []int {
	var found []int
	for _, p := range processes(n.t) {
		if strings.Contains(p.cmdline, n.run()+"/compose.override.yaml") {
			found = append(found, p.pid)
		}
	}
	return found
}
