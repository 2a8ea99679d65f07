package nodefiles

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/flowviz/flowagent/test/lab"
)

// program is the agent as operators get it.
var program string

func TestMain(m *testing.M) {
	code, err := run(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, "nodefiles:", err)
		code = 1
	}
	os.Exit(code)
}

func run(m *testing.M) (int, error) {
	root, err := lab.ProjectDir()
	if err != nil {
		return 0, err
	}
	dir, err := os.MkdirTemp("", "nodefiles-")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(dir)
	program = filepath.Join(dir, "flowagent")
	// Not the race detector's, which could not live in the unit's sandbox.
	build := exec.Command("go", "build", "-trimpath", "-o", program, "./cmd/flowagent")
	build.Dir, build.Env = root, append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return 0, fmt.Errorf("go build: %w\n%s", err, out)
	}
	return m.Run(), nil
}
