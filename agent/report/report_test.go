package report

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/flowviz/flowagent/agent/config"
	"github.com/flowviz/flowagent/agent/node"
	"github.com/flowviz/flowagent/agent/secret"
	"github.com/flowviz/flowagent/agent/workload"
)

var start = time.Date(2026, 11, 1, 3, 0, 0, 0, time.UTC)

func TestWrite_ShowsANodeThatFailed(t *testing.T) {
	status := Status{
		State: "failing", Detail: "boot failed: no such image", Version: "1.0.0", Environment: "production",
		Node: node.Identity{Provider: config.ProviderEC2, InstanceID: "i-1", Region: "us-east-1"},
		Now:  start.Add(90 * time.Second), Started: start,
		Stages: []Stage{
			{Name: "node", Started: start, Ended: start.Add(12 * time.Millisecond), Attempts: 1},
			{Name: "secrets", Started: start.Add(time.Second), Attempts: 3},
			{Name: "images", Started: start.Add(time.Second), Ended: start.Add(61 * time.Second), Attempts: 1, Error: "no such image\nmore"},
		},
		Workload: workload.State{Services: []workload.ServiceState{{
			Name: "api", Phase: workload.PhaseFailed, Reason: "exited with 1",
			Containers: []workload.ContainerState{{Image: "shop/api@sha256:0123456789abcdef", Restarts: 2, StartedAt: start.Add(30 * time.Second)}},
		}}},
		Secrets:  []secret.Status{{Name: "db_password", State: secret.Missing, Source: "file:/etc/db", Error: "secret db_password from file:/etc/db: not found"}},
		Problems: []string{"no Docker Engine answers"},
	}
	var got strings.Builder
	if err := Write(&got, status); err != nil {
		t.Fatal(err)
	}
	want := `failing: boot failed: no such image
i-1 · ec2 · us-east-1 · production · flowagent 1.0.0 · up 1m30s

STAGE    AT   TOOK   TRIES  RESULT
node     +0s  10ms   1      done
secrets  +1s  1m29s  3      under way
images   +1s  1m0s   1      no such image …

SERVICE  PHASE   SINCE  RESTARTS  IMAGE                  REASON
api      failed  1m0s   2         shop/api@0123456789ab  exited with 1

SECRET       STATE    VERSION  FETCHED  SOURCE        PROBLEM
db_password  missing  -        never    file:/etc/db  secret db_password from file:/etc/db: not found

problem: no Docker Engine answers
`
	if diff := cmp.Diff(want, got.String()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestWrite_ShowsHowADrainGoes(t *testing.T) {
	status := Status{
		State: "draining", Detail: "spot notice", Now: start.Add(30 * time.Second), Started: start,
		Drain: &Drain{Reason: "spot notice", Trigger: "spot", Started: start, Deadline: start.Add(2 * time.Minute), Waiting: "api has 2 busy", Steps: []Stage{
			{Name: "drain.balancer", Started: start, Ended: start.Add(time.Second), Error: "not allowed\nmore"},
			{Name: "drain.requests", Started: start.Add(time.Second)},
		}},
		Hooks: []Hook{
			{Name: "terminate", Transition: "terminating", Found: start, Heartbeats: 3, HeartbeatsFailed: 1},
			{Name: "logs", Transition: "terminating", Found: start, Ended: start, Heartbeats: 1, Result: "CONTINUE", Outcome: "already over"},
		},
	}
	var got strings.Builder
	if err := Write(&got, status); err != nil {
		t.Fatal(err)
	}
	want := `
DRAIN (spot, 1m30s left)  AT   TOOK  RESULT
balancer                  +0s  1s    not allowed …
requests                  +1s  29s   under way: api has 2 busy

HOOK       TRANSITION   HEARTBEATS   RESULT
terminate  terminating  3, 1 failed  under way
logs       terminating  1            CONTINUE: already over
`
	if !strings.HasSuffix(got.String(), want) {
		t.Errorf("got\n%s\nwant at its end\n%s", got.String(), want)
	}
}

func TestWrite_BeginsWithTheTimeToReady(t *testing.T) {
	var got strings.Builder
	if err := Write(&got, Status{State: "ready", Detail: "ready", Started: start, Ready: start.Add(6340 * time.Millisecond), Now: start.Add(time.Hour)}); err != nil {
		t.Fatal(err)
	}
	if want := "ready in 6.3 s\n"; !strings.HasPrefix(got.String(), want) {
		t.Errorf("got %q, want it to begin with %q", got.String(), want)
	}
}

type brokenPipe struct{ left int }

func (b *brokenPipe) Write(p []byte) (int, error) {
	if b.left--; b.left < 0 {
		return 0, os.ErrClosed
	}
	return len(p), nil
}

func TestWrite_TellsWhenNobodyReads(t *testing.T) {
	status := Status{State: "ready", Stages: []Stage{{Name: "node"}}, Secrets: []secret.Status{{Name: "a"}}, Problems: []string{"one"}}
	for writes := range 4 {
		if err := Write(&brokenPipe{writes}, status); !errors.Is(err, os.ErrClosed) {
			t.Errorf("after %d writes: got %v, want %v", writes, err, os.ErrClosed)
		}
	}
}

func TestRecorder_WritesOneEventAtEachEndOfAStage(t *testing.T) {
	var log strings.Builder
	recorder := NewRecorder(slog.New(slog.NewTextHandler(&log, nil)))
	clock := start
	recorder.now = func() time.Time { clock = clock.Add(time.Second); return clock }

	if err := recorder.Do(t.Context(), "node", func(_ context.Context, span *Span) error {
		span.Note("provider", "local")
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	broken := errors.New("broken")
	err := recorder.Do(t.Context(), "secrets", func(ctx context.Context, span *Span) error {
		span.Retry(ctx, errors.New("late"), time.Second)
		return broken
	})
	if err != broken {
		t.Errorf("got %v, want the stage's own error", err)
	}

	want := []Stage{
		{Name: "node", Started: start.Add(time.Second), Ended: start.Add(2 * time.Second), Attempts: 1},
		{Name: "secrets", Started: start.Add(3 * time.Second), Ended: start.Add(4 * time.Second), Attempts: 2, Error: "broken"},
	}
	if diff := cmp.Diff(want, recorder.Stages()); diff != "" {
		t.Errorf("timeline (-want +got):\n%s", diff)
	}
	for _, line := range []string{
		`msg="stage started" phase=node`,
		`msg="stage done" phase=node elapsed=1s provider=local`,
		`msg="stage tries again" phase=secrets attempt=2 wait=1s error=late`,
		`msg="stage failed" phase=secrets elapsed=1s error=broken`,
	} {
		if strings.Count(log.String(), line) != 1 {
			t.Errorf("want once %s in:\n%s", line, log.String())
		}
	}
}

func TestRecord_OutlivesTheAgentAndADamagedOneIsNoObstacle(t *testing.T) {
	path := filepath.Join(t.TempDir(), "boot.json")
	if got, err := ReadRecord(path); err != nil || got.Starts != 0 {
		t.Errorf("before the first boot: got %+v, %v", got, err)
	}
	want := Record{Starts: 3, Version: "1.0.0", Started: start, Error: "no such image", Stages: []Stage{{Name: "node", Started: start, Attempts: 1}}}
	if err := WriteRecord(path, want); err != nil {
		t.Fatal(err)
	}
	got, err := ReadRecord(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if err := os.WriteFile(path, []byte(`{"starts":`), 0o644); err != nil {
		t.Fatal(err)
	}
	if got, err := ReadRecord(path); err != nil || got.Starts != 0 {
		t.Errorf("a cut record: got %+v, %v; want to begin anew", got, err)
	}
}
