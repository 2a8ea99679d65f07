package config

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// merged parses a main file with a second layer over it.
func merged(t *testing.T, first, second string) *Loaded {
	t.Helper()
	return mustParse(t, layer("/etc/a/main.yaml", base+first), layer("/etc/b/more.yaml", second))
}

func TestALaterLayerWinsFieldByField(t *testing.T) {
	loaded := merged(t, "drain: {budget: 5m, deregisterDelay: 10s}\n", "drain: {budget: 7m}\n")
	if got := loaded.Config.Drain.Budget.String(); got != "7m" {
		t.Errorf("budget: got %s, want the later layer's 7m", got)
	}
	if got := loaded.Config.Drain.DeregisterDelay.String(); got != "10s" {
		t.Errorf("deregisterDelay: got %s, want the earlier layer's 10s", got)
	}
	want := map[string]string{
		"drain.budget":              "/etc/b/more.yaml:1:17",
		"drain.deregisterDelay":     "/etc/a/main.yaml:4:38",
		"workload.pull.parallel":    "default",
		"workload.files[0]":         "/etc/a/main.yaml:3:34",
		"workload.pull.idleTimeout": "default",
	}
	for path, place := range want {
		if got := loaded.Origins[path].String(); got != place {
			t.Errorf("origin of %s: got %s, want %s", path, got, place)
		}
	}
}

func TestMapsMergeByKeyAndNullTakesAKeyOut(t *testing.T) {
	loaded := mustParse(t,
		layer("/a", "apiVersion: flowagent/v1\nkind: Node\nworkload: {project: app, files: [/c], variables: {A: a, B: b, C: c}}\n"),
		layer("/b", "workload: {variables: {B: bb, C: null, D: d}}\n"))
	want := map[string]string{"A": "a", "B": "bb", "D": "d"}
	if diff := cmp.Diff(want, loaded.Config.Workload.Variables); diff != "" {
		t.Errorf("variables (-want +got):\n%s", diff)
	}
	if _, found := loaded.Origins["workload.variables.C"]; found {
		t.Error("a variable that was taken out still has an origin")
	}
}

func TestNamedItemsMergeByNameAndKeepTheirOrder(t *testing.T) {
	loaded := merged(t, `
secrets:
  items:
    - {name: a, from: {age: {file: secrets.age, key: a}}}
    - {name: b, from: {age: {file: secrets.age, key: b}}, onChange: restart}
registries:
  - {host: r, username: u, passwordSecret: a}
`, `
secrets:
  items:
    - {name: c, from: {file: {path: c}}}
    - {name: b, onChange: {signal: SIGHUP}, from: {age: {key: b2}}}
registries:
  - {host: r, passwordSecret: b}
`)
	want := []Secret{
		{Name: "a", From: Source{Age: &AgeSource{File: "/etc/a/secrets.age", Key: "a"}}},
		{Name: "b", From: Source{Age: &AgeSource{File: "/etc/a/secrets.age", Key: "b2"}}, OnChange: OnChange{Signal: "SIGHUP"}},
		{Name: "c", From: Source{File: &FileSource{Path: "/etc/b/c"}}},
	}
	if diff := cmp.Diff(want, loaded.Config.Secrets.Items); diff != "" {
		t.Errorf("items (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]Registry{{Host: "r", Username: "u", PasswordSecret: "b"}}, loaded.Config.Registries); diff != "" {
		t.Errorf("registries (-want +got):\n%s", diff)
	}
}

func TestALaterSourceReplacesAnEarlierOne(t *testing.T) {
	loaded := merged(t,
		"secrets: {items: [{name: a, from: {secretsManager: {id: x, key: k}}}]}\n",
		"secrets: {items: [{name: a, from: {file: {path: /x}}}]}\n")
	want := Source{File: &FileSource{Path: "/x"}}
	if diff := cmp.Diff(want, loaded.Config.Secrets.Items[0].From); diff != "" {
		t.Errorf("source (-want +got):\n%s", diff)
	}
	for path := range loaded.Origins {
		if strings.Contains(path, "secretsManager") {
			t.Errorf("%s has an origin but is not there any more", path)
		}
	}
}

func TestPlainListsAreReplaced(t *testing.T) {
	loaded := merged(t, "drain: {order: [a, b, c]}\n", "drain: {order: [d]}\n")
	if diff := cmp.Diff([]string{"d"}, loaded.Config.Drain.Order); diff != "" {
		t.Errorf("order (-want +got):\n%s", diff)
	}
	if _, found := loaded.Origins["drain.order[1]"]; found {
		t.Error("an item that was replaced still has an origin")
	}
}

func TestNullPutsTheDefaultBack(t *testing.T) {
	defaults := Default()
	for _, c := range []struct {
		name, first, second string
		want                func(*Config)
	}{
		{"a scalar", "drain: {budget: 5m}", "drain: {budget: null}", func(*Config) {}},
		{"an enum", "node: {provider: ec2}", "node: {provider: }", func(*Config) {}},
		{"a section", "drain: {budget: 5m, order: [a]}", "drain: ~", func(*Config) {}},
		{"a list", "drain: {order: [a]}", "drain: {order: null}", func(*Config) {}},
		{"an optional part", "registries: [{host: 123456789012.dkr.ecr.us-east-1.amazonaws.com, ecr: {}}]",
			"registries: [{host: 123456789012.dkr.ecr.us-east-1.amazonaws.com, ecr: null}]",
			func(c *Config) { c.Registries = []Registry{{Host: "123456789012.dkr.ecr.us-east-1.amazonaws.com"}} }},
		{"a list of items", "registries: [{host: r}]", "registries:\n", func(*Config) {}},
		{"one side of a choice", "secrets: {age: {identityFile: /k}}", "secrets: {age: {identityFile: null, identityCredential: k}}",
			func(c *Config) { c.Secrets.Age.IdentityCredential = "k" }},
		{"a whole layer that says nothing", "drain: {budget: 5m}", "null", func(c *Config) { c.Drain.Budget = 5 * 60e9 }},
	} {
		t.Run(c.name, func(t *testing.T) {
			want := defaults
			want.Workload.Project, want.Workload.Files = "app", []string{"/c.yaml"}
			c.want(&want)
			if diff := cmp.Diff(want, merged(t, c.first+"\n", c.second+"\n").Config); diff != "" {
				t.Errorf("config (-want +got):\n%s", diff)
			}
		})
	}
}

func TestADropInNeedsNoHeaderButAWrongOneIsRefused(t *testing.T) {
	merged(t, "", "node: {environment: x}\n")
	merged(t, "", "apiVersion: flowagent/v1\nkind: Node\n")
	merged(t, "", "# nothing\n")
	if got := problemsIn(t, "kind: Fleet\n"); !strings.Contains(got, `/etc/more.yaml:1:7: kind: "Fleet" is unknown`) {
		t.Errorf("got %s", got)
	}
}

func TestAMainFileMayLeaveTheRestToOthers(t *testing.T) {
	loaded := mustParse(t, layer("/a", "apiVersion: flowagent/v1\nkind: Node\n"), layer("/b", "workload: {project: app, files: [c.yaml]}\n"))
	if got := loaded.Config.Workload.Files[0]; got != "/c.yaml" {
		t.Errorf("got %s, want /c.yaml", got)
	}
}

func TestRelativePathsInUserDataAreRefused(t *testing.T) {
	problems := problemsOf(t, layer("/etc/main.yaml", base), layer("user-data", "workload: {files: [compose.yaml, /abs.yaml]}\n"))
	want := "user-data:1:20: workload.files[0]: must be an absolute path, since user-data is in no directory"
	if got := problems.Error(); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestTheSameNameTwiceIsRefusedInOneLayerOnly(t *testing.T) {
	merged(t, "registries: [{host: r}]\n", "registries: [{host: r}]\n")
	if got := problemsIn(t, "registries:\n  - {host: r}\n  - {host: r}\n"); got != "/etc/more.yaml:3:12: registries[r]: already in this list, on line 2" {
		t.Errorf("got %s", got)
	}
}

func TestAChoiceThatTwoLayersMakeDifferentlyIsReportedAtTheLaterOne(t *testing.T) {
	problems := problemsOf(t,
		layer("/etc/main.yaml", base+"secrets: {age: {identityCredential: k}}\n"),
		layer("/etc/more.yaml", "secrets: {age: {identityFile: /k}}\n"))
	want := "/etc/more.yaml:1:31: secrets.age.identityFile: can't be combined with identityCredential (keep one; null takes back what an earlier file set)"
	if got := problems.Error(); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestDefaultsAreNotSharedBetweenConfigurations(t *testing.T) {
	first := merged(t, "", "workload: {variables: {A: a}}\n")
	first.Config.Workload.Variables["B"] = "b"
	if got := merged(t, "", "workload: {variables: {A: a}}\n").Config.Workload.Variables; len(got) != 1 {
		t.Errorf("got %v, want only A", got)
	}
}
