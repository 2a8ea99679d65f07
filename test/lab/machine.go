package lab

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// machineLimit bounds a machine's boot and its shutdown. Each takes some seconds; a unit that doesn't end when asked is
// given 90 seconds by systemd itself (DefaultTimeoutStopSec), and the rest is for a loaded CI machine.
const machineLimit = 3 * time.Minute

// MachineSpec describes a machine.
type MachineSpec struct {
	// Dir holds the machine's disks, on a disk. It is made, used by this machine alone, and removed by Stop. Its last
	// element names the machine, and is unique in the lab.
	Dir string
	// CgroupParent is an absolute cgroup path.
	CgroupParent string
	// System is the word by which scripts/setup.sh made the system that the machine runs; "machine" if empty.
	System string
}

// MachineServer is a Debian system with systemd as process 1 and a Docker Engine under it, in namespaces of its own: it
// sees no process, no network and no file of the lab. It has loopback as its only interface, until its engine adds a
// bridge. Its engine and systemd are the system's own, as an operator would have them; the compose plugin is the lab's.
type MachineServer struct {
	Name   string // unique in the lab
	dir    string
	cgroup string
	nspawn string
	power  atomic.Pointer[power] // nil while the machine is off; a client may ask while the test reboots it
}

// power is a machine's life from one switching-on to the next switching-off.
type power struct {
	*Process               // systemd-nspawn
	notify   *net.UnixConn // what it tells arrives here
	pid      int           // of the machine's process 1, as the lab sees it; valid once running is closed
	first    *os.Process   // the same
	running  chan struct{} // process 1 was started
	ready    chan struct{} // process 1 says that its boot is over
	scope    *os.File      // the cgroup of process 1, in which commands run
}

// Machine starts a machine that ends with the test, with whatever runs in it, and waits until systemd is satisfied;
// inside a lab only. A machine whose test is killed runs on until the lab ends. See [StartMachine].
func Machine(t testing.TB) *MachineServer {
	t.Helper()
	return MachineOf(t, "machine")
}

// MachineOf is [Machine] with another system, by the word that scripts/setup.sh makes it by.
func MachineOf(t testing.TB, system string) *MachineServer {
	t.Helper()
	Root(t)
	disk, cgroup := os.Getenv(DiskVariable), os.Getenv(CgroupVariable)
	if disk == "" || cgroup == "" {
		need(t, missing("a lab for a machine", "run the tests with `make test` or scripts/test.sh"))
	}
	dir, err := os.MkdirTemp(disk, "machine-")
	need(t, err)
	m, err := StartMachine(t.Context(), MachineSpec{Dir: dir, CgroupParent: cgroup, System: system})
	if err != nil {
		_ = os.RemoveAll(dir)
	}
	need(t, err)
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(m.story())
		}
		if err := m.Stop(); err != nil {
			t.Error(err)
		}
	})
	m.AwaitBooted(t)
	state, _, _ := m.Try(t, "systemctl", "is-system-running")
	if state = strings.TrimSpace(state); state != "running" {
		failed, _, _ := m.Try(t, "systemctl", "list-units", "--failed", "--plain", "--no-legend")
		t.Fatalf("the state of %s: got %q, want running; what failed:\n%s", m.Name, state, failed)
	}
	return m
}

// StartMachine makes a machine's disks over the system that scripts/setup.sh made, and switches it on. The caller is in
// a mount namespace of its own. ctx bounds the start only, which is over before systemd's boot is.
func StartMachine(ctx context.Context, spec MachineSpec) (*MachineServer, error) {
	nspawn, err := systemProgram("systemd-nspawn")
	if err != nil {
		return nil, missing("systemd-nspawn", "run `scripts/setup.sh machine`")
	}
	build, err := BuildDir()
	if err != nil {
		return nil, err
	}
	word := cmp.Or(spec.System, "machine")
	current := filepath.Join(build, word, "current")
	system, err := filepath.EvalSymlinks(current)
	if err != nil {
		return nil, missing(current, "run `scripts/setup.sh "+word+"`")
	}
	name := filepath.Base(spec.Dir)
	m := &MachineServer{Name: name, dir: spec.Dir, cgroup: filepath.Join(spec.CgroupParent, name), nspawn: nspawn}
	if err := m.makeDisks(system); err != nil {
		return nil, errors.Join(err, m.Stop())
	}
	if err := m.powerOn(ctx); err != nil {
		return nil, errors.Join(err, m.Stop())
	}
	return m, nil
}

func (m *MachineServer) disk() string { return filepath.Join(m.dir, "root") }

// engineDisk is what /var/lib/docker is: the engine keeps images in an overlay, which can't lie on another one.
func (m *MachineServer) engineDisk() string { return filepath.Join(m.dir, "docker") }

func (m *MachineServer) makeDisks(system string) error {
	upper, work := filepath.Join(m.dir, "upper"), filepath.Join(m.dir, "work")
	for _, dir := range []string{m.disk(), m.engineDisk(), upper, work} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	if err := os.Chmod(upper, 0o755); err != nil { // whatever the umask: this is what the machine's users see as /
		return err
	}
	escape := strings.NewReplacer(`\`, `\\`, ":", `\:`, ",", `\,`)
	options := fmt.Sprintf("lowerdir=%s,upperdir=%s,workdir=%s", escape.Replace(system), escape.Replace(upper), escape.Replace(work))
	if err := unix.Mount("overlay", m.disk(), "overlay", 0, options); err != nil {
		return fmt.Errorf("mount the disk of %s: %w", m.Name, err)
	}
	return nil
}

// arguments are systemd-nspawn's. Nothing asks the host's systemd, which a lab can't reach and may not have.
func (m *MachineServer) arguments() ([]string, error) {
	escape := strings.NewReplacer(`\`, `\\`, ":", `\:`)
	arguments := []string{
		"--settings=no", "--directory=" + m.disk(), "--machine=" + m.Name, "--boot", "--notify-ready=yes", "--console=pipe",
		"--register=no", "--keep-unit", "--link-journal=no", "--private-network", "--resolv-conf=off", "--timezone=off",
		// runc gives each container a keyring and, under version 2, a program that guards its devices.
		"--system-call-filter=@keyring bpf",
		"--bind=" + escape.Replace(m.engineDisk()) + ":/var/lib/docker",
	}
	plugin, err := ComposePath()
	if errors.Is(err, ErrMissing) {
		return arguments, nil
	}
	if err != nil {
		return nil, err
	}
	if plugin, err = filepath.EvalSymlinks(plugin); err != nil {
		return nil, err
	}
	return append(arguments, "--bind-ro="+escape.Replace(plugin)+":/usr/libexec/docker/cli-plugins/docker-compose"), nil
}

// powerOn returns when the machine's process 1 runs.
func (m *MachineServer) powerOn(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, machineLimit)
	defer cancel()
	arguments, err := m.arguments()
	if err != nil {
		return err
	}
	group, err := makeCgroup(m.cgroup)
	if err != nil {
		return err
	}
	// systemd-nspawn makes the machine's cgroups beside its own one, so that has to be one for this machine.
	home, err := os.Open(group)
	if err != nil {
		return err
	}
	defer home.Close()
	// In the abstract namespace (unix(7)): a path may be too long, and nothing is left over.
	notify, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: "@flowagent-" + m.Name, Net: "unixgram"})
	if err != nil {
		return err
	}
	cmd := exec.Command(m.nspawn, arguments...)
	cmd.Env = []string{
		"PATH=" + systemPath,
		"NOTIFY_SOCKET=@flowagent-" + m.Name,
		"SYSTEMD_NSPAWN_UNIFIED_HIERARCHY=1", // whatever the host has: the system in it knows no other
		// The engine forwards packets. The rest of /proc/sys, and /sys, are the host's and stay read-only.
		"SYSTEMD_NSPAWN_API_VFS_WRITABLE=network",
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(home.Fd())}
	process, err := start(m.Name, cmd)
	if err != nil {
		_ = notify.Close()
		return err
	}
	p := &power{Process: process, notify: notify, running: make(chan struct{}), ready: make(chan struct{})}
	go p.listen()
	err = p.awaitEvent(ctx, p.running, "its process 1 doesn't run")
	if err == nil {
		err = p.await(ctx, func(context.Context) (err error) {
			p.scope, err = os.Open(filepath.Join(group, "payload", "init.scope"))
			return err
		})
	}
	if err != nil {
		p.cut()
		return err
	}
	m.power.Store(p)
	return nil
}

// cut takes the power away; Process.Stop would ask for a shutdown first.
func (p *power) cut() {
	select {
	case <-p.running:
		_ = p.first.Kill() // which ends all that runs inside; systemd-nspawn would leave it alone
	default:
	}
	p.signal(syscall.SIGKILL)
	<-p.done
	_ = p.notify.Close()
}

// listen hears what systemd-nspawn has to say: sd_notify(3), and --notify-ready in systemd-nspawn(1).
func (p *power) listen() {
	running, ready := false, false
	buffer := make([]byte, 64<<10) // far above the few lines of a message
	for {
		n, err := p.notify.Read(buffer)
		if err != nil {
			return // closed, for the machine is off
		}
		for line := range bytes.Lines(buffer[:n]) {
			name, value, _ := strings.Cut(strings.TrimSpace(string(line)), "=")
			switch {
			case name == "X_NSPAWN_LEADER_PID" && !running:
				pid, err := strconv.Atoi(value)
				if err != nil {
					continue
				}
				first, err := os.FindProcess(pid) // a handle, for the number may belong to another process later
				if err != nil {
					continue
				}
				p.pid, p.first, running = pid, first, true
				close(p.running)
			case name == "READY" && value == "1" && !ready:
				ready = true
				close(p.ready)
			}
		}
	}
}

func (p *power) awaitEvent(ctx context.Context, event <-chan struct{}, lack string) error {
	select {
	case <-event:
		return nil
	case <-p.done:
		return fmt.Errorf("%s ended: %s: %w\n%s", p.name, lack, p.err, p.Log())
	case <-ctx.Done():
		return fmt.Errorf("%s: %s: %w\n%s", p.name, lack, context.Cause(ctx), p.Log())
	}
}

// rebootCode is how systemd-nspawn --keep-unit ends when its machine wants to start again: EXIT_FORCE_RESTART of its
// source, for a service manager to act on.
const rebootCode = 133

// What process 1 takes for an order, after systemd(1). SIGRTMIN is the C library's, 34, as the kernel's first two
// real-time signals are the library's own.
const (
	orderPowerOff = syscall.Signal(34 + 4)
	orderReboot   = syscall.Signal(34 + 5)
)

// shutDown gives process 1 an order and waits until the machine is off. It returns systemd-nspawn's exit code.
func (m *MachineServer) shutDown(ctx context.Context, order syscall.Signal) (int, error) {
	ctx, cancel := context.WithTimeout(ctx, machineLimit)
	defer cancel()
	p := m.power.Load()
	if p == nil {
		return 0, errMachineOff
	}
	if err := p.first.Signal(order); err != nil {
		return 0, fmt.Errorf("shut %s down: %w", m.Name, err)
	}
	select {
	case <-p.done:
	case <-ctx.Done():
		return 0, fmt.Errorf("%s does not shut down: %w\n%s", m.Name, context.Cause(ctx), p.Log())
	}
	code := 0
	var exit *exec.ExitError
	if errors.As(p.err, &exit) {
		code = exit.ExitCode()
	}
	return code, m.off(ctx)
}

// off cleans up after systemd-nspawn has ended, however it did; the disks stay.
func (m *MachineServer) off(ctx context.Context) error {
	if p := m.power.Swap(nil); p != nil {
		_ = errors.Join(p.notify.Close(), p.scope.Close())
	}
	root, err := cgroup2()
	if err != nil {
		return err
	}
	group := filepath.Join(root, m.cgroup)
	// The kernel has ended the rest with process 1; this is for commands from outside, and for a process 1 that nobody
	// came to know. Kernels before 5.14 don't have the file.
	_ = os.WriteFile(filepath.Join(group, "cgroup.kill"), []byte("1"), 0o644)
	ticker := time.NewTicker(pollEvery)
	defer ticker.Stop()
	for {
		some, err := populated(group)
		if err != nil {
			return fmt.Errorf("%s is not gone: %w", m.Name, err)
		}
		if !some {
			break
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s is not gone: processes are left in %s: %w", m.Name, group, context.Cause(ctx))
		case <-ticker.C:
		}
	}
	RemoveCgroups(m.cgroup)
	return m.removeTraces()
}

// removeTraces removes what systemd-nspawn leaves in the lab's /run when it is killed.
func (m *MachineServer) removeTraces() error {
	const run = "/run/systemd/nspawn"
	traces := []string{filepath.Join(run, "propagate", m.Name), filepath.Join(run, "unix-export", m.Name)}
	var stat unix.Stat_t
	if err := unix.Stat(m.disk(), &stat); err == nil {
		lock := fmt.Sprintf("inode-%d:%d", stat.Dev, stat.Ino)
		traces = append(traces, filepath.Join(run, "locks", lock))
	}
	for _, trace := range traces {
		_ = unix.Unmount(trace, unix.MNT_DETACH) // newer ones mount a file system for the machine's sockets
		if err := os.RemoveAll(trace); err != nil {
			return err
		}
	}
	return nil
}

// Stop takes the machine's power away and removes its disks. It returns when nothing of it is left, and may be called
// more than once.
func (m *MachineServer) Stop() error {
	// The caller's own context may be done, and this has to happen.
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	if p := m.power.Load(); p != nil {
		p.cut()
	}
	if err := m.off(ctx); err != nil {
		return err
	}
	if err := unix.Unmount(m.disk(), 0); err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("unmount the disk of %s: %w: close what the test opened there", m.Name, err)
	}
	return os.RemoveAll(m.dir)
}
