package acceptance

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/flowviz/flowagent/test/lab"
)

// patience bounds every wait. What is waited for takes some seconds; the rest is for a loaded CI machine.
const patience = 2 * time.Minute

// target is a machine with an SSH server, and a way to it that a test can cut.
type target struct {
	*lab.MachineServer
	t    *testing.T
	key  string // path of the private key
	port int    // on 127.0.0.1, of the way to the server

	mu    sync.Mutex
	conns []net.Conn
}

// newTarget starts a machine whose user packer may log in and has sudo without a password. shadow is a shell script that
// changes what sessions see, in a mount namespace of their own: "" for nothing.
func newTarget(t *testing.T, shadow string) *target {
	t.Helper()
	g := &target{MachineServer: lab.Machine(t), t: t}
	public := g.makeKey()
	g.Run(t, "useradd", "--create-home", "--shell=/bin/bash", "packer")
	g.Put(t, "/home/packer/.ssh/authorized_keys", public, 0o644)
	g.Put(t, "/etc/sudoers.d/packer", []byte("packer ALL=(ALL) NOPASSWD: ALL\n"), 0o440)
	g.Put(t, "/etc/hosts", []byte("127.0.0.1 localhost machine\n"), 0o644) // sudo asks for the machine's own name
	g.Run(t, "ssh-keygen", "-A")
	g.Put(t, "/usr/local/sbin/serve-ssh", []byte("#!/bin/sh\nset -e\nmkdir -p /run/sshd\n"+shadow+"\nexec /usr/sbin/sshd -D -e\n"), 0o755)
	g.Run(t, "systemd-run", "--quiet", "--unit=serve-ssh", "--property=PrivateMounts=yes", "/usr/local/sbin/serve-ssh")
	g.serve()
	return g
}

func (g *target) makeKey() (public []byte) {
	g.t.Helper()
	pub, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		g.t.Fatal(err)
	}
	block, err := ssh.MarshalPrivateKey(private, "")
	if err != nil {
		g.t.Fatal(err)
	}
	g.key = filepath.Join(g.t.TempDir(), "key")
	if err := os.WriteFile(g.key, pem.EncodeToMemory(block), 0o600); err != nil {
		g.t.Fatal(err)
	}
	sshKey, err := ssh.NewPublicKey(pub)
	if err != nil {
		g.t.Fatal(err)
	}
	return ssh.MarshalAuthorizedKey(sshKey)
}

// serve passes connections on to the machine, which has no network but its own.
func (g *target) serve() {
	g.t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		g.t.Fatal(err)
	}
	g.port = listener.Addr().(*net.TCPAddr).Port
	g.t.Cleanup(func() {
		_ = listener.Close()
		g.cut()
	})
	go func() {
		for {
			here, err := listener.Accept()
			if err != nil {
				return
			}
			there, err := g.Dial(g.t.Context(), "tcp", "127.0.0.1:22")
			if err != nil { // the server isn't up yet; Packer tries again
				_ = here.Close()
				continue
			}
			g.mu.Lock()
			g.conns = append(g.conns, here, there)
			g.mu.Unlock()
			go pass(here, there)
			go pass(there, here)
		}
	}()
}

func pass(to, from net.Conn) {
	_, _ = io.Copy(to, from)
	_ = to.Close()
	_ = from.Close()
}

// cut ends every connection there is.
func (g *target) cut() {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, conn := range g.conns {
		_ = conn.Close()
	}
	g.conns = nil
}

// tell has the fake agent on the machine fail a command with a text, or hang.
func (g *target) tell(command, order string) {
	g.t.Helper()
	g.Put(g.t, "/var/lib/fakeagent/"+command, []byte(order), 0o644)
}

// noted is what the fake agent wrote down: nothing where it was never called.
func (g *target) noted(file string) string {
	g.t.Helper()
	content, err := os.ReadFile(g.Path("/var/lib/fakeagent/" + file))
	if err != nil && !os.IsNotExist(err) {
		g.t.Fatal(err)
	}
	return string(content)
}

// calls are the fake agent's commands, in order.
func (g *target) calls() []string { return strings.Split(strings.TrimSpace(g.noted("calls")), "\n") }

func (g *target) eventually(what string, ok func() bool) {
	g.t.Helper()
	deadline := time.After(patience)
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline:
			g.t.Fatalf("not within %s: %s", patience, what)
		}
	}
}

// nothingLeft demands that the build left no process, no unit and no upload.
func (g *target) nothingLeft() {
	g.t.Helper()
	g.eventually("the build's units and processes end", func() bool {
		units := g.Run(g.t, "systemctl", "list-units", "--all", "--no-legend", "--plain", "packer-flowagent-*")
		_, _, running := g.Try(g.t, "pgrep", "--full", "flowagent-guard|/usr/bin/flowagent|apt-get")
		return strings.TrimSpace(units) == "" && running == 1
	})
}

// settings are the template's, as HCL.
type settings map[string]string

// template writes a build over the null source, and returns its path. What is in changes replaces or adds a setting; an
// empty one removes it.
func (g *target) template(changes settings) string {
	g.t.Helper()
	dir := g.t.TempDir()
	put := func(name, content string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			g.t.Fatal(err)
		}
		return path
	}
	all := settings{
		"binary": quote(programs.agents["amd64"]),
		"config": quote(put("config.yaml", configuration)),
		"files":  fmt.Sprintf("{%q = %q}", "/etc/flowagent/compose.yaml", put("compose.yaml", compose)),
		// The machine's disk is the lab's.
		"minimum_free_mb": "1",
		// The others are for packages, which no mirror serves here.
		"profiles": `["agent"]`,
	}
	for name, value := range changes {
		all[name] = value
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, `source "null" "target" {
  communicator         = "ssh"
  ssh_host             = "127.0.0.1"
  ssh_port             = %d
  ssh_username         = "packer"
  ssh_private_key_file = %q
  ssh_timeout          = "2m"
}
build {
  sources = ["source.null.target"]
  provisioner "flowagent" {
`, g.port, g.key)
	for name, value := range all {
		if value != "" {
			fmt.Fprintf(&b, "    %s = %s\n", name, value)
		}
	}
	b.WriteString("  }\n}\n")
	return put("build.pkr.hcl", b.String())
}

func quote(text string) string { return fmt.Sprintf("%q", text) }

const (
	configuration = `apiVersion: flowagent/v1
kind: Node
node: {environment: test, provider: local}
workload:
  project: shop
  files: [compose.yaml]
`
	compose = "services:\n  web: {image: app:1}\n"
)
