package main

import (
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/flowviz/flowagent/test/bench/figures"
)

const (
	// megabyte is the promise's: ten to the six, so that nobody gains 5 % by counting in powers of two.
	megabyte = 1e6
	// The promises for a node that is up.
	residentLimit = 25 * megabyte
	shareLimit    = 0.002 // of one core
	binaryLimit   = 30 * megabyte
	// parts is in how many parts a window is looked at: enough to see a burst, and each several probes long.
	parts = 6
)

// cost is what the agent used in a window.
type cost struct {
	memories []memory  // at the end of each slice
	shares   []float64 // of one core, in each slice
	share    float64   // in the whole window
}

// sample is one look at the agent.
type sample struct {
	at     time.Time
	used   time.Duration
	memory memory
}

// costOf makes a cost of looks at the beginning of a window and at the end of each slice.
func costOf(samples []sample) cost {
	var c cost
	share := func(from, to sample) float64 { return (to.used - from.used).Seconds() / to.at.Sub(from.at).Seconds() }
	for i, to := range samples[1:] {
		c.memories = append(c.memories, to.memory)
		c.shares = append(c.shares, share(samples[i], to))
	}
	c.share = share(samples[0], samples[len(samples)-1])
	return c
}

func (c cost) print(w io.Writer, binary int64) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	most := 0.0
	line := func(name string, of func(memory) int64) []float64 {
		var values []float64
		for _, m := range c.memories {
			values = append(values, float64(of(m))/megabyte)
		}
		fmt.Fprintf(t, "  %s\t%s\n", name, figures.Spread("%.1f", "MB", values))
		return values
	}
	fmt.Fprintf(t, "flowagent, idle\tmedian (min–max) of %d looks\n", parts)
	for _, resident := range line("resident", func(m memory) int64 { return m.resident }) {
		most = max(most, resident)
	}
	line("  its own (anonymous)", func(m memory) int64 { return m.anonymous })
	line("  of the binary (file)", func(m memory) int64 { return m.file })
	line("proportional (PSS)", func(m memory) int64 { return m.proportional })
	percent := make([]float64, len(c.shares))
	for i, share := range c.shares {
		percent[i] = 100 * share
	}
	fmt.Fprintf(t, "  processor, of one core\t%s\n", figures.Spread("%.2f", "%", percent))
	if err := t.Flush(); err != nil {
		return err
	}
	fmt.Fprintf(w, "resident, its own and the binary's, at most: %.1f MB; at most %.0f: %s\n",
		most, residentLimit/megabyte, figures.Verdict(most*megabyte <= residentLimit))
	fmt.Fprintf(w, "processor over the whole window: %.3f %% of one core; at most %.1f: %s\n",
		100*c.share, 100*shareLimit, figures.Verdict(c.share <= shareLimit))
	_, err := fmt.Fprintf(w, "stripped binary: %.1f MB; at most %.0f: %s\n",
		float64(binary)/megabyte, binaryLimit/megabyte, figures.Verdict(float64(binary) <= binaryLimit))
	return err
}
