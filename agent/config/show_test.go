package config

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// checkProblems holds an error to what Parse promises of it.
func checkProblems(t *testing.T, data []byte, err error) {
	t.Helper()
	problems, ok := err.(Problems)
	if !ok || len(problems) == 0 {
		t.Fatalf("got %T (%v), want Problems", err, err)
	}
	lines := strings.Count(string(data), "\n") + 1
	last := Origin{}
	for _, p := range problems {
		if p.Message == "" || strings.ContainsAny(p.Error(), "\n\r\x00\x1b") {
			t.Errorf("problem %q is no line of text", p.Error())
		}
		if p.Origin.Line < 1 || p.Origin.Line > lines || p.Origin.Column < 1 {
			t.Errorf("%v is no place in %d lines", p.Origin, lines)
		}
		if p.Origin.Line < last.Line {
			t.Errorf("%v comes after %v", p.Origin, last)
		}
		last = p.Origin
	}
}

// checkRoundTrip prints a configuration and reads it back.
func checkRoundTrip(t *testing.T, loaded *Loaded) {
	t.Helper()
	text := loaded.YAML()
	again, err := Parse(Layer{Name: "/show.yaml", Data: text})
	if err != nil {
		t.Fatalf("the printed configuration does not parse: %v\n%s", err, text)
	}
	if diff := cmp.Diff(loaded.Config, again.Config); diff != "" {
		t.Errorf("the printed configuration reads differently (-loaded +again):\n%s\n%s", diff, text)
	}
}

// checkPlaces looks up every name and every text of a document at the place where it is said to be.
func checkPlaces(t *testing.T, data []byte) {
	t.Helper()
	root, problems := document(Layer{Name: "/x", Data: data})
	if root == nil || len(problems) > 0 {
		return
	}
	text := strings.ReplaceAll(strings.TrimPrefix(string(data), "\ufeff"), "\r\n", "\n")
	lines := strings.Split(text, "\n")
	check := func(what string, at Origin) {
		if at.Line > len(lines) || at.Column-1 > len([]rune(lines[at.Line-1])) {
			t.Errorf("%v of %q is not in the document", at, what)
			return
		}
		rest := string([]rune(lines[at.Line-1])[at.Column-1:])
		quoted := rest != "" && strings.ContainsAny(rest[:1], `"'|>`)
		folded := !strings.Contains(lines[at.Line-1], what) // text over several lines
		if !strings.HasPrefix(rest, what) && !quoted && !folded && len(lines[at.Line-1]) <= maxSettle {
			t.Errorf("at %v: got %q, want %q", at, rest, what)
		}
	}
	var walk func(n *node)
	walk = func(n *node) {
		for _, f := range n.fields {
			check(f.name, f.origin)
			walk(f.value)
		}
		for _, item := range n.items {
			walk(item)
		}
		if n.kind == kindNumber || n.kind == kindString {
			check(n.text, n.origin)
		}
	}
	walk(root)
}

func TestWhatIsShownReadsBackToTheSame(t *testing.T) {
	for name, data := range examples(t) {
		t.Run(filepath.Base(name), func(t *testing.T) {
			loaded := mustParse(t, Layer{Name: "/etc/flowagent/config.yaml", Data: data})
			checkRoundTrip(t, loaded)
			checkPlaces(t, data)
		})
	}
}

func TestShowSaysOnEveryValuesLineWhereItCameFrom(t *testing.T) {
	loaded := mustParse(t,
		layer("/etc/main.yaml", base+"registries:\n  - host: r\n    ecr: {region: us-east-1}\n"),
		layer("/etc/more.yaml", "workload: {variables: {TAG: \"1.10\", B: 'yes'}}\ndrain:\n  order: []\n"))
	want := `apiVersion: flowagent/v1               # /etc/main.yaml:1:13
kind: Node                             # /etc/main.yaml:2:7
node:
  provider: auto                       # default
secrets:
  refresh: 5m                          # default
registries:
  - host: r                            # /etc/main.yaml:5:11
    ecr:
      region: us-east-1                # /etc/main.yaml:6:19
workload:
  project: app                         # /etc/main.yaml:3:21
  files:
    - /c.yaml                          # /etc/main.yaml:3:34
  variables:
    B: "yes"                           # /etc/more.yaml:1:40
    TAG: "1.10"                        # /etc/more.yaml:1:29
  engine: unix:///var/run/docker.sock  # default
  ready:
    timeout: 5m                        # default
    stableFor: 5s                      # default
  pull:
    policy: missing                    # default
    parallel: 8                        # default
    pin: none                          # default
    beginTimeout: 5m                   # default
    idleTimeout: 1m                    # default
    totalTimeout: 2h                   # default
  cleanUp:
    keep: 2                            # default
    minFree: 10GiB                     # default
  reconcile:
    tries: 5                           # default
    unhealthyAfter: 3m                 # default
health:
  listen: ":9180"                      # default
drain:
  budget: 10m                          # default
  order: []                            # /etc/more.yaml:3:10
  deregisterDelay: 0s                  # default
  idleAfter: 5s                        # default
lifecycle:
  interval: 2s                         # default
  launchTimeout: 15m                   # default
  rebalance: note                      # default
`
	if diff := cmp.Diff(want, string(loaded.YAML())); diff != "" {
		t.Errorf("shown (-want +got):\n%s", diff)
	}
}

func TestJSONHasTheConfigurationItsOriginsAndItsLayers(t *testing.T) {
	loaded := mustParse(t, layer("/etc/main.yaml", base+"drain: {budget: 5m}\n"))
	text, err := json.Marshal(loaded)
	if err != nil {
		t.Fatal(err)
	}
	var got struct {
		Config struct {
			Drain    struct{ Budget string }
			Workload struct {
				Files []string
				Pull  struct{ Parallel int }
			}
		}
		Origins map[string]Origin
		Layers  []string
	}
	if err := json.Unmarshal(text, &got); err != nil {
		t.Fatal(err)
	}
	if got.Config.Drain.Budget != "5m" || got.Config.Workload.Pull.Parallel != 8 || got.Config.Workload.Files[0] != "/c.yaml" {
		t.Errorf("config: got %s", text)
	}
	if diff := cmp.Diff(Origin{File: "/etc/main.yaml", Line: 4, Column: 17}, got.Origins["drain.budget"]); diff != "" {
		t.Errorf("origin (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"/etc/main.yaml"}, got.Layers); diff != "" {
		t.Errorf("layers (-want +got):\n%s", diff)
	}
}

// yamlBlock is a fenced block of YAML on a page.
var yamlBlock = regexp.MustCompile("(?ms)^```ya?ml\n(.*?)^```")

// examples are all documents of the repository that must be valid, by path.
func examples(t testing.TB) map[string][]byte {
	t.Helper()
	found := map[string][]byte{"starter.yaml": Starter()}
	add := func(path string) {
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		found[path] = data
	}
	fenced := func(path string) {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for i, block := range yamlBlock.FindAllSubmatch(text, -1) {
			if IsDocument(block[1]) {
				found[fmt.Sprintf("%s#%d", path, i)] = block[1]
			}
		}
	}
	local, err := filepath.Glob("testdata/*.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range local {
		add(path)
	}
	for _, root := range []string{"../../examples", "../../docs", "../../README.md"} {
		err := filepath.WalkDir(root, func(path string, d os.DirEntry, err error) error {
			if os.IsNotExist(err) {
				return nil
			}
			if err != nil {
				return err
			}
			switch {
			case d.IsDir():
			case filepath.Ext(path) == ".md":
				fenced(path)
			default:
				if ok, _ := filepath.Match("config*.yaml", d.Name()); ok {
					add(path)
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return found
}
