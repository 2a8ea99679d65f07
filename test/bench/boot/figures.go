package main

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/flowviz/flowagent/agent/report"
	"github.com/flowviz/flowagent/test/bench/figures"
)

// results are the figures of one scenario's rounds.
type results struct {
	scenario scenario
	rounds   []round
}

// round is what each step took in one round, by the step's name.
type round map[string]timing

func (r *results) add(took round) { r.rounds = append(r.rounds, took) }

// print writes tables for people: the median, with the smallest and the largest value in parentheses.
func (r *results) print(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(t, "%s\tapplication answers\tdone\n", r.scenario.title)
	for _, turn := range r.scenario.turns {
		for _, s := range turn {
			app := r.values(func(took round) time.Duration { return took[s.name].app })
			done := r.values(func(took round) time.Duration { return took[s.name].done })
			fmt.Fprintf(t, "  %s\t%s\t%s\n", s.name, seconds(app), seconds(done))
		}
	}
	if err := t.Flush(); err != nil {
		return err
	}
	bound := r.scenario.bound
	app, node := r.ratios(bound.steps)
	verdict := figures.Verdict(figures.Median(node) <= bound.limit)
	fmt.Fprintf(w, "%s ÷ (%s): application %s, its own /health %s; at most %.1f: %s\n",
		stepAgent, strings.Join(bound.steps, " + "), figures.Times(app), figures.Times(node), bound.limit, verdict)
	app, node = r.ratios([]string{stepScript})
	fmt.Fprintf(w, "%s ÷ %s: application %s, its own /health %s\n", stepAgent, stepScript, figures.Times(app), figures.Times(node))
	return r.printStages(w)
}

// values has an entry for each round that has a value.
func (r *results) values(of func(round) time.Duration) []time.Duration {
	var values []time.Duration
	for _, took := range r.rounds {
		if d := of(took); d > 0 {
			values = append(values, d)
		}
	}
	return values
}

// ratios compare the agent with the sum of steps in each round, whose contestants had the same neighbours: until the
// application answered, and until the node said that it is ready.
func (r *results) ratios(steps []string) (app, node []float64) {
	for _, took := range r.rounds {
		var sum time.Duration
		for _, name := range steps {
			sum += took[name].work()
		}
		agent := took[stepAgent]
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
		begins := r.values(func(took round) time.Duration {
			return took.stage(stage.Name).Started.Sub(took[stepAgent].start)
		})
		takes := r.values(func(took round) time.Duration {
			found := took.stage(stage.Name)
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
	numbers := make([]float64, len(values))
	for i, d := range values {
		numbers[i] = d.Seconds()
	}
	return figures.Spread("%.3f", "s", numbers)
}
