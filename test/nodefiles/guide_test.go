package nodefiles

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	ansiblefree "github.com/flowviz/flowagent/ansible-free"
	"github.com/flowviz/flowagent/test/lab"
)

// settingOf tells what a line of a file sets, by the directory of the file; an expression's first group is the name. What a
// whole unit of our own consists of is in the guide of the service, and rules of the packet filter have no names.
var settingOf = map[string]*regexp.Regexp{
	"apt.conf.d":               regexp.MustCompile(`^(?:#clear )?((?:APT|Unattended-Upgrade)::[\w:-]+)`),
	"chrony":                   regexp.MustCompile(`^(\w+) `),
	"cloud-init/image":         regexp.MustCompile(`^(\w+):`),
	"journald.conf.d":          regexp.MustCompile(`^(\w+)=`),
	"modprobe.d":               regexp.MustCompile(`^install (\w+) `),
	"resolved.conf.d":          regexp.MustCompile(`^(\w+)=`),
	"sshd_config.d":            regexp.MustCompile(`^([A-Z]\w+) `),
	"sysctl.d":                 regexp.MustCompile(`^-?([a-z]\S+) =`),
	"systemd/apt-.timer.d":     regexp.MustCompile(`^(\w+)=`),
	"systemd/docker.service.d": regexp.MustCompile(`^(\w+)=`),
}

// settings are the names of all settings, with * for interfaces.
func settings(t *testing.T) map[string]string {
	t.Helper()
	interfaces := strings.NewReplacer(".all.", ".*.", ".default.", ".*.")
	names := map[string]string{}
	found := map[string]bool{"docker": true}
	for _, f := range ansiblefree.Files(ansiblefree.Profiles...) {
		dir := filepath.Dir(f.Source)
		if dir == "docker" {
			var keys map[string]any
			if err := json.Unmarshal(f.Content(), &keys); err != nil {
				t.Fatal(err)
			}
			for key := range keys {
				names[key] = f.Source
			}
			continue
		}
		expression := settingOf[dir]
		if expression == nil {
			continue
		}
		for line := range strings.Lines(string(f.Content())) {
			if match := expression.FindStringSubmatch(line); match != nil {
				names[interfaces.Replace(match[1])] = f.Source
				found[dir] = true
			}
		}
	}
	for dir := range settingOf {
		if !found[dir] {
			t.Errorf("no setting is found in the files of %s", dir)
		}
	}
	return names
}

func TestTheGuideHasAReasonForEachSettingAndForNoOther(t *testing.T) {
	root, err := lab.ProjectDir()
	if err != nil {
		t.Fatal(err)
	}
	guide, err := os.ReadFile(filepath.Join(root, "docs/guides/hardening.md"))
	if err != nil {
		t.Fatal(err)
	}
	explained := map[string]bool{}
	header := ""
	quoted := regexp.MustCompile("`([^`]+)`")
	for line := range strings.Lines(string(guide)) {
		cells := strings.Split(strings.TrimSpace(line), "|")
		if len(cells) < 4 {
			header = ""
			continue
		}
		if header == "" {
			header = strings.TrimSpace(cells[1])
		}
		if header != "Setting" {
			continue
		}
		for _, match := range quoted.FindAllStringSubmatch(cells[1], -1) {
			explained[match[1]] = strings.TrimSpace(cells[2]) != ""
		}
	}
	names := settings(t)
	for name, source := range names {
		if !explained[name] {
			t.Errorf("docs/guides/hardening.md has no reason for %s of %s", name, source)
		}
	}
	for name := range explained {
		if names[name] == "" {
			t.Errorf("docs/guides/hardening.md explains %s, which no file sets", name)
		}
	}
}
