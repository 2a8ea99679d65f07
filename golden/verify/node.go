package verify

import (
	"context"
	"debug/buildinfo"
	"errors"
	"fmt"
	"io/fs"
	"os/exec"
	"path"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/flowviz/flowagent/agent/image"
	"github.com/flowviz/flowagent/agent/workload"
	"github.com/flowviz/flowagent/golden/dpkg"
	"github.com/flowviz/flowagent/golden/seal"
)

// agentPath is where the units call the agent.
const agentPath = "usr/bin/flowagent"

func (v *verifier) agent() (string, error) {
	f, err := v.Root.Open(agentPath)
	if err != nil {
		return "", fmt.Errorf("there is no agent: %w; install it as /%s", err, agentPath)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return "", err
	}
	if info.Mode().Perm()&0o111 == 0 {
		return "", fmt.Errorf("/%s can't be executed: chmod 0755 it", agentPath)
	}
	built, err := buildinfo.Read(f)
	if err != nil {
		return "", fmt.Errorf("/%s is not the agent: %w; install it again", agentPath, err)
	}
	if !strings.HasPrefix(built.Path, "github.com/flowviz/flowagent") {
		return "", fmt.Errorf("/%s is another program, %s: install the agent", agentPath, built.Path)
	}
	return fmt.Sprintf("/%s, %s, built with %s", agentPath, built.Main.Version, built.GoVersion), nil
}

func (v *verifier) configuration() (string, error) {
	if v.nodeErr != nil {
		return "", v.nodeErr
	}
	cfg, project := v.node.Config, v.node.Project
	if err := errors.Join(image.Check(project.Images(), cfg.Workload.Pull.Pin), project.CheckServices("drain.order", cfg.Drain.Order)); err != nil {
		return "", err
	}
	return fmt.Sprintf("valid: %s, project %s with %s", counted(len(v.node.Layers), "layer"), project.Name(), counted(len(project.Services()), "service")), nil
}

// configurationFiles looks at who may change what the agent, which is root, will do.
func (v *verifier) configurationFiles() (string, error) {
	if v.node == nil {
		return "", errors.New("not checked: the configuration can't be read")
	}
	var names []string
	for _, layer := range v.node.Layers {
		names = append(names, v.Inside(layer))
	}
	for _, file := range v.node.Config.Workload.Files {
		names = append(names, v.Inside(file))
	}
	if len(v.node.Config.Workload.Files) > 0 {
		dotEnv := path.Join(path.Dir(v.Inside(v.node.Config.Workload.Files[0])), ".env")
		if _, err := v.Root.Lstat(dotEnv); err == nil {
			names = append(names, dotEnv)
		}
	}
	top, err := v.Root.Stat(".")
	if err != nil {
		return "", err
	}
	var bad []string
	seen := map[string]bool{}
	for _, name := range names {
		for ; name != "." && !seen[name]; name = path.Dir(name) {
			seen[name] = true
			info, err := v.Root.Stat(name)
			if err != nil {
				bad = append(bad, err.Error())
				continue
			}
			if info.Mode().Perm()&0o022 != 0 {
				bad = append(bad, fmt.Sprintf("/%s has mode %04o: chmod go-w it", name, info.Mode().Perm()))
			}
			if owner(info) != owner(top) {
				bad = append(bad, fmt.Sprintf("/%s belongs to user %d: chown it to root", name, owner(info)))
			}
		}
	}
	if len(bad) > 0 {
		return "", &findings{"others than root may change what the agent does", bad}
	}
	return fmt.Sprintf("only root may change %s", counted(len(names), "file")), nil
}

func owner(info fs.FileInfo) uint32 {
	if stat, ok := info.Sys().(*syscall.Stat_t); ok {
		return stat.Uid
	}
	return 0
}

// unitDirs are where systemd looks for units of the system, the first that has one wins.
var unitDirs = []string{"etc/systemd/system", "usr/local/lib/systemd/system", "usr/lib/systemd/system", "lib/systemd/system"}

func (v *verifier) units() (string, error) {
	var bad []string
	for _, unit := range []struct {
		name    string
		enabled bool // else it is pulled in by another
	}{{"flowagent.service", true}, {"flowagent-secrets.service", false}, {"docker.service", true}} {
		if err := v.unit(unit.name, unit.enabled); err != nil {
			bad = append(bad, err.Error())
		}
	}
	if len(bad) > 0 {
		return "", &findings{"the node would not start by itself", bad}
	}
	return "flowagent.service and docker.service are enabled, flowagent-secrets.service is there", nil
}

func (v *verifier) unit(name string, enabled bool) error {
	at := slices.IndexFunc(unitDirs, func(dir string) bool {
		_, err := v.Root.Lstat(path.Join(dir, name))
		return err == nil
	})
	if at < 0 {
		return fmt.Errorf("%s isn't there: install it", name)
	}
	if target, err := v.Root.Readlink(path.Join(unitDirs[at], name)); err == nil && target == "/dev/null" {
		return fmt.Errorf("%s is masked: systemctl unmask it", name)
	}
	if !enabled {
		return nil
	}
	for _, pattern := range []string{"wants", "requires"} {
		links, err := fs.Glob(v.Root.FS(), "etc/systemd/system/*."+pattern+"/"+name)
		if err != nil {
			return err
		}
		if len(links) > 0 {
			return nil
		}
	}
	return fmt.Errorf("%s isn't enabled: systemctl enable it", name)
}

// versionTimeout is far above the second that it takes, for a machine that reads the program from a cold disk.
const versionTimeout = time.Minute

func (v *verifier) engine() (string, error) {
	program := v.first("usr/bin/dockerd", "usr/sbin/dockerd", "usr/local/bin/dockerd")
	if program == "" {
		return "", errors.New("there is no Docker Engine: install docker-ce or docker.io")
	}
	if v.Running {
		ctx, cancel := context.WithTimeout(v.ctx, versionTimeout)
		defer cancel()
		out, err := exec.CommandContext(ctx, "/"+program, "--version").Output()
		if err != nil {
			return "", fmt.Errorf("/%s --version: %w", program, err)
		}
		return fmt.Sprintf("/%s: %s", program, strings.TrimSpace(string(out))), nil
	}
	return v.fromPackage(program, "docker-ce", "docker.io")
}

// fromPackage tells a program's version by the package that it is of, where the program can't be asked.
func (v *verifier) fromPackage(program string, names ...string) (string, error) {
	if v.packagesErr != nil {
		return "", fmt.Errorf("/%s is there, but not its version: %w", program, v.packagesErr)
	}
	if p, ok := dpkg.Find(v.packages, names...); ok {
		return fmt.Sprintf("/%s, %s %s", program, p.Name, p.Version), nil
	}
	return fmt.Sprintf("/%s, of no known package: its version is told on the running system", program), nil
}

func (v *verifier) first(names ...string) string {
	for _, name := range names {
		if info, err := v.Root.Stat(name); err == nil && info.Mode().IsRegular() && info.Mode().Perm()&0o111 != 0 {
			return name
		}
	}
	return ""
}

func (v *verifier) composePlugin() (string, error) {
	if v.Running {
		program, version, err := workload.FindPlugin(v.ctx)
		if err != nil {
			return "", err
		}
		return fmt.Sprintf("%s, %s", program, version), nil
	}
	program := v.first(
		"usr/local/lib/docker/cli-plugins/docker-compose", "usr/local/libexec/docker/cli-plugins/docker-compose",
		"usr/lib/docker/cli-plugins/docker-compose", "usr/libexec/docker/cli-plugins/docker-compose",
	)
	if program == "" {
		return "", fmt.Errorf("%w: install docker-compose-plugin (docker-compose-v2 on Ubuntu)", workload.ErrNoPlugin)
	}
	return v.fromPackage(program, "docker-compose-plugin", "docker-compose-v2", "docker-compose")
}

// identity asks what sealing would still find, of all that doesn't come back by itself.
func (v *verifier) identity() (string, error) {
	keep := slices.Clone(v.opts.Keep)
	for _, kind := range seal.Kinds() {
		if !slices.Contains(seal.Lasting(), kind) {
			keep = append(keep, kind)
		}
	}
	id, err := v.Root.ReadFile("etc/machine-id")
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	report, err := seal.Seal(v.ctx, seal.Options{
		Root: v.Path, DryRun: true, Keep: keep,
		FirstBoot: string(id) == seal.Uninitialized, // sealed either way
	})
	if err != nil && len(report.Problems) == 0 {
		return "", err
	}
	bad := slices.Clone(report.Problems)
	for _, c := range report.Changes {
		bad = append(bad, fmt.Sprintf("%s: %s: %s", c.Kind, c.Path, c.Why))
	}
	if len(bad) > 0 {
		return "", &findings{"the system isn't sealed: run 'flowagent image seal'", bad}
	}
	reason := fmt.Sprintf("sealed: nothing of %d kinds is left", len(seal.Lasting())-len(v.opts.Keep))
	if len(v.opts.Keep) > 0 {
		reason += "; kept as asked: " + strings.Join(v.opts.Keep, ", ")
	}
	return reason, nil
}

// passwords looks for accounts that could be logged in to with a password of the builder's, or with none.
func (v *verifier) passwords() (string, error) {
	var bad []string
	for _, name := range []string{"etc/shadow", "etc/shadow-"} {
		table, err := v.Root.ReadFile(name)
		if errors.Is(err, fs.ErrNotExist) && name == "etc/shadow-" {
			continue // dpkg's and passwd's copy of the one before
		}
		if err != nil {
			return "", fmt.Errorf("not checked: %w", err)
		}
		for line := range strings.Lines(string(table)) {
			fields := strings.Split(strings.TrimSpace(line), ":")
			switch {
			case len(fields) < 2:
			case fields[1] == "":
				bad = append(bad, fmt.Sprintf("/%s: %s needs no password: passwd --lock it", name, fields[0]))
			case !strings.ContainsAny(fields[1][:1], "!*"): // shadow(5)
				bad = append(bad, fmt.Sprintf("/%s: %s has a password: passwd --lock it, or set it from a secret at boot", name, fields[0]))
			}
		}
	}
	if len(bad) > 0 {
		return "", &findings{"every clone would have this password", bad}
	}
	return "no account has one", nil
}
