package notice

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync/atomic"
	"time"
)

const (
	// defaultInterval is how late a node may learn of its termination, but for an eightieth more.
	defaultInterval = 2 * time.Second
	// memory bounds what is remembered to tell it only once. An instance lives to see a handful of announcements; a
	// service that makes up a new one for each question must not fill the agent's memory.
	memory = 256
)

var errLate = errors.New("no answer before the next question was due")

// Getter answers questions about the instance, once each. *node.Metadata is one; tests bring another.
type Getter interface {
	// Get returns the value of a path below /latest/meta-data/, trimmed. found is false where EC2 knows no such thing
	// now. It must return soon after ctx ends.
	Get(ctx context.Context, path string) (value string, found bool, err error)
}

// Options are what a watcher may be told.
type Options struct {
	// Interval is the least time that one request costs on the average, where the instance is no spot instance; 0 for 2 s.
	// A look at the target lifecycle state comes an eightieth later than that after the one before: this pays for the
	// questions about maintenance and the session tokens. The spot path is asked for once in five looks.
	Interval time.Duration
	// Kept says that EC2 doesn't take the instance back, because it is no spot instance: what is announced to those alone
	// isn't asked for.
	Kept bool
	// Log gets one event when asking begins to fail, one when it works again, and one for each thing that isn't
	// understood. It may be nil.
	Log *slog.Logger
}

// Watcher asks what EC2 announces to this instance.
type Watcher struct {
	getter Getter
	period time.Duration // from one look at the state to the next
	kept   bool
	log    *slog.Logger
	state  atomic.Value // string: the last known target lifecycle state

	// What follows belongs to Run.
	told     recent // ids of what was emitted
	doubted  recent // what was logged as not understood
	failing  map[string]bool
	since    time.Time // when the first of failing failed
	reported bool      // the failure under way is in the log
}

// question is one path and how to read its answers.
type question struct {
	path string
	read func(answer string) ([]Notice, []doubt)
}

var lifecycle = question{"autoscaling/target-lifecycle-state", readLifecycle}

// turn is who is asked between two looks at the state.
type turn struct {
	question *question
	first    int  // round of turns, counted from 0, in which it is asked first
	every    int  // rounds until it is asked again
	spot     bool // only where EC2 may take the instance back
}

// turns are gone through again and again. Five turns of 2 s make a round of 10 s, and a turn with nobody to ask doesn't wake
// the agent. A spot interruption is announced two minutes ahead. A rebalance recommendation is advice, and maintenance is
// announced days ahead; it waits a minute, because a node that boots has more urgent questions.
var turns = [...]turn{
	{question: &question{"spot/instance-action", readSpot}, every: 1, spot: true},
	{},
	{question: &question{"events/recommendations/rebalance", readRebalance}, every: 3, spot: true},
	{},
	{question: &question{"events/maintenance/scheduled", readMaintenance}, first: 6, every: 60},
}

// New prepares a watcher; Run starts it.
func New(getter Getter, o Options) *Watcher {
	interval := o.Interval
	if interval <= 0 {
		interval = defaultInterval
	}
	w := &Watcher{getter: getter, period: interval + interval/80, kept: o.Kept, log: o.Log, failing: map[string]bool{}}
	if w.log == nil {
		w.log = slog.New(slog.DiscardHandler)
	}
	w.state.Store("")
	return w
}

// State is the last known target lifecycle state, such as InService; "" while none was seen. It may be called at any
// time.
func (w *Watcher) State() string { return w.state.Load().(string) }

// Run asks until ctx ends, at once for the first time. It may be called once. It calls emit for each notice, one after
// the other, and asks no further until emit returns: so emit hands the notice on and does nothing that takes long.
func (w *Watcher) Run(ctx context.Context, emit func(Notice)) {
	place, brief := 0, false // place counts the turns that were taken
	for begin := time.Now(); ; {
		// Whatever is asked now gives way to the next look at the state, so that nothing piles up behind a service that
		// hangs. The state itself may take almost the whole period: a slow answer is better than none. Where it came
		// to none, every other look leaves the second half to the other questions, which may do better.
		limit := begin.Add(w.period * 9 / 10)
		look := limit
		if brief = w.failing[lifecycle.path] && !brief; brief {
			look = begin.Add(w.period * 2 / 5)
		}
		w.ask(ctx, lifecycle, look, emit)

		// A question that would have no time for its answer keeps its turn.
		next := w.next(place)
		if next == nil || time.Until(limit) >= w.period/5 {
			place++
			if next != nil && sleepUntil(ctx, begin.Add(w.period/2)) {
				w.ask(ctx, *next, limit, emit)
			}
		}

		begin = begin.Add(w.period)
		if now := time.Now(); begin.Before(now) {
			begin = now // what was missed, say by a machine that stood still, isn't made up for
		}
		if !sleepUntil(ctx, begin) {
			return
		}
	}
}

// next is who is asked in a turn, counted from 0; nil for nobody. A question without an answer is asked again in each round.
func (w *Watcher) next(place int) *question {
	t, round := turns[place%len(turns)], place/len(turns)
	if t.question == nil || t.spot && w.kept || round < t.first {
		return nil
	}
	if (round-t.first)%t.every != 0 && !w.failing[t.question.path] {
		return nil
	}
	return t.question
}

// ask asks one question until limit and emits what is new in the answer.
func (w *Watcher) ask(ctx context.Context, q question, limit time.Time, emit func(Notice)) {
	one, cancel := context.WithDeadlineCause(ctx, limit, errLate)
	answer, found, err := w.getter.Get(one, q.path)
	cancel()
	if ctx.Err() != nil {
		return // what a stopped question says is of no use
	}
	if err != nil {
		w.failed(ctx, q.path, err)
		return
	}
	w.answered(ctx, q.path)
	if !found || answer == "" {
		return // unknown, which is no news
	}
	notices, doubts := q.read(answer)
	for _, d := range doubts {
		w.doubt(ctx, q.path, d)
	}
	for _, n := range notices {
		if w.isNew(n) {
			emit(n)
		}
	}
}

// isNew remembers a notice, and tells whether it has to be emitted.
func (w *Watcher) isNew(n Notice) bool {
	switch n.Kind {
	case Lifecycle:
		return w.state.Swap(n.Detail) != n.Detail
	case Terminate:
		w.state.Store(n.Detail)
	}
	return w.told.add(n.ID)
}

// failed notes a question without an answer. A service that is gone fails for every path, and is one event in the log; a
// path that begins to fail while others work is another.
func (w *Watcher) failed(ctx context.Context, path string, err error) {
	if w.failing[path] {
		return
	}
	if len(w.failing) == 0 {
		w.since = time.Now()
	}
	w.failing[path] = true
	if w.reported {
		return
	}
	w.reported = true
	w.log.WarnContext(ctx, "instance metadata can't be asked: what EC2 announces may go unseen until it can", "path", path, "error", err)
}

// answered notes that a question has an answer, if only that there is none.
func (w *Watcher) answered(ctx context.Context, path string) {
	w.reported = false
	if !w.failing[path] {
		return
	}
	delete(w.failing, path)
	if len(w.failing) == 0 {
		w.log.InfoContext(ctx, "instance metadata answers again", "path", path, "elapsed", time.Since(w.since).Round(time.Millisecond))
	}
}

// doubt logs once what isn't understood.
func (w *Watcher) doubt(ctx context.Context, path string, d doubt) {
	word := line(d.word)
	if !w.doubted.add(path + "\x00" + d.about + "\x00" + word) {
		return
	}
	attributes := []any{"path", path, "reason", d.about}
	if d.err != nil {
		attributes = append(attributes, "error", d.err)
	} else {
		attributes = append(attributes, "value", word)
	}
	w.log.WarnContext(ctx, "instance metadata not understood: is there a newer flowagent?", attributes...)
}

// recent is the strings added last.
type recent []string

// add returns false for one that is there already.
func (r *recent) add(s string) bool {
	if slices.Contains(*r, s) {
		return false
	}
	if len(*r) >= memory {
		*r = slices.Delete(*r, 0, len(*r)-memory+1)
	}
	*r = append(*r, s)
	return true
}

// sleepUntil returns false when ctx ends first.
func sleepUntil(ctx context.Context, t time.Time) bool {
	select {
	case <-time.After(time.Until(t)):
	case <-ctx.Done():
	}
	return ctx.Err() == nil
}
