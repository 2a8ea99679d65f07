package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/flowviz/flowagent/test/lab"
)

// node is the inside of a lab: the parts that run beside its command.
type node struct {
	plan     plan
	engine   *lab.EngineServer
	startLog string         // what the engine said while it started, which is of no interest later
	parts    []*lab.Process // in order of start
	settings []string       // NAME=value for the command
}

// runNode starts the parts that the plan asks for, then the command, and returns the command's exit code.
func runNode(arguments []string) (int, error) {
	p, err := decodePlan(arguments)
	if err != nil {
		return 0, err
	}
	if os.Getppid() != 1 {
		return 0, fmt.Errorf("%s runs under process 1 of a lab only: %w", nodeCommand, errUsage)
	}
	for i := range p.fileCount() {
		unix.CloseOnExec(firstFile + i) // they are for this process, not for the command
	}
	signals := make(chan os.Signal, len(forwarded))
	signal.Notify(signals, forwarded...)

	n := &node{plan: p}
	defer n.stop()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	started := make(chan error, 1)
	go func() { started <- n.start(ctx) }()
	select {
	case s := <-signals:
		cancel()
		<-started
		return 128 + int(s.(syscall.Signal)), nil
	case err := <-started:
		if err != nil {
			return 0, err
		}
	}
	code, interrupted, err := n.run(signals)
	if err != nil {
		return 0, err
	}
	if code != 0 && !interrupted {
		n.showEngineLog()
	}
	return code, nil
}

// start starts every part; those that did start are ended by stop even when another one failed.
func (n *node) start(ctx context.Context) error {
	bundle, err := makeAuthority()
	if err != nil {
		return err
	}
	if err := os.Setenv(lab.DirectoryVariable, runDir); err != nil {
		return err
	}
	// Like the engine's containers, what tests keep on the disk belongs to one run, even if that one was killed.
	disk := n.disk()
	if err := errors.Join(os.RemoveAll(disk), os.MkdirAll(disk, 0o711)); err != nil {
		return err
	}
	n.engine, err = lab.StartEngine(ctx, lab.EngineSpec{
		DataRoot:     filepath.Join(n.plan.State, "docker"),
		RunDir:       "/run", // where every client looks for docker.sock
		CertFile:     bundle,
		CgroupParent: n.plan.CgroupParent,
	})
	if err != nil {
		return err
	}
	n.startLog = n.engine.Log()
	if len(n.plan.Images) > 0 {
		if err := copyImages(ctx, n.plan, n.engine.Address); err != nil {
			return err
		}
	}
	for _, host := range n.plan.Registries {
		if err := n.startRegistry(ctx, host); err != nil {
			return err
		}
	}
	if err := n.startAWS(ctx); err != nil {
		return err
	}
	if err := publish(n.plan); err != nil {
		return err
	}
	return n.equip(bundle)
}

func (n *node) startRegistry(ctx context.Context, host string) error {
	dir := filepath.Join(n.plan.State, "registries", host)
	// Like the engine's containers, images in a registry belong to one run.
	if err := errors.Join(os.RemoveAll(dir), os.MkdirAll(dir, 0o700)); err != nil {
		return err
	}
	server, err := lab.StartRegistryAt(ctx, dir, host)
	if err != nil {
		return err
	}
	n.parts = append(n.parts, server.Process)
	login := filepath.Join(runDir, "registries", host)
	return errors.Join(
		os.MkdirAll(login, 0o700),
		os.WriteFile(filepath.Join(login, "username"), []byte(server.Username), 0o600),
		os.WriteFile(filepath.Join(login, "password"), []byte(server.Password), 0o600),
	)
}

func (n *node) startAWS(ctx context.Context) error {
	if n.plan.Moto {
		server, err := lab.StartMoto(ctx)
		if err != nil {
			return err
		}
		n.parts = append(n.parts, server.Process)
		n.set("AWS_ENDPOINT_URL", server.URL)
		// moto takes any credentials, but the SDKs want some.
		n.set("AWS_ACCESS_KEY_ID", "testing")
		n.set("AWS_SECRET_ACCESS_KEY", "testing")
	}
	if n.plan.MetadataMock != "" {
		config, err := os.ReadFile(n.plan.MetadataMock)
		if err != nil {
			return fmt.Errorf("--metadata-mock: %w", err)
		}
		server, err := lab.StartMetadataMock(ctx, runDir, string(config))
		if err != nil {
			return err
		}
		n.parts = append(n.parts, server.Process)
		n.set("AWS_EC2_METADATA_SERVICE_ENDPOINT", server.URL)
	}
	if n.plan.Moto || n.plan.MetadataMock != "" {
		n.set("AWS_REGION", "us-east-1") // the region of the first ECR name
	}
	return nil
}

// disk is the directory for what the lab keeps no longer than it lives.
func (n *node) disk() string { return filepath.Join(n.plan.State, "disk") }

func (n *node) set(name, value string) { n.settings = append(n.settings, name+"="+value) }

// equip settles the rest of the command's environment.
func (n *node) equip(bundle string) error {
	n.set(lab.DirectoryVariable, runDir)
	n.set(lab.DiskVariable, n.disk())
	n.set(lab.CgroupVariable, n.plan.CgroupParent)
	n.set(lab.EngineVariable, n.engine.Address)
	for _, variable := range []string{"SSL_CERT_FILE", "CURL_CA_BUNDLE", "REQUESTS_CA_BUNDLE", "AWS_CA_BUNDLE"} {
		n.set(variable, bundle)
	}
	// The person's own login data and context stay out; the compose plugin comes in, where there is one.
	dockerConfig := filepath.Join(runDir, "docker")
	n.set("DOCKER_CONFIG", dockerConfig)
	plugins := filepath.Join(dockerConfig, "cli-plugins")
	if err := os.MkdirAll(plugins, 0o700); err != nil {
		return err
	}
	plugin, err := lab.ComposePath()
	if errors.Is(err, lab.ErrMissing) {
		return nil
	}
	if err != nil {
		return err
	}
	return os.Symlink(plugin, filepath.Join(plugins, "docker-compose"))
}

// environment is the machine's, without what leads out of the lab: proxies, AWS accounts, engines, systemd's user bus.
func (n *node) environment() []string {
	var kept []string
	for _, entry := range lab.WithoutProxies(os.Environ()) {
		name, _, _ := strings.Cut(entry, "=")
		if strings.HasPrefix(name, "AWS_") || strings.HasPrefix(name, "DOCKER_") || name == "XDG_RUNTIME_DIR" ||
			name == "DBUS_SESSION_BUS_ADDRESS" {
			continue
		}
		kept = append(kept, entry)
	}
	return append(kept, n.settings...) // the last value of a name wins
}

// run runs the command and passes signals on to its whole process group, as a terminal would.
func (n *node) run(signals <-chan os.Signal) (code int, interrupted bool, err error) {
	cmd := exec.Command(n.plan.Command[0], n.plan.Command[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Env = n.environment()
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: unix.SIGKILL}
	if isTerminal(os.Stdin) {
		signal.Ignore(unix.SIGTTOU)       // which this group, in the background, would get for the next line
		cmd.SysProcAttr.Foreground = true // so that Ctrl-C and the keyboard are the command's
	}
	if err := cmd.Start(); err != nil {
		return 0, false, fmt.Errorf("run %s: %w", n.plan.Command[0], err)
	}
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	for {
		select {
		case s := <-signals:
			interrupted = true
			_ = unix.Kill(-cmd.Process.Pid, s.(syscall.Signal))
		case err := <-done:
			var exit *exec.ExitError
			if err != nil && !errors.As(err, &exit) {
				return 0, interrupted, err
			}
			status := cmd.ProcessState.Sys().(syscall.WaitStatus)
			return exitCode(status), interrupted || status.Signaled() && status.Signal() == unix.SIGINT, nil
		}
	}
}

// stop ends the parts, the last one first.
func (n *node) stop() {
	for i := len(n.parts) - 1; i >= 0; i-- {
		n.parts[i].Stop()
	}
	if n.engine != nil {
		n.engine.Stop()
	}
}

// engineLogLines is what fits on a screen beside a command's own error.
const engineLogLines = 15

func (n *node) showEngineLog() {
	log := strings.TrimSpace(strings.TrimPrefix(n.engine.Log(), n.startLog))
	if log == "" {
		return
	}
	lines := strings.Split(log, "\n")
	fmt.Fprintln(os.Stderr, "lab: the end of the engine's log, which may explain the failure:")
	for _, line := range lines[max(0, len(lines)-engineLogLines):] {
		fmt.Fprintln(os.Stderr, "  "+line)
	}
}
