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
	"flag"
	"fmt"
	"os"
	"os/signal"
	"time"

	"golang.org/x/sys/unix"

	"github.com/flowviz/flowagent/test/bench/command"
	"github.com/flowviz/flowagent/test/bench/figures"
)

func main() { command.Main(run) }

// shortestWindow leaves each part of a window a second.
const shortestWindow = parts * time.Second

func run(arguments []string) error {
	flags := flag.NewFlagSet("idle", flag.ContinueOnError)
	settle := flags.Duration("settle", time.Minute, "how long the node is ready before it is measured")
	window := flags.Duration("window", time.Minute, "how long it is measured; the promise is about a minute or more")
	agent := flags.String("flowagent", "", "the agent's stripped binary, as `make build` makes it")
	if err := command.Parse(flags, arguments); err != nil {
		return err
	}
	if *agent == "" || *settle < 0 || *window < shortestWindow {
		return fmt.Errorf("-flowagent names the binary, -settle is at least 0, -window at least %v: %w", shortestWindow, command.ErrUsage)
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
