package main

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"
)

func TestWrongArgumentsEndWithTwo(t *testing.T) {
	for _, line := range []string{"", "nothing", "exit", "exit 256", "exit x", "exit 1 extra", "sleep soon", "sleep 1s 2s",
		"cat", "stat", "write F", "id 1", "healthcheck", "serve -nope", "trap extra"} {
		code, err := run(t.Context(), strings.Fields(line), io.Discard)
		if code != exitUsage || !errors.Is(err, errUsage) {
			t.Errorf("%q: got code %d and error %v, want %d and %v", line, code, err, exitUsage, errUsage)
		}
	}
}

func TestExitPrintsWaitsAndEndsWithItsCode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out strings.Builder
		begin := time.Now()
		code, err := run(t.Context(), []string{"exit", "42", "-after", "3s", "-print", "farewell"}, &out)
		if code != 42 || err != nil || out.String() != "farewell\n" {
			t.Errorf("got code %d, error %v and output %q, want 42, none and farewell", code, err, out.String())
		}
		if took := time.Since(begin); took != 3*time.Second {
			t.Errorf("it took %v, want 3s", took)
		}
	})
}

func TestFilesAreWrittenShownAndDescribed(t *testing.T) {
	file := filepath.Join(t.TempDir(), "secret")
	if code, err := run(t.Context(), []string{"write", file, "content"}, io.Discard); code != exitDone {
		t.Fatalf("write: got code %d and error %v, want 0", code, err)
	}
	if err := os.Chmod(file, 0o440); err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	if code, err := run(t.Context(), []string{"cat", file}, &out); code != exitDone || out.String() != "content" {
		t.Errorf("cat: got code %d, error %v and %q, want 0 and content", code, err, out.String())
	}
	out.Reset()
	code, err := run(t.Context(), []string{"stat", file}, &out)
	if want := "0440 "; code != exitDone || !strings.HasPrefix(out.String(), want) {
		t.Errorf("stat: got code %d, error %v and %q, want 0 and %q first", code, err, out.String(), want)
	}
	if code, err := run(t.Context(), []string{"cat", file + "x"}, io.Discard); code != exitFailed || !errors.Is(err, os.ErrNotExist) {
		t.Errorf("cat of a missing file: got code %d and error %v, want %d and %v", code, err, exitFailed, os.ErrNotExist)
	}
}

func TestTrapNamesSignalsAndEndsOnTERM(t *testing.T) {
	reader, writer := io.Pipe()
	done := make(chan int, 1)
	go func() {
		code, _ := run(t.Context(), []string{"trap"}, writer)
		_ = writer.Close()
		done <- code
	}()
	lines := make([]byte, 64)
	for _, step := range []struct {
		send unix.Signal
		want string
	}{{0, "ready\n"}, {unix.SIGHUP, "SIGHUP\n"}, {unix.SIGTERM, "SIGTERM\n"}} {
		if err := unix.Kill(os.Getpid(), step.send); err != nil {
			t.Fatal(err)
		}
		n, err := reader.Read(lines)
		if got := string(lines[:n]); err != nil || got != step.want {
			t.Fatalf("after signal %d: got %q and error %v, want %q", step.send, got, err, step.want)
		}
	}
	if code := <-done; code != exitDone {
		t.Errorf("got code %d, want 0", code)
	}
}

func TestSleepIgnoresTERMOnceItIsReady(t *testing.T) {
	defer signal.Reset(unix.SIGTERM)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	reader, writer := io.Pipe()
	done := make(chan int, 1)
	go func() {
		code, _ := run(ctx, []string{"sleep"}, writer)
		done <- code
	}()
	line := make([]byte, 64)
	n, err := reader.Read(line)
	if got := string(line[:n]); err != nil || got != "ready\n" {
		t.Fatalf("got %q and error %v, want ready", got, err)
	}
	if err := unix.Kill(os.Getpid(), unix.SIGTERM); err != nil { // which ends this test unless it is ignored
		t.Fatal(err)
	}
	cancel()
	if code := <-done; code != exitDone {
		t.Errorf("got code %d, want 0", code)
	}
}

func TestHealthFollowsStartAndFile(t *testing.T) {
	unhealthy := filepath.Join(t.TempDir(), "unhealthy")
	status := func(h http.Handler) int {
		recorder := httptest.NewRecorder()
		h.ServeHTTP(recorder, httptest.NewRequest(http.MethodGet, "/health", nil))
		return recorder.Code
	}
	if got := status(handler(time.Now().Add(time.Hour), "")); got != http.StatusServiceUnavailable {
		t.Errorf("before it is ready: got %d, want 503", got)
	}
	ready := handler(time.Now(), unhealthy)
	if got := status(ready); got != http.StatusOK {
		t.Errorf("ready: got %d, want 200", got)
	}
	if err := os.WriteFile(unhealthy, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if got := status(ready); got != http.StatusServiceUnavailable {
		t.Errorf("with the unhealthy file: got %d, want 503", got)
	}
}

func TestSlowAnswersAfterItsDelay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for path, want := range map[string]struct {
			status int
			after  time.Duration
		}{"/slow/3s": {http.StatusOK, 3 * time.Second}, "/slow/soon": {http.StatusBadRequest, 0}} {
			begin, recorder := time.Now(), httptest.NewRecorder()
			handler(begin, "").ServeHTTP(recorder, httptest.NewRequest(http.MethodGet, path, nil))
			if took := time.Since(begin); recorder.Code != want.status || took != want.after {
				t.Errorf("%s: got status %d after %v, want %d after %v", path, recorder.Code, took, want.status, want.after)
			}
		}
	})
}

func TestHealthcheckReportsWhatServeAnswers(t *testing.T) {
	for status, want := range map[int]int{http.StatusOK: exitDone, http.StatusServiceUnavailable: exitFailed} {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(status) }))
		code, err := run(t.Context(), []string{"healthcheck", server.URL}, io.Discard)
		if code != want || (err == nil) != (want == exitDone) {
			t.Errorf("status %d: got code %d and error %v, want %d", status, code, err, want)
		}
		server.Close()
	}
}

func TestServeEndsWhenItsContextDoes(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	reader, writer := io.Pipe()
	done := make(chan error, 1)
	go func() {
		_, err := run(ctx, []string{"serve", "-addr", "127.0.0.1:0"}, writer)
		done <- err
	}()
	line := make([]byte, 128)
	n, err := reader.Read(line)
	if err != nil {
		t.Fatal(err)
	}
	address, found := strings.CutPrefix(strings.TrimSpace(string(line[:n])), "listening on ")
	if !found {
		t.Fatalf("got %q, want the address", line[:n])
	}
	if code, err := run(t.Context(), []string{"healthcheck", "http://" + address + "/health"}, io.Discard); code != exitDone {
		t.Errorf("healthcheck: got code %d and error %v, want 0", code, err)
	}
	cancel()
	if err := <-done; err != nil {
		t.Errorf("serve: %v", err)
	}
}
