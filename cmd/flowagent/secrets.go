package main

import (
	"fmt"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/flowviz/flowagent/agent/control"
	"github.com/flowviz/flowagent/agent/report"
	"github.com/flowviz/flowagent/agent/secret"
)

func newSecretsCommand(g *globals) *cobra.Command {
	return group("secrets", "List the node's secrets or fetch them again; never shows a value",
		newSecretsListCommand(g), newSecretsRefreshCommand(g), newSecretsMountCommand(g))
}

func newSecretsMountCommand(g *globals) *cobra.Command {
	return &cobra.Command{
		Use:   "mount",
		Short: "Mount the tmpfs that secrets are kept on, where it isn't mounted yet",
		Long: `Mount the tmpfs that secrets are kept on, where it isn't mounted yet.

'flowagent run' does so by itself where it may. In a service with ProtectSystem= it can't: what it mounts there the Docker
Engine doesn't see. So flowagent.service calls this before, outside its sandbox.`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			store, err := secret.OpenStore(filepath.Join(g.runDir, "secrets"))
			if err != nil {
				return err
			}
			return store.Close()
		},
	}
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
