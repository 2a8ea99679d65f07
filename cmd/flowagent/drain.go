package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/flowviz/flowagent/agent/config"
	"github.com/flowviz/flowagent/agent/control"
	"github.com/flowviz/flowagent/agent/drain"
)

func newDrainCommand(g *globals) *cobra.Command {
	var reason string
	var timeout time.Duration
	cmd := &cobra.Command{
		Use:   "drain",
		Short: "Take the node out of service: /health 503, services stopped in order, secrets wiped",
		Long: `Take the node out of service: /health turns 503, services stop in the configured order, secrets are wiped.

Returns when the node is drained. Interrupting the command does not interrupt the drain.`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if timeout < 0 {
				return usageError(fmt.Errorf("--timeout %v is negative", timeout))
			}
			err := control.NewClient(g.socketPath()).Drain(cmd.Context(), drain.Request{Reason: reason, Budget: config.Duration(timeout)})
			if err != nil {
				return agentError(err)
			}
			_, err = fmt.Fprintln(cmd.OutOrStdout(), "drained")
			return err
		},
	}
	cmd.Flags().StringVar(&reason, "reason", "asked for on the command line", "why, for events and status")
	cmd.Flags().DurationVar(&timeout, "timeout", 0, "budget for the whole drain; 0 uses the configured one")
	return cmd
}

// agentError gives an agent that does not answer the exit code that the design has for it.
func agentError(err error) error {
	switch {
	case errors.Is(err, control.ErrUnreachable):
		return unreachableError(err)
	case errors.Is(err, control.ErrConfiguration):
		return usageError(err)
	case errors.Is(err, context.Canceled):
		return errors.New("interrupted; the agent goes on")
	}
	return err
}
