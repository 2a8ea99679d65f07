package main

import (
	"context"
	"fmt"
	"os"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/flowviz/flowagent/agent/report"
	"github.com/flowviz/flowagent/test/bench/process"
)

// bootLimit is far above any boot, the slowest of which takes seconds on a busy machine.
const bootLimit = 2 * time.Minute

// boot is one process and the ways to see that it has done its work.
type boot struct {
	command []string
	dir     string                       // "" for the current one
	env     []string                     // in addition to the bench's own; the last value of a name wins
	app     string                       // answers 200 when the application is up; "" for a command that starts none
	node    string                       // answers 200 when the node is ready; "" for a command that is done when it ends
	opening func(context.Context) opened // for app and node: see opened
	record  func() (report.Record, error)
	tidyUp  func() error
}

func (b boot) tidy() {
	if b.tidyUp == nil {
		return
	}
	if err := b.tidyUp(); err != nil {
		fmt.Fprintln(os.Stderr, "bench: clean up:", err)
	}
}

// opened waits for the moment from which on it makes sense to ask for answers.
type opened func() error

// timing is how long one boot took, from the start of its process.
type timing struct {
	app    time.Duration // until the application answered; 0 where there is none
	done   time.Duration // until the process ended or, for an agent, until the node answered that it is ready
	start  time.Time
	stages []report.Stage // of an agent, by its own record
}

// work is how long it took until what the command is for was done: the application answered, or the command ended.
func (t timing) work() time.Duration {
	if t.app > 0 {
		return t.app
	}
	return t.done
}

// measure runs the command until it has done its work. An agent is asked to stop then, and has stopped on return.
func measure(ctx context.Context, b boot) (took timing, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, bootLimit, fmt.Errorf("not up after %v", bootLimit))
	defer cancel()
	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	var open opened
	if b.opening != nil {
		open = sync.OnceValue(b.opening(ctx)) // it looks from before the start on, so as not to miss anything
	}
	p, err := process.Start(process.Command{Arguments: b.command, Dir: b.dir, Env: b.env})
	if err != nil {
		return timing{}, err
	}
	defer p.Close()
	go func() {
		if _, err := p.Wait(context.WithoutCancel(ctx)); err != nil || b.node != "" {
			fail(p.Early())
		}
	}()

	var group errgroup.Group
	answered := func(url string, after *time.Duration) func() error {
		return func() (err error) {
			if err := open(); err != nil {
				return err
			}
			*after, err = process.Poll(ctx, url, p.Started)
			return err
		}
	}
	if b.app != "" {
		group.Go(answered(b.app, &took.app))
	}
	if b.node != "" {
		group.Go(answered(b.node, &took.done))
	} else {
		group.Go(func() (err error) {
			took.done, err = p.Wait(ctx)
			return err
		})
	}
	err = group.Wait()
	p.Stop()
	if err != nil {
		return timing{}, p.Blame(err)
	}
	took.start = p.Started
	if b.record != nil {
		record, err := b.record()
		if err != nil {
			return timing{}, err
		}
		took.stages = record.Stages
	}
	return took, nil
}
