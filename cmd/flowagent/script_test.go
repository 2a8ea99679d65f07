package main

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

// TestMain lets this test binary stand in for flowagent, so that scripts run the very program under test.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"flowagent": main})
}

// TestScripts runs testdata/script/*.txtar: one command line behaviour each, the command's name first
// (config_validate_problems.txtar). A script's directory is empty but for its own files, and is its home.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Cmds:                map[string]func(*testscript.TestScript, bool, []string){"exits": exits, "install-flowagent": installFlowagent},
	})
}

// installFlowagent is the script command
//
//	install-flowagent FILE
//
// It copies the program under test, for what looks at a program's file.
func installFlowagent(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: install-flowagent FILE")
	}
	program, err := os.Executable()
	ts.Check(err)
	content, err := os.ReadFile(program)
	ts.Check(err)
	file := ts.MkAbs(args[0])
	ts.Check(os.MkdirAll(filepath.Dir(file), 0o755))
	ts.Check(os.WriteFile(file, content, 0o755))
}
