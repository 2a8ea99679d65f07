package lab

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
)

// ErrMissing is wrapped by every error that says a part isn't on this machine, as opposed to broken.
var ErrMissing = errors.New("missing")

func missing(what, next string) error { return fmt.Errorf("%s: %w; %s", what, ErrMissing, next) }

// program finds a program by its variable, then among those that `make tools` built. An empty variable is no variable.
func program(variable, name string) (string, error) {
	if path := os.Getenv(variable); path != "" {
		if _, err := exec.LookPath(path); err != nil {
			return "", missing(fmt.Sprintf("%s=%s", variable, path), "it is not an executable file")
		}
		return path, nil
	}
	build, err := BuildDir()
	if err != nil {
		return "", err
	}
	path := filepath.Join(build, "bin", name)
	if _, err := exec.LookPath(path); err != nil {
		return "", missing(path, fmt.Sprintf("run `make tools`, or set %s", variable))
	}
	return path, nil
}

// systemProgram finds a program on PATH, where Debian puts what only root runs, or among what scripts/setup.sh fetched.
func systemProgram(name string) (string, error) {
	if path, err := exec.LookPath(name); err == nil {
		return path, nil
	}
	places := []string{"/usr/sbin", "/sbin"}
	if build, err := BuildDir(); err == nil {
		places = append(places, filepath.Join(build, "bin"), filepath.Join(build, "venv", "bin"))
	}
	for _, dir := range places {
		if path, err := exec.LookPath(filepath.Join(dir, name)); err == nil {
			return path, nil
		}
	}
	return "", missing(name, "run `scripts/setup.sh` as root")
}

const modulePath = "github.com/flowviz/flowagent"

var projectRoot = sync.OnceValues(func() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		content, err := os.ReadFile(filepath.Join(dir, "go.mod"))
		if line, _, _ := strings.Cut(string(content), "\n"); err == nil && strings.TrimSpace(line) == "module "+modulePath {
			return dir, nil
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return "", fmt.Errorf("no go.mod of %s in the working directory or above it: run this inside the project", modulePath)
		}
		dir = parent
	}
})

// ProjectDir returns the root of the project, found from the working directory upwards.
func ProjectDir() (string, error) { return projectRoot() }

// BuildDir returns the project's .build, which holds everything that can be made again. It need not exist yet.
func BuildDir() (string, error) {
	root, err := projectRoot()
	if err != nil {
		return "", err
	}
	return filepath.Join(root, ".build"), nil
}

// ComposePath returns the path of the docker-compose plugin, or an error that wraps [ErrMissing].
func ComposePath() (string, error) { return program(ComposeVariable, "docker-compose") }
