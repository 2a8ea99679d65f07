// Package notify tells other systems what happens to the node: that it is ready, failed to boot, was announced something by
// EC2, leaves and has left.
//
// What enters are events, from whoever knows of them; what leaves are requests to a webhook and to Amazon EventBridge, with
// the same document in both. It never holds up what the node does: an event is put into a queue, and each sink has a worker
// of its own that delivers in order, from a context of its own. What can't be delivered costs a warning and a count. No
// event, log or error has a secret, and none has more of a URL than its server.
//
// An event is delivered at least once, and has one id however often. One that is older than a quarter of an hour, doesn't fit
// into the queue, or is left when the agent has ended is dropped.
package notify

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v5"
)

const (
	// queueLength is how many events wait for one sink: ten times what a node's life has, since EC2's notices may repeat.
	queueLength = 64
	// longestAge is until when an event is tried: a receiver that is being replaced is back by then, and whoever would act on
	// the event has learned of it by other means.
	longestAge = 15 * time.Minute
	// firstPause and lastPause bound the pauses between tries, under full jitter: nodes that leave together don't call
	// together, and a receiver that comes back gets what is left within a minute.
	firstPause = time.Second
	lastPause  = time.Minute
	// flushLimit bounds what the agent's end waits for: some round trips, and a small part of the 90 s that systemd gives.
	flushLimit = 5 * time.Second
	// warnEvery is how often the log says that events are lost.
	warnEvery = time.Minute
)

// Sink takes events to one receiver.
type Sink interface {
	// Name is a word for logs and metrics.
	Name() string
	// Send tries once to deliver the event, until ctx ends. An error may be a *[Refused] or a *[Later]; it holds no secret.
	Send(ctx context.Context, e Event) error
}

// Refused is the error of a receiver that won't take this event, however often it is sent.
type Refused struct{ Err error }

func (r *Refused) Error() string { return r.Err.Error() }
func (r *Refused) Unwrap() error { return r.Err }

// Later is the error of a receiver that asks for some time.
type Later struct {
	After time.Duration
	Err   error
}

func (l *Later) Error() string { return l.Err.Error() }
func (l *Later) Unwrap() error { return l.Err }

// Result is what became of an event, or of one try.
type Result string

const (
	Delivered Result = "delivered" // the receiver took it
	Failed    Result = "failed"    // it was refused, or too old when it could not be delivered
	Dropped   Result = "dropped"   // there was no room in the queue, or no time at the end
)

// Results are all of them.
var Results = []Result{Delivered, Failed, Dropped}

// Options are what a notifier works with. Sinks and Origin are needed.
type Options struct {
	Sinks  []Sink
	Origin Origin
	// Log gets one event when a sink begins to fail, one when it works again, and one a minute while events are lost. Nil
	// for none.
	Log *slog.Logger
	// Count is told what became of each event for each sink; nil for nobody.
	Count func(sink string, result Result)
	// Random returns a number from 0 up to 1; nil for math/rand's.
	Random func() float64
}

// Notifier delivers the events of one node. A nil one takes events and delivers none.
type Notifier struct {
	origin  Origin
	workers []*worker
}

// New prepares a notifier. Events that come before [Notifier.Run] wait for it.
func New(o Options) *Notifier {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Count == nil {
		o.Count = func(string, Result) {}
	}
	if o.Random == nil {
		o.Random = rand.Float64
	}
	n := &Notifier{origin: o.Origin}
	for _, sink := range o.Sinks {
		n.workers = append(n.workers, &worker{
			sink: sink, queue: make(chan Event, queueLength), log: o.Log.With("sink", sink.Name()), random: o.Random,
			count: func(r Result) { o.Count(sink.Name(), r) },
		})
	}
	return n
}

// Tell takes an event that happened now, and returns at once.
func (n *Notifier) Tell(t Type, detail Detail) {
	if n == nil || len(n.workers) == 0 {
		return
	}
	e := n.origin.event(t, detail)
	for _, w := range n.workers {
		select {
		case w.queue <- e:
		default:
			w.lost(context.Background(), e, Dropped, errors.New("too many events wait for the receiver"))
		}
	}
}

// Run delivers events until ctx ends, and then, within five seconds, those that came before. It is called once.
func (n *Notifier) Run(ctx context.Context) {
	var working sync.WaitGroup
	for _, w := range n.workers {
		working.Go(func() { w.run(ctx) })
	}
	working.Wait()
}

// worker delivers to one sink, one event after the other.
type worker struct {
	sink   Sink
	queue  chan Event
	log    *slog.Logger
	random func() float64
	count  func(Result)

	failing int // tries in a row that didn't work; run's own

	mu     sync.Mutex
	warned time.Time // when the log last said that an event is lost
	silent int       // events lost since
}

func (w *worker) run(ctx context.Context) {
	// The end of the agent must not cut off a delivery: what a node says last is what others wait for.
	sending, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	defer context.AfterFunc(ctx, func() {
		timer := time.AfterFunc(flushLimit, cancel)
		context.AfterFunc(sending, func() { timer.Stop() })
	})()
	for {
		e, more := w.next(ctx)
		if !more {
			return
		}
		w.deliver(ctx, sending, e)
	}
}

// next waits for an event; false when ctx has ended and none is left.
func (w *worker) next(ctx context.Context) (Event, bool) {
	select {
	case e := <-w.queue:
		return e, true
	case <-ctx.Done():
	}
	select {
	case e := <-w.queue:
		return e, true
	default:
		return Event{}, false
	}
}

// deliver tries until the event is delivered, refused or too old, or until sending ends. Once ctx has ended each pause is
// cut to firstPause, for there are only seconds left.
func (w *worker) deliver(ctx, sending context.Context, e Event) {
	limit := &backoff.ExponentialBackOff{InitialInterval: firstPause, Multiplier: 2, MaxInterval: lastPause}
	limit.Reset()
	for sending.Err() == nil {
		err := w.sink.Send(sending, e)
		if err == nil {
			w.delivered(sending, e)
			return
		}
		if sending.Err() != nil {
			break
		}
		w.failed(sending, err)
		pause := time.Duration(w.random() * float64(limit.NextBackOff()))
		var refused *Refused
		var later *Later
		switch {
		case errors.As(err, &refused):
			w.lost(sending, e, Failed, err)
			return
		case errors.As(err, &later):
			pause = max(pause, min(later.After, lastPause))
		}
		if time.Since(e.Time)+pause > longestAge {
			w.lost(sending, e, Failed, err)
			return
		}
		w.pause(ctx, sending, pause)
	}
	w.lost(sending, e, Dropped, errors.New("the agent ends"))
}

func (w *worker) pause(ctx, sending context.Context, pause time.Duration) {
	timer := time.NewTimer(pause)
	defer timer.Stop()
	if ctx.Err() == nil {
		select {
		case <-timer.C:
			return
		case <-ctx.Done(): // nothing that waits for minutes would still be delivered
			timer.Reset(time.Duration(w.random() * float64(firstPause)))
		}
	} else if pause > firstPause {
		timer.Reset(time.Duration(w.random() * float64(firstPause)))
	}
	select {
	case <-timer.C:
	case <-sending.Done():
	}
}

func (w *worker) delivered(ctx context.Context, e Event) {
	if w.failing > 0 {
		w.log.InfoContext(ctx, "notifications arrive again", "failed", w.failing)
		w.failing = 0
	}
	w.count(Delivered)
	w.log.InfoContext(ctx, "notification delivered", "notification", string(e.Type), "id", e.ID)
}

// failed logs the first try that fails, and none after it.
func (w *worker) failed(ctx context.Context, err error) {
	if w.failing == 0 {
		w.log.WarnContext(ctx, "notifications don't arrive", "error", err)
	}
	w.failing++
}

// lost counts an event that nobody will get. The log says so once a minute.
func (w *worker) lost(ctx context.Context, e Event, result Result, err error) {
	w.count(result)
	w.mu.Lock()
	defer w.mu.Unlock()
	if now := time.Now(); w.warned.IsZero() || now.Sub(w.warned) >= warnEvery {
		w.log.WarnContext(ctx, "notification lost", "notification", string(e.Type), "id", e.ID, "error", err, "others", w.silent)
		w.warned, w.silent = now, 0
		return
	}
	w.silent++
}
