package main

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/flowviz/flowagent/agent"
	"github.com/flowviz/flowagent/agent/image"
)

func newRunCommand(g *globals) *cobra.Command {
	var drainOnStop bool
	var logFormat string
	cmd := &cobra.Command{
		Use:   "run",
		Short: "Boot the node and keep it: secrets, images, workload, health",
		Long: `Boot the node and keep it: secrets, images, workload, health.

Runs until it gets SIGTERM or SIGINT. The workload is left running then, so that the agent can be upgraded under it;
'flowagent drain' stops it, or start the agent with --drain-on-stop.`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			out := cmd.ErrOrStderr()
			var progress image.Progress
			if width, terminal := terminalWidth(out); terminal {
				bars := image.NewBars(out, width)
				progress, out = bars, bars // events are printed above the bars
			}
			log, err := newLogger(out, logFormat)
			if err != nil {
				return err
			}
			if progress == nil {
				progress = image.NewEvents(log)
			}
			err = agent.Run(cmd.Context(), agent.Options{
				ConfigPath:  g.configPath,
				RunDir:      g.runDir,
				StateDir:    g.stateDir,
				Version:     version,
				DrainOnStop: drainOnStop,
				Progress:    progress,
				Log:         log,
			})
			var wrong *agent.ConfigurationError
			if errors.As(err, &wrong) {
				return usageError(err)
			}
			return err
		},
	}
	cmd.Flags().BoolVar(&drainOnStop, "drain-on-stop", false, "stop the workload and wipe the secrets when the agent is asked to stop")
	cmd.Flags().StringVar(&logFormat, "log-format", "text", "how events are written to standard error: text or json")
	return cmd
}

// newLogger writes events in one of two forms, both one line a fact.
func newLogger(w io.Writer, format string) (*slog.Logger, error) {
	switch format {
	case "text":
		return slog.New(slog.NewTextHandler(w, nil)), nil
	case "json":
		return slog.New(slog.NewJSONHandler(w, nil)), nil
	}
	return nil, usageError(fmt.Errorf("--log-format %q is unknown: use text or json", format))
}

// terminalWidth tells whether people are watching w, and how many columns they have.
func terminalWidth(w io.Writer) (int, bool) {
	file, ok := w.(*os.File)
	if !ok || !term.IsTerminal(int(file.Fd())) {
		return 0, false
	}
	width, _, err := term.GetSize(int(file.Fd()))
	if err != nil || width == 0 {
		width = 80 // a terminal that doesn't tell, such as a serial console
	}
	return width, true
}

// noArguments refuses arguments where flags were meant.
func noArguments(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usageError(fmt.Errorf("%q is unexpected: '%s' takes no arguments", args[0], cmd.CommandPath()))
	}
	return nil
}
