package agent

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/flowviz/flowagent/agent/report"
)

var errLate, errWrong = errors.New("network is late"), errors.New("no such secret")

// tried runs retry in a stage of its own and returns its error and the attempts that the stage counted.
func tried(t *testing.T, ctx context.Context, op func(ctx context.Context) error) (int, error) {
	t.Helper()
	recorder := report.NewRecorder(slog.New(slog.DiscardHandler))
	err := recorder.Do(ctx, "test", func(ctx context.Context, span *report.Span) error {
		return retry(ctx, span, time.Minute, func(err error) bool { return errors.Is(err, errWrong) }, op)
	})
	return recorder.Stages()[0].Attempts, err
}

func TestRetry_GoesOnUntilItWorks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		calls := 0
		attempts, err := tried(t, t.Context(), func(context.Context) error {
			if calls++; calls < 4 {
				return errLate
			}
			return nil
		})
		if err != nil || attempts != 4 {
			t.Errorf("got %d attempts and %v, want 4 and no error", attempts, err)
		}
	})
}

func TestRetry_StopsAtAnErrorThatTryingAgainWontMend(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		attempts, err := tried(t, t.Context(), func(context.Context) error { return errWrong })
		if !errors.Is(err, errWrong) || attempts != 1 {
			t.Errorf("got %d attempts and %v, want 1 and %v", attempts, err, errWrong)
		}
	})
}

func TestRetry_GivesUpAtItsLimitAndSaysWhatWentWrong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		_, err := tried(t, t.Context(), func(context.Context) error { return errLate })
		if !errors.Is(err, errLate) || !strings.Contains(err.Error(), "gave up after 1m0s") {
			t.Errorf("got %v, want it to give up on %v", err, errLate)
		}
		if got := time.Since(start); got > time.Minute {
			t.Errorf("went on for %v, want at most a minute", got)
		}
	})
}

func TestRetry_AHangingTryEndsAtTheLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, err := tried(t, t.Context(), func(ctx context.Context) error {
			<-ctx.Done()
			return errLate
		})
		if !errors.Is(err, errLate) {
			t.Errorf("got %v, want %v", err, errLate)
		}
	})
}

func TestRetry_EndsWhenTheAgentIsStopped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		_, err := tried(t, ctx, func(context.Context) error { cancel(); return errLate })
		if !errors.Is(err, context.Canceled) {
			t.Errorf("got %v, want %v", err, context.Canceled)
		}
	})
}
