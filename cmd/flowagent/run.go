package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/flowviz/flowagent/agent"
	"github.com/flowviz/flowagent/agent/image"
	"github.com/flowviz/flowagent/agent/systemd"
	"github.com/flowviz/flowagent/internal/eventlog"
)

func newRunCommand(g *globals) *cobra.Command {
	var drainOnStop bool
	var logFormat string
	cmd := &cobra.Command{
		Use:   "run",
		Short: "Boot the node and keep it: secrets, images, workload, health",
		Long: `Boot the node and keep it: secrets, images, workload, health.

Runs until it gets SIGTERM or SIGINT. The workload is left running then, so that the agent can be upgraded under it;
'flowagent drain' stops it, or start the agent with --drain-on-stop. SIGHUP reads the configuration again, as 'flowagent
reload' does.`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			format, err := eventlog.Parse(logFormat)
			if err != nil {
				return usageError(fmt.Errorf("--log-format %w", err))
			}
			crashLoudly()
			// From the first moment on: without a handler SIGHUP would end the agent.
			reload := make(chan os.Signal, 1)
			signal.Notify(reload, syscall.SIGHUP)
			defer signal.Stop(reload)
			listeners, err := systemd.Listeners()
			if err != nil {
				return err
			}
			out := cmd.ErrOrStderr()
			var progress image.Progress
			if width, terminal := terminalWidth(out); terminal {
				bars := image.NewBars(out, width)
				progress, out = bars, bars // events are printed above the bars
				if format == eventlog.Auto {
					format = eventlog.Terminal
				}
			}
			log := eventlog.New(out, format)
			if progress == nil {
				progress = image.NewEvents(log)
			}
			err = agent.Run(cmd.Context(), agent.Options{
				ConfigPath:  g.configPath,
				RunDir:      g.runDir,
				StateDir:    g.stateDir,
				Version:     version,
				DrainOnStop: drainOnStop,
				Listeners:   listeners,
				Reload:      reload,
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
	cmd.Flags().StringVar(&logFormat, "log-format", string(eventlog.Auto), "how events are written: journal, terminal, text, json; or auto, by what standard error is")
	return cmd
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
