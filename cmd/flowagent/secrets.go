package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/flowviz/flowagent/agent/control"
	"github.com/flowviz/flowagent/agent/report"
)

func newSecretsCommand(g *globals) *cobra.Command {
	return group("secrets", "List the node's secrets or fetch them again; never shows a value",
		newSecretsListCommand(g), newSecretsRefreshCommand(g))
}

func newSecretsListCommand(g *globals) *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "List each secret: where it comes from, how fresh it is, what went wrong",
		Args:  noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			status, err := control.NewClient(g.socketPath()).Status(cmd.Context())
			if err != nil {
				return agentError(err)
			}
			if g.output == "json" {
				return printJSON(cmd.OutOrStdout(), status.Secrets)
			}
			return report.WriteSecrets(cmd.OutOrStdout(), status.Secrets)
		},
	}
}

func newSecretsRefreshCommand(g *globals) *cobra.Command {
	return &cobra.Command{
		Use:   "refresh",
		Short: "Fetch every secret now and deliver what changed",
		Args:  noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			changed, err := control.NewClient(g.socketPath()).RefreshSecrets(cmd.Context())
			if err != nil {
				return agentError(err)
			}
			if g.output == "json" {
				return printJSON(cmd.OutOrStdout(), map[string][]string{"changed": changed})
			}
			message := "nothing changed"
			if len(changed) > 0 {
				message = "changed: " + strings.Join(changed, ", ")
			}
			_, err = fmt.Fprintln(cmd.OutOrStdout(), message)
			return err
		},
	}
}
