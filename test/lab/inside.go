package lab

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/moby/moby/client"
	"golang.org/x/sys/unix"
)

// systemPath is the PATH of Debian's root.
const systemPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

var errMachineOff = errors.New("the machine is off: call PowerOn first")

// Command prepares a command that runs inside as root, in / and with no variable of the caller's environment. It ends
// when ctx is done and when the machine goes off. systemd knows nothing of it; for a unit, run systemd-run.
func (m *MachineServer) Command(ctx context.Context, name string, arguments ...string) *exec.Cmd {
	p := m.power.Load()
	if p == nil {
		return &exec.Cmd{Path: name, Args: append([]string{name}, arguments...), Err: errMachineOff}
	}
	cmd := exec.CommandContext(ctx, "nsenter", slices.Concat([]string{
		"--target", strconv.Itoa(p.pid), "--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup", "--",
		// nsenter forks to enter the process namespace, and ctx ends nsenter alone.
		"setpriv", "--pdeathsig", "KILL", "--", name,
	}, arguments)...)
	cmd.Env = []string{"PATH=" + systemPath, "HOME=/root", "LANG=C.UTF-8"}
	cmd.WaitDelay = stopGrace // for a child that has its output open
	cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(p.scope.Fd())}
	return cmd
}

// Try runs a command inside and returns what it printed and its exit code.
func (m *MachineServer) Try(t testing.TB, name string, arguments ...string) (stdout, stderr string, code int) {
	t.Helper()
	cmd := m.Command(t.Context(), name, arguments...)
	var out, problems bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &problems
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatalf("run %s in %s: %v", name, m.Name, err)
	}
	return out.String(), problems.String(), cmd.ProcessState.ExitCode()
}

// Run runs a command inside that has to succeed, and returns its standard output.
func (m *MachineServer) Run(t testing.TB, name string, arguments ...string) string {
	t.Helper()
	stdout, stderr, code := m.Try(t, name, arguments...)
	if code != 0 {
		t.Fatalf("%s %s: got exit code %d, want 0\n%s%s", name, strings.Join(arguments, " "), code, stdout, stderr)
	}
	return stdout
}

// AwaitBooted waits until systemd has nothing more to start, whether or not all of it did.
func (m *MachineServer) AwaitBooted(t testing.TB) {
	t.Helper()
	p := m.power.Load()
	if p == nil {
		t.Fatal(errMachineOff)
		return
	}
	ctx, cancel := context.WithTimeout(t.Context(), machineLimit)
	defer cancel()
	if err := p.awaitEvent(ctx, p.ready, "its boot isn't over"); err != nil {
		t.Fatal(err)
	}
}

// PowerOff shuts the machine down in good order, as its power button would. The disks stay.
func (m *MachineServer) PowerOff(t testing.TB) {
	t.Helper()
	if code, err := m.shutDown(t.Context(), orderPowerOff); err != nil || code != 0 {
		t.Fatalf("power off: got code %d and error %v, want 0", code, err)
	}
}

// PowerOn switches a machine on that was powered off. It returns when systemd runs; see AwaitBooted.
func (m *MachineServer) PowerOn(t testing.TB) {
	t.Helper()
	if m.power.Load() != nil {
		t.Fatal("power on: the machine is on")
	}
	if err := m.powerOn(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// Reboot shuts the machine down in good order and starts it again: files stay, but for those in /run and /tmp. It
// returns when the new systemd runs; see AwaitBooted.
func (m *MachineServer) Reboot(t testing.TB) {
	t.Helper()
	if code, err := m.shutDown(t.Context(), orderReboot); err != nil || code != rebootCode {
		t.Fatalf("reboot: got code %d and error %v, want %d", code, err, rebootCode)
	}
	m.PowerOn(t)
}

// root is the machine's / as seen from here: while it is on, with what is mounted inside.
func (m *MachineServer) root() string {
	p := m.power.Load()
	if p == nil {
		return m.disk()
	}
	return fmt.Sprintf("/proc/%d/root", p.pid)
}

// Path returns where a file of the machine is for the test's own process, until the machine goes off or on. An absolute
// symbolic link in it leads to the lab's files, not to the machine's: write /run, not /var/run.
func (m *MachineServer) Path(path string) string { return filepath.Join(m.root(), path) }

// Put writes a file in the machine, in place of one that is there, with its directories.
func (m *MachineServer) Put(t testing.TB, path string, content []byte, mode os.FileMode) {
	t.Helper()
	if err := m.put(path, bytes.NewReader(content), mode); err != nil {
		t.Fatalf("put %s into %s: %v", path, m.Name, err)
	}
}

// PutFile is [MachineServer.Put] with the content of a file from outside.
func (m *MachineServer) PutFile(t testing.TB, path, local string, mode os.FileMode) {
	t.Helper()
	file, err := os.Open(local)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if err := m.put(path, file, mode); err != nil {
		t.Fatalf("put %s into %s: %v", path, m.Name, err)
	}
}

func (m *MachineServer) put(path string, content io.Reader, mode os.FileMode) error {
	root, err := os.OpenRoot(m.root()) // no symbolic link leads out of it
	if err != nil {
		return err
	}
	defer root.Close()
	path = strings.TrimPrefix(filepath.Clean(path), "/")
	if err := root.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	// A program that runs can't be written to.
	if err := root.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	// Nor can one be executed that a child of this process holds open, between its fork and its exec (golang/go#22315).
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	file, err := root.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(file, content)
	return errors.Join(err, file.Chmod(mode), file.Close())
}

// Dial connects from inside the machine's network to an IP address and port.
func (m *MachineServer) Dial(ctx context.Context, network, address string) (conn net.Conn, err error) {
	err = m.inNetwork(address, func() error {
		conn, err = new(net.Dialer).DialContext(ctx, network, address)
		return err
	})
	return conn, err
}

// Listen listens inside the machine's network, on an IP address and port, for a server that runs in the test: AWS, say,
// or a registry.
func (m *MachineServer) Listen(t testing.TB, address string) net.Listener {
	t.Helper()
	var listener net.Listener
	err := m.inNetwork(address, func() (err error) {
		listener, err = new(net.ListenConfig).Listen(t.Context(), "tcp", address)
		return err
	})
	if err != nil {
		t.Fatalf("listen in %s: %v", m.Name, err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	return listener
}

// inNetwork calls do on a thread that is in the machine's network. A socket belongs to the network it was made in,
// wherever it is used.
func (m *MachineServer) inNetwork(address string, do func() error) error {
	// A name would be looked up on other threads, which are in the lab's network.
	if _, err := netip.ParseAddrPort(address); err != nil {
		return err
	}
	p := m.power.Load()
	if p == nil {
		return errMachineOff
	}
	network, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", p.pid))
	if err != nil {
		return err
	}
	defer network.Close()
	onSpareThread(func() {
		if err = unix.Setns(int(network.Fd()), unix.CLONE_NEWNET); err != nil {
			err = fmt.Errorf("enter the network of %s: %w", m.Name, err)
			return
		}
		err = do()
	})
	return err
}

// onSpareThread calls do on a thread that ends afterwards, whatever do made of it. It is never the process's first one:
// that can't end, and /proc/self, which belongs to it, would show the changed thread for good.
func onSpareThread(do func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		if unix.Gettid() != unix.Getpid() {
			do() // a goroutine that ends on a locked thread ends that
			return
		}
		// Nothing else runs on the first thread while this waits.
		onSpareThread(do)
		runtime.UnlockOSThread()
	}()
	<-done
}

// Client returns an HTTP client whose requests start inside the machine, to IP addresses only.
func (m *MachineServer) Client() *http.Client {
	// No connection is kept, so that none outlives a reboot.
	return &http.Client{Transport: &http.Transport{DialContext: m.Dial, DisableKeepAlives: true}, Timeout: machineLimit}
}

// EngineAddress returns the address of the machine's engine for clients in the test's own process, until the machine
// goes off or on.
func (m *MachineServer) EngineAddress() string { return "unix://" + m.Path("/run/docker.sock") }

// Engine returns a client of the machine's engine, until the machine goes off or on.
func (m *MachineServer) Engine(t testing.TB) *client.Client {
	t.Helper()
	engine, err := engineClient(t.Context(), m.EngineAddress())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = engine.Close() })
	return engine
}

// AppImage puts the image of test/lab/app under ref into the machine's engine.
func (m *MachineServer) AppImage(t testing.TB, ref string) {
	t.Helper()
	archive, err := AppArchive(ref, nil)
	need(t, err)
	if err := LoadImage(t.Context(), m.Engine(t), bytes.NewReader(archive)); err != nil {
		t.Fatalf("image %s: %v", ref, err)
	}
}

// Journal returns the entries of a unit, the oldest first, by the names of systemd.journal-fields(7): MESSAGE,
// PRIORITY, _PID, __CURSOR. Further arguments are journalctl's, such as --boot, or --after-cursor= and the last entry's
// __CURSOR.
func (m *MachineServer) Journal(t testing.TB, unit string, arguments ...string) []map[string]string {
	t.Helper()
	// What a unit printed may be on its way to the journal still.
	m.Run(t, "journalctl", "--sync")
	out := m.Run(t, "journalctl", append([]string{"--output=json", "--all", "--quiet", "--no-pager", "--unit=" + unit}, arguments...)...)
	var entries []map[string]string
	for line := range strings.Lines(out) {
		var fields map[string]json.RawMessage
		if err := json.Unmarshal([]byte(line), &fields); err != nil {
			t.Fatalf("journal of %s: %v in %s", unit, err, line)
		}
		entry := map[string]string{}
		for name, raw := range fields {
			value, err := journalText(raw)
			if err != nil {
				t.Fatalf("journal of %s: field %s: %v", unit, name, err)
			}
			entry[name] = value
		}
		entries = append(entries, entry)
	}
	return entries
}

// journalText reads a field as journalctl(1) writes it: a text, the bytes of one that isn't UTF-8, or a list of both
// where the entry has the field more than once; the values are joined by line ends then.
func journalText(raw json.RawMessage) (string, error) {
	var text string
	if json.Unmarshal(raw, &text) == nil { // "null" too, for a field that is too long
		return text, nil
	}
	var bytes []byte
	if json.Unmarshal(raw, &bytes) == nil {
		return string(bytes), nil
	}
	var list []json.RawMessage
	if err := json.Unmarshal(raw, &list); err != nil {
		return "", err
	}
	var texts []string
	for _, item := range list {
		text, err := journalText(item)
		if err != nil {
			return "", err
		}
		texts = append(texts, text)
	}
	return strings.Join(texts, "\n"), nil
}

// storyLines is what fits beside a failed test's own error.
const storyLines = 60

// story is what explains a failure: the end of the journal, or of the console where there is none.
func (m *MachineServer) story() string {
	p := m.power.Load()
	if p == nil {
		return "the machine is off"
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second) // it takes well under one
	defer cancel()
	out, err := m.Command(ctx, "journalctl", "--no-pager", "--quiet", "--lines="+strconv.Itoa(storyLines)).CombinedOutput()
	if err != nil {
		return fmt.Sprintf("the machine's journal can't be read: %v\n%s\nits console:\n%s", err, out, p.Log())
	}
	return "the end of the machine's journal:\n" + string(out)
}
