package nodefiles

import (
	"context"
	"fmt"
	"net"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/flowviz/flowagent/test/lab"
)

// patience bounds every wait. What is waited for takes some seconds; the rest is for a loaded CI machine.
const patience = 90 * time.Second

// system is what the machines run, by the word of scripts/setup.sh.
const system = "nodefiles"

const (
	configuration = `apiVersion: flowagent/v1
kind: Node
node: {environment: test, provider: local}
secrets:
  refresh: 0s
  items:
    - {name: key, from: {file: {path: /etc/flowagent/key}}}
workload:
  project: node
  files: [compose.yaml]
  ready: {stableFor: 300ms}
  cleanUp: {minFree: 0}
health:
  checks:
    - {name: web, http: {url: "http://127.0.0.1:8000/health"}}
    - {name: filter, systemd: {unit: flowagent-firewall.service}}
drain: {budget: 60s}
`
	// One port that the packet filter names, one that it doesn't, and one for the machine itself.
	compose = `services:
  web:
    image: app:1
    command: [serve]
    restart: always
    ports: ["8000:8080"]
    secrets: [{source: key, uid: "10001", gid: "10001", mode: 0400}]
  unnamed:
    image: app:1
    command: [serve]
    restart: always
    ports: ["8080:8080"]
  inner:
    image: app:1
    command: [serve]
    restart: always
    ports: ["127.0.0.1:8081:8080"]
secrets:
  key: {external: true}
`
)

// machine is a Debian machine with everything of ansible-free installed, not rebooted since.
func machine(t *testing.T) *lab.MachineServer {
	t.Helper()
	m := lab.MachineOf(t, system)
	m.PutFile(t, "/root/flowagent", program, 0o755)
	out := m.Run(t, "/root/flowagent", "image", "install", "--profile", "base,ec2,hardening")
	if strings.Contains(out, "missing: ") {
		t.Fatalf("the machine lacks what reads the files:\n%s", out)
	}
	return m
}

// node is such a machine as it is after a boot, ready with three containers.
func node(t *testing.T) *lab.MachineServer {
	t.Helper()
	m := machine(t)
	m.Put(t, "/etc/flowagent/key", []byte("s3cret"), 0o600)
	m.Put(t, "/etc/flowagent/age.key", []byte("copied by hand"), 0o644)
	m.Put(t, "/etc/flowagent/config.yaml", []byte(configuration), 0o644)
	m.Put(t, "/etc/flowagent/compose.yaml", []byte(compose), 0o644)
	m.AppImage(t, "app:1")
	reboot(t, m)
	m.Run(t, "flowagent", "status", "--wait", patience.String())
	return m
}

// reboot ends when all units have started, as they have to.
func reboot(t *testing.T, m *lab.MachineServer) {
	t.Helper()
	m.Reboot(t)
	m.AwaitBooted(t)
	if state, _, _ := m.Try(t, "systemctl", "is-system-running", "--wait"); strings.TrimSpace(state) != "running" {
		t.Fatalf("the machine is %s, want running:\n%s", strings.TrimSpace(state), m.Run(t, "systemctl", "list-units", "--failed", "--no-pager"))
	}
}

// eventually looks until something is as wanted.
func eventually(t *testing.T, what string, look func() bool) {
	t.Helper()
	end := time.NewTimer(patience)
	defer end.Stop()
	ticker := time.NewTicker(200 * time.Millisecond)
	defer ticker.Stop()
	for !look() {
		select {
		case <-ticker.C:
		case <-end.C:
			t.Fatalf("not seen in %s: %s", patience, what)
		}
	}
}

// neighbours are two machines on the node's network, as network namespaces inside it: one on a private network, as an
// administrator's or a load balancer's is, and one on a public address. The node is 10.99.0.1 and 203.0.113.1.
type neighbours struct{ *lab.MachineServer }

func withNeighbours(t *testing.T, m *lab.MachineServer) neighbours {
	t.Helper()
	for name, network := range map[string]string{"near": "10.99.0.", "far": "203.0.113."} {
		for _, command := range []string{
			"ip netns add " + name,
			"ip link add " + name + " type veth peer name eth0 netns " + name,
			"ip address add " + network + "1/24 dev " + name,
			"ip link set " + name + " up",
			"ip -n " + name + " address add " + network + "2/24 dev eth0",
			"ip -n " + name + " link set eth0 up",
			"ip -n " + name + " route add default via " + network + "1",
		} {
			m.Run(t, "sh", "-c", command)
		}
	}
	return neighbours{m}
}

// from prepares a command in a neighbour's network.
func (n neighbours) from(ctx context.Context, name string, command ...string) *exec.Cmd {
	return n.Command(ctx, "ip", append([]string{"netns", "exec", name}, command...)...)
}

// How a connection goes, as the exit code of bash under timeout(1).
const (
	connected = 0
	refused   = 1
	unheard   = 124
)

// silence is for how long an address that drops what it gets is listened to, which on one machine is plenty; each caller's
// other connections show that the way is open.
const silence = 2 * time.Second

// reach tries to connect by TCP to an address with a port and demands a result. Only where nothing is to be heard does it
// end after [silence]: an answer may take bash and the machine their time.
func (n neighbours) reach(t *testing.T, why, name, address string, want int) {
	t.Helper()
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		t.Fatal(err)
	}
	limit := patience
	if want == unheard {
		limit = silence
	}
	cmd := n.from(t.Context(), name, "timeout", seconds(limit), "bash", "-c", ": <>/dev/tcp/"+host+"/"+port)
	out, err := cmd.CombinedOutput()
	if cmd.ProcessState == nil {
		t.Fatalf("bash in %s: %v", name, err)
	}
	code := cmd.ProcessState.ExitCode()
	if code != connected && code != unheard && (code != refused || !strings.Contains(string(out), "Connection refused")) {
		t.Fatalf("from %s to %s: got exit code %d: %s", name, address, code, out)
	}
	if code != want {
		t.Errorf("%s, from %s to %s: got exit code %d, want %d", why, name, address, code, want)
	}
}

// seconds is a time as programs take it that count whole seconds.
func seconds(d time.Duration) string { return fmt.Sprint(int(d.Seconds())) }

func containerAddress(t *testing.T, m *lab.MachineServer, service string) string {
	t.Helper()
	c := inspect(t, m, service)
	for _, network := range c.NetworkSettings.Networks {
		return fmt.Sprint(network.IPAddress)
	}
	t.Fatalf("%s has no network", service)
	return ""
}
