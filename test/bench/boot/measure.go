package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/flowviz/flowagent/agent/report"
)

const (
	// pollEvery is how exactly an answer is timed: a hundredth of the fastest boot.
	pollEvery = 10 * time.Millisecond
	// bootLimit is far above any boot, the slowest of which takes seconds on a busy machine.
	bootLimit = 2 * time.Minute
)

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
func measure(ctx context.Context, b boot) (figures timing, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, bootLimit, fmt.Errorf("not up after %v", bootLimit))
	defer cancel()
	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	var open opened
	if b.opening != nil {
		open = sync.OnceValue(b.opening(ctx)) // it looks from before the start on, so as not to miss anything
	}
	p, err := start(b)
	if err != nil {
		return timing{}, err
	}
	defer p.close()
	go func() {
		<-p.ended
		if p.err != nil || b.node != "" {
			fail(fmt.Errorf("it ended early: %w", cmp.Or(p.err, errors.New("exit status 0"))))
		}
	}()

	var group errgroup.Group
	answered := func(url string, after *time.Duration) func() error {
		return func() (err error) {
			if err := open(); err != nil {
				return err
			}
			*after, err = poll(ctx, url, p.started)
			return err
		}
	}
	if b.app != "" {
		group.Go(answered(b.app, &figures.app))
	}
	if b.node != "" {
		group.Go(answered(b.node, &figures.done))
	} else {
		group.Go(func() (err error) {
			figures.done, err = p.end(ctx)
			return err
		})
	}
	err = group.Wait()
	p.stop()
	if err != nil {
		return timing{}, fmt.Errorf("%w%s", err, p.lastOutput())
	}
	figures.start = p.started
	if b.record != nil {
		record, err := b.record()
		if err != nil {
			return timing{}, err
		}
		figures.stages = record.Stages
	}
	return figures, nil
}

// asker makes a connection for each request, as a load balancer's first probe does: one that was kept could belong to a
// container that is gone.
var asker = &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: time.Second}

// poll asks url until it answers 200, and says how long after start that was.
func poll(ctx context.Context, url string, start time.Time) (time.Duration, error) {
	ticker := time.NewTicker(pollEvery)
	defer ticker.Stop()
	for {
		if answers(ctx, url) {
			return time.Since(start), nil
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return 0, context.Cause(ctx)
		}
	}
}

func answers(ctx context.Context, url string) bool {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return false
	}
	response, err := asker.Do(request)
	if err != nil {
		return false
	}
	defer response.Body.Close()
	return response.StatusCode == http.StatusOK
}
