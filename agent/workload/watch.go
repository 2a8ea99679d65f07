package workload

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"time"

	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/client"
)

const (
	// eventOverlap is how far back a reopened event stream begins: an event carries the time at which it happened,
	// which is a little before it is sent.
	eventOverlap = time.Second
	// reopenPause keeps a dead engine from being asked in a busy loop; systemd restarts a daemon after 2 s.
	reopenPause = 500 * time.Millisecond
)

// watchedEvents are those after which a container may be judged differently. Without this filter every health check
// makes three more.
var watchedEvents = []string{"create", "start", "restart", "die", "oom", "pause", "unpause", "health_status", "rename", "destroy"}

// watcher keeps the project's containers as they are, by the engine's events.
type watcher struct {
	r          *Runner
	containers map[string]ContainerState
	stream     client.EventsResult
	seen       time.Time // of the last event, by the engine's clock
	close      context.CancelFunc
	// For who wants more than the containers: further events, each of the events, and the containers before and after a
	// gap in them. All may be empty.
	also     []string
	heard    func(events.Message)
	reopened func(before, after map[string]ContainerState)
}

// watch begins: first the events, then the list, so that nothing falls between them.
func (r *Runner) watch(ctx context.Context) (*watcher, error) {
	w := &watcher{r: r, seen: time.Now()}
	return w, w.open(ctx)
}

func (w *watcher) open(ctx context.Context) error {
	w.end()
	streamCtx, cancel := context.WithCancel(ctx)
	w.close = cancel
	filters := w.r.projectFilter().Add("type", string(events.ContainerEventType)).Add("event", slices.Concat(watchedEvents, w.also)...)
	w.stream = w.r.engine.Events(streamCtx, client.EventsListOptions{Since: engineStamp(w.seen.Add(-eventOverlap)), Filters: filters})
	containers, err := w.r.containers(ctx)
	if err != nil {
		w.end()
		return err
	}
	before := w.containers
	w.containers = containers
	if before != nil && w.reopened != nil {
		w.reopened(before, containers)
	}
	return nil
}

func (w *watcher) end() {
	if w.close != nil {
		w.close()
		w.close = nil
	}
}

// engineStamp is a time as the engine reads it: seconds with nanoseconds.
func engineStamp(t time.Time) string {
	return fmt.Sprintf("%d.%09d", t.Unix(), t.Nanosecond())
}

// next waits until a container may have changed, wake has come (zero: never) or other is closed. A stream that ended
// is opened anew, and the list read again, until ctx ends.
func (w *watcher) next(ctx context.Context, wake time.Time, other <-chan struct{}) error {
	var alarm <-chan time.Time
	if !wake.IsZero() {
		timer := time.NewTimer(time.Until(wake))
		defer timer.Stop()
		alarm = timer.C
	}
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-alarm:
		return nil
	case <-other:
		return nil
	case message := <-w.stream.Messages:
		return w.apply(ctx, message)
	case err := <-w.stream.Err:
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return w.reopen(ctx, err)
	}
}

// apply takes a message and all that came with it: compose makes ten containers at once.
func (w *watcher) apply(ctx context.Context, message events.Message) error {
	for id := range maps.Keys(w.hear(message)) {
		c, found, err := w.r.inspect(ctx, id)
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case err != nil:
			return w.reopen(ctx, err)
		case found:
			w.containers[id] = c
		default:
			delete(w.containers, id)
		}
	}
	return nil
}

// hear takes a message and all that came with it, and returns the containers they are about.
func (w *watcher) hear(message events.Message) (changed map[string]bool) {
	changed = make(map[string]bool)
	for {
		changed[message.Actor.ID] = true
		if w.heard != nil {
			w.heard(message)
		}
		if message.TimeNano > 0 {
			w.seen = time.Unix(0, message.TimeNano)
		}
		select {
		case message = <-w.stream.Messages:
			continue
		default:
			return changed
		}
	}
}

// refresh takes in what has happened up to now, without waiting.
func (w *watcher) refresh(ctx context.Context) error {
	select {
	case message := <-w.stream.Messages:
		w.hear(message)
	default:
	}
	containers, err := w.r.containers(ctx)
	if err != nil {
		return err
	}
	w.containers = containers
	return nil
}

func (w *watcher) reopen(ctx context.Context, cause error) error {
	for {
		if cause != nil && !errors.Is(cause, io.EOF) {
			w.r.log.Warn("engine stopped answering; asking again", "error", cause)
		}
		if err := pause(ctx, reopenPause); err != nil {
			return err
		}
		if cause = w.open(ctx); cause == nil {
			return nil
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
	}
}

func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-timer.C:
		return nil
	}
}
