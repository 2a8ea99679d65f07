// Command idle measures what the agent costs a node that is up and has nothing to do but watch itself: resident memory,
// and processor time as a share of one core.
//
//	idle [-settle 1m] [-window 1m] -flowagent FILE
//
// What enters are a lab (`lab run --moto`), the node beside this file, and the agent's stripped binary; what leaves is a
// table on standard output. It never judges: a figure beyond its bound ends with 0, too. Only a node that doesn't become
// ready ends it with 1.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"time"

	"golang.org/x/sys/unix"

	"github.com/flowviz/flowagent/test/bench/figures"
)

func main() {
	err := run(os.Args[1:])
	switch {
	case err == nil || errors.Is(err, flag.ErrHelp):
	case errors.Is(err, errUsage):
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(2)
	default:
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// errUsage is wrapped by errors about the command line.
var errUsage = errors.New("run it with -h for its flags")

// shortestWindow is where the bounds' 0.2 % of a core are ten milliseconds, and a slice of the window is still a second.
const shortestWindow = slices * time.Second

func run(arguments []string) (err error) {
	flags := flag.NewFlagSet("idle", flag.ContinueOnError)
	settle := flags.Duration("settle", time.Minute, "how long the node is ready before it is measured")
	window := flags.Duration("window", time.Minute, "how long it is measured; the promise is about a minute or more")
	agent := flags.String("flowagent", "", "the agent's stripped binary, as `make build` makes it")
	if err := flags.Parse(arguments); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return err
		}
		return fmt.Errorf("%w: %w", err, errUsage)
	}
	if *agent == "" || *settle < 0 || *window < shortestWindow || flags.NArg() > 0 {
		return fmt.Errorf("-flowagent names the binary, -settle is at least 0, -window at least %v: %w", shortestWindow, errUsage)
	}
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGINT, unix.SIGTERM)
	defer stop()

	size, err := os.Stat(*agent)
	if err != nil {
		return err
	}
	machine, err := figures.Machine()
	if err != nil {
		return err
	}
	n, err := newNode(ctx, *agent)
	if err != nil {
		return err
	}
	defer n.close()
	fmt.Fprintf(os.Stderr, "bench: idle: ready; measured from %v on for %v\n", *settle, *window)
	cost, err := n.measure(ctx, *settle, *window)
	if err != nil {
		return err
	}
	fmt.Printf("%s; a node with ten checks every 5 s, ready for %v, then watched for %v.\n\n", machine, *settle, *window)
	return cost.print(os.Stdout, size.Size())
}
