package acceptance

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestBakesANodeInOrder(t *testing.T) {
	t.Parallel()
	g := newTarget(t, "")
	dir := t.TempDir()
	// One that is there, for the machine has none.
	g.Put(t, "/etc/systemd/system/systemd-resolved.service", []byte("[Service]\nExecStart=/usr/bin/sleep infinity\n"), 0o644)
	g.Run(t, "systemctl", "start", "systemd-resolved.service")
	names := g.Run(t, "systemctl", "show", "--property=InvocationID", "systemd-resolved.service")
	out := g.build(settings{
		"sbom_directory": quote(filepath.Join(dir, "sboms")),
		"verify_report":  quote(filepath.Join(dir, "verify.json")),
		"allow_files":    `["/app/lib/tests/*.pem", "/opt/somebody's [k]ey"]`,
	})
	for what, want := range map[string]string{"the checks of the verification": "machine-id", "the files that were installed": "/usr/lib/systemd/system/flowagent.service"} {
		if !strings.Contains(out, want) {
			t.Errorf("%s are not shown:\n%s", what, out)
		}
	}
	// The agent of a target that becomes an image is not started, which its calls would show.
	if g.Run(t, "systemctl", "show", "--property=InvocationID", "systemd-resolved.service") == names {
		t.Error("systemd-resolved still listens with its old settings")
	}
	want := []string{
		"image install --output=json --profile=agent", "config validate", "image pull", "image sbom --output=json --output-dir=/usr/share/flowagent",
		"image seal --yes", "image verify --output=json --allow-file=/app/lib/tests/*.pem --allow-file=/opt/somebody's [k]ey",
	}
	if diff := cmp.Diff(want, g.calls()); diff != "" {
		t.Errorf("the agent's commands on the target (-want +got):\n%s", diff)
	}
	for _, name := range []string{"sboms/flowagent-image.spdx.json", "sboms/flowagent-image.cdx.json", "verify.json"} {
		if content, err := os.ReadFile(filepath.Join(dir, name)); err != nil || len(content) == 0 {
			t.Errorf("%s on the builder: got %q and %v, want what the target wrote", name, content, err)
		}
	}
	for path, want := range map[string]string{
		"/usr/bin/flowagent": "755 root:root", "/etc/flowagent/config.yaml": "644 root:root", "/etc/flowagent/compose.yaml": "644 root:root",
	} {
		if got := strings.TrimSpace(g.Run(t, "stat", "--format=%a %U:%G", path)); got != want {
			t.Errorf("%s: got %s, want %s", path, got, want)
		}
	}
	if got := strings.TrimSpace(g.Run(t, "systemctl", "is-enabled", "flowagent.service")); got != "enabled" {
		t.Errorf("flowagent.service is %s, want enabled", got)
	}
	g.nothingLeft()
}

// What can be seen without a machine is refused before there is one: the port of these builds leads nowhere.
func TestRefusesBeforeAMachineStarts(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write := func(name, content string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
		return quote(path)
	}
	for name, c := range map[string]struct {
		changes settings
		want    string
	}{
		"a configuration that isn't one": {settings{"config": write("c1.yaml", strings.Replace(configuration, "project:", "projekt:", 1))}, "c1.yaml:5:3: workload.projekt: unknown field (did you mean `project`?)"},
		"a Compose file that is missing": {settings{"files": "{}"}, "names /etc/flowagent/compose.yaml, which would not be on the target: add it to files"},
		"a Compose file that isn't one":  {settings{"files": fmt.Sprintf(`{"/etc/flowagent/compose.yaml" = %s}`, write("c.yaml", "services: {web: {imagee: app:1}}\n"))}, "services.web.imagee false schema: Compose has no such field there; correct its name"},
		"a tag where digests are pinned": {settings{"config": write("c2.yaml", configuration+"  pull: {pin: digest}\n")}, "app:1"},
		"a binary that is none":          {settings{"binary": write("binary", "#!/bin/sh\n")}, "is no Linux program"},
		"another binary than was meant":  {settings{"binary_checksum": quote(strings.Repeat("0", 64))}, "binary_checksum says 000"},
		"archives without a place":       {settings{"image_archives": "[" + write("app.tar", "") + "]"}, "set workload.pull.archives"},
		"a path that a boot empties":     {settings{"files": fmt.Sprintf(`{"/run/compose.yaml" = %s}`, write("c3.yaml", compose))}, "would be gone when a clone of the image boots"},
		"a pattern that is none":         {settings{"allow_files": `["/app/[.pem"]`}, `allow_files: "/app/[.pem" is no pattern of paths`},
		"a pattern for two":              {settings{"allow_files": `["/a,/b"]`}, `allow_files: "/a,/b" is no pattern of paths`},
		"an engine that nobody knows":    {settings{"engine": `"podman"`}, `engine "podman" is unknown`},
		"a password for nobody":          {settings{"registry_passwords": `{"typo" = "hunter2"}`}, `no registry of the configuration has the passwordSecret "typo"`},
	} {
		t.Run(name, func(t *testing.T) {
			g := &target{t: t, port: 9}
			g.makeKey()
			out := g.refused(c.changes, c.want)
			if strings.Contains(out, "Waiting for SSH") {
				t.Errorf("a machine was waited for:\n%s", out)
			}
			if strings.Contains(out, "hunter2") {
				t.Errorf("a password is shown:\n%s", out)
			}
		})
	}
}

// One machine shows several faces: each sees a shadow of it.
func TestRefusesATargetThatCanBeNoNode(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		shadow  string
		changes settings
		want    string
	}{
		"without systemd":             {"mount -t tmpfs none /run/systemd", nil, "systemd is not the target's init"},
		"an unsupported distribution": {`printf 'ID=debian\nVERSION_ID="11"\n' >/run/os-release; mount --bind /run/os-release /usr/lib/os-release`, nil, "the target is debian 11: nodes are made of Debian 13"},
		"another architecture":        {"", settings{"binary": quote(programs.agents["arm64"])}, "the target is x86_64 and"},
		"no room":                     {"mount -t tmpfs -o size=5m none /var/tmp; mount -t tmpfs -o size=64m none /var", nil, "are needed: give it a larger disk"},
		"another engine":              {"", settings{"engine_version": `"1.2.3"`}, "engine_version is 1.2.3 and the target has 26.1"},
		"a user without rights":       {"rm /etc/sudoers.d/packer", nil, "the connection's user is not root and sudo wants a password"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := newTarget(t, c.shadow)
			if name == "no room" {
				c.changes = settings{"minimum_free_mb": "100"}
			}
			g.refused(c.changes, c.want)
			if calls := g.noted("calls"); calls != "" {
				t.Errorf("the agent was called on the target: %s", calls)
			}
			g.nothingLeft()
		})
	}
}

func TestFailsWithWhatTheTargetSaid(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		prepare func(g *target)
		changes settings
		want    []string
		never   string // a command that must not have been tried
	}{
		"an image that isn't there": {
			prepare: func(g *target) { g.tell("image-pull", "pull app:1: not found in the registry") },
			want:    []string{"load and pull the images: a command on the target ended with code 1", "pull app:1: not found in the registry"},
			never:   "image seal",
		},
		"an image that isn't fit": {
			prepare: func(g *target) {
				g.tell("image-verify", `{"ok": false, "checks": [{"name": "credentials", "status": "FAIL", "reason": "a key", "findings": ["/root/key.pem"]}]}`)
			},
			want: []string{"the image is not fit to be cloned", "credentials: a key", "/root/key.pem"},
		},
		"a broken mirror": {
			prepare: func(g *target) {
				g.Put(g.t, "/etc/apt/sources.list", []byte("deb [trusted=yes] http://127.0.0.1:9/debian trixie main\n"), 0o644)
				g.Run(g.t, "rm", "-rf", "/etc/apt/sources.list.d")
			},
			changes: settings{"profiles": `["agent", "hardening"]`},
			want:    []string{"install nftables, kmod: a command on the target ended with code 100", "127.0.0.1:9", "See whether the target reaches its package mirrors"},
			never:   "image install",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := newTarget(t, "")
			c.prepare(g)
			out := g.refused(c.changes, c.want[0])
			for _, want := range c.want[1:] {
				if !strings.Contains(out, want) {
					t.Errorf("packer does not say %q:\n%s", want, out)
				}
			}
			if c.never != "" && strings.Contains(g.noted("calls"), c.never) {
				t.Errorf("%q was tried after that: %q", c.never, g.calls())
			}
			g.nothingLeft()
		})
	}
}

// However a build ends in the middle, nothing of it runs on.
func TestLeavesNothingRunningWhenItEndsInTheMiddle(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		end  func(g *target, build *exec.Cmd) error // called when the pull has begun; nil where the build ends by itself
		want string
	}{
		"Ctrl-C":       {func(_ *target, build *exec.Cmd) error { return syscall.Kill(-build.Process.Pid, syscall.SIGINT) }, "Cleanly cancelled builds after being interrupted"},
		"SSH is cut":   {func(g *target, _ *exec.Cmd) error { g.cut(); return nil }, "the connection to the target was cut"},
		"killed":       {func(_ *target, build *exec.Cmd) error { return syscall.Kill(-build.Process.Pid, syscall.SIGKILL) }, ""},
		"a time limit": {nil, "not done after 5s"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := newTarget(t, "")
			g.tell("image-pull", "hang")
			changes := settings{}
			if name == "a time limit" {
				changes["image_timeout"] = `"5s"`
			}
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			build := packer("build", g.template(changes))
			build.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // as a shell does, so that Ctrl-C reaches Packer and the plugin
			stop := context.AfterFunc(ctx, func() { _ = syscall.Kill(-build.Process.Pid, syscall.SIGKILL) })
			defer stop()
			var out strings.Builder
			build.Stdout, build.Stderr = &out, &out
			if err := build.Start(); err != nil {
				t.Fatal(err)
			}
			if c.end != nil {
				g.eventually("the pull begins", func() bool { return strings.Contains(g.noted("calls"), "image pull") })
				if err := c.end(g, build); err != nil {
					t.Fatal(err)
				}
			}
			if err := build.Wait(); err == nil {
				t.Errorf("packer ended with 0:\n%s", out.String())
			}
			if ctx.Err() != nil {
				t.Errorf("packer did not end by itself:\n%s", out.String())
			}
			if !strings.Contains(out.String(), c.want) {
				t.Errorf("packer does not say %q:\n%s", c.want, out.String())
			}
			g.nothingLeft()
		})
	}
}

func TestSecretsAreInNoArgumentAndInNoOutput(t *testing.T) {
	t.Parallel()
	const password, proxy = "Pa55word-of-the-registry", "Pa55word-of-the-proxy"
	g := newTarget(t, "")
	dir := t.TempDir()
	config := filepath.Join(dir, "config.yaml")
	content := configuration + `registries: [{host: registry.local, username: puller, passwordSecret: registry}]
secrets: {items: [{name: registry, from: {file: {path: /etc/flowagent/registry}}}]}
`
	if err := os.WriteFile(config, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
	log := filepath.Join(dir, "packer.log")
	build := packer("build", g.template(settings{
		"config":             quote(config),
		"registry_passwords": fmt.Sprintf("{registry = %q}", password),
		"environment":        fmt.Sprintf("{https_proxy = %q}", "http://user:"+proxy+"@127.0.0.1:9"),
	}))
	build.Env = append(build.Env, "PACKER_LOG=1", "PACKER_LOG_PATH="+log)
	out, err := build.CombinedOutput()
	if err != nil {
		t.Fatalf("packer build: %v\n%s", err, out)
	}
	if got, want := strings.TrimSpace(g.noted("image-pull.stdin")), fmt.Sprintf(`{"registry":%q}`, password); got != want {
		t.Errorf("the agent's standard input: got %s, want %s", got, want)
	}
	if !strings.Contains(g.noted("image-pull.environment"), proxy) {
		t.Error("the proxy is not in the agent's environment")
	}
	logged, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	journal := g.Run(t, "journalctl", "--no-pager")
	for place, text := range map[string]string{
		"Packer's output": string(out), "the target's argument lists": g.noted("image-pull.arguments"), "the target's journal": journal,
		"Packer's log": onlyPlugin(string(logged)),
	} {
		if len(text) == 0 {
			t.Errorf("%s: nothing to search", place)
		}
		for _, secret := range []string{password, proxy} {
			if strings.Contains(text, secret) {
				t.Errorf("%s shows a secret", place)
			}
		}
	}
}

// onlyPlugin are the lines of a log that the plugin wrote. What Packer itself logs of a template's literals is not in the
// plugin's power: such values come by variables that are marked sensitive.
func onlyPlugin(log string) string {
	var lines []string
	for line := range strings.Lines(log) {
		if strings.Contains(line, "packer-plugin-flowagent") {
			lines = append(lines, line)
		}
	}
	return strings.Join(lines, "")
}

// build runs a build that has to succeed.
func (g *target) build(changes settings) string {
	g.t.Helper()
	out, err := packer("build", g.template(changes)).CombinedOutput()
	if err != nil {
		g.t.Fatalf("packer build: %v\n%s", err, out)
	}
	return string(out)
}

// refused runs a build that has to fail with a text.
func (g *target) refused(changes settings, want string) string {
	g.t.Helper()
	out, err := packer("build", g.template(changes)).CombinedOutput()
	if err == nil {
		g.t.Errorf("packer build ended with 0, want a failure")
	}
	if !strings.Contains(unwrapped(string(out)), want) {
		g.t.Errorf("packer does not say %q:\n%s", want, out)
	}
	return unwrapped(string(out))
}

// unwrapped undoes the line breaks that Packer puts into long errors.
func unwrapped(out string) string { return strings.Join(strings.Fields(out), " ") }
