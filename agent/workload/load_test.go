package workload

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/flowviz/flowagent/agent/config"
)

// write puts files, by name, into a fresh directory.
func write(t *testing.T, files map[string]string) (dir string) {
	t.Helper()
	dir = t.TempDir()
	for name, content := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// loadIn loads dir/compose.yaml with places that don't exist.
func loadIn(t *testing.T, dir string, change ...func(*config.Workload)) (*Project, error) {
	t.Helper()
	cfg := config.Workload{Project: "app", Files: []string{filepath.Join(dir, "compose.yaml")}, Engine: "unix:///var/run/docker.sock"}
	for _, c := range change {
		c(&cfg)
	}
	return Load(t.Context(), cfg, "/run/flowagent", "/run/flowagent/secrets")
}

func mustLoad(t *testing.T, compose string, change ...func(*config.Workload)) *Project {
	t.Helper()
	p, err := loadIn(t, write(t, map[string]string{"compose.yaml": compose}), change...)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestLoadRefusesWhatCannotRunWithOneClearError(t *testing.T) {
	for name, test := range map[string]struct {
		compose string
		want    []string // all of these are in the error
	}{
		"not YAML":                 {"services:\n  a: [", []string{"compose.yaml", "line 2"}},
		"NUL byte":                 {"services:\n  a:\x00 b", []string{"compose.yaml", "control characters"}},
		"empty":                    {"", []string{"compose.yaml", "empty"}},
		"a list":                   {"- a\n", []string{"compose.yaml", "mapping"}},
		"deep nesting":             {strings.Repeat("[", 200_000), []string{"compose.yaml", "depth"}},
		"alias of itself":          {"x-a: &a [*a]\nservices: {a: {image: x}}\n", []string{"compose.yaml", "cycle"}},
		"alias bomb":               {aliasBomb(), []string{"compose.yaml", "aliasing"}},
		"too large":                {"# " + strings.Repeat("x", maxComposeFile), []string{"compose.yaml", "bytes"}},
		"wrong type":               {"services: {a: {image: [1]}}\n", []string{"compose.yaml", "services.a.image must be a string"}},
		"unknown field":            {"services: {a: {image: x, imge: y}}\n", []string{"services.a.imge", "no such field"}},
		"key twice":                {"services: {a: {image: x}, a: {image: y}}\n", []string{"compose.yaml", `"a" already defined`}},
		"open interpolation":       {"services: {a: {image: \"${X\"}}\n", []string{"services.a.image"}},
		"required variable":        {"services: {a: {image: \"${TAG:?set it in workload.variables}\"}}\n", []string{"TAG", "set it in workload.variables"}},
		"missing env_file":         {"services: {a: {image: x, env_file: nope.env}}\n", []string{"nope.env", "not found"}},
		"dependency cycle":         {"services: {a: {image: x, depends_on: [b]}, b: {image: y, depends_on: [a]}}\n", []string{"a -> b -> a"}},
		"includes itself":          {"include: [compose.yaml]\nservices: {a: {image: x}}\n", []string{"cycle"}},
		"extends itself":           {"services: {a: {image: x, extends: {service: a}}}\n", []string{"Circular"}},
		"include from the network": {"include: [\"https://example.org/x.git\"]\nservices: {a: {image: x}}\n", []string{"compose.yaml", "example.org"}},
		"undefined secret":         {"services: {a: {image: x, secrets: [q]}}\n", []string{"undefined secret q", "top-level secrets"}},
		"dependency not active":    {"services: {a: {image: x, depends_on: [b]}, b: {image: y, profiles: [p]}}\n", []string{`depends on undefined service "b"`, "workload.profiles"}},
		"nothing active":           {"services: {b: {image: y, profiles: [p]}}\n", []string{"no service is active", "workload.profiles"}},
		"build without image":      {"services: {a: {build: .}, b: {build: .}}\n", []string{`"a"`, `"b"`, "bake and push the image"}},
		"provider":                 {"services: {a: {provider: {type: cloud}}}\n", []string{"provider", "containers"}},
		"secret mode not octal":    {secretFile(`{source: q, mode: "9"}`), []string{"mode"}},
		"secret mode with setuid":  {secretFile(`{source: q, mode: 04755}`), []string{`"a"`, `"q"`, "04755", "0440"}},
		"secret owner by name":     {secretFile(`{source: q, uid: postgres}`), []string{"uid", "postgres", "use the number"}},
		"secret owner negative":    {secretFile(`{source: q, gid: "-1"}`), []string{"gid", "-1"}},
		"secret target is dir":     {secretFile(`{source: q, target: /run/secrets/}`), []string{"/run/secrets", "directory"}},
		"secret target is parent":  {secretFile(`{source: q, target: /run}`), []string{"/run is a directory"}},
		"secret target is root":    {secretFile(`{source: q, target: ../..}`), []string{"/ is a directory"}},
		"secret target below":      {secretFile(`{source: q, target: db/password}`), []string{"db/password", "without a slash"}},
		"secret target of store":   {secretFile(`{source: q, target: ..data}`), []string{"store's own"}},
		"secret target with comma": {secretFile(`{source: q, target: "/etc/a,b"}`), []string{"comma"}},
		"two secrets, one target":  {secretFile(`{source: q, target: x}, {source: q, target: /run/secrets/x}`), []string{"same target /run/secrets/x"}},
		"target below another":     {secretFile(`{source: q, target: /etc/x}, {source: q, target: /etc/x/y}`), []string{"below"}},
		"secret by Swarm driver":   {"services: {a: {image: x, secrets: [q]}}\nsecrets: {q: {driver: d, file: f}}\n", []string{"external: true"}},
		"own volume in the way":    {mounted("volumes: [\"./mine:/run/secrets\"]"), []string{"volume at /run/secrets", "another target"}},
		"own volume below":         {mounted("volumes: [\"./mine:/var/run/secrets/q\"]"), []string{"volume at /var/run/secrets/q"}},
		"own tmpfs in the way":     {mounted("tmpfs: [\"/run/secrets:mode=700\"]"), []string{"tmpfs at /run/secrets"}},
		"own config in the way":    {mounted("configs: [{source: c, target: /run/secrets/c}]") + "configs: {c: {file: ./c}}\n", []string{"config at /run/secrets/c"}},
		"own volume on outer target": {"services: {a: {image: x, volumes: [\"./m:/etc/key\"], secrets: [{source: q, target: /etc/key}]}}\nsecrets: {q: {external: true}}\n",
			[]string{"volume at /etc/key"}},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := loadIn(t, write(t, map[string]string{"compose.yaml": test.compose}))
			if err == nil {
				t.Fatal("got no error")
			}
			for _, want := range test.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("got error %q, want %q in it", err, want)
				}
			}
			if len(err.Error()) > 2000 {
				t.Errorf("the error has %d bytes: it repeats the file", len(err.Error()))
			}
		})
	}
}

func secretFile(refs string) string {
	return "services: {a: {image: x, secrets: [" + refs + "]}}\nsecrets: {q: {external: true}}\n"
}

func mounted(section string) string {
	return "services:\n  a:\n    image: x\n    secrets: [q]\n    " + section + "\nsecrets: {q: {external: true}}\n"
}

func aliasBomb() string {
	var b strings.Builder
	b.WriteString("x-a: &a [1,1,1,1,1,1,1,1,1]\n")
	for c := 'b'; c <= 'i'; c++ {
		b.WriteString("x-" + string(c) + ": &" + string(c) + " [")
		b.WriteString(strings.Repeat("*"+string(c-1)+",", 9) + "]\n")
	}
	b.WriteString("services: {a: {image: x}}\n")
	return b.String()
}

func TestLoadNamesAFileThatIsNotThere(t *testing.T) {
	dir := t.TempDir()
	for name, file := range map[string]string{"missing": filepath.Join(dir, "nope.yaml"), "directory": dir} {
		t.Run(name, func(t *testing.T) {
			_, err := Load(t.Context(), config.Workload{Project: "app", Files: []string{file}}, "/run/x", "/run/x/s")
			if err == nil || !strings.Contains(err.Error(), "workload.files: "+file) {
				t.Errorf("got error %v, want one about workload.files and %s", err, file)
			}
		})
	}
}

const profiles = `
services:
  api: {image: "registry.local/api:1"}
  worker: {image: "registry.local/api:1", profiles: [production, staging]}
  debug: {image: debugger, profiles: [development]}
`

func TestLoadWithProfilesActivatesTheirServices(t *testing.T) {
	p := mustLoad(t, profiles, func(w *config.Workload) { w.Profiles = []string{"production"} })
	if diff := cmp.Diff([]string{"api", "worker"}, p.Services()); diff != "" {
		t.Errorf("services (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"registry.local/api:1"}, p.Images()); diff != "" {
		t.Errorf("images (-want +got):\n%s", diff)
	}
}

func TestLoadOfUnknownProfileListsThoseThatExist(t *testing.T) {
	_, err := loadIn(t, write(t, map[string]string{"compose.yaml": profiles}), func(w *config.Workload) { w.Profiles = []string{"produktion"} })
	const want = `workload.profiles: no service has the profile "produktion": did you mean "production"? (there are development, production, staging)`
	if err == nil || err.Error() != want {
		t.Errorf("got error  %v\nwant error %s", err, want)
	}
}

func TestLoadInterpolatesFromVariablesThenDotEnvAndNotFromTheAgent(t *testing.T) {
	t.Setenv("FROM_AGENT", "leaked")
	t.Setenv("COMPOSE_DISABLE_ENV_FILE", "true")
	dir := write(t, map[string]string{
		"compose.yaml": `services: {a: {image: "${A}:${B}${FROM_AGENT}", environment: [A, FROM_AGENT]}}`,
		".env":         "A=dotenv\nB=${A}-1\n",
	})
	p, err := loadIn(t, dir, func(w *config.Workload) { w.Variables = map[string]string{"A": "variable"} })
	if err != nil {
		t.Fatal(err)
	}
	if got, want := p.ImageOf("a"), "variable:variable-1"; got != want {
		t.Errorf("got image %q, want %q", got, want)
	}
	if diff := cmp.Diff([]string{`The "FROM_AGENT" variable is not set. Defaulting to a blank string.`}, p.Warnings); diff != "" {
		t.Errorf("warnings (-want +got):\n%s", diff)
	}
	for _, variable := range p.env {
		if strings.Contains(variable, "leaked") {
			t.Errorf("the plugin gets the agent's %s", variable)
		}
	}
}

func TestLoadTakesProfilesFromDotEnvWhenNoneIsConfigured(t *testing.T) {
	dir := write(t, map[string]string{"compose.yaml": profiles, ".env": "COMPOSE_PROFILES=development\nCOMPOSE_FILE=other.yaml\n"})
	for _, test := range []struct {
		configured []string
		want       []string
	}{{nil, []string{"api", "debug"}}, {[]string{"staging"}, []string{"api", "worker"}}} {
		p, err := loadIn(t, dir, func(w *config.Workload) { w.Profiles = test.configured })
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(test.want, p.Services()); diff != "" {
			t.Errorf("profiles %v: services (-want +got):\n%s", test.configured, diff)
		}
	}
}

func TestLoadRefusesDotEnvThatOnlyHalfCounts(t *testing.T) {
	dir := write(t, map[string]string{"compose.yaml": profiles, ".env": "COMPOSE_DISABLE_ENV_FILE=1\n"})
	if _, err := loadIn(t, dir); err == nil || !strings.Contains(err.Error(), ".env sets COMPOSE_DISABLE_ENV_FILE") {
		t.Errorf("got error %v, want one about the line in .env", err)
	}
}

func TestLoadRefusesVariablesThatSteerCompose(t *testing.T) {
	_, err := loadIn(t, write(t, map[string]string{"compose.yaml": "services: {a: {image: x}}"}), func(w *config.Workload) {
		w.Variables = map[string]string{"DOCKER_HOST": "tcp://elsewhere", "COMPOSE_FILE": "x", "A B": "x", "NUL": "a\x00b"}
	})
	for _, want := range []string{"DOCKER_HOST can't be set there: set workload.engine", "COMPOSE_FILE", `"A B"`, "NUL byte"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got error %v, want %q in it", err, want)
		}
	}
}

func TestPluginGetsACleanEnvironment(t *testing.T) {
	t.Setenv("AWS_SECRET_ACCESS_KEY", "canary")
	p := mustLoad(t, "services: {a: {image: x}}", func(w *config.Workload) { w.Variables = map[string]string{"IMAGE_TAG": "7"} })
	var names []string
	for _, variable := range p.env {
		name, _, _ := strings.Cut(variable, "=")
		names = append(names, name)
	}
	if diff := cmp.Diff([]string{"DOCKER_CONFIG", "DOCKER_HOST", "HOME", "IMAGE_TAG", "PATH", "PWD"}, names); diff != "" {
		t.Errorf("variables (-want +got):\n%s", diff)
	}
}

func TestCheckServicesNamesUnknownOnes(t *testing.T) {
	p := mustLoad(t, profiles)
	if err := p.CheckServices("drain.order", []string{"worker", "api"}); err != nil {
		t.Errorf("got %v for services of any profile, want no error", err)
	}
	err := p.CheckServices("drain.order", []string{"wroker", "api", "api"})
	for _, want := range []string{`drain.order: no service "wroker"`, `did you mean "worker"?`, `"api" is listed twice`} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got error %v, want %q in it", err, want)
		}
	}
}
