package flowagent

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"al.essio.dev/pkg/shellescape"

	ansiblefree "github.com/flowviz/flowagent/ansible-free"
)

// probeLimit bounds the questions that come before anything is done. They take a second, and ten under emulation.
const probeLimit = time.Minute

// facts are what the target says of itself.
type facts struct {
	distribution, version, codename string // as os-release(5) has them: debian, 13, trixie
	architecture                    string // as uname -m has it
	systemd                         bool   // is process 1
	root, sudo                      bool   // the connection is root's; sudo asks for no password
	freeMB                          int    // on the file system of /var
	cloudInit                       bool
	engine, compose                 string   // versions; empty where there is none
	programs                        []string // those of programsOf that are there
}

// supported are the releases that the units, the packages and the seal are tested with.
var supported = map[string][]string{"debian": {"13"}, "ubuntu": {"22.04", "24.04"}}

// probe asks everything at once, as a user who may have no rights at all. Versions of a part that is there and doesn't
// tell its own are "unknown".
func probe() string {
	var names []string
	for _, p := range programsOf(ansiblefree.Profiles) {
		names = append(names, p.Name)
	}
	return "programs=" + shellescape.Quote(strings.Join(names, " ")) + probeScript
}

const probeScript = `
if [ -r /etc/os-release ]; then . /etc/os-release; fi
said() { printf '%s=%s\n' "$1" "$2"; }
said distribution "${ID:-}"
said version "${VERSION_ID:-}"
said codename "${VERSION_CODENAME:-}"
said architecture "$(uname -m)"
said uid "$(id -u)"
if [ -d /run/systemd/system ]; then said systemd yes; fi
if command -v sudo >/dev/null && sudo -n true 2>/dev/null; then said sudo yes; fi
if command -v cloud-init >/dev/null; then said cloud-init yes; fi
said free "$(df -Pk /var | awk 'NR == 2 { print int($4 / 1024) }')"
PATH=$PATH:/usr/sbin:/sbin
if command -v dockerd >/dev/null; then
  version=$(dockerd --version 2>/dev/null | sed -n 's/^Docker version \([^ ,]*\).*/\1/p')
  said engine "${version:-unknown}"
fi
for program in $programs; do
  if command -v "$program" >/dev/null; then said program "$program"; fi
done
for dir in /usr/local/lib/docker/cli-plugins /usr/local/libexec/docker/cli-plugins /usr/lib/docker/cli-plugins /usr/libexec/docker/cli-plugins; do
  if [ -x "$dir/docker-compose" ]; then
    version=$("$dir/docker-compose" version --short 2>/dev/null || true)
    said compose "${version:-unknown}"
    break
  fi
done
`

// askFacts runs the probe, before it is known who the connection's user is.
func (r *remote) askFacts(ctx context.Context) (*facts, error) {
	answer, err := r.run(ctx, step{name: "look at the target", script: probe(), limit: probeLimit, quiet: true})
	if err != nil {
		return nil, err
	}
	f := &facts{}
	lines := bufio.NewScanner(strings.NewReader(answer))
	for lines.Scan() {
		name, value, _ := strings.Cut(lines.Text(), "=")
		switch name {
		case "distribution":
			f.distribution = value
		case "version":
			f.version = value
		case "codename":
			f.codename = value
		case "architecture":
			f.architecture = value
		case "uid":
			f.root = value == "0"
		case "systemd":
			f.systemd = true
		case "sudo":
			f.sudo = true
		case "cloud-init":
			f.cloudInit = true
		case "free":
			if f.freeMB, err = strconv.Atoi(value); err != nil {
				return nil, fmt.Errorf("look at the target: df says %q of the free space on /var, which is no number", value)
			}
		case "program":
			f.programs = append(f.programs, value)
		case "engine":
			f.engine = value
		case "compose":
			f.compose = strings.TrimPrefix(value, "v")
		}
	}
	return f, lines.Err()
}

// check tells whether the target can become a node, its disk aside. The error joins everything that stands in the way.
func (f *facts) check(c *Config, p *plan) error {
	var errs []error
	refuse := func(format string, arguments ...any) { errs = append(errs, fmt.Errorf(format, arguments...)) }
	if !slices.Contains(supported[f.distribution], f.version) {
		name := strings.TrimSpace(f.distribution + " " + f.version)
		if name == "" {
			name = "a system without /etc/os-release"
		}
		refuse("the target is %s: nodes are made of Debian 13, Ubuntu 22.04 or Ubuntu 24.04; choose another source image", name)
	}
	if !f.systemd {
		refuse("systemd is not the target's init: the node's units need it; choose a source image that boots with systemd")
	}
	switch own := goArchitecture[f.architecture]; {
	case own == "":
		refuse("the target is %s: flowagent runs on x86_64 and aarch64; choose another source image", f.architecture)
	case f.architecture != p.architecture:
		refuse("the target is %s and %s is a program for %s: build flowagent for the target (GOARCH=%s), or choose another source image",
			f.architecture, c.Binary, p.architecture, own)
	}
	if !f.root && !f.sudo {
		refuse("the connection's user is not root and sudo wants a password: connect as root, or let the user run sudo without one (NOPASSWD)")
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("the target can't become a node; nothing was changed on it:\n%w", err)
	}
	return nil
}

// checkRoom tells whether what is wanted fits beside what is there, once the first boot is over.
func (f *facts) checkRoom(c *Config, p *plan) error {
	var errs []error
	if need := c.MinimumFreeMB + int(p.size()>>20) + 1; f.freeMB < need {
		errs = append(errs, fmt.Errorf("the target has %d MiB free on /var and %d are needed: give it a larger disk, or set minimum_free_mb lower", f.freeMB, need))
	}
	errs = append(errs, checkVersion("engine_version", c.EngineVersion, f.engine), checkVersion("compose_version", c.ComposeVersion, f.compose))
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("the target can't become a node; nothing was changed on it:\n%w", err)
	}
	return nil
}

// goArchitecture is what Go and Debian call the machines of uname -m.
var goArchitecture = map[string]string{"x86_64": "amd64", "aarch64": "arm64"}

// checkVersion holds what is there against what is wanted; an engine that is there is never replaced.
func checkVersion(field, wanted, there string) error {
	if wanted == "" || there == "" || upstream(wanted) == upstream(there) {
		return nil
	}
	return fmt.Errorf("%s is %s and the target has %s already: remove it there, correct the version, or leave it out", field, wanted, there)
}

// upstream is the part of a package's version that the program itself knows: without epoch, revision and what the
// distribution added.
func upstream(version string) string {
	if _, after, found := strings.Cut(version, ":"); found {
		version = after
	}
	if end := strings.IndexAny(version, "+~-"); end >= 0 {
		version = version[:end]
	}
	return version
}
