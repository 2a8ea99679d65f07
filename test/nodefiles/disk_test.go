package nodefiles

import (
	"encoding/json"
	"os"
	"strings"
	"testing"

	"github.com/flowviz/flowagent/golden/install"
)

func TestADiskIsPreparedWithoutTouchingTheMachineThatDoesIt(t *testing.T) {
	t.Parallel()
	m := machine(t)
	m.Run(t, "mkdir", "/srv/disk")
	mask := strings.TrimSpace(m.Run(t, "readlink", "/etc/systemd/system/ctrl-alt-del.target"))
	m.Run(t, "systemctl", "disable", "--quiet", "flowagent.service")
	out := m.Run(t, "flowagent", "image", "install", "--root", "/srv/disk", "--profile", "base,hardening", "--output", "json")
	var result install.Result
	if err := json.Unmarshal([]byte(out), &result); err != nil {
		t.Fatal(err)
	}
	if result.Root != "/srv/disk" || len(result.Steps) != 4 || len(result.Activate) != 0 {
		t.Errorf("got root %s, steps %v and %v to activate; want four steps, and nothing for a machine that doesn't run", result.Root, result.Steps, result.Activate)
	}
	for _, s := range result.Steps {
		if !s.Done {
			t.Errorf("%s: not done: %s", s.Command, s.Reason)
		}
	}
	for _, f := range result.Files {
		if f.State != install.New {
			t.Errorf("%s: got %s on an empty disk, want new", f.Path, f.State)
		}
	}
	for link, want := range map[string]string{
		"multi-user.target.wants/flowagent.service":       "/usr/lib/systemd/system/flowagent.service",
		"sysinit.target.wants/flowagent-firewall.service": "/usr/lib/systemd/system/flowagent-firewall.service",
		"ctrl-alt-del.target":                             mask,
	} {
		if got, err := os.Readlink(m.Path("/srv/disk/etc/systemd/system/" + link)); err != nil || got != want {
			t.Errorf("%s: got %q, %v; want %q", link, got, err, want)
		}
	}
	if group := string(read(t, m, "/srv/disk/etc/group")); !strings.Contains(group, "flowagent:") {
		t.Errorf("the disk's groups: got %q, want flowagent", group)
	}
	if got := strings.TrimSpace(m.Run(t, "stat", "--format=%a", "/srv/disk/var/lib/flowagent")); got != "700" {
		t.Errorf("the disk's /var/lib/flowagent: got mode %s, want 700", got)
	}
	if state, _, _ := m.Try(t, "systemctl", "is-enabled", "flowagent.service"); strings.TrimSpace(state) != "disabled" {
		t.Errorf("the machine's own service is %s, want it as it was, disabled", state)
	}

	// On the running machine itself a second time changes nothing, and asks for nothing to be restarted.
	again := m.Run(t, "/root/flowagent", "image", "install", "--profile", "base,ec2,hardening")
	for _, state := range []string{" new ", " changed ", " kept ", "to heed it now"} {
		if strings.Contains(again, state) {
			t.Errorf("a second time: got%q in\n%s", state, again)
		}
	}
	if state, _, _ := m.Try(t, "systemctl", "is-enabled", "flowagent.service"); strings.TrimSpace(state) != "enabled" {
		t.Errorf("the machine's own service is %s, want enabled", state)
	}
}
