// Package command is how the program of each bench begins and ends.
//
// What enters is a command line; what leaves is an exit code: 0, 1 for what could not be measured, 2 for wrong arguments.
package command

import (
	"errors"
	"flag"
	"fmt"
	"os"
)

// ErrUsage is wrapped by errors about the command line.
var ErrUsage = errors.New("run it with -h for its flags")

// Main runs a bench with the program's arguments, and exits with 1 or 2 where it fails.
func Main(run func(arguments []string) error) {
	err := run(os.Args[1:])
	if err == nil || errors.Is(err, flag.ErrHelp) {
		return
	}
	fmt.Fprintln(os.Stderr, "bench:", err)
	if errors.Is(err, ErrUsage) {
		os.Exit(2)
	}
	os.Exit(1)
}

// Parse reads flags, which is all that a bench takes.
func Parse(flags *flag.FlagSet, arguments []string) error {
	err := flags.Parse(arguments)
	switch {
	case err == nil && flags.NArg() > 0:
		return fmt.Errorf("%q is no flag: %w", flags.Arg(0), ErrUsage)
	case err == nil || errors.Is(err, flag.ErrHelp):
		return err
	}
	return fmt.Errorf("%w: %w", err, ErrUsage)
}
