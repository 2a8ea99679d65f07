package main

import (
	"context"
	"fmt"
	"net"
	"time"

	"github.com/spf13/cobra"

	"github.com/flowviz/flowagent/agent/health/probe"
)

func newCheckTCPCommand(g *globals) *cobra.Command {
	p := &probe.TCP{}
	var once askOnce
	var secure clientTLSFlags
	cmd := &cobra.Command{
		Use:   "tcp HOST:PORT",
		Short: "Ask whether a server accepts connections",
		Long: `Connects to a server, and where asked for holds its answer against what is expected of it.

Exit code 0 when it passes, 1 when it fails.`,
		Example: `  flowagent check tcp 127.0.0.1:22 --expect SSH-2.0`,
		Args:    oneAddress,
		RunE: func(cmd *cobra.Command, args []string) error {
			var err error
			p.Address = args[0]
			if p.TLS, err = secure.client(cmd); err != nil {
				return err
			}
			return once.ask(cmd, g, p.Address, p)
		},
	}
	once.add(cmd)
	secure.add(cmd, true)
	cmd.Flags().StringVar(&p.Send, "send", "", "text to send once connected")
	cmd.Flags().StringVar(&p.Expect, "expect", "", "text that the first 4 KiB of the answer must hold")
	return cmd
}

// askOnce is how a check is asked from the command line.
type askOnce struct{ timeout time.Duration }

// defaultCheckTimeout is that of a configured check.
const defaultCheckTimeout = 3 * time.Second

func (o *askOnce) add(cmd *cobra.Command) {
	cmd.Flags().DurationVarP(&o.timeout, "timeout", "t", defaultCheckTimeout, "longest time to wait for the answer")
}

// ask probes within the time, and prints what was found.
func (o *askOnce) ask(cmd *cobra.Command, g *globals, target string, p probe.Probe) error {
	if o.timeout <= 0 {
		return usageError(fmt.Errorf("--timeout %v leaves no time: give it some, such as 3s", o.timeout))
	}
	ctx, cancel := context.WithTimeout(cmd.Context(), o.timeout)
	defer cancel()
	return printCheck(cmd, g, target, p.Probe(ctx))
}

// oneAddress refuses everything but one host:port.
func oneAddress(cmd *cobra.Command, args []string) error {
	if len(args) != 1 {
		return usageError(fmt.Errorf("'%s' takes one address: write host:port", cmd.CommandPath()))
	}
	return checkAddress(args[0])
}

func checkAddress(address string) error {
	if _, port, err := net.SplitHostPort(address); err != nil || port == "" {
		return usageError(fmt.Errorf("%q is not an address: write host:port", address))
	}
	return nil
}
