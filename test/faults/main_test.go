package faults

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/flowviz/flowagent/test/lab"
)

// agentBinary is the path of the flowagent under test.
var agentBinary string

// whole has every cell run and the table printed.
var whole = flag.Bool("matrix", false, "run every cell, not a diagonal, and print the table")

// atOnce is how many cells run at a time, unless -parallel says otherwise. They wait for most of their time.
const atOnce = "6"

func TestMain(m *testing.M) {
	code, err := run(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, "faults:", err)
		code = 1
	}
	os.Exit(code)
}

func run(m *testing.M) (int, error) {
	if err := flag.Set("test.parallel", atOnce); err != nil { // which the command line may overrule
		return 0, err
	}
	flag.Parse()
	root, err := lab.ProjectDir()
	if err != nil {
		return 0, err
	}
	dir, err := os.MkdirTemp("", "faults-bin-")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(dir)
	if out, err := buildAgent(root, dir); err != nil {
		return 0, fmt.Errorf("build flowagent: %w\n%s", err, out)
	}
	agentBinary = filepath.Join(dir, "flowagent")
	code := m.Run()
	if !*whole {
		return code, nil
	}
	return code, results.print(os.Stdout)
}
