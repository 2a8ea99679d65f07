package report

import (
	"context"
	"log/slog"
	"sync"
	"time"
)

// Stage is one phase of a node's boot, or one step of its drain, as it went, or goes.
type Stage struct {
	// Name is config, node, project, engine, secrets, images, workload or checks; of a drain's steps drain.edge and so on.
	Name string `json:"name"`
	// Started is when the stage began.
	Started time.Time `json:"started"`
	// Ended is zero while the stage is under way.
	Ended time.Time `json:"ended,omitzero"`
	// Attempts counts the tries, the first included.
	Attempts int `json:"attempts"`
	// Error is why the stage failed; empty when it did not.
	Error string `json:"error,omitempty"`
}

// Elapsed is the time between start and end, or up to now for a stage under way.
func (s Stage) Elapsed(now time.Time) time.Duration {
	if s.Ended.IsZero() {
		return now.Sub(s.Started)
	}
	return s.Ended.Sub(s.Started)
}

// Recorder writes one event at each stage's start and end and keeps the timeline they make. It is safe for
// concurrent use, because stages overlap.
type Recorder struct {
	log *slog.Logger
	now func() time.Time

	mu     sync.Mutex
	stages []Stage
}

// NewRecorder records with the wall clock.
func NewRecorder(log *slog.Logger) *Recorder {
	return &Recorder{log: log, now: time.Now}
}

// Do runs one stage between its start and its end event and returns its error unchanged.
func (r *Recorder) Do(ctx context.Context, name string, stage func(ctx context.Context, s *Span) error) error {
	span := r.start(ctx, name)
	err := stage(ctx, span)
	span.end(ctx, err)
	return err
}

// Stages returns the timeline so far, in order of start.
func (r *Recorder) Stages() []Stage {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]Stage(nil), r.stages...)
}

// Span is a stage under way.
type Span struct {
	recorder *Recorder
	index    int
	attrs    []any
}

// Retry counts one more attempt and says why the last one failed.
func (s *Span) Retry(ctx context.Context, err error, wait time.Duration) {
	s.recorder.mu.Lock()
	s.recorder.stages[s.index].Attempts++
	stage := s.recorder.stages[s.index]
	s.recorder.mu.Unlock()
	s.recorder.log.WarnContext(ctx, "stage tries again", "phase", stage.Name, "attempt", stage.Attempts, "wait", wait.Round(time.Millisecond), "error", err)
}

// Note adds a fact to the end event, as slog key and value.
func (s *Span) Note(key string, value any) { s.attrs = append(s.attrs, key, value) }

func (r *Recorder) start(ctx context.Context, name string) *Span {
	r.mu.Lock()
	r.stages = append(r.stages, Stage{Name: name, Started: r.now(), Attempts: 1})
	index := len(r.stages) - 1
	r.mu.Unlock()
	r.log.InfoContext(ctx, "stage started", "phase", name)
	return &Span{recorder: r, index: index}
}

func (s *Span) end(ctx context.Context, err error) {
	r := s.recorder
	r.mu.Lock()
	stage := &r.stages[s.index]
	stage.Ended = r.now()
	if err != nil {
		stage.Error = err.Error()
	}
	done := *stage
	r.mu.Unlock()
	attrs := append([]any{"phase", done.Name, "elapsed", done.Elapsed(done.Ended).Round(time.Millisecond)}, s.attrs...)
	if err != nil {
		r.log.ErrorContext(ctx, "stage failed", append(attrs, "error", err)...)
		return
	}
	r.log.InfoContext(ctx, "stage done", attrs...)
}
