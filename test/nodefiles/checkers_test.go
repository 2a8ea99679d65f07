package nodefiles

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	ansiblefree "github.com/flowviz/flowagent/ansible-free"
	"github.com/flowviz/flowagent/golden/install"
	"github.com/flowviz/flowagent/test/lab"
)

// checker is the program that reads a kind of file, asked whether it understands the files of that kind.
type checker struct {
	name string
	// files are those that it reads, as package ansiblefree calls them.
	files []string
	// check returns what is wrong, which is nothing if it is empty.
	check func(t *testing.T, m *lab.MachineServer) string
	// broken is a mistake that it has to find, added to the end of the first file, or in place of it.
	broken  string
	replace bool
}

// command is a check by the exit code of a command.
func command(arguments ...string) func(*testing.T, *lab.MachineServer) string {
	return func(t *testing.T, m *lab.MachineServer) string {
		stdout, stderr, code := m.Try(t, arguments[0], arguments[1:]...)
		if code == 0 {
			return ""
		}
		return strings.Join(arguments, " ") + ": " + stdout + stderr
	}
}

// silent is a check by a command that ends with 0 and warns of nothing.
func silent(arguments ...string) func(*testing.T, *lab.MachineServer) string {
	return func(t *testing.T, m *lab.MachineServer) string {
		_, stderr, code := m.Try(t, arguments[0], arguments[1:]...)
		if code == 0 && stderr == "" {
			return ""
		}
		return strings.Join(arguments, " ") + ": " + stderr
	}
}

// The units that have files, and those of the distribution that have drop-ins.
var units = []string{
	"flowagent.service", "flowagent.socket", "flowagent-secrets.service", "flowagent-firewall.service",
	"docker.service", "apt-daily.timer", "apt-daily-upgrade.timer",
}

// runJournald starts the journald of a namespace and ends it when it has read its files and runs, or after patience. It returns
// what that journald said.
func runJournald(t *testing.T, m *lab.MachineServer, namespace string) (said string, runs bool) {
	t.Helper()
	ctx, end := context.WithTimeout(t.Context(), patience)
	defer end()
	journald := m.Command(ctx, "env", "SYSTEMD_LOG_TARGET=console", "SYSTEMD_LOG_LEVEL=debug", "/usr/lib/systemd/systemd-journald", namespace)
	output, err := journald.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := journald.Start(); err != nil {
		t.Fatal(err)
	}
	var all strings.Builder
	lines := bufio.NewScanner(output)
	for lines.Scan() {
		fmt.Fprintln(&all, lines.Text())
		if strings.Contains(lines.Text(), "systemd-journald running as PID ") {
			runs = true
			end()
		}
	}
	_ = journald.Wait() // it was killed, or has said why it ended
	return all.String(), runs
}

var checkers = []checker{
	{
		name: "systemd-analyze verify, of a unit",
		files: []string{
			"systemd/flowagent.service", "systemd/flowagent.socket", "systemd/flowagent-secrets.service", "systemd/flowagent-firewall.service",
			"systemd/apt-.timer.d/60-flowagent.conf",
		},
		check:  silent(append([]string{"systemd-analyze", "verify"}, units...)...),
		broken: "[Service]\nProtectSytem=strict\n",
	},
	{
		name:   "systemd-analyze verify, of a drop-in",
		files:  []string{"systemd/docker.service.d/60-flowagent.conf"},
		check:  silent("systemd-analyze", "verify", "docker.service"),
		broken: "[Unit]\nAfter=flowagent-secrets\n",
	},
	{
		name:   "systemd-sysusers",
		files:  []string{"sysusers.d/flowagent.conf"},
		check:  command("systemd-sysusers", "--dry-run", "flowagent.conf"),
		broken: "g flow:agent -\n",
	},
	{
		name:   "systemd-tmpfiles",
		files:  []string{"tmpfiles.d/flowagent.conf"},
		check:  command("systemd-tmpfiles", "--dry-run", "--create", "flowagent.conf"),
		broken: "d /etc/flowagent/x 0855 root root -\n",
	},
	{
		name:  "systemd-journald",
		files: []string{"journald.conf.d/60-flowagent.conf"},
		check: func(t *testing.T, m *lab.MachineServer) string {
			// journald has no check. One of a namespace of its own, systemd-journald.service(8), says what it doesn't
			// understand before it runs.
			m.Put(t, "/etc/systemd/journald@check.conf.d/60-flowagent.conf", read(t, m, "/usr/lib/systemd/journald.conf.d/60-flowagent.conf"), 0o644)
			m.Run(t, "mkdir", "-p", "/run/systemd/journal.check")
			if said, runs := runJournald(t, m, "check"); !runs || strings.Contains(said, "60-flowagent.conf:") {
				return "journald says: " + said
			}
			// The service has it as well, in the words with which it begins.
			m.Run(t, "systemctl", "restart", "systemd-journald.service")
			if said := m.Run(t, "journalctl", "--no-pager", "--output=cat", "--boot", "_COMM=systemd-journal"); !strings.Contains(said, " max 1G,") {
				return "journald says nothing of a limit of 1G: " + said
			}
			return ""
		},
		broken: "SystemMaxUsage=1G\n",
	},
	{
		name:  "systemd-resolved",
		files: []string{"resolved.conf.d/60-flowagent.conf"},
		check: func(t *testing.T, m *lab.MachineServer) string {
			// It has no check either, and says what it doesn't understand when it starts.
			m.Run(t, "systemctl", "restart", "systemd-resolved.service")
			m.Run(t, "journalctl", "--sync")
			run := strings.TrimSpace(m.Run(t, "systemctl", "show", "--property=InvocationID", "--value", "systemd-resolved.service"))
			if said := m.Run(t, "journalctl", "--no-pager", "--output=cat", "_SYSTEMD_INVOCATION_ID="+run); said == "" || strings.Contains(said, "60-flowagent.conf:") {
				return "systemd-resolved says: " + said
			}
			for _, protocol := range []string{"llmnr", "mdns"} {
				if said := strings.TrimSpace(m.Run(t, "resolvectl", protocol)); !strings.HasPrefix(said, "Global: no") {
					return "resolvectl " + protocol + " says: " + said
				}
			}
			return ""
		},
		broken: "LLMMR=no\n",
	},
	{
		name:  "sysctl",
		files: []string{"sysctl.d/60-flowagent.conf"},
		check: func(t *testing.T, m *lab.MachineServer) string {
			// A dash is for settings that not every kernel has; sysctl reads them all the same.
			var lines []string
			scanner := bufio.NewScanner(bytes.NewReader(read(t, m, "/usr/lib/sysctl.d/60-flowagent.conf")))
			for scanner.Scan() {
				if !strings.HasPrefix(scanner.Text(), "-") {
					lines = append(lines, scanner.Text())
				}
			}
			m.Put(t, "/root/sysctl.conf", []byte(strings.Join(lines, "\n")+"\n"), 0o644)
			return silent("sysctl", "--dry-run", "--load=/root/sysctl.conf")(t, m)
		},
		broken: "kernel.kptr_restricted = 1\n",
	},
	{
		name:  "modprobe",
		files: []string{"modprobe.d/flowagent.conf"},
		check: func(t *testing.T, m *lab.MachineServer) string {
			if problem := silent("modprobe", "--showconfig")(t, m); problem != "" {
				return problem
			}
			for _, module := range []string{"dccp", "sctp", "rds", "tipc"} {
				if out := m.Run(t, "modprobe", "--dry-run", "--verbose", module); strings.TrimSpace(out) != "install /bin/false" {
					return "modprobe would load " + module + ": " + out
				}
			}
			return ""
		},
		broken: "instal dccp /bin/false\n",
	},
	{
		name:   "nft --check",
		files:  []string{"nftables/firewall.nft"},
		check:  command("nft", "--check", "--file", "/usr/lib/flowagent/firewall.nft"),
		broken: "add rule inet flowagent input tcp dport ssh acept\n",
	},
	{
		name:  "shellcheck",
		files: []string{"nftables/firewall.sh"},
		check: func(t *testing.T, m *lab.MachineServer) string {
			return shellcheck(t, read(t, m, "/usr/lib/flowagent/firewall"))
		},
		broken: "\nrm -r $2\n",
	},
	{
		name:   "sshd -t",
		files:  []string{"sshd_config.d/10-flowagent.conf"},
		check:  command("sshd", "-t"),
		broken: "Ciphers aes256-fast\n",
	},
	{
		name:    "dockerd --validate",
		files:   []string{"docker/daemon.json"},
		check:   command("dockerd", "--validate", "--config-file", "/etc/docker/daemon.json"),
		broken:  `{"live-restores": true}`,
		replace: true,
	},
	{
		name:   "chronyd -p",
		files:  []string{"chrony/flowagent.conf"},
		check:  command("chronyd", "-p"),
		broken: "comandport 0\n",
	},
	{
		name:  "chronyd -p, of a source",
		files: []string{"chrony/ec2.sources"},
		// It reads these when it runs, and then logs what it doesn't understand.
		check:  command("chronyd", "-p", "-f", "/etc/chrony/sources.d/60-flowagent-ec2.sources"),
		broken: "server 169.254.169.123 prefers\n",
	},
	{
		name:  "unattended-upgrade --dry-run",
		files: []string{"apt.conf.d/60flowagent"},
		check: func(t *testing.T, m *lab.MachineServer) string {
			stdout, stderr, code := m.Try(t, "unattended-upgrade", "--dry-run", "--debug")
			said := stdout + stderr
			for _, want := range []string{
				"Allowed origins are: origin=Debian,codename=trixie-security,label=Debian-Security, origin=Ubuntu,archive=trixie-security,",
				"Initial blacklist: docker containerd runc$\n",
			} {
				if code != 0 || !strings.Contains(said, want) {
					return "unattended-upgrade doesn't say " + want + ":\n" + said
				}
			}
			return ""
		},
		broken: "Unattended-Upgrade::Package-Blacklist { \"docker\" \n",
	},
	{
		name:  "cloud-init schema, of the image's configuration",
		files: []string{"cloud-init/image/95-flowagent.cfg"},
		check: func(t *testing.T, m *lab.MachineServer) string {
			// The schema is that of user data, which may not say where user data comes from.
			var lines []string
			for line := range strings.Lines(string(read(t, m, "/etc/cloud/cloud.cfg.d/95-flowagent.cfg"))) {
				if !strings.HasPrefix(line, "datasource_list: [NoCloud, Ec2, None]\n") {
					lines = append(lines, line)
				}
			}
			m.Put(t, "/root/cloud.cfg", []byte(strings.Join(lines, "")), 0o644)
			return command("cloud-init", "schema", "--config-file", "/root/cloud.cfg")(t, m)
		},
		broken: "ssh_pwauths: false\n",
	},
}

func TestWhatReadsAFileUnderstandsItAndFindsAMistake(t *testing.T) {
	t.Parallel()
	m := machine(t)
	// The lab masks them, lest they begin to work in the middle of a test.
	m.Run(t, "systemctl", "unmask", "apt-daily.timer", "apt-daily-upgrade.timer")
	places := map[string]ansiblefree.File{}
	for _, f := range ansiblefree.Files(ansiblefree.Profiles...) {
		places[f.Source] = f
	}
	unchecked := maps.Clone(places)
	for _, c := range checkers {
		for _, source := range c.files {
			if _, ok := places[source]; !ok {
				t.Fatalf("%s reads %s, which is no file of ansible-free", c.name, source)
			}
			delete(unchecked, source)
		}
		t.Run(c.name, func(t *testing.T) {
			if problem := c.check(t, m); problem != "" {
				t.Errorf("of the file that is installed: %s", problem)
			}
			f := places[c.files[0]]
			broken := []byte(c.broken)
			if !c.replace {
				broken = append(slices.Clone(f.Content()), broken...)
			}
			m.Put(t, f.Path, broken, f.Mode)
			if c.check(t, m) == "" {
				t.Errorf("nothing is found in a file with the mistake %q", c.broken)
			}
			m.Put(t, f.Path, f.Content(), f.Mode)
		})
	}
	for source := range unchecked {
		t.Errorf("nothing checks %s", source)
	}
}

func TestSSHOffersNothingOldAndTakesKeysOnly(t *testing.T) {
	t.Parallel()
	m := machine(t)
	// What cloud-init writes where a seed allows passwords. It is read after ours, which is why ours counts.
	m.Put(t, "/etc/ssh/sshd_config.d/50-cloud-init.conf", []byte("PasswordAuthentication yes\n"), 0o600)
	settings := map[string]string{}
	for line := range strings.Lines(m.Run(t, "sshd", "-T")) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		settings[name] = value
	}
	for name, want := range map[string]string{
		"passwordauthentication": "no", "kbdinteractiveauthentication": "no", "permitemptypasswords": "no",
		"permitrootlogin": "without-password", "authenticationmethods": "publickey", "x11forwarding": "no",
		"allowtcpforwarding": "no", "allowagentforwarding": "no",
	} {
		if got := settings[name]; got != want {
			t.Errorf("%s: got %q, want %q", name, got, want)
		}
	}
	for _, name := range []string{"kexalgorithms", "ciphers", "macs", "hostkeyalgorithms"} {
		algorithms := strings.Split(settings[name], ",")
		if len(algorithms) < 3 {
			t.Errorf("%s: only %v are left", name, algorithms)
		}
		for _, algorithm := range algorithms {
			for _, old := range []string{"diffie-hellman", "nistp", "cbc", "sha1", "umac-64", "ssh-rsa", "3des"} {
				if strings.Contains(algorithm, old) {
					t.Errorf("%s: %s is still offered", name, algorithm)
				}
			}
			if name == "macs" && !strings.Contains(algorithm, "-etm@") {
				t.Errorf("%s: %s is a MAC over the plain text", name, algorithm)
			}
		}
	}
}

// Debian's systemd-resolved answers, on each network that it finds, until the line that the installation prints is followed.
func TestANodeAnswersNoNeighboursQuestionForNames(t *testing.T) {
	t.Parallel()
	m := machine(t)
	withNeighbours(t, m)
	answers := func() bool {
		for line := range strings.Lines(m.Run(t, "ss", "--no-header", "--listening", "--numeric", "--tcp", "--udp")) {
			if fields := strings.Fields(line); len(fields) > 4 && (strings.HasSuffix(fields[4], ":5355") || strings.HasSuffix(fields[4], ":5353")) {
				return true
			}
		}
		return false
	}
	// toHeed installs the file anew, and returns what the installation names for it.
	toHeed := func() []string {
		m.Run(t, "rm", "/usr/lib/systemd/resolved.conf.d/60-flowagent.conf")
		var result install.Result
		if err := json.Unmarshal([]byte(m.Run(t, "flowagent", "image", "install", "--output=json")), &result); err != nil {
			t.Fatal(err)
		}
		return result.Activate
	}
	eventually(t, "the distribution's systemd-resolved answers neighbours", answers)
	commands := toHeed()
	if len(commands) != 1 {
		t.Fatalf("got %q to heed one file, want one command", commands)
	}
	m.Run(t, "sh", "-c", commands[0])
	// It has both networks now.
	eventually(t, "systemd-resolved knows the network", func() bool { return strings.Contains(m.Run(t, "resolvectl", "status"), "(far)") })
	if answers() {
		t.Errorf("it still answers:\n%s", m.Run(t, "ss", "--listening", "--numeric", "--tcp", "--udp", "--processes"))
	}
	// A machine may do without it.
	for _, without := range []string{"systemctl mask systemd-resolved.service", "rm /usr/lib/systemd/system/systemd-resolved.service; systemctl unmask systemd-resolved.service"} {
		m.Run(t, "sh", "-c", without)
		if commands := toHeed(); len(commands) > 0 {
			t.Errorf("after %s: got %q, want nothing to restart", without, commands)
		}
	}
}

// An engine of 20.10 has no --validate, but refuses to start with a key that it doesn't know. The lab's engine is this
// machine's own, of whichever version.
func TestThisMachinesEngineTakesDaemonJSON(t *testing.T) {
	t.Parallel()
	var settings map[string]any
	for _, f := range ansiblefree.Files(ansiblefree.Base) {
		if f.Source == "docker/daemon.json" {
			if err := json.Unmarshal(f.Content(), &settings); err != nil {
				t.Fatal(err)
			}
		}
	}
	if len(settings) == 0 {
		t.Fatal("daemon.json has no settings")
	}
	if problem := startEngine(t, settings); problem != "" {
		t.Errorf("this machine's engine refuses daemon.json: %s", problem)
	}
	settings["live-restores"] = true
	if problem := startEngine(t, settings); !strings.Contains(problem, "live-restores") {
		t.Errorf("with a key that doesn't exist: got %q, want that it is refused", problem)
	}
}

func read(t *testing.T, m *lab.MachineServer, path string) []byte {
	t.Helper()
	content, err := os.ReadFile(m.Path(path))
	if err != nil {
		t.Fatal(err)
	}
	return content
}

// readFile reads a file of ansible-free that isn't installed on nodes.
func readFile(t *testing.T, path string) []byte {
	t.Helper()
	root, err := lab.ProjectDir()
	if err != nil {
		t.Fatal(err)
	}
	content, err := os.ReadFile(filepath.Join(root, "ansible-free", path))
	if err != nil {
		t.Fatal(err)
	}
	return content
}
