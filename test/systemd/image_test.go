package systemd

import (
	"encoding/json"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/moby/moby/client"

	"github.com/flowviz/flowagent/golden/seal"
	"github.com/flowviz/flowagent/golden/verify"
)

// A machine that has been a node becomes an image, and what boots from it is a node again, another one.
func TestARunningMachineBecomesAnImageAndBootsAsAnotherOne(t *testing.T) {
	n := newNode(t)
	n.systemctl("enable", service)
	n.start()
	before := n.read("/etc/machine-id")
	for name, content := range map[string]string{
		"/etc/ssh/ssh_host_ed25519_key": "key",
		"/root/.ssh/authorized_keys":    "ssh-ed25519 builder",
		"/root/.bash_history":           "mysql -phunter2",
		"/var/lib/cloud/instance/id":    "i-1",
		"/swapfile":                     "memory",
	} {
		n.Put(t, name, []byte(content), 0o600)
	}
	// cloud-init of Debian 13, as far as sealing has to do with it.
	n.Put(t, "/usr/bin/cloud-init", []byte(`#!/bin/sh
case $2 in
--help) echo 'usage: clean [-h] [-l] [--machine-id] [-r] [-s] [-c {all,ssh_config,network} ...] --logs --seed --configs' ;;
*) echo "$@" >/root/called && echo uninitialized >/etc/machine-id ;;
esac
`), 0o755)

	// A node isn't sealed: not without a word, and not while its agent is at work.
	if _, stderr, code := n.Try(t, "flowagent", "image", "seal"); code != 2 || !strings.Contains(stderr, "--yes") {
		t.Errorf("without --yes: got exit code %d and %q, want 2", code, stderr)
	}
	if _, stderr, code := n.Try(t, "flowagent", "image", "seal", "--yes"); code != 3 || !strings.Contains(stderr, "systemctl stop flowagent") {
		t.Errorf("while the agent runs: got exit code %d and %q, want 3", code, stderr)
	}
	if got := n.read("/etc/machine-id"); got != before {
		t.Fatalf("the machine id was changed all the same: %q", got)
	}

	n.systemctl("stop", service)
	if report := n.verify(); report.OK || checkOf(t, report, "identity").Status != verify.Failed {
		t.Errorf("before sealing: got %+v, want that it is no image", report)
	}
	enabled := n.enabled()
	var sealed seal.Report
	n.json(&sealed, 0, "image", "seal", "--yes")
	if len(sealed.Changes) == 0 || len(sealed.Problems) > 0 {
		t.Errorf("sealing: got %+v", sealed)
	}
	if got := n.read("/root/called"); got != "clean --logs --seed --machine-id --configs all\n" {
		t.Errorf("cloud-init was called with %q", got)
	}
	if got := n.read("/etc/machine-id"); got != "" {
		t.Errorf("machine id: got %q, want none", got)
	}
	containers, err := n.Engine(t).ContainerList(t.Context(), client.ContainerListOptions{All: true})
	if err != nil || len(containers.Items) > 0 {
		t.Errorf("containers: got %v (%v), want none", containers.Items, err)
	}
	report := n.verify()
	for _, c := range report.Checks {
		if c.Status != verify.OK {
			t.Errorf("%s: %s: %s\n%s", c.Name, c.Status, c.Reason, strings.Join(c.Findings, "\n"))
		}
	}
	var again seal.Report
	n.json(&again, 0, "image", "seal", "--yes")
	for _, c := range again.Changes {
		if c.Kind != "logs" { // the journal went on meanwhile
			t.Errorf("sealing again did something: %+v", c)
		}
	}

	n.Reboot(t)
	n.AwaitBooted(t)
	n.awaitReady()
	if after := n.read("/etc/machine-id"); after == before || !regexp.MustCompile(`^[0-9a-f]{32}\n$`).MatchString(after) {
		t.Errorf("machine id after the boot: got %q, before it was %q, want another one", after, before)
	}
	// At what it takes for a first boot, systemd would enable every unit that its presets name.
	if diff := cmp.Diff(enabled, n.enabled()); diff != "" {
		t.Errorf("units that are enabled, as built (-) and after the boot (+):\n%s", diff)
	}
}

func (n *node) enabled() []string {
	n.t.Helper()
	return strings.Split(n.Run(n.t, "systemctl", "list-unit-files", "--state=enabled", "--no-legend", "--plain"), "\n")
}

func (n *node) read(name string) string {
	n.t.Helper()
	return n.Run(n.t, "cat", name)
}

// json runs a command of flowagent that has to end with an exit code, and reads what it prints.
func (n *node) json(to any, want int, arguments ...string) {
	n.t.Helper()
	stdout, stderr, code := n.Try(n.t, "flowagent", append(arguments, "--output", "json")...)
	if code != want {
		n.t.Errorf("flowagent %s: got exit code %d, want %d\n%s%s", strings.Join(arguments, " "), code, want, stdout, stderr)
	}
	if err := json.Unmarshal([]byte(stdout), to); err != nil {
		n.t.Fatalf("flowagent %s: %v: %s%s", strings.Join(arguments, " "), err, stdout, stderr)
	}
}

// verify verifies the machine, which exits by what it found.
func (n *node) verify() verify.Report {
	n.t.Helper()
	stdout, stderr, code := n.Try(n.t, "flowagent", "image", "verify", "--output", "json")
	var report verify.Report
	if err := json.Unmarshal([]byte(stdout), &report); err != nil {
		n.t.Fatalf("image verify: %v: %s%s", err, stdout, stderr)
	}
	if report.OK != (code == 0) {
		n.t.Errorf("image verify: ok is %v and the exit code %d", report.OK, code)
	}
	return report
}

func checkOf(t *testing.T, report verify.Report, name string) verify.Check {
	t.Helper()
	for _, c := range report.Checks {
		if c.Name == name {
			return c
		}
	}
	t.Fatalf("no check %s in %+v", name, report)
	return verify.Check{}
}
