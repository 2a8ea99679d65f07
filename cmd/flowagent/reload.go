package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/flowviz/flowagent/agent/control"
)

func newReloadCommand(g *globals) *cobra.Command {
	return &cobra.Command{
		Use:   "reload",
		Short: "Read the configuration again: apply what can change live, name what needs a restart",
		Long: `Read the configuration and the Compose files again.

Nothing changes unless all of it is right. Health checks, the drain, workload.ready and workload.reconcile then change at
once; for the rest, which is listed, restart the agent: that touches only the containers that changed. SIGHUP does the
same and leaves the outcome in the log.`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			outcome, err := control.NewClient(g.socketPath()).Reload(cmd.Context())
			if err != nil {
				return agentError(err)
			}
			if g.output == "json" {
				return printJSON(cmd.OutOrStdout(), outcome)
			}
			var lines []string
			if len(outcome.Applied) > 0 {
				lines = append(lines, "applied: "+strings.Join(outcome.Applied, ", "))
			}
			if len(outcome.Restart) > 0 {
				lines = append(lines, "needs a restart of the agent: "+strings.Join(outcome.Restart, ", "))
			}
			if len(lines) == 0 {
				lines = []string{"nothing changed"}
			}
			_, err = fmt.Fprintln(cmd.OutOrStdout(), strings.Join(lines, "\n"))
			return err
		},
	}
}
