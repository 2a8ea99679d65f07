package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/flowviz/flowagent/agent/control"
	"github.com/flowviz/flowagent/agent/health"
	"github.com/flowviz/flowagent/agent/report"
)

func newStatusCommand(g *globals) *cobra.Command {
	var wait time.Duration
	var watch bool
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show how the node is doing: state, boot timeline, services, secrets",
		Long: `Show how the node is doing: state, boot timeline, services, secrets.

Exit code 0 when the node is ready, 1 when it is not, 3 when no agent answers.`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			client := control.NewClient(g.socketPath())
			if watch && wait > 0 {
				return usageError(errors.New("--watch and --wait can't be combined: a watch waits by itself"))
			}
			if watch {
				return newWatcher(cmd.OutOrStdout(), client, g.output == "json").run(cmd.Context())
			}
			status, err := client.Status(cmd.Context())
			if wait > 0 {
				status, err = waitReady(cmd.Context(), client, wait)
			}
			if err != nil {
				return agentError(err)
			}
			if g.output == "json" {
				err = printJSON(cmd.OutOrStdout(), status)
			} else {
				err = report.Write(cmd.OutOrStdout(), status)
			}
			if err == nil && status.State != health.Ready.String() {
				err = fmt.Errorf("the node is %s: %s", status.State, status.Detail)
			}
			return err
		},
	}
	cmd.Flags().DurationVar(&wait, "wait", 0, "wait up to this long for the node to become ready, or to fail for good")
	cmd.Flags().BoolVarP(&watch, "watch", "w", false, "keep showing it until interrupted: the whole on a terminal, else a line (with --output json, a document) for each change of the state")
	return cmd
}

// pollInterval is how often a waiting command asks the agent again: short enough for a person, and the answer costs the
// agent about a millisecond.
const pollInterval = 250 * time.Millisecond

// waitReady asks until the node is ready or failing. An agent that doesn't answer yet may still be starting.
func waitReady(ctx context.Context, client *control.Client, limit time.Duration) (report.Status, error) {
	limited, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	for {
		status, err := client.Status(limited)
		switch {
		case err == nil && (status.State == health.Ready.String() || status.State == health.Failing.String()):
			return status, nil
		case err != nil && !errors.Is(err, control.ErrUnreachable) && limited.Err() == nil:
			return status, err
		}
		select {
		case <-tick.C:
		case <-limited.Done():
			switch {
			case ctx.Err() != nil:
				return status, context.Cause(ctx)
			case err == nil:
				return status, nil
			}
			return status, fmt.Errorf("%w after %v", control.ErrUnreachable, limit)
		}
	}
}

func printJSON(w io.Writer, value any) error {
	encoder := json.NewEncoder(w)
	encoder.SetIndent("", "  ")
	return encoder.Encode(value)
}
