package main

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/flowviz/flowagent/agent/report"
)

// answersWhen serves 503 until the file exists, then 200.
func answersWhen(t *testing.T, file string) string {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if _, err := os.Stat(file); err != nil {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	}))
	t.Cleanup(server.Close)
	return server.URL
}

func open(context.Context) opened { return func() error { return nil } }

func shell(script string) []string { return []string{"sh", "-c", script} }

func TestMeasure_ACommandIsDoneWhenItEnds(t *testing.T) {
	marker := filepath.Join(t.TempDir(), "marker")
	got, err := measure(t.Context(), boot{command: shell(`echo "$WORD" >"$MARKER"`), env: []string{"WORD=done", "MARKER=" + marker}})
	if err != nil {
		t.Fatal(err)
	}
	if got.done <= 0 || got.app != 0 || got.work() != got.done {
		t.Errorf("got %+v, want a time until the end and none until an answer", got)
	}
	if content, err := os.ReadFile(marker); err != nil || string(content) != "done\n" {
		t.Errorf("got %q (%v), want the command to have run with its environment", content, err)
	}
}

func TestMeasure_AFailingCommandShowsWhatItPrinted(t *testing.T) {
	_, err := measure(t.Context(), boot{command: shell("echo no such registry >&2; exit 3")})
	if err == nil || !strings.Contains(err.Error(), "exit status 3") || !strings.Contains(err.Error(), "no such registry") {
		t.Errorf("got %v, want the exit status and the command's own words", err)
	}
}

func TestMeasure_AStarterMayEndBeforeItsApplicationAnswers(t *testing.T) {
	marker := filepath.Join(t.TempDir(), "up")
	wait := func(context.Context) opened {
		return func() error { return os.WriteFile(marker, nil, 0o600) } // the application comes up by itself
	}
	got, err := measure(t.Context(), boot{command: shell("exit 0"), app: answersWhen(t, marker), opening: wait})
	if err != nil {
		t.Fatal(err)
	}
	if got.app <= 0 || got.done <= 0 || got.work() != got.app {
		t.Errorf("got %+v, want both times, and the work done at the answer", got)
	}
}

func TestMeasure_AStarterThatFailsIsNotWaitedFor(t *testing.T) {
	never := func(ctx context.Context) opened {
		return func() error { <-ctx.Done(); return context.Cause(ctx) }
	}
	_, err := measure(t.Context(), boot{command: shell("echo port in use; exit 1"), app: "http://127.0.0.1:1", opening: never})
	if err == nil || !strings.Contains(err.Error(), "exit status 1") || !strings.Contains(err.Error(), "port in use") {
		t.Errorf("got %v, want the exit status and the command's own words", err)
	}
}

func TestMeasure_AnAgentIsStoppedWhenItsNodeIsReadyAndItsRecordRead(t *testing.T) {
	dir := t.TempDir()
	app, node, pid := filepath.Join(dir, "app"), filepath.Join(dir, "node"), filepath.Join(dir, "pid")
	stopped := filepath.Join(dir, "stopped")
	got, err := measure(t.Context(), boot{
		command: shell(`trap 'touch stopped; exit 0' TERM; echo $$ >pid; touch app node; while :; do sleep 1; done`),
		dir:     dir,
		app:     answersWhen(t, app), node: answersWhen(t, node), opening: open,
		record: func() (report.Record, error) {
			_, err := os.Stat(stopped)
			return report.Record{Stages: []report.Stage{{Name: "node"}}}, err
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	if got.app <= 0 || got.done <= 0 || len(got.stages) != 1 || got.start.IsZero() {
		t.Errorf("got %+v, want times of both answers and the record's one stage", got)
	}
	content, err := os.ReadFile(pid)
	if err != nil {
		t.Fatal(err)
	}
	number, err := strconv.Atoi(strings.TrimSpace(string(content)))
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(number, 0); !errors.Is(err, syscall.ESRCH) {
		t.Errorf("process %d: got %v, want it gone", number, err)
	}
}

func TestMeasure_AnAgentThatEndsBeforeItsNodeIsReadyHasFailed(t *testing.T) {
	never := answersWhen(t, filepath.Join(t.TempDir(), "never"))
	_, err := measure(t.Context(), boot{command: shell("echo bye"), app: never, node: never, opening: open})
	if err == nil || !strings.Contains(err.Error(), "ended early") || !strings.Contains(err.Error(), "bye") {
		t.Errorf("got %v, want that it ended early, and its own words", err)
	}
}

func TestMeasure_ACancelledRunLeavesNoProcess(t *testing.T) {
	dir := t.TempDir()
	ctx, cancel := context.WithCancelCause(t.Context())
	errStop := errors.New("somebody pressed Ctrl-C")
	begun := func(context.Context) opened {
		return func() error { cancel(errStop); return nil }
	}
	never := answersWhen(t, filepath.Join(dir, "never"))
	_, err := measure(ctx, boot{command: []string{"sleep", "1000"}, app: never, node: never, opening: begun})
	if !errors.Is(err, errStop) {
		t.Errorf("got %v, want %v", err, errStop)
	}
}
