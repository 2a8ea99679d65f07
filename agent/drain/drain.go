// Package drain lets a node go of its work, in steps that share a budget.
//
// What enters are the steps and a deadline, after the node has announced that it leaves; what leaves is a node without
// work and without secrets, and the errors of the steps that failed. A failed or late step never keeps the next one from
// running, and a deadline only ever comes nearer.
package drain

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/flowviz/flowagent/agent/config"
	"github.com/flowviz/flowagent/agent/drain/inflight"
	"github.com/flowviz/flowagent/agent/report"
)

// Request is one wish to drain.
type Request struct {
	// Reason is free text for events and status.
	Reason string `json:"reason"`
	// Trigger says who wishes it: operator, shutdown, stop, terminate, warm-pool, spot or rebalance; empty for operator.
	Trigger string `json:"trigger,omitempty"`
	// Budget replaces the configured one; zero keeps it.
	Budget config.Duration `json:"budget,omitempty"`
	// Until is when the node is gone whatever is done, such as a spot instance; zero for unknown.
	Until time.Time `json:"until,omitzero"`
}

// Step is one part of a drain.
type Step struct {
	// Name is a word for events, status and metrics: edge, requests, services, hooks or secrets.
	Name string
	// Weight is the step's part of what is left of the budget, beside the weights of those after it. 0 is a step that takes
	// no time to speak of: it may have all.
	Weight int
	// Least is what the step may take also where the steps before it have used the budget up; zero for nothing.
	Least time.Duration
	// Always says that the step has a context of its own, which the end of the budget doesn't cancel: the node must not be
	// left with its secrets. Such a step bounds itself.
	Always bool
	// Final says that the drain can't be taken back any more once this step has begun.
	Final bool
	// Run does it. Its context ends when its share of the budget does, with a cause that says so.
	Run func(ctx context.Context) error
}

var (
	// ErrTakenBack is how a drain ends that was taken back: the node has its work and its secrets as before.
	ErrTakenBack = errors.New("the drain was taken back")
	// ErrTooLate is why a drain can't be taken back any more.
	ErrTooLate = errors.New("too late to take the drain back")

	errTimeUp = errors.New("the time for it is over")
)

// Drain is one drain, from the moment that somebody wishes it.
type Drain struct {
	log      *slog.Logger
	recorder *report.Recorder

	mu       sync.Mutex
	request  Request
	started  time.Time
	deadline time.Time
	timer    *time.Timer // ends the budget
	note     string      // what the step under way waits for
	final    string      // the step after which there is no way back, once it has begun
	requests *inflight.Tally
	ended    time.Time
	failed   error
	spent    chan struct{} // closed when the budget is
	back     chan struct{} // closed when the drain is taken back
}

// New begins to count the budget of a drain.
func New(log *slog.Logger, request Request, budget time.Duration) *Drain {
	now := time.Now()
	d := &Drain{log: log, recorder: report.NewRecorder(log), request: request, started: now, deadline: now.Add(budget),
		spent: make(chan struct{}), back: make(chan struct{})}
	d.timer = time.AfterFunc(budget, func() { close(d.spent) })
	if !request.Until.IsZero() {
		d.Hasten(request)
	}
	return d
}

// Hasten takes one more wish into account while the drain runs: the earliest deadline holds.
func (d *Drain) Hasten(request Request) {
	until := request.Until
	if request.Budget > 0 {
		if byBudget := time.Now().Add(time.Duration(request.Budget)); until.IsZero() || byBudget.Before(until) {
			until = byBudget
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if until.IsZero() || !until.Before(d.deadline) || !d.ended.IsZero() {
		return
	}
	d.deadline = until
	if d.timer.Stop() {
		d.timer.Reset(max(time.Until(until), 0))
	}
	d.log.Info("drain has less time", "reason", request.Reason, "deadline", until.UTC().Format(time.RFC3339))
}

// TakeBack ends the drain after the step under way, which is cut short, and has Run return ErrTakenBack. Its error wraps
// ErrTooLate once a final step has begun or the drain has ended. Doing it twice is harmless.
func (d *Drain) TakeBack() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case d.takenBack():
		return nil
	case !d.ended.IsZero():
		return fmt.Errorf("%w: it has ended", ErrTooLate)
	case d.final != "":
		return fmt.Errorf("%w: it is at its step %s", ErrTooLate, d.final)
	}
	close(d.back)
	return nil
}

func (d *Drain) takenBack() bool {
	select {
	case <-d.back:
		return true
	default:
		return false
	}
}

// enter begins a step; false when the drain was taken back before.
func (d *Drain) enter(step Step) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.takenBack() {
		return false
	}
	d.note = ""
	if step.Final && d.final == "" {
		d.final = step.Name
	}
	return true
}

// Deadline is when the budget ends.
func (d *Drain) Deadline() time.Time {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.deadline
}

// Note says what the step under way waits for, such as requests that are still answered.
func (d *Drain) Note(text string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.note = text
}

// Requests says which requests are under way, for the note and as numbers.
func (d *Drain) Requests(counts inflight.Counts) {
	total := counts.Total()
	d.mu.Lock()
	defer d.mu.Unlock()
	d.note, d.requests = counts.String(), &total
}

// Run goes through the steps and returns what failed in them, joined; ErrTakenBack alone when the drain was taken back. It
// is called once.
func (d *Drain) Run(ctx context.Context, steps []Step) error {
	d.log.InfoContext(ctx, "drain started", "reason", d.request.Reason, "trigger", d.request.Trigger, "budget", time.Until(d.Deadline()).Round(time.Millisecond))
	budget, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	go func() {
		select {
		case <-d.spent:
			cancel(errTimeUp)
		case <-d.back: // which nobody closes once a final step has begun
			cancel(ErrTakenBack)
		case <-budget.Done():
		}
	}()
	var failed []error
	for i, step := range steps {
		if !d.enter(step) {
			break
		}
		if err := d.step(ctx, budget, step, steps[i:]); err != nil {
			failed = append(failed, err)
		}
	}
	err := errors.Join(failed...)
	d.mu.Lock()
	d.timer.Stop()
	if d.takenBack() {
		err = ErrTakenBack // what failed in the step that was cut short did so for this
	}
	d.ended, d.failed, d.note = time.Now(), err, ""
	elapsed := d.ended.Sub(d.started).Round(time.Millisecond)
	d.mu.Unlock()
	if errors.Is(err, ErrTakenBack) {
		d.log.InfoContext(ctx, "drain taken back", "reason", d.request.Reason, "elapsed", elapsed)
		return ErrTakenBack
	}
	if err != nil {
		d.log.ErrorContext(ctx, "drain ended with failures", "reason", d.request.Reason, "elapsed", elapsed, "error", err)
		return err
	}
	d.log.InfoContext(ctx, "drain done", "reason", d.request.Reason, "elapsed", elapsed)
	return nil
}

func (d *Drain) step(parent, budget context.Context, step Step, rest []Step) error {
	err := d.recorder.Do(parent, "drain."+step.Name, func(ctx context.Context, _ *report.Span) error {
		if step.Always {
			return step.run(context.WithoutCancel(ctx))
		}
		left := share(time.Until(d.Deadline()), step, rest)
		if left < step.Least {
			ctx, cancel := context.WithTimeoutCause(ctx, step.Least, errTimeUp)
			defer cancel()
			return step.run(ctx)
		}
		ctx, cancel := context.WithDeadlineCause(budget, time.Now().Add(left), errTimeUp)
		defer cancel()
		return step.run(ctx)
	})
	if err != nil {
		return fmt.Errorf("%s: %w", step.Name, err)
	}
	return nil
}

// run has the step say why its context ended where it says no more than that it did.
func (s Step) run(ctx context.Context) error {
	err := s.Run(ctx)
	if err != nil && err == ctx.Err() {
		return context.Cause(ctx)
	}
	return err
}

// share is what the first of the steps may take of what is left.
func share(left time.Duration, step Step, rest []Step) time.Duration {
	total := 0
	for _, s := range rest {
		total += s.Weight
	}
	if step.Weight > 0 && total > step.Weight {
		left = time.Duration(float64(left) * float64(step.Weight) / float64(total))
	}
	return left
}

// Status is how far the drain is.
func (d *Drain) Status() report.Drain {
	stages := d.recorder.Stages()
	d.mu.Lock()
	defer d.mu.Unlock()
	status := report.Drain{
		Reason: d.request.Reason, Trigger: d.request.Trigger, Started: d.started, Deadline: d.deadline, Ended: d.ended,
		Waiting: d.note, Requests: d.requests, Steps: stages,
	}
	switch {
	case errors.Is(d.failed, ErrTakenBack):
		status.TakenBack = true
	case d.failed != nil:
		status.Error = d.failed.Error()
	}
	return status
}
