// Command drain measures how soon a node that is being terminated says so, and how soon it lets its group go on once its
// work has ended.
//
//	drain [-rounds 12] [-watch 30s] -flowagent FILE
//
// What enters are a lab, the node beside this file and the agent's stripped binary; what leaves is a table on standard
// output. Each round boots the node, has its Auto Scaling group terminate the instance while a request is under way, and
// waits for the completion. It never judges: a figure beyond its bound ends with 0, too. Only a node that doesn't boot or
// doesn't drain ends it with 1.
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

func run(arguments []string) error {
	flags := flag.NewFlagSet("drain", flag.ContinueOnError)
	rounds := flags.Int("rounds", 12, "drains that are measured; the moments of their announcements are spread over one interval")
	watch := flags.Duration("watch", 30*time.Second, "how long the questions to instance metadata are counted")
	agent := flags.String("flowagent", "", "the agent's stripped binary, as `make build` makes it")
	if err := command.Parse(flags, arguments); err != nil {
		return err
	}
	if *agent == "" || *rounds < 1 || *watch < time.Second {
		return fmt.Errorf("-flowagent names the binary, -rounds is at least 1, -watch at least 1s: %w", command.ErrUsage)
	}
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGINT, unix.SIGTERM)
	defer stop()

	machine, err := figures.Machine()
	if err != nil {
		return err
	}
	n, err := newNode(ctx, *agent)
	if err != nil {
		return err
	}
	defer n.close()
	var all results
	for i := range *rounds {
		fmt.Fprintf(os.Stderr, "bench: drain: %d of %d\n", i+1, *rounds)
		wait := interval * time.Duration(i) / time.Duration(*rounds)
		if i == 0 {
			wait = *watch
		}
		one, err := n.round(ctx, wait)
		if err != nil {
			return fmt.Errorf("round %d: %w", i+1, err)
		}
		all = append(all, one)
	}
	fmt.Printf("%s; median (min–max) of %d drains.\n\n", machine, *rounds)
	return all.print(os.Stdout)
}
