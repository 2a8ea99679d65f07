// Command health measures what /health costs beside a bare net/http handler that serves the same bytes, in turns, on 1
// and on 50 connections that are kept.
//
//	health [-rounds 10] [-duration 2s]
//
// What enters is wrk, which makes the load; what leaves is a table on standard output. All of it stays on 127.0.0.1. It
// never judges: a ratio beyond its bound ends with 0, too. Only a server that fails a request ends it with 1.
//
// Both contestants are this program, executed again: neither shares a runtime with the other or with the load.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"time"

	"golang.org/x/sys/unix"

	"github.com/flowviz/flowagent/test/bench/command"
	"github.com/flowviz/flowagent/test/bench/figures"
)

func main() { command.Main(run) }

func run(arguments []string) error {
	flags := flag.NewFlagSet("health", flag.ContinueOnError)
	rounds := flags.Int("rounds", 10, "rounds that count; each loads both contestants. An even number lets both go first as often")
	warmups := flags.Int("warmups", 1, "rounds before them that don't")
	duration := flags.Duration("duration", 2*time.Second, "how long one load lasts, in whole seconds")
	contestant := flags.String("serve", "", "be that contestant instead, until SIGTERM: the bench's own use")
	if err := command.Parse(flags, arguments); err != nil {
		return err
	}
	if *rounds < 1 || *warmups < 0 || *duration < time.Second || *duration%time.Second != 0 {
		return fmt.Errorf("-rounds is at least 1, -warmups at least 0, -duration whole seconds: %w", command.ErrUsage)
	}
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGINT, unix.SIGTERM)
	defer stop()
	if *contestant != "" {
		return serve(ctx, *contestant, os.Stdout)
	}

	wrk, err := exec.LookPath("wrk")
	if err != nil {
		return fmt.Errorf("%w: run `scripts/setup.sh bench`", err)
	}
	machine, err := figures.Machine()
	if err != nil {
		return err
	}
	ready, err := readyMade()
	if err != nil {
		return err
	}
	fmt.Printf("%s, an answer %d with %d bytes; median (min–max) of %d rounds of %v after %d to warm up.\n",
		machine, ready.code, len(ready.body), *rounds, *duration, *warmups)
	b := bench{wrk: wrk, duration: *duration}
	var results results
	for i := range *warmups + *rounds {
		took, err := b.round(ctx, i)
		if err != nil {
			return err
		}
		if i >= *warmups {
			results = append(results, took)
		}
		fmt.Fprintf(os.Stderr, "bench: health: %d of %d rounds\n", i+1, *warmups+*rounds)
	}
	return results.print(os.Stdout)
}
