package e2e

import (
	"bytes"
	"cmp"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"text/tabwriter"
	"time"

	"github.com/flowviz/flowagent/test/lab"
)

// verdict is what a run with replaced nodes shows; see the test behind the build tag fleet.
type verdict struct {
	wanted         int // requests, at least
	replacements   []*replacement
	answers        []lab.LoadAnswer  // as clients had them
	seen           []lab.EdgeRequest // as the edge saw them
	jobs           []job             // as the database has them
	ordered        int               // jobs, as clients had them
	unacknowledged int               // jobs that the queue still holds
	took           time.Duration
}

// replacement is what happened when a node left and another one came.
type replacement struct {
	slot, trigger   string
	api             string    // the node's, as the edge has it
	worker          string    // the address of the worker that left
	began           time.Time // of the drain
	drained, joined time.Duration
}

// job is a row of the table jobs, and when workers had it in hand.
type job struct {
	id, state string
	runs      []jobRun
}

type jobRun struct {
	worker       string
	began, ended time.Time // the latter is zero for one that didn't finish
}

func (r jobRun) String() string {
	ended := "never"
	if !r.ended.IsZero() {
		ended = r.ended.UTC().Format(time.StampMilli)
	}
	return fmt.Sprintf("%s from %s to %s", r.worker, r.began.UTC().Format(time.StampMilli), ended)
}

// slowRequest is from when a request is one that a node that leaves has to wait for. All others take milliseconds.
const slowRequest = time.Second

// underWay tells what a node had to do when it began to leave.
func (v verdict) underWay(r *replacement) (requests, slow, jobs int) {
	for _, request := range v.seen {
		if request.Node == r.api && request.Began.Before(r.began) && request.Ended.After(r.began) {
			requests++
			if request.Ended.Sub(request.Began) >= slowRequest {
				slow++
			}
		}
	}
	for _, j := range v.jobs {
		for _, run := range j.runs {
			if run.worker == r.worker && run.began.Before(r.began) && (run.ended.IsZero() || run.ended.After(r.began)) {
				jobs++
			}
		}
	}
	return requests, slow, jobs
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

// tasks counts the jobs by what became of them.
func (v verdict) tasks() (once, lost, twice int) {
	for _, j := range v.jobs {
		switch {
		case len(j.runs) > 1:
			twice++
		case j.finishedOnce():
			once++
		default:
			lost++
		}
	}
	return once, lost, twice
}

func (j job) finishedOnce() bool {
	return j.state == "done" && len(j.runs) == 1 && !j.runs[0].ended.IsZero()
}

// shownAtMost is how many failures of a kind are shown: they mostly have the same cause.
const shownAtMost = 20

// problems are what the run should not have shown.
func (v verdict) problems() []string {
	var found []string
	problem := func(format string, arguments ...any) { found = append(found, fmt.Sprintf(format, arguments...)) }
	failed := v.failed()
	for _, a := range failed[:min(len(failed), shownAtMost)] {
		problem("%s %s of %s: status %d after %v: %s", a.Method, a.URL, a.Began.UTC().Format(time.StampMilli), a.Code, a.Latency, a.Error)
	}
	if len(failed) > 0 {
		problem("%d requests failed, want none", len(failed))
	}
	for _, what := range v.edgeFailures() {
		problem("the edge answered %s", what)
	}
	if len(v.answers) < v.wanted {
		problem("clients made %d requests, want %d at least", len(v.answers), v.wanted)
	}
	// Go's client makes a request again when a kept connection was closed under it. Here that would be one too many.
	if len(v.seen) != len(v.answers) {
		problem("the edge saw %d requests and clients made %d, want the same", len(v.seen), len(v.answers))
	}
	if len(v.jobs) != v.ordered {
		problem("clients ordered %d tasks and the database has %d, want the same", v.ordered, len(v.jobs))
	}
	shown := 0
	for _, j := range v.jobs {
		if j.finishedOnce() || shown == shownAtMost {
			continue
		}
		shown++
		problem("task %s is %s after these runs: %v", j.id, j.state, j.runs)
	}
	if _, lost, twice := v.tasks(); lost+twice > 0 {
		problem("%d tasks were lost and %d were run twice, want none", lost, twice)
	}
	if v.unacknowledged != 0 {
		problem("the queue holds %d tasks that it will hand out again, want none", v.unacknowledged)
	}
	var requests, slow, jobs int
	for _, r := range v.replacements {
		a, b, c := v.underWay(r)
		requests, slow, jobs = requests+a, slow+b, jobs+c
	}
	if requests == 0 || slow == 0 || jobs == 0 {
		problem("nodes that left had %d requests under way, %d of them slow, and %d tasks in hand: this run shows nothing", requests, slow, jobs)
	}
	return found
}

// edgeFailures are what the edge answered that is no success, on whose word, and how often.
func (v verdict) edgeFailures() []string {
	counts := map[string]int{}
	for _, r := range v.seen {
		switch {
		case r.Status < http.StatusBadRequest:
		case r.Node == "":
			counts[fmt.Sprintf("%d, since no node was in", r.Status)]++
		default:
			counts[fmt.Sprintf("%d, since %s answered %s", r.Status, r.Node, r.NodeStatus)]++
		}
	}
	var lines []string
	for what, count := range counts {
		lines = append(lines, fmt.Sprintf("%s: %d times", what, count))
	}
	slices.Sort(lines)
	return lines
}

func (v verdict) print(w io.Writer) {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintf(table, "\nnode\tleft by\tdrain\tsuccessor in\trequests under way\tof %v or longer\ttasks in hand\t\n", slowRequest)
	for _, r := range v.replacements {
		requests, slow, jobs := v.underWay(r)
		fmt.Fprintf(table, "%s\t%s\t%.1f s\t%.1f s\t%d\t%d\t%d\t\n", r.slot, r.trigger, r.drained.Seconds(), r.joined.Seconds(), requests, slow, jobs)
	}
	_ = table.Flush() // to memory or the terminal
	once, lost, twice := v.tasks()
	latencies := make([]time.Duration, 0, len(v.answers))
	for _, a := range v.answers {
		latencies = append(latencies, a.Latency)
	}
	slices.SortFunc(latencies, cmp.Compare[time.Duration])
	fmt.Fprintf(w, `
replacements  %d
requests      %d in %.0f s, %.0f a second
failed        %d
tasks         %d enqueued, %d finished once, %d lost, %d run twice
latency       p50 %v, p95 %v, p99 %v, p99.9 %v, with requests that wait for a task
`, len(v.replacements), len(v.answers), v.took.Seconds(), float64(len(v.answers))/v.took.Seconds(), len(v.failed()),
		v.ordered, once, lost, twice,
		percentile(latencies, 0.5), percentile(latencies, 0.95), percentile(latencies, 0.99), percentile(latencies, 0.999))
}

// percentile is the latency that a share of them doesn't exceed.
func percentile(sorted []time.Duration, share float64) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[min(len(sorted)-1, int(share*float64(len(sorted))))].Round(time.Millisecond)
}

// flawless is the verdict on a small run in which nothing went wrong.
func flawless() verdict {
	at := time.Date(2026, 11, 24, 9, 0, 0, 0, time.UTC)
	run := jobRun{worker: "172.18.0.5", began: at.Add(-time.Second), ended: at.Add(time.Second)}
	return verdict{
		wanted:       2,
		replacements: []*replacement{{slot: "left", trigger: "an operator", api: "198.51.100.1:8000", worker: "172.18.0.5", began: at}},
		answers:      []lab.LoadAnswer{{Code: 200, Latency: 2 * time.Millisecond}, {Code: 200, Latency: 3 * time.Second}},
		seen: []lab.EdgeRequest{
			{Status: 200, Node: "198.51.100.2:8000", NodeStatus: "200", Began: at.Add(-2 * time.Millisecond), Ended: at},
			{Status: 200, Node: "198.51.100.1:8000", NodeStatus: "200", Began: at.Add(-time.Second), Ended: at.Add(2 * time.Second)},
		},
		jobs:    []job{{id: "one", state: "done", runs: []jobRun{run}}},
		ordered: 1,
		took:    10 * time.Second,
	}
}

func TestAVerdictFindsWhatARunShouldNotShow(t *testing.T) {
	t.Parallel()
	if found := flawless().problems(); len(found) > 0 {
		t.Fatalf("a flawless run: got %q", found)
	}
	for what, c := range map[string]struct {
		spoil func(*verdict)
		want  string
	}{
		"a failed request":      {func(v *verdict) { v.answers[0].Failed = true }, "1 requests failed"},
		"a failure at the edge": {func(v *verdict) { v.seen[0].Status, v.seen[0].NodeStatus = 502, "-" }, "502, since 198.51.100.2:8000 answered -: 1 times"},
		"no node was in":        {func(v *verdict) { v.seen[0].Status, v.seen[0].Node = 503, "" }, "503, since no node was in: 1 times"},
		"too few requests":      {func(v *verdict) { v.wanted = 3 }, "made 2 requests, want 3"},
		"a repeated request":    {func(v *verdict) { v.seen = append(v.seen, v.seen[0]) }, "saw 3 requests and clients made 2"},
		"a task that is gone":   {func(v *verdict) { v.ordered = 2 }, "ordered 2 tasks and the database has 1"},
		"a task nobody began":   {func(v *verdict) { v.jobs[0].state, v.jobs[0].runs = "queued", nil }, "1 tasks were lost and 0"},
		"a task without an end": {func(v *verdict) { v.jobs[0].state, v.jobs[0].runs[0].ended = "running", time.Time{} }, "1 tasks were lost and 0"},
		"a task that failed":    {func(v *verdict) { v.jobs[0].state = "failed" }, "task one is failed after these runs: [172.18.0.5 from Nov 24 08:59:59.000 to Nov 24 09:00:01.000]"},
		"a task that ran twice": {func(v *verdict) { v.jobs[0].runs = append(v.jobs[0].runs, v.jobs[0].runs[0]) }, "0 tasks were lost and 1"},
		"a task to come again":  {func(v *verdict) { v.unacknowledged = 1 }, "holds 1 tasks"},
		"only fast requests": {func(v *verdict) {
			v.seen[1].Ended = v.replacements[0].began.Add(time.Millisecond / 2)
			v.seen[1].Began = v.replacements[0].began.Add(-1)
		}, "1 requests under way, 0 of them slow"},
		"no task in hand": {func(v *verdict) { v.jobs[0].runs[0].worker = "172.18.0.6" }, "0 tasks in hand: this run shows nothing"},
	} {
		v := flawless()
		c.spoil(&v)
		if found := strings.Join(v.problems(), "\n"); !strings.Contains(found, c.want) {
			t.Errorf("%s: got %q, want %q in it", what, found, c.want)
		}
	}
}

func TestAVerdictPrintsItsCounts(t *testing.T) {
	t.Parallel()
	v := flawless()
	v.jobs = append(v.jobs, job{id: "two", state: "queued"}, job{id: "three", state: "done", runs: []jobRun{v.jobs[0].runs[0], v.jobs[0].runs[0]}})
	v.ordered = 3
	v.answers[0].Failed = true
	var out bytes.Buffer
	v.print(&out)
	for _, want := range []string{
		"\nrequests      2 in 10 s, 0 a second\n", "\nfailed        1\n", "\ntasks         3 enqueued, 1 finished once, 1 lost, 1 run twice\n",
		"p50 3s, p95 3s",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("got this, want %q in it:\n%s", want, out.String())
		}
	}
}
