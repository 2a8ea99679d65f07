package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/flowviz/flowagent/internal/eventlog"
)

// Exit codes of every command, for scripts and units that decide on them.
const (
	exitDone        = 0
	exitFailed      = 1 // it was tried and did not work
	exitUsage       = 2 // a wrong flag, argument or configuration; nothing was tried
	exitUnreachable = 3 // not attempted, or no agent answers on the control socket
)

// exitError carries an exit code with the error that explains it, or nil where the output said all there is to say.
// Errors without a code are failures.
type exitError struct {
	code int
	err  error
}

func (e *exitError) Error() string {
	if e.err == nil {
		return fmt.Sprintf("exit code %d", e.code)
	}
	return e.err.Error()
}
func (e *exitError) Unwrap() error { return e.err }

func usageError(err error) error       { return &exitError{exitUsage, err} }
func unreachableError(err error) error { return &exitError{exitUnreachable, err} }

// globals are the flags that every command understands.
type globals struct {
	configPath string // main configuration file; its drop-ins are in config.d beside it
	runDir     string // what a reboot empties: secrets, override, control socket
	stateDir   string // what survives a reboot
	output     string // table or json
}

func (g *globals) socketPath() string { return filepath.Join(g.runDir, "agent.sock") }

// execute runs one command line and returns its exit code; errors are printed to stderr, once.
func execute(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	g := &globals{}
	root := &cobra.Command{
		Use:           "flowagent",
		Short:         "Boots a node's Docker Compose application, proves it is fit to serve, and drains it",
		SilenceErrors: true,
		SilenceUsage:  true,
		PersistentPreRunE: func(*cobra.Command, []string) error {
			if g.output != "table" && g.output != "json" {
				return usageError(fmt.Errorf("--output %q is unknown: use table or json", g.output))
			}
			return nil
		},
	}
	needsSubcommand(root)
	flags := root.PersistentFlags()
	flags.StringVarP(&g.configPath, "config", "c", "/etc/flowagent/config.yaml", "configuration file; drop-ins are read from config.d beside it")
	flags.StringVar(&g.runDir, "run-dir", "/run/flowagent", "directory for what a reboot empties: secrets, override, control socket")
	flags.StringVar(&g.stateDir, "state-dir", "/var/lib/flowagent", "directory for what survives a reboot; never a secret")
	flags.StringVarP(&g.output, "output", "o", "table", "how to print results: table or json")
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return usageError(fmt.Errorf("%w\nRun '%s --help' for its flags", err, cmd.CommandPath()))
	})
	root.AddCommand(
		newRunCommand(g), newStatusCommand(g), newDrainCommand(g), newReloadCommand(g), newSecretsCommand(g),
		newConfigCommand(g), newCheckCommand(g), newImageCommand(g), newIAMPolicyCommand(g), newVersionCommand(g),
	)
	root.SetArgs(args)
	root.SetIn(stdin)
	root.SetOut(stdout)
	root.SetErr(stderr)

	err := root.ExecuteContext(ctx)
	if err == nil {
		return exitDone
	}
	var coded *exitError
	if !errors.As(err, &coded) {
		coded = &exitError{exitFailed, err}
	}
	if coded.err != nil {
		eventlog.LastWords(stderr, "flowagent: "+err.Error())
	}
	return coded.code
}

// group is a command that does nothing itself and has others below it.
func group(name, short string, commands ...*cobra.Command) *cobra.Command {
	cmd := &cobra.Command{Use: name, Short: short}
	cmd.AddCommand(commands...)
	needsSubcommand(cmd)
	return cmd
}

// needsSubcommand makes a wrong or missing subcommand a usage error that lists what there is.
func needsSubcommand(cmd *cobra.Command) {
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		var names []string
		for _, sub := range cmd.Commands() {
			if sub.IsAvailableCommand() {
				names = append(names, sub.Name())
			}
		}
		last := len(names) - 1
		commands := "use " + strings.Join(names[:last], ", ") + " or " + names[last]
		if len(args) > 0 {
			return usageError(fmt.Errorf("'%s' has no command %q: %s", cmd.CommandPath(), args[0], commands))
		}
		return usageError(fmt.Errorf("'%s' needs a command: %s", cmd.CommandPath(), commands))
	}
	cmd.Args = cobra.ArbitraryArgs
}
