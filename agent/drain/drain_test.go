package drain

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/flowviz/flowagent/agent/config"
)

// journal records the steps in the order in which they happened; each may be told to fail.
type journal struct {
	steps   []string
	stopErr error
	wipeErr error
	order   []string
	budget  time.Duration
	at      time.Time
}

func (j *journal) Stop(ctx context.Context, order []string, budget time.Duration) error {
	j.steps = append(j.steps, "stop")
	j.order, j.budget, j.at = order, budget, time.Now()
	if err := ctx.Err(); err != nil {
		return err
	}
	return j.stopErr
}

func (j *journal) Wipe() error {
	j.steps = append(j.steps, "wipe")
	return j.wipeErr
}

func (j *journal) drain(cfg config.Drain) *Drain {
	return &Drain{Config: cfg, Workload: j, Secrets: j, Log: slog.New(slog.DiscardHandler)}
}

var everyStep = []string{"stop", "wipe"}

func TestDrain_WaitsForTheEdgeThenStopsThenWipes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j := &journal{}
		start := time.Now()
		err := j.drain(config.Drain{
			Budget:          config.Duration(time.Minute),
			DeregisterDelay: config.Duration(10 * time.Second),
			Order:           []string{"worker", "api"},
		}).Run(t.Context(), Request{Reason: "test"})
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(j.steps, everyStep) {
			t.Errorf("steps: got %v, want %v", j.steps, everyStep)
		}
		if got, want := j.at.Sub(start), 10*time.Second; got != want {
			t.Errorf("services stopped after %v, want %v", got, want)
		}
		if got, want := j.budget, 50*time.Second; got != want {
			t.Errorf("budget left for stopping: got %v, want %v", got, want)
		}
		if want := []string{"worker", "api"}; !slices.Equal(j.order, want) {
			t.Errorf("order: got %v, want %v", j.order, want)
		}
	})
}

func TestDrain_WaitsForTheEdgeAtMostHalfOfTheBudget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j := &journal{}
		cfg := config.Drain{Budget: config.Duration(time.Hour), DeregisterDelay: config.Duration(time.Minute)}
		if err := j.drain(cfg).Run(t.Context(), Request{Budget: config.Duration(20 * time.Second)}); err != nil {
			t.Fatal(err)
		}
		if got, want := j.budget, 10*time.Second; got != want {
			t.Errorf("budget left for stopping: got %v, want %v", got, want)
		}
	})
}

func TestDrain_AFailedStepDoesNotStopTheNextAndIsReported(t *testing.T) {
	j := &journal{stopErr: errors.New("worker would not stop"), wipeErr: errors.New("mount is busy")}
	err := j.drain(config.Drain{Budget: config.Duration(time.Minute)}).Run(t.Context(), Request{})
	if !slices.Equal(j.steps, everyStep) {
		t.Errorf("steps: got %v, want %v", j.steps, everyStep)
	}
	for _, want := range []string{"worker would not stop", "mount is busy"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v does not say %q", err, want)
		}
	}
}

func TestDrain_StopsServicesAlthoughTheAgentItselfWasAskedToStop(t *testing.T) {
	j := &journal{}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	err := j.drain(config.Drain{Budget: config.Duration(time.Minute), DeregisterDelay: config.Duration(time.Second)}).Run(ctx, Request{})
	if err != nil {
		t.Fatalf("a cancelled parent made the drain fail: %v", err)
	}
	if !slices.Equal(j.steps, everyStep) {
		t.Errorf("steps: got %v, want %v", j.steps, everyStep)
	}
}
