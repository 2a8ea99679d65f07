//go:build fleet

package e2e

import (
	"fmt"
	"io"
	"net/http"
	"testing"
	"text/tabwriter"
	"time"

	"github.com/flowviz/flowagent/test/lab"
)

// verdict is what a run shows.
type verdict struct {
	replacements   []*replacement
	answers        []lab.LoadAnswer  // as clients had them
	seen           []lab.EdgeRequest // as the edge saw them
	jobs           []job
	ordered        int
	unacknowledged int
	took           time.Duration
}

func (v verdict) failed() []lab.LoadAnswer {
	var failed []lab.LoadAnswer
	for _, a := range v.answers {
		if a.Failed {
			failed = append(failed, a)
		}
	}
	return failed
}

// edgeFailures counts what the edge answered that is no success, and on whose word.
func (v verdict) edgeFailures() map[string]int {
	counts := map[string]int{}
	for _, r := range v.seen {
		switch {
		case r.Status < http.StatusBadRequest:
		case r.Node == "":
			counts[fmt.Sprintf("%d, for no node was in", r.Status)]++
		default:
			counts[fmt.Sprintf("%d, because %s answered %s", r.Status, r.Node, r.NodeStatus)]++
		}
	}
	return counts
}

// tasks counts the jobs by what became of them.
func (v verdict) tasks() (once, lost, twice int) {
	for _, j := range v.jobs {
		switch {
		case len(j.runs) > 1:
			twice++
		case j.state == "done" && len(j.runs) == 1 && !j.runs[0].ended.IsZero():
			once++
		default:
			lost++
		}
	}
	return once, lost, twice
}

func (v verdict) print(w io.Writer) {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(table, "\nnode\tleft by\tdrain\tsuccessor in\trequests under way\tof 1 s or longer\ttasks in hand\t")
	for _, r := range v.replacements {
		fmt.Fprintf(table, "%s\t%s\t%.1f s\t%.1f s\t%d\t%d\t%d\t\n", r.slot, r.trigger, r.drained.Seconds(), r.joined.Seconds(), r.requests, r.slow, r.jobs)
	}
	table.Flush()
	once, lost, twice := v.tasks()
	latencies := byLatency(v.answers)
	fmt.Fprintf(w, `
replacements  %d
requests      %d in %.0f s, %.0f a second
failed        %d
tasks         %d: %d finished once, %d lost, %d run twice
latency       50%% %v, 95%% %v, 99%% %v, 99.9%% %v; those that wait for a task included
`, len(v.replacements), len(v.answers), v.took.Seconds(), float64(len(v.answers))/v.took.Seconds(), len(v.failed()),
		len(v.jobs), once, lost, twice,
		percentile(latencies, 0.5).Round(100*time.Microsecond), percentile(latencies, 0.95).Round(100*time.Microsecond),
		percentile(latencies, 0.99).Round(time.Millisecond), percentile(latencies, 0.999).Round(time.Millisecond))
}

// shownFailures is how many of a kind are shown: what went wrong once mostly went wrong in the same way again.
const shownFailures = 20

func (v verdict) check(t *testing.T) {
	t.Helper()
	for i, a := range v.failed() {
		if i == shownFailures {
			t.Errorf("and more requests failed, %d in all", len(v.failed()))
			break
		}
		t.Errorf("failed after %v: %s %s at %s: status %d, %s", a.Latency, a.Method, a.URL, a.Began.Format(time.StampMilli), a.Code, a.Error)
	}
	for what, count := range v.edgeFailures() {
		t.Errorf("the edge answered %d times %s", count, what)
	}
	if len(v.answers) < *requests {
		t.Errorf("got %d requests, want %d at least", len(v.answers), *requests)
	}
	// Go's client repeats a request when a kept connection was closed under it. Here that would be one too many.
	if len(v.seen) != len(v.answers) {
		t.Errorf("the edge saw %d requests and clients made %d, want the same", len(v.seen), len(v.answers))
	}
	once, _, _ := v.tasks()
	if len(v.jobs) != v.ordered {
		t.Errorf("clients ordered %d tasks and the database has %d, want the same", v.ordered, len(v.jobs))
	}
	if once != len(v.jobs) {
		shown := 0
		for _, j := range v.jobs {
			if j.state == "done" && len(j.runs) == 1 || shown == shownFailures {
				continue
			}
			shown++
			t.Errorf("task %s is %s after these runs: %+v", j.id, j.state, j.runs)
		}
	}
	if v.unacknowledged != 0 {
		t.Errorf("the queue has %d tasks left that it would hand out again", v.unacknowledged)
	}
	var requests, slow, jobs int
	for _, r := range v.replacements {
		requests, slow, jobs = requests+r.requests, slow+r.slow, jobs+r.jobs
	}
	if requests == 0 || slow == 0 || jobs == 0 {
		t.Errorf("the nodes that left had %d requests under way, %d of them slow, and %d tasks in hand: this run shows nothing", requests, slow, jobs)
	}
}
