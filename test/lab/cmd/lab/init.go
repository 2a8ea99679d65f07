package main

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/flowviz/flowagent/test/lab"
)

// runDir holds all that a lab keeps in memory: the lab directory of its command.
const runDir = "/run/flowagent-lab"

// runInit is process 1 of the lab: it furnishes the namespaces, starts the node and reaps what loses its parent. When it
// ends, the kernel ends everything else in the lab.
func runInit(arguments []string) (int, error) {
	p, err := decodePlan(arguments)
	if err != nil {
		return 0, err
	}
	if os.Getpid() != 1 {
		return 0, fmt.Errorf("%s runs as process 1 of a lab only: %w", initCommand, errUsage)
	}
	// From the first moment on: an unhandled SIGTERM would be lost.
	signals := make(chan os.Signal, len(forwarded))
	signal.Notify(signals, forwarded...)
	if err := furnish(); err != nil {
		return 0, fmt.Errorf("set up the lab: %w", err)
	}
	files := []*os.File{os.Stdin, os.Stdout, os.Stderr}
	for i := range p.fileCount() {
		files = append(files, os.NewFile(uintptr(firstFile+i), "inherited"))
	}
	node, err := os.StartProcess("/proc/self/exe", []string{os.Args[0], nodeCommand, arguments[0]}, &os.ProcAttr{
		Files: files,
		Env:   os.Environ(),
		Sys:   &syscall.SysProcAttr{Pdeathsig: unix.SIGKILL},
	})
	if err != nil {
		return 0, err
	}
	go func() {
		for s := range signals {
			_ = node.Signal(s)
		}
	}()
	return reapUntil(node.Pid)
}

// reapUntil collects ended children until pid is among them, and returns its exit code.
func reapUntil(pid int) (int, error) {
	for {
		var status syscall.WaitStatus
		ended, err := syscall.Wait4(-1, &status, 0, nil)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return 0, fmt.Errorf("wait: %w", err)
		case ended == pid:
			return exitCode(status), nil
		}
	}
}

// furnish makes the namespaces look like a machine that has just booted.
func furnish() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	if err := unix.Mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return fmt.Errorf("mount /proc: %w", err)
	}
	resolver, resolverTarget := resolverFile()
	if err := unix.Mount("tmpfs", "/run", "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=0755"); err != nil {
		return fmt.Errorf("mount /run: %w", err)
	}
	if err := errors.Join(os.Mkdir("/run/lock", 0o1777), os.Mkdir(runDir, 0o700)); err != nil {
		return err
	}
	if err := restoreResolver(resolver, resolverTarget); err != nil {
		return err
	}
	if err := mountHosts(); err != nil {
		return err
	}
	return loopbackUp()
}

// resolverFile returns the content of /etc/resolv.conf and the file under /run that it is a link to, if any.
func resolverFile() (content []byte, target string) {
	target, err := filepath.EvalSymlinks("/etc/resolv.conf")
	if err != nil || !strings.HasPrefix(target, "/run/") {
		return nil, ""
	}
	content, err = os.ReadFile(target)
	if err != nil {
		return nil, ""
	}
	return content, target
}

// restoreResolver puts the file back that the new /run covers: dockerd makes no container without /etc/resolv.conf.
func restoreResolver(content []byte, target string) error {
	if target == "" {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(target), 0o755); err != nil {
		return err
	}
	return os.WriteFile(target, content, 0o644)
}

// mountHosts covers /etc/hosts with one that knows the lab's names as well.
func mountHosts() error {
	hosts, err := os.ReadFile("/etc/hosts")
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	var b strings.Builder
	for name, address := range lab.Names {
		fmt.Fprintf(&b, "%s %s\n", address, name)
	}
	file := filepath.Join(runDir, "hosts")
	if err := os.WriteFile(file, append([]byte(b.String()), hosts...), 0o644); err != nil {
		return err
	}
	if err := unix.Mount(file, "/etc/hosts", "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("mount /etc/hosts: %w", err)
	}
	return nil
}

// loopbackUp switches the only interface of the new network on and gives it the addresses of the lab's names.
func loopbackUp() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	request, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	request.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, request); err != nil {
		return fmt.Errorf("switch lo on: %w", err)
	}
	alias := 0
	for name, address := range lab.Names {
		alias++
		// netdevice(7): a further address of an interface goes to its alias name.
		request, err := unix.NewIfreq(fmt.Sprintf("lo:%d", alias))
		if err != nil {
			return err
		}
		if err := request.SetInet4Addr(net.ParseIP(address).To4()); err != nil {
			return fmt.Errorf("address of %s: %w", name, err)
		}
		if err := unix.IoctlIfreq(fd, unix.SIOCSIFADDR, request); err != nil {
			return fmt.Errorf("give lo the address of %s: %w", name, err)
		}
	}
	return nil
}
