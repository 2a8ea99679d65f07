package main

import (
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/flowviz/flowagent/test/lab"
)

// maxLabs bounds the labs of one project at a time; each keeps images of its own on disk.
const maxLabs = 8

// forwarded are the signals that a lab passes on to its command.
var forwarded = []os.Signal{unix.SIGINT, unix.SIGTERM, unix.SIGHUP, unix.SIGQUIT}

// runLab is the part outside: it gathers what only the machine has, makes the namespaces and waits.
func runLab(arguments []string) (int, error) {
	p, err := parsePlan(arguments)
	if errors.Is(err, flag.ErrHelp) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	if os.Geteuid() != 0 {
		return 0, errors.New("namespaces with a Docker Engine in them need root: run this with sudo")
	}
	p.CgroupParent = fmt.Sprintf("/flowagent-lab-%d", os.Getpid())
	files, err := gather(&p)
	defer func() {
		for _, f := range files {
			_ = f.Close()
		}
	}()
	if err != nil {
		return 0, err
	}
	defer lab.RemoveCgroups(p.CgroupParent)
	return runNamespaces(p, files)
}

func runNamespaces(p plan, files []*os.File) (int, error) {
	argument, err := p.argument()
	if err != nil {
		return 0, err
	}
	cmd := exec.Command("/proc/self/exe", initCommand, argument)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.ExtraFiles = files
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWNET | unix.CLONE_NEWIPC,
		Pdeathsig:  unix.SIGKILL,
		// A terminal sends Ctrl-C to every process of the foreground group; the lab must hear it once, from here.
		Setpgid: true,
	}
	signals := make(chan os.Signal, len(forwarded))
	signal.Notify(signals, forwarded...)
	defer signal.Stop(signals)
	if err := cmd.Start(); err != nil {
		if errors.Is(err, unix.EPERM) {
			return 0, fmt.Errorf("make namespaces: %w: in a container, it has to be a privileged one", err)
		}
		return 0, fmt.Errorf("make namespaces: %w", err)
	}
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	for {
		select {
		case s := <-signals:
			_ = cmd.Process.Signal(s)
		case err := <-done:
			takeTerminal()
			var exit *exec.ExitError
			if err != nil && !errors.As(err, &exit) {
				return 0, err
			}
			return exitCode(cmd.ProcessState.Sys().(syscall.WaitStatus)), nil
		}
	}
}

// exitCode is what a shell makes of a wait status.
func exitCode(status syscall.WaitStatus) int {
	if status.Signaled() {
		return 128 + int(status.Signal())
	}
	return status.ExitStatus()
}

// gather takes hold of what can't be reached from inside, in the order that plan documents.
func gather(p *plan) ([]*os.File, error) {
	build, err := lab.BuildDir()
	if err != nil {
		return nil, err
	}
	state, lock, err := claimState(filepath.Join(build, "lab"))
	if err != nil {
		return nil, err
	}
	p.State = state
	files := []*os.File{lock}
	for _, address := range p.Publish {
		// A socket belongs to the network it was made in: this listener stays on the machine's wherever it is used.
		listener, err := net.Listen("tcp", address)
		if err != nil {
			return files, fmt.Errorf("publish %s: %w", address, err)
		}
		file, err := listener.(*net.TCPListener).File()
		_ = listener.Close()
		if err != nil {
			return files, fmt.Errorf("publish %s: %w", address, err)
		}
		files = append(files, file)
	}
	if len(p.Images) > 0 {
		engine, err := openEngineSocket()
		if err != nil {
			return files, err
		}
		files = append(files, engine)
	}
	return files, nil
}

// claimState locks the first state directory under dir that no other lab uses.
func claimState(dir string) (string, *os.File, error) {
	for i := range maxLabs {
		state := filepath.Join(dir, fmt.Sprintf("state-%d", i))
		if err := os.MkdirAll(state, 0o711); err != nil {
			return "", nil, err
		}
		lock, err := os.OpenFile(filepath.Join(state, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
		if err != nil {
			return "", nil, err
		}
		err = unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return state, lock, nil
		}
		_ = lock.Close()
		if !errors.Is(err, unix.EWOULDBLOCK) {
			return "", nil, fmt.Errorf("lock %s: %w", state, err)
		}
	}
	return "", nil, fmt.Errorf("%d labs of this project are running: end one", maxLabs)
}

// openEngineSocket returns a handle by which the machine's engine can be reached where its path can't.
func openEngineSocket() (*os.File, error) {
	path := "/var/run/docker.sock"
	if host := os.Getenv("DOCKER_HOST"); host != "" {
		var isUnix bool
		if path, isUnix = strings.CutPrefix(host, "unix://"); !isUnix {
			return nil, fmt.Errorf("--image: DOCKER_HOST=%s is not an engine on this machine", host)
		}
	}
	fd, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("--image: open %s: %w: start this machine's engine with `scripts/setup.sh engine`", path, err)
	}
	return os.NewFile(uintptr(fd), path), nil
}

// takeTerminal makes this process group the terminal's foreground one again, after the lab's command was.
func takeTerminal() {
	if !isTerminal(os.Stdin) {
		return
	}
	signal.Ignore(unix.SIGTTOU) // which a group in the background gets for asking
	_ = unix.IoctlSetPointerInt(int(os.Stdin.Fd()), unix.TIOCSPGRP, unix.Getpgrp())
}

func isTerminal(f *os.File) bool {
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}
