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
	var wait, cancel bool
	cmd := &cobra.Command{
		Use:   "drain",
		Short: "Take the node out of service: /health 503, services stopped in order, secrets wiped",
		Long: `Take the node out of service: /health turns 503, load balancers are left, requests under way are
answered, services stop in the configured order, secrets are wiped.

Returns when the node is drained, or with --wait=false when the drain has begun. Interrupting the command does
not interrupt the drain. Until services stop, --cancel takes the drain back: the node serves again.`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			client := control.NewClient(g.socketPath())
			if cancel {
				return cancelDrain(cmd, client)
			}
			if timeout < 0 {
				return usageError(fmt.Errorf("--timeout %v is negative", timeout))
			}
			request := drain.Request{Reason: reason, Budget: config.Duration(timeout)}
			done, err := startDrain(cmd.Context(), client, request, wait)
			if err != nil {
				return agentError(err)
			}
			said := "drained"
			if !done {
				said = "draining: 'flowagent status' says how far it is"
			}
			_, err = fmt.Fprintln(cmd.OutOrStdout(), said)
			return err
		},
	}
	cmd.Flags().StringVar(&reason, "reason", "asked for on the command line", "why, for events and status")
	cmd.Flags().DurationVar(&timeout, "timeout", 0, "budget for the whole drain; 0 uses the configured one")
	cmd.Flags().BoolVar(&wait, "wait", true, "return when the node is drained, and not when it has begun to")
	cmd.Flags().BoolVar(&cancel, "cancel", false, "take the drain under way back, as long as no service was stopped")
	for _, other := range []string{"reason", "timeout", "wait"} {
		cmd.MarkFlagsMutuallyExclusive("cancel", other)
	}
	return cmd
}

func cancelDrain(cmd *cobra.Command, client *control.Client) error {
	if err := client.CancelDrain(cmd.Context()); err != nil {
		return agentError(err)
	}
	_, err := fmt.Fprintln(cmd.OutOrStdout(), "drain taken back: the node serves again")
	return err
}

// drainPoll is how often a drain that nobody waits for is looked at until it has begun: soon enough for a person, and the
// agent asks its engine each time.
const drainPoll = 100 * time.Millisecond

// startDrain asks for a drain. It returns true when the node is drained, and without wait false as soon as it has begun.
func startDrain(ctx context.Context, client *control.Client, request drain.Request, wait bool) (done bool, err error) {
	if wait {
		return true, client.Drain(ctx, request)
	}
	ended := make(chan error, 1)
	go func() { ended <- client.Drain(ctx, request) }()
	tick := time.NewTicker(drainPoll)
	defer tick.Stop()
	for {
		select {
		case err := <-ended:
			return true, err
		case <-tick.C:
			// An agent that can't be asked fails the other call, too.
			if status, err := client.Status(ctx); err == nil && status.Drain != nil && status.Drain.Ended.IsZero() {
				return false, nil
			}
		}
	}
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
