package main

import (
	"fmt"
	"io"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/flowviz/flowagent/test/bench/figures"
)

const (
	// interval is the agent's default for the target lifecycle state.
	interval = 2 * time.Second
	// The promises for a node that leaves.
	beyondLimit   = time.Second
	noticeLimit   = interval + 100*time.Millisecond
	questionLimit = 0.5 // a second
)

// round is what one drain took.
type round struct {
	noticed   time.Duration // from the change of the metadata to /health's 503
	completed time.Duration // from the end of the last request to the call that completes the hook
	stopping  time.Duration // what of that the containers needed, from their signal to their end
	questions float64       // to instance metadata, a second, between the boot and the change
}

// results are all rounds.
type results []round

// print writes the table, and the figures with a bound below it.
func (r results) print(w io.Writer) error {
	seconds := func(of func(round) time.Duration) []float64 {
		var values []float64
		for _, one := range r {
			values = append(values, of(one).Seconds())
		}
		return values
	}
	noticed := seconds(func(one round) time.Duration { return one.noticed })
	beyond := seconds(func(one round) time.Duration { return one.completed - one.stopping })
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, line := range []struct {
		name   string
		values []float64
	}{
		{"metadata change to /health 503", noticed},
		{"last request's end to CompleteLifecycleAction", seconds(func(one round) time.Duration { return one.completed })},
		{"  the containers' own stop", seconds(func(one round) time.Duration { return one.stopping })},
		{"  beyond that", beyond},
	} {
		fmt.Fprintf(t, "%s\t%s\n", line.name, figures.Spread("%.2f", "s", line.values))
	}
	if err := t.Flush(); err != nil {
		return err
	}
	fmt.Fprintf(w, "metadata change to /health 503, at most: %.3f s; at most %.1f: %s\n",
		slices.Max(noticed), noticeLimit.Seconds(), figures.Verdict(slices.Max(noticed) <= noticeLimit.Seconds()))
	fmt.Fprintf(w, "last request's end to CompleteLifecycleAction, beyond the containers' own stop, at most: %.3f s; at most %.0f: %s\n",
		slices.Max(beyond), beyondLimit.Seconds(), figures.Verdict(slices.Max(beyond) <= beyondLimit.Seconds()))
	asked := r[0].questions // over the longest time
	_, err := fmt.Fprintf(w, "questions to instance metadata: %.2f a second; at most %.1f: %s\n", asked, questionLimit, figures.Verdict(asked <= questionLimit))
	return err
}

// span is the time between a container's stop signal and its end.
type span struct{ from, to time.Time }

// together is how long at least one of the spans lasted.
func together(spans []span) time.Duration {
	ordered := slices.SortedFunc(slices.Values(spans), func(a, b span) int { return a.from.Compare(b.from) })
	var total time.Duration
	var until time.Time
	for _, s := range ordered {
		if s.from.Before(until) {
			s.from = until
		}
		if s.to.After(s.from) {
			total += s.to.Sub(s.from)
			until = s.to
		}
	}
	return total
}
