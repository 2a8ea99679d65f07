package main

import (
	"context"
	"fmt"
	"os"

	"github.com/flowviz/flowagent/test/bench/figures"
)

// scenario is one state of the machine to boot from, the contestants that do so in turns, and what is compared.
type scenario struct {
	name, title string
	cold        bool // no image is in the engine
	turns       []turn
	bound       bound
}

// turn is one contestant's part of a round. It begins on a clean machine, and its steps follow each other without
// cleaning up in between.
type turn []step

// step is one thing that is timed.
type step struct {
	name string
	boot func(b *bench, dir string) (boot, error) // dir is empty, and removed afterwards
	// delivered asks the running application whether it got its password; nil where none is handed over.
	delivered func(ctx context.Context, password string) error
}

// bound is the comparison that matters: how long the agent takes until its own /health is 200, over the sum of the steps,
// each until it has done its work.
type bound struct {
	steps []string
	limit float64
}

const (
	stepPull   = "docker compose pull"
	stepUp     = "docker compose up"
	stepScript = "user-data.sh"
	stepAgent  = "flowagent run"
)

// boundLimit leaves flowagent a tenth for what the plain commands don't do: to fetch and deliver secrets, to get a token
// for the registry, and to see that every service is up.
const boundLimit = 1.1

var (
	pull        = step{name: stepPull, boot: composePull}
	up          = step{name: stepUp, boot: composeUp, delivered: inEnvironment}
	scriptPulls = step{name: stepScript, boot: userData("1"), delivered: inEnvironment}
	scriptBaked = step{name: stepScript, boot: userData("0"), delivered: inEnvironment}
	agent       = step{name: stepAgent, boot: flowagent, delivered: inFile}

	scenarios = []scenario{
		{
			name: "baked", title: "Images baked in",
			turns: []turn{{up}, {scriptBaked}, {agent}},
			bound: bound{[]string{stepUp}, boundLimit},
		},
		{
			name: "cold", title: "Cold, images in the registry only", cold: true,
			turns: []turn{{pull, up}, {scriptPulls}, {agent}},
			bound: bound{[]string{stepPull, stepUp}, boundLimit},
		},
	}
)

// contest runs the rounds of one scenario.
func (b *bench) contest(ctx context.Context, s scenario, warmups, rounds int) (*results, error) {
	r := &results{scenario: s}
	for i := range warmups + rounds {
		took := round{}
		for _, t := range figures.Order(s.turns, i) {
			if err := b.turn(ctx, s.cold, t, took); err != nil {
				return nil, err
			}
		}
		if i >= warmups {
			r.add(took)
		}
		fmt.Fprintf(os.Stderr, "bench: %s: %d of %d rounds\n", s.name, i+1, warmups+rounds)
	}
	return r, nil
}

func (b *bench) turn(ctx context.Context, cold bool, t turn, took round) (err error) {
	if err := b.clean(ctx, cold); err != nil {
		return fmt.Errorf("clean up before %s: %w", t[0].name, err)
	}
	for _, s := range t {
		if took[s.name], err = b.step(ctx, s); err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
	}
	return nil
}

func (b *bench) step(ctx context.Context, s step) (timing, error) {
	dir, err := os.MkdirTemp(b.dir, "")
	if err != nil {
		return timing{}, err
	}
	defer os.RemoveAll(dir)
	what, err := s.boot(b, dir)
	if err != nil {
		return timing{}, err
	}
	defer what.tidy()
	took, err := measure(ctx, what)
	if err != nil || s.delivered == nil {
		return took, err
	}
	return took, s.delivered(ctx, b.password)
}
