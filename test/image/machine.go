package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/sys/unix"
)

const (
	// memory of each machine in MiB: the WMS uses a third of it.
	memory = 3072
	// bootLimit is for everything from power on to an application that answers, emulated and on a busy machine.
	bootLimit = 20 * time.Minute
	// answerLimit is what a machine that is up may take to answer: seconds at most, emulated and on a busy machine.
	answerLimit = time.Minute
	// offLimit is what a machine may take to switch itself off: a drain's budget and systemd's own limits.
	offLimit = 8 * time.Minute
)

// The ports that are reached from outside.
const (
	sshPort    = 22
	apiPort    = 8000
	healthPort = 9180
)

var forwarded = []int{sshPort, apiPort, healthPort}

// machine is one virtual machine with a disk of its own over another one.
type machine struct {
	name  string
	dir   string
	disk  string
	ports map[int]int // on this machine's loopback, by the virtual machine's own
	qemu  []string

	console *console
	cmd     *exec.Cmd
	ended   chan struct{} // closed once QEMU has
	err     error         // QEMU's, valid once ended is closed

	user    login
	hostKey ssh.PublicKey // the one that it showed first, which may not change
	client  *ssh.Client
}

// hardware is what a machine is made of.
type hardware struct {
	backing     string            // the disk under its own
	files       map[string]string // of its NoCloud seed
	credentials map[string]string // systemd's, by name, from the firmware
}

// newMachine makes a machine's disk and seed. The machine must be closed.
func (p *proof) newMachine(ctx context.Context, name string, user login, h hardware) (*machine, error) {
	m := &machine{name: name, dir: filepath.Join(p.work, name), ports: map[int]int{}, user: user}
	if err := os.MkdirAll(m.dir, 0o755); err != nil {
		return nil, err
	}
	// For a person who wants to look: ssh -i login -p PORT USER@127.0.0.1, which is debian or ubuntu
	if err := os.WriteFile(filepath.Join(m.dir, "login"), []byte(user.private), 0o600); err != nil {
		return nil, err
	}
	m.disk = filepath.Join(m.dir, "disk.qcow2")
	if _, err := p.run(ctx, name+"/disk", nil, "qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", h.backing, m.disk); err != nil {
		return nil, err
	}
	seed, err := p.seed(ctx, m, h.files)
	if err != nil {
		return nil, err
	}
	log, err := os.Create(filepath.Join(m.dir, "console.log"))
	if err != nil {
		return nil, err
	}
	m.console = &console{file: log, now: time.Now}

	free, err := freePorts(len(forwarded))
	if err != nil {
		return nil, err
	}
	forward := "user,id=net"
	for i, port := range forwarded {
		m.ports[port] = free[i]
		forward += fmt.Sprintf(",hostfwd=tcp:127.0.0.1:%d-:%d", free[i], port)
	}
	m.qemu = append([]string{"qemu-system-x86_64"}, p.accelerator.arguments()...)
	m.qemu = append(m.qemu,
		"-name", name, "-smp", "2", "-m", strconv.Itoa(memory), "-nodefaults", "-display", "none", "-serial", "stdio",
		"-drive", "file="+m.disk+",if=virtio,discard=unmap", "-drive", "file="+seed+",media=cdrom,readonly=on",
		"-netdev", forward, "-device", "virtio-net-pci,netdev=net", "-device", "virtio-rng-pci")
	for credential, value := range h.credentials {
		// In a file: arguments are everybody's to read.
		path := filepath.Join(m.dir, "credentials-"+credential)
		if err := os.WriteFile(path, []byte("io.systemd.credential:"+credential+"="+value), 0o600); err != nil {
			return nil, err
		}
		m.qemu = append(m.qemu, "-smbios", "type=11,path="+path)
	}
	return m, nil
}

// freePorts are so many ports of the loopback that nobody listens on. QEMU says so where that changes before it does.
func freePorts(count int) ([]int, error) {
	var free []int
	for range count {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		defer l.Close() // after the last one is chosen, or it might be the same
		free = append(free, l.Addr().(*net.TCPAddr).Port)
	}
	return free, nil
}

// powerOn starts the machine, which runs until it switches itself off, ctx ends, or it is closed.
func (m *machine) powerOn(ctx context.Context) error {
	log, err := os.Create(filepath.Join(m.dir, "qemu.log"))
	if err != nil {
		return err
	}
	defer log.Close()
	m.cmd = program(ctx, m.qemu...)
	m.cmd.Stdout, m.cmd.Stderr = m.console, log
	if err := m.cmd.Start(); err != nil {
		return fmt.Errorf("start QEMU: %w", err)
	}
	ended := make(chan struct{})
	m.ended = ended
	go func() {
		m.err = m.cmd.Wait()
		close(ended)
	}()
	return nil
}

// running says whether QEMU still is; an error has its reason, if it gave one.
func (m *machine) running() error {
	select {
	case <-m.ended:
		said, _ := os.ReadFile(filepath.Join(m.dir, "qemu.log"))
		return fmt.Errorf("machine %s is off: %v %s", m.name, m.err, lastLines(string(said), shownLines))
	default:
		return nil
	}
}

// order has the machine's system do soon what ends the connection. The answer may be lost with it: whoever orders looks for
// what was ordered.
func (m *machine) order(ctx context.Context, command string) error {
	_, err := m.sudo(ctx, "systemd-run --quiet --on-active=1 --timer-property=AccuracySec=100ms "+command)
	if lost := new(ssh.ExitMissingError); errors.As(err, &lost) {
		return nil
	}
	return err
}

// powerOff has the machine's system switch it off, and waits until it has.
func (m *machine) powerOff(ctx context.Context) error {
	ctx, cancel := within(ctx, offLimit, "switching off machine "+m.name)
	defer cancel()
	if err := m.order(ctx, "systemctl poweroff"); err != nil {
		return err
	}
	select {
	case <-m.ended:
		m.disconnect()
		return m.err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// close ends QEMU, as pulling the plug would, and lets go of the machine; its files stay. A closed machine may be closed again.
func (m *machine) close() {
	if m == nil {
		return
	}
	m.disconnect()
	if m.ended == nil {
		return
	}
	if m.running() == nil {
		_ = m.cmd.Process.Signal(unix.SIGTERM) // it may have ended just now
		select {
		case <-m.ended:
		case <-time.After(endLimit):
			_ = m.cmd.Process.Kill()
			<-m.ended
		}
	}
}

func (m *machine) url(port int, path string) string {
	return fmt.Sprintf("http://127.0.0.1:%d%s", m.ports[port], path)
}

// asker makes a connection for each request: QEMU accepts them for a machine whose program doesn't listen yet.
var asker = &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 3 * time.Second}

// get asks the machine from outside.
func (m *machine) get(ctx context.Context, port int, path string) (status int, err error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, m.url(port, path), nil)
	if err != nil {
		return 0, err
	}
	response, err := asker.Do(request)
	if err != nil {
		return 0, err
	}
	_ = response.Body.Close() // the status is all that was asked for
	return response.StatusCode, nil
}

// awaitHealthy polls until the machine answers 200, and returns when that was.
func (m *machine) awaitHealthy(ctx context.Context, port int) (time.Time, error) {
	ctx, cancel := within(ctx, bootLimit, "the boot of machine "+m.name)
	defer cancel()
	err := poll(ctx, 200*time.Millisecond, func(ctx context.Context) error {
		if err := m.running(); err != nil {
			return err
		}
		status, err := m.get(ctx, port, "/health")
		if err == nil && status != http.StatusOK {
			err = fmt.Errorf("/health answers %d", status)
		}
		return err
	})
	return time.Now(), err
}

// checkHealthy demands that the machine's first answer is 200. A busy machine may need more than one question for it.
func (m *machine) checkHealthy(ctx context.Context, port int) error {
	ctx, cancel := within(ctx, answerLimit, "an answer of machine "+m.name)
	defer cancel()
	var status int
	err := poll(ctx, 200*time.Millisecond, func(ctx context.Context) (err error) {
		status, err = m.get(ctx, port, "/health")
		return err
	})
	if err == nil && status != http.StatusOK {
		err = fmt.Errorf("/health answers %d", status)
	}
	return err
}

// sudo runs a script of Bash as root on the machine and returns what it wrote to standard output. A failed script's error has
// the end of its standard error.
func (m *machine) sudo(ctx context.Context, script string) (string, error) {
	var stderr strings.Builder
	client, err := m.connect(ctx)
	if err != nil {
		return "", err
	}
	session, err := client.NewSession()
	if err != nil {
		m.disconnect()
		return "", fmt.Errorf("open a session on machine %s: %w", m.name, err)
	}
	defer session.Close()
	stopped := context.AfterFunc(ctx, m.disconnect)
	defer stopped()
	session.Stdin = strings.NewReader(script + "\n")
	session.Stderr = &stderr
	out, err := session.Output("sudo bash -euo pipefail -s")
	if err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return string(out), fmt.Errorf("machine %s: %s: %w\n%s", m.name, firstLine(script), err, lastLines(stderr.String(), shownLines))
	}
	return strings.TrimSpace(string(out)), nil
}

func firstLine(text string) string {
	line, _, more := strings.Cut(text, "\n")
	if more {
		line += " …"
	}
	return line
}

// connect returns a connection as the distribution's user. It is tried for as long as ctx allows, because a machine that boots
// has no SSH yet.
func (m *machine) connect(ctx context.Context) (*ssh.Client, error) {
	if m.client != nil {
		return m.client, nil
	}
	ctx, cancel := within(ctx, bootLimit, "SSH to machine "+m.name)
	defer cancel()
	err := poll(ctx, time.Second, func(context.Context) error {
		if err := m.running(); err != nil {
			return err
		}
		client, err := ssh.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", m.ports[sshPort]), &ssh.ClientConfig{
			User: m.user.name, Auth: []ssh.AuthMethod{ssh.PublicKeys(m.user.signer)}, Timeout: 2 * time.Minute,
			HostKeyCallback: func(_ string, _ net.Addr, key ssh.PublicKey) error {
				if m.hostKey == nil {
					m.hostKey = key
				}
				if ssh.FingerprintSHA256(key) != ssh.FingerprintSHA256(m.hostKey) {
					return errors.New("the machine's host key has changed")
				}
				return nil
			},
		})
		m.client = client
		return err
	})
	return m.client, err
}

func (m *machine) disconnect() {
	if m.client != nil {
		_ = m.client.Close() // it may be broken, which is why
		m.client = nil
	}
}
