package image

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/moby/moby/api/types/jsonstream"
)

func message(id, status string, current, total int64) jsonstream.Message {
	m := jsonstream.Message{ID: id, Status: status}
	if total > 0 {
		m.Progress = &jsonstream.Progress{Current: current, Total: total}
	}
	return m
}

func TestATransferKnowsWhatMoved(t *testing.T) {
	seen := newTransfer()
	for i, step := range []struct {
		message jsonstream.Message
		moved   bool
		queued  bool
		state   State
	}{
		{message("1", "Pulling from x", 0, 0), true, false, State{Doing: "waiting"}},
		{message("a", "Pulling fs layer", 0, 0), true, true, State{Doing: "waiting", Layers: 1}},
		{message("b", "Pulling fs layer", 0, 0), true, true, State{Doing: "waiting", Layers: 2}},
		{message("b", "Waiting", 0, 0), true, true, State{Doing: "waiting", Layers: 2}},
		{message("b", "Waiting", 0, 0), false, true, State{Doing: "waiting", Layers: 2}},
		{message("a", "Downloading", 10, 100), true, false, State{Doing: "downloading", Layers: 2, Current: 10, Total: 100}},
		{message("a", "Downloading", 10, 100), false, false, State{Doing: "downloading", Layers: 2, Current: 10, Total: 100}},
		{message("a", "Retrying in 2 seconds", 0, 0), false, false, State{Doing: "waiting", Layers: 2, Current: 10, Total: 100}},
		{message("a", "Retrying in 1 second", 0, 0), false, false, State{Doing: "waiting", Layers: 2, Current: 10, Total: 100}},
		{message("a", "Downloading", 60, 100), true, false, State{Doing: "downloading", Layers: 2, Current: 60, Total: 100}},
		{message("a", "Download complete", 0, 0), true, true, State{Doing: "waiting", Layers: 2, Current: 100, Total: 100}},
		{message("a", "Extracting", 50, 100), true, false, State{Doing: "extracting", Layers: 2, Current: 100, Total: 100}},
		{message("a", "Pull complete", 0, 0), true, true, State{Doing: "waiting", Layers: 2, Done: 1, Current: 100, Total: 100}},
		{message("b", "Already exists", 0, 0), true, false, State{Doing: "waiting", Layers: 2, Done: 2, Current: 100, Total: 100}},
		{jsonstream.Message{Status: "Digest: sha256:00"}, true, false, State{Doing: "waiting", Layers: 2, Done: 2, Current: 100, Total: 100}},
	} {
		moved := seen.apply(step.message)
		if moved != step.moved || seen.queued() != step.queued {
			t.Errorf("message %d (%s): got moved %t, queued %t, want %t, %t", i, step.message.Status, moved, seen.queued(), step.moved, step.queued)
		}
		if diff := cmp.Diff(step.state, seen.state()); diff != "" {
			t.Errorf("message %d (%s): state (-want +got):\n%s", i, step.message.Status, diff)
		}
	}
	if seen.digest != "sha256:00" {
		t.Errorf("digest: got %s, want sha256:00", seen.digest)
	}
}

// watched is a context that a stall of 5 minutes to begin and 1 minute idle ends.
func watched(t *testing.T, p *pulse) (context.Context, *stall) {
	ctx, cancel := context.WithCancelCause(t.Context())
	s := watchStall(5*time.Minute, time.Minute, p, cancel)
	t.Cleanup(func() { s.stop(); cancel(nil) })
	return ctx, s
}

// pass lets time go by and everything that it triggers happen.
func pass(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

func wantRunning(t *testing.T, ctx context.Context, when string) {
	t.Helper()
	if ctx.Err() != nil {
		t.Fatalf("%s: got %v, want it running", when, context.Cause(ctx))
	}
}

func wantStalled(t *testing.T, ctx context.Context, setting string) {
	t.Helper()
	if err := context.Cause(ctx); !errors.Is(err, ErrTimeout) || !strings.Contains(err.Error(), setting) {
		t.Fatalf("got %v, want ErrTimeout naming %s", err, setting)
	}
}

func TestARegistryMayTakeItsTimeToBegin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, _ := watched(t, &pulse{})
		pass(5*time.Minute - time.Second)
		wantRunning(t, ctx, "before beginTimeout")
		pass(time.Second)
		wantStalled(t, ctx, "beginTimeout")
	})
}

func TestAPullMayLastWhileItMoves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, s := watched(t, &pulse{})
		pass(4 * time.Minute)
		for range 100 {
			s.moved(true, false)
			pass(59 * time.Second)
			wantRunning(t, ctx, "while it moves")
		}
		s.moved(false, false) // a message without progress doesn't count
		pass(time.Second)
		wantStalled(t, ctx, "idleTimeout")
	})
}

func TestAQueuedPullIsAsAliveAsTheOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		shared := &pulse{}
		queued, q := watched(t, shared)
		busy, b := watched(t, shared)
		q.moved(true, true)
		for range 10 {
			b.moved(true, false)
			pass(59 * time.Second)
			wantRunning(t, queued, "while another pull moves")
			wantRunning(t, busy, "while it moves")
		}
		pass(time.Second) // since the busy one's last progress, a minute has passed for both
		wantStalled(t, busy, "idleTimeout")
		wantStalled(t, queued, "idleTimeout")
	})
}

func TestNoLimitMeansNoLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancelCause(t.Context())
		defer cancel(nil)
		s := watchStall(0, 0, &pulse{}, cancel)
		defer s.stop()
		pass(24 * time.Hour)
		s.moved(true, false)
		pass(24 * time.Hour)
		wantRunning(t, ctx, "without limits")
	})
}

func TestAPullThatEndedIsNotCancelled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, s := watched(t, &pulse{})
		s.moved(true, false)
		s.stop()
		pass(time.Hour)
		wantRunning(t, ctx, "after its end")
	})
}
