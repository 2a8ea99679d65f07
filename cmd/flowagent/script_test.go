package main

import (
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
		Cmds:                map[string]func(*testscript.TestScript, bool, []string){"exits": exits},
	})
}
