package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/flowviz/flowagent/agent/health/probe"
)

// newCheckCommand groups the checks that ask once, without an agent and without its configuration.
func newCheckCommand(g *globals) *cobra.Command {
	return group("check", "Ask one server once, for scripts and container health checks",
		newCheckPostgresCommand(g), newCheckRedisCommand(g), newCheckHTTPCommand(g), newCheckTCPCommand(g), newCheckTLSCommand(g),
	)
}

// checked is what `check … --output json` prints.
type checked struct {
	Target string `json:"target"`
	probe.Result
}

// printCheck prints what a check found and turns it into the exit code: 0 for pass and warn, 1 for fail. A failure is
// said on stdout like every other answer, and not once more on stderr.
func printCheck(cmd *cobra.Command, g *globals, target string, result probe.Result) error {
	var err error
	if g.output == "json" {
		err = printJSON(cmd.OutOrStdout(), checked{target, result})
	} else {
		_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s - %s: %s\n", target, result.Status, result.Output)
	}
	if err == nil && result.Status == probe.Fail {
		err = &exitError{code: exitFailed}
	}
	return err
}
