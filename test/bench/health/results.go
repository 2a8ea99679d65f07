package main

import (
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/flowviz/flowagent/test/bench/figures"
)

// rateLimit is the promise: what flowagent adds to net/http costs at most a tenth.
const rateLimit = 0.9

// results are all rounds.
type results []round

// print writes a table for each number of connections.
func (r results) print(w io.Writer) error {
	for _, connections := range crowds {
		t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
		fmt.Fprintf(t, "\n/health, %d kept connections\trequests/s\tp50\tp99\n", connections)
		for _, contestant := range contestants {
			values := func(of func(load) float64) []float64 {
				var all []float64
				for _, took := range r {
					all = append(all, of(took[contestant][connections]))
				}
				return all
			}
			micros := func(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }
			fmt.Fprintf(t, "  %s\t%s\t%s\t%s\n", contestant,
				figures.Spread("%.0f", "", values(func(l load) float64 { return l.rate })),
				figures.Spread("%.0f", "µs", values(func(l load) float64 { return micros(l.p50) })),
				figures.Spread("%.0f", "µs", values(func(l load) float64 { return micros(l.p99) })))
		}
		if err := t.Flush(); err != nil {
			return err
		}
		rates := r.ratios(connections, func(l load) float64 { return l.rate })
		latencies := r.ratios(connections, func(l load) float64 { return float64(l.p50) })
		fmt.Fprintf(w, "%s ÷ %s, %d connections: p50 %s, requests/s %s; at least %.1f: %s\n", flowagent, bare, connections,
			figures.Times(latencies), figures.Times(rates), rateLimit, figures.Verdict(figures.Median(rates) >= rateLimit))
	}
	return nil
}

// ratios compare one figure in each round, whose contestants had the same neighbours.
func (r results) ratios(connections int, of func(load) float64) []float64 {
	var ratios []float64
	for _, took := range r {
		ratios = append(ratios, of(took[flowagent][connections])/of(took[bare][connections]))
	}
	return ratios
}
