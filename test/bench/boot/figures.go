package main

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/flowviz/flowagent/agent/report"
)

// results are the figures of one scenario's rounds.
type results struct {
	scenario scenario
	rounds   []round
}

// round is what each step took in one round, by the step's name.
type round map[string]timing

func (r *results) add(figures round) { r.rounds = append(r.rounds, figures) }

// print writes tables for people: the median, with the smallest and the largest value in parentheses.
func (r *results) print(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(t, "%s\tapplication answers\tdone\n", r.scenario.title)
	for _, turn := range r.scenario.turns {
		for _, s := range turn {
			app := r.values(func(figures round) time.Duration { return figures[s.name].app })
			done := r.values(func(figures round) time.Duration { return figures[s.name].done })
			fmt.Fprintf(t, "  %s\t%s\t%s\n", s.name, seconds(app), seconds(done))
		}
	}
	if err := t.Flush(); err != nil {
		return err
	}
	bound := r.scenario.bound
	app, node := r.ratios(bound.steps)
	verdict := "within"
	if median(node) > bound.limit {
		verdict = "beyond"
	}
	fmt.Fprintf(w, "%s ÷ (%s): application %s, its own /health %s; at most %.1f: %s\n",
		stepAgent, strings.Join(bound.steps, " + "), times(app), times(node), bound.limit, verdict)
	app, node = r.ratios([]string{stepScript})
	fmt.Fprintf(w, "%s ÷ %s: application %s, its own /health %s\n", stepAgent, stepScript, times(app), times(node))
	return r.printStages(w)
}

// values has an entry for each round that has a value.
func (r *results) values(of func(round) time.Duration) []time.Duration {
	var values []time.Duration
	for _, figures := range r.rounds {
		if d := of(figures); d > 0 {
			values = append(values, d)
		}
	}
	return values
}

// ratios compare the agent with the sum of steps in each round, whose contestants had the same neighbours: until the
// application answered, and until the node said that it is ready.
func (r *results) ratios(steps []string) (app, node []float64) {
	for _, figures := range r.rounds {
		var sum time.Duration
		for _, name := range steps {
			sum += figures[name].work()
		}
		agent := figures[stepAgent]
		app = append(app, agent.app.Seconds()/sum.Seconds())
		node = append(node, agent.done.Seconds()/sum.Seconds())
	}
	return app, node
}

// printStages says where the agent's time went, by its own record.
func (r *results) printStages(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(t, "Stages of %s (some overlap)\tbegins after\ttakes\n", stepAgent)
	for _, stage := range r.rounds[0][stepAgent].stages {
		begins := r.values(func(figures round) time.Duration {
			return figures.stage(stage.Name).Started.Sub(figures[stepAgent].start)
		})
		takes := r.values(func(figures round) time.Duration {
			found := figures.stage(stage.Name)
			return found.Ended.Sub(found.Started)
		})
		fmt.Fprintf(t, "  %s\t%s\t%s\n", stage.Name, seconds(begins), seconds(takes))
	}
	return t.Flush()
}

// stage is zero where the agent had none of that name.
func (r round) stage(name string) report.Stage {
	for _, stage := range r[stepAgent].stages {
		if stage.Name == name {
			return stage
		}
	}
	return report.Stage{}
}

func seconds(values []time.Duration) string {
	if len(values) == 0 {
		return "–"
	}
	return fmt.Sprintf("%.3f s (%.3f–%.3f)", median(values).Seconds(), slices.Min(values).Seconds(), slices.Max(values).Seconds())
}

func times(values []float64) string {
	return fmt.Sprintf("%.2f (%.2f–%.2f)", median(values), slices.Min(values), slices.Max(values))
}

// median of at least one value.
func median[T float64 | time.Duration](values []T) T {
	sorted := slices.Sorted(slices.Values(values))
	middle := len(sorted) / 2
	if len(sorted)%2 == 1 {
		return sorted[middle]
	}
	return (sorted[middle-1] + sorted[middle]) / 2
}
