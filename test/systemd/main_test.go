package systemd

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/flowviz/flowagent/test/lab"
)

// installed is the directory that `make install` filled.
var installed string

func TestMain(m *testing.M) {
	code, err := run(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, "systemd:", err)
		code = 1
	}
	os.Exit(code)
}

func run(m *testing.M) (int, error) {
	root, err := lab.ProjectDir()
	if err != nil {
		return 0, err
	}
	dir, err := os.MkdirTemp("", "systemd-install-")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(dir)
	installed = filepath.Join(dir, "root")
	// The binary that operators get: the race detector's could not live in the unit's sandbox. It is built in a place of its
	// own, because tests of another package may build and run one at the same time.
	install := exec.Command("make", "--no-print-directory", "install", "DESTDIR="+installed, "BIN="+filepath.Join(dir, "bin"))
	install.Dir = root
	if out, err := install.CombinedOutput(); err != nil {
		return 0, fmt.Errorf("make install: %w\n%s", err, out)
	}
	return m.Run(), nil
}
