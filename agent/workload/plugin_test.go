package workload

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/flowviz/flowagent/test/lab"
)

// script is a directory with an executable docker-compose.
func script(t *testing.T, text string) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, pluginName), []byte("#!/bin/sh\n"+text), 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestFindPluginTakesTheFirstThatIsThere(t *testing.T) {
	first, second := script(t, "echo v2.24.4"), script(t, "echo 9.9.9")
	path, version, err := FindPlugin(t.Context(), t.TempDir(), first, second)
	if err != nil {
		t.Fatal(err)
	}
	if want := filepath.Join(first, pluginName); path != want || version != "2.24.4" {
		t.Errorf("got %s version %s, want %s version 2.24.4", path, version, want)
	}
}

func TestFindPluginRefusesWhatCannotMerge(t *testing.T) {
	for name, test := range map[string]struct{ script, want string }{
		"too old":        {"echo 2.24.3", "install 2.24.4 or newer"},
		"much too old":   {"echo v1.29.2", "install 2.24.4 or newer"},
		"another tool":   {"echo hello", `version "hello": it is not a Docker Compose plugin`},
		"it fails":       {"echo out of order >&2; exit 7", "exit status 7: out of order"},
		"its own suffix": {"echo 2.23.0-desktop.1", "install 2.24.4 or newer"},
	} {
		t.Run(name, func(t *testing.T) {
			_, _, err := FindPlugin(t.Context(), script(t, test.script))
			if err == nil || !strings.Contains(err.Error(), test.want) || errors.Is(err, ErrNoPlugin) {
				t.Errorf("got error %v, want %q in it", err, test.want)
			}
		})
	}
}

func TestFindPluginWithoutOneSaysWhatToInstall(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, pluginName), []byte("not executable"), 0o644); err != nil {
		t.Fatal(err)
	}
	_, _, err := FindPlugin(t.Context(), dir)
	if !errors.Is(err, ErrNoPlugin) || !strings.Contains(err.Error(), "docker-compose-plugin") {
		t.Errorf("got error %v, want ErrNoPlugin with the package to install", err)
	}
}

func TestFindPluginLooksWhereTheDockerCommandLooks(t *testing.T) {
	config := t.TempDir()
	t.Setenv("DOCKER_CONFIG", config)
	dirs := pluginDirectories()
	if got, want := dirs[0], filepath.Join(config, "cli-plugins"); got != want {
		t.Errorf("got %s first, want %s", got, want)
	}
}

func TestFindPluginKnowsTheRealOne(t *testing.T) {
	_, version, err := FindPlugin(t.Context(), filepath.Dir(pluginNamed(t)))
	if err != nil || version == "" {
		t.Errorf("got version %q and error %v", version, err)
	}
}

// pluginNamed is the lab's plugin under the name that it has on machines.
func pluginNamed(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), pluginName)
	if err := os.Symlink(lab.ComposePlugin(t), path); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestTailKeepsTheEndAndShowsNoControlCharacters(t *testing.T) {
	var text tail
	for range 10 {
		_, _ = text.Write([]byte(strings.Repeat("x", maxTail)))
	}
	_, _ = text.Write([]byte("\n\x1b[31mred\x1b[0m\tand\r\n\n  last \x00\xff\n"))
	if len(text.buf) > 3*maxTail {
		t.Errorf("keeps %d bytes, want at most %d", len(text.buf), 3*maxTail)
	}
	if got, want := strings.Join(text.lines(2), "|"), "[31mred[0m and|last"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got := shorten(strings.Repeat("é", maxLine)); len(got) > maxLine+len("…") || !strings.HasSuffix(got, "é…") {
		t.Errorf("got %d bytes ending in %q", len(got), got[len(got)-5:])
	}
}

func TestReasonsLeaveOutComposesProgress(t *testing.T) {
	got := reasons([]string{
		"Network app_default  Creating", "Container app-web-1  Created", "Container app-db-1  Error",
		"Container app-web-1  Error response from daemon: No such image: web:1", "Error response from daemon: No such image: web:1",
	})
	if len(got) != 1 || got[0] != "Error response from daemon: No such image: web:1" {
		t.Errorf("got %q", got)
	}
	if got := reasons([]string{"Container app-web-1  Created"}); len(got) != 1 {
		t.Errorf("got %q, want the only line there is", got)
	}
}
