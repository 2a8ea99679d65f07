// Command boot measures how long a node takes from nothing to an application that answers: with flowagent, with the
// shell script that it replaces, and with Docker Compose alone, in turns on one engine.
//
//	boot [-rounds 7] [-warmups 1] [-scenario all] -flowagent FILE
//
// What enters are a lab (`lab run --moto --registry …`), the project and the script beside this directory, and the agent's
// binary; what leaves is a table on standard output. It never judges: a ratio beyond its bound ends with 0, too. Only
// something that doesn't boot ends it with 1.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/flowviz/flowagent/test/bench/command"
)

func main() { command.Main(run) }

func run(arguments []string) error {
	flags := flag.NewFlagSet("boot", flag.ContinueOnError)
	rounds := flags.Int("rounds", 7, "rounds that count; each boots every contestant once")
	warmups := flags.Int("warmups", 1, "rounds before them that don't")
	scenario := flags.String("scenario", "all", "baked (images in the engine), cold (images in the registry) or all")
	agent := flags.String("flowagent", "", "the agent's binary")
	if err := command.Parse(flags, arguments); err != nil {
		return err
	}
	if *agent == "" || *rounds < 1 || *warmups < 0 || !slices.Contains([]string{"all", "baked", "cold"}, *scenario) {
		return fmt.Errorf("-flowagent names the binary, -rounds is at least 1, -warmups at least 0, -scenario baked, cold or all: %w", command.ErrUsage)
	}
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGINT, unix.SIGTERM)
	defer stop()

	b, err := newBench(*agent)
	if err != nil {
		return err
	}
	defer b.close()
	if err := b.prepare(ctx); err != nil {
		return err
	}
	about, err := b.about(ctx)
	if err != nil {
		return err
	}
	fmt.Printf("%s; median (min–max) of %d rounds after %d to warm up.\n", about, *rounds, *warmups)
	for _, s := range scenarios {
		if *scenario != "all" && *scenario != s.name {
			continue
		}
		results, err := b.contest(ctx, s, *warmups, *rounds)
		if err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
		fmt.Println()
		if err := results.print(os.Stdout); err != nil {
			return err
		}
	}
	return nil
}
