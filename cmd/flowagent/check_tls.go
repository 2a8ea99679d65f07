package main

import (
	"errors"
	"time"

	"github.com/spf13/cobra"

	"github.com/flowviz/flowagent/agent/health/probe"
)

func newCheckTLSCommand(g *globals) *cobra.Command {
	var once askOnce
	var secure clientTLSFlags
	var warnDays, failDays int
	cmd := &cobra.Command{
		Use:   "tls HOST:PORT",
		Short: "Ask how long a server's certificate is valid, and whether its chain and name are right",
		Long: `Asks a server for its certificate and checks its chain, its name, and how many days are left to the first end within
the chain. Revocation is not checked.

Exit code 0 when it passes or warns, 1 when it fails.`,
		Example: `  flowagent check tls shop.example.com:443 --fail-days 7`,
		Args:    oneAddress,
		RunE: func(cmd *cobra.Command, args []string) error {
			if warnDays < 1 || failDays < 0 {
				return usageError(errors.New("--warn-days must be at least 1, and --fail-days at least 0"))
			}
			client, err := secure.client(cmd)
			if err != nil {
				return err
			}
			return once.ask(cmd, g, args[0], &probe.TLS{
				Address: args[0], TLS: client, WarnBefore: daysOf(warnDays), FailBefore: daysOf(failDays),
			})
		},
	}
	once.add(cmd)
	secure.add(cmd, false)
	cmd.Flags().IntVar(&warnDays, "warn-days", int(probe.DefaultWarnBefore/daysOf(1)), "warn when fewer days are left")
	cmd.Flags().IntVar(&failDays, "fail-days", 0, "fail when fewer days are left; 0: once it isn't valid any more")
	return cmd
}

func daysOf(n int) time.Duration { return time.Duration(n) * 24 * time.Hour }

// clientTLSFlags are the flags about a server's certificate and one's own.
type clientTLSFlags struct {
	probe.ClientTLS
	wanted bool
}

// add defines the flags; optional adds --tls to those of a check that also works without.
func (f *clientTLSFlags) add(cmd *cobra.Command, optional bool) {
	set := cmd.Flags()
	if f.wanted = !optional; optional {
		set.BoolVar(&f.wanted, "tls", false, "speak TLS; any of the next flags means that too")
	}
	set.StringVar(&f.CAFile, "ca", "", "PEM file of the authorities to trust (default the system's)")
	set.StringVar(&f.ServerName, "server-name", "", "name that the certificate must carry (default the host)")
	set.StringVar(&f.CertificateFile, "cert", "", "PEM file of the client's own certificate")
	set.StringVar(&f.KeyFile, "key", "", "PEM file of its key")
}

// client is nil where TLS isn't wanted.
func (f *clientTLSFlags) client(cmd *cobra.Command) (*probe.ClientTLS, error) {
	if (f.CertificateFile == "") != (f.KeyFile == "") {
		return nil, usageError(errors.New("--cert and --key belong together: give both or none"))
	}
	for _, name := range []string{"ca", "server-name", "cert", "key"} {
		f.wanted = f.wanted || cmd.Flags().Changed(name)
	}
	if !f.wanted {
		return nil, nil
	}
	return &f.ClientTLS, nil
}
