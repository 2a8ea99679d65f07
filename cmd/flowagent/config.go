package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/flowviz/flowagent/agent/config"
	"github.com/flowviz/flowagent/internal/atomicfile"
)

func newConfigCommand(g *globals) *cobra.Command {
	return group("config", "Write, check and show the node's configuration",
		&cobra.Command{
			Use:   "init [FILE]",
			Short: "Write a commented configuration to begin with",
			Long:  "Writes a commented configuration to FILE, or where --config says; - is the standard output. A file that is there is never overwritten.",
			Args:  atMostOneFile,
			RunE: func(cmd *cobra.Command, args []string) error {
				return initConfig(cmd.OutOrStdout(), firstOr(args, g.configPath))
			},
		},
		&cobra.Command{
			Use:   "validate [FILE...]",
			Short: "Check a configuration and say everything that is wrong with it",
			Long: `Checks the configuration that --config names, with the drop-ins beside it, or just the given files, merged in their
order. Nothing is fetched: an instance's user data is checked when the agent reads it.`,
			RunE: func(cmd *cobra.Command, args []string) error {
				return validateConfig(cmd.OutOrStdout(), g, args)
			},
		},
		&cobra.Command{
			Use:   "show [FILE...]",
			Short: "Print the merged configuration and where each value came from",
			RunE: func(cmd *cobra.Command, args []string) error {
				return showConfig(cmd.OutOrStdout(), g, args)
			},
		},
		&cobra.Command{
			Use:   "schema",
			Short: "Print the JSON Schema of the configuration, for editors",
			Args:  noArguments,
			RunE: func(cmd *cobra.Command, _ []string) error {
				_, err := cmd.OutOrStdout().Write(config.Schema())
				return err
			},
		},
	)
}

// atMostOneFile is cobra's own check with the exit code of a wrong command line.
func atMostOneFile(cmd *cobra.Command, args []string) error {
	if err := cobra.MaximumNArgs(1)(cmd, args); err != nil {
		return usageError(fmt.Errorf("%w: give one file at most", err))
	}
	return nil
}

func firstOr(args []string, otherwise string) string {
	if len(args) > 0 {
		return args[0]
	}
	return otherwise
}

func initConfig(stdout io.Writer, path string) error {
	if path == "-" {
		_, err := stdout.Write(config.Starter())
		return err
	}
	// Root's umask may be anything; what the agent reads holds no secret and may be read by all.
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("write a configuration: %w", err)
	}
	err := atomicfile.Create(path, config.Starter(), 0o644)
	if errors.Is(err, fs.ErrExist) {
		return usageError(fmt.Errorf("%s is there already and was left as it is: edit it, or write to another file with --config", path))
	}
	if err != nil {
		return fmt.Errorf("write a configuration: %w", err)
	}
	_, err = fmt.Fprintf(stdout, "wrote %s: edit it, then run 'flowagent config validate --config %s'\n", path, path)
	return err
}

// readConfig reads the given files in their order, or without any what --config names. What is wrong with them is an
// error of usage.
func readConfig(g *globals, files []string) (*config.Loaded, error) {
	if len(files) == 0 {
		loaded, err := config.Load(g.configPath)
		return loaded, configError(err)
	}
	var layers []config.Layer
	var unreadable []error
	for _, file := range files {
		layer, err := config.ReadFile(file)
		if err != nil {
			unreadable = append(unreadable, err)
			continue
		}
		layers = append(layers, layer)
	}
	if err := errors.Join(unreadable...); err != nil {
		return nil, usageError(err)
	}
	loaded, err := config.Parse(layers...)
	return loaded, configError(err)
}

// configError begins a list of problems with how many they are, so that each has a line of its own.
func configError(err error) error {
	var problems config.Problems
	switch {
	case err == nil:
		return nil
	case errors.As(err, &problems):
		return usageError(fmt.Errorf("the configuration has %s:\n%w", counted(len(problems), "problem"), err))
	}
	return usageError(err)
}

// validation is what `config validate --output json` prints.
type validation struct {
	OK       bool            `json:"ok"`
	Layers   []string        `json:"layers,omitempty"`
	Problems config.Problems `json:"problems,omitempty"`
}

func validateConfig(stdout io.Writer, g *globals, files []string) error {
	loaded, err := readConfig(g, files)
	var problems config.Problems
	switch {
	case g.output == "json" && errors.As(err, &problems):
		if err := printJSON(stdout, validation{Problems: problems}); err != nil {
			return err
		}
		return usageError(fmt.Errorf("the configuration has %s", counted(len(problems), "problem")))
	case errors.As(err, &problems):
		// One problem a line and nothing before it, so that editors and terminals make a link of each place.
		if _, err := fmt.Fprintln(stdout, problems); err != nil {
			return err
		}
		return usageError(fmt.Errorf("the configuration has %s", counted(len(problems), "problem")))
	case err != nil:
		return err
	case g.output == "json":
		return printJSON(stdout, validation{OK: true, Layers: loaded.Layers})
	}
	_, err = fmt.Fprintf(stdout, "ok: %s\n", counted(len(loaded.Layers), "layer"))
	return err
}

func showConfig(stdout io.Writer, g *globals, files []string) error {
	loaded, err := readConfig(g, files)
	if err != nil {
		return err
	}
	if g.output == "json" {
		return printJSON(stdout, loaded)
	}
	_, err = stdout.Write(loaded.YAML())
	return err
}

func counted(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
