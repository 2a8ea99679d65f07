package image

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
)

// screen is what a terminal shows after the codes that bars write: lines, cursor up, carriage return, erase below.
func screen(t *testing.T, text string) []string {
	t.Helper()
	lines, row := []string{""}, 0
	for text != "" {
		switch {
		case strings.HasPrefix(text, "\x1b[J"):
			lines[row] = ""
			lines, text = lines[:row+1], text[3:]
		case strings.HasPrefix(text, "\x1b["):
			count, rest, found := strings.Cut(text[2:], "A")
			n, err := strconv.Atoi(count)
			if !found || err != nil || n > row {
				t.Fatalf("cursor in row %d: unexpected code %q", row, text[:min(len(text), 8)])
			}
			row, text = row-n, rest
		case text[0] == '\r':
			text = text[1:]
		case text[0] == '\n':
			row++
			if row == len(lines) {
				lines = append(lines, "")
			}
			text = text[1:]
		default:
			_, size := utf8.DecodeRuneInString(text)
			lines[row] += text[:size]
			text = text[size:]
		}
	}
	return lines
}

func TestBarsKeepBelowWhatALogWrites(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		bars := NewBars(&out, 80)
		log := slog.New(slog.NewTextHandler(bars, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
			if a.Key == slog.TimeKey {
				return slog.Attr{}
			}
			return a
		}}))
		log.Info("before")
		bars.Started("r.example/api:1")
		log.Info("meanwhile")
		compareScreens(t, []string{
			"level=INFO msg=before",
			"level=INFO msg=meanwhile",
			"r.example/api:1 waiting",
			"",
		}, screen(t, out.String()))
		bars.Finished("r.example/api:1", Image{Bytes: 10, Elapsed: time.Second}, nil)
		log.Info("after")
		compareScreens(t, []string{
			"level=INFO msg=before",
			"level=INFO msg=meanwhile",
			"✓ r.example/api:1 10 B in 1s",
			"level=INFO msg=after",
			"",
		}, screen(t, out.String()))
	})
}

func TestBarsShowOneLineForEachImage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		bars := NewBars(&out, 80)
		bars.Started("r.example/api:1")
		bars.Started("r.example/worker:1")
		pass(time.Second)
		bars.Moved("r.example/api:1", State{Doing: "downloading", Current: 25_000_000, Total: 50_000_000})
		pass(time.Second)
		bars.Moved("r.example/worker:1", State{Doing: "waiting"})
		compareScreens(t, []string{
			"r.example/api:1 downloading ██████████░░░░░░░░░░ 50.0 MB",
			"r.example/worker:1 waiting",
			"",
		}, screen(t, out.String()))

		bars.Waiting("r.example/worker:1", "503\x1b[2J", 2*time.Second)
		bars.Finished("r.example/api:1", Image{Bytes: 50_000_000, Elapsed: 3 * time.Second}, nil)
		compareScreens(t, []string{
			"✓ r.example/api:1 50.0 MB in 3s",
			"r.example/worker:1 again in 2s: 503 [2J",
			"",
		}, screen(t, out.String()))

		bars.Finished("r.example/worker:1", Image{}, errors.New("gone"))
		compareScreens(t, []string{
			"✓ r.example/api:1 50.0 MB in 3s",
			"✗ r.example/worker:1 failed",
			"",
		}, screen(t, out.String()))
	})
}

// compareScreens ignores how many spaces align the columns.
func compareScreens(t *testing.T, want, got []string) {
	t.Helper()
	squeeze := func(lines []string) []string {
		var out []string
		for _, line := range lines {
			out = append(out, strings.Join(strings.Fields(line), " "))
		}
		return out
	}
	if diff := cmp.Diff(squeeze(want), squeeze(got)); diff != "" {
		t.Errorf("screen (-want +got):\n%s", diff)
	}
}

func TestBarsNeverWrapALine(t *testing.T) {
	for _, width := range []int{0, 60, 61, 80, 200} {
		var out bytes.Buffer
		bars := NewBars(&out, width)
		long := "registry.example.com/" + strings.Repeat("very-long/", 30) + "name:2026.11.1"
		bars.Started(long)
		bars.Waiting(long, strings.Repeat("because ", 50), time.Second)
		for _, line := range screen(t, out.String()) {
			if n := utf8.RuneCountInString(line); n >= max(width, leastWidth) {
				t.Errorf("width %d: got a line of %d columns: %q", width, n, line)
			}
		}
		if !strings.Contains(out.String(), "2026.11.1") {
			t.Errorf("width %d: got %q, want the end of the name", width, out.String())
		}
	}
}

func TestBarsRedrawATenthOfASecondApart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		bars := NewBars(&out, 80)
		bars.Started("a:1")
		before := strings.Count(out.String(), "\x1b[J")
		for i := range 1000 {
			bars.Moved("a:1", State{Doing: "downloading", Current: int64(i), Total: 1000})
			pass(time.Millisecond)
		}
		if got := strings.Count(out.String(), "\x1b[J") - before; got < 5 || got > 10 {
			t.Errorf("pictures in a second: got %d, want 5 to 10", got)
		}
	})
}

func TestBarsTakeMessagesFromSeveralPulls(t *testing.T) {
	var out bytes.Buffer
	bars := NewBars(&out, 80)
	var group sync.WaitGroup
	for i := range 8 {
		group.Go(func() {
			name := fmt.Sprintf("image-%d:1", i)
			bars.Started(name)
			for n := range int64(100) {
				bars.Moved(name, State{Doing: "downloading", Current: n, Total: 100})
			}
			bars.Finished(name, Image{Bytes: 100}, nil)
		})
	}
	group.Wait()
	if got := strings.Count(strings.Join(screen(t, out.String()), "\n"), "✓"); got != 8 {
		t.Errorf("finished lines: got %d, want 8", got)
	}
}

func TestEventsAreFewAndStable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		events := NewEvents(slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
			if a.Key == slog.TimeKey {
				return slog.Attr{}
			}
			return a
		}})))
		events.Started("a:1")
		for i := range int64(250) { // 25 seconds
			events.Moved("a:1", State{Doing: "downloading", Current: i, Total: 250, Done: 1, Layers: 3})
			pass(100 * time.Millisecond)
		}
		events.Finished("a:1", Image{ID: "sha256:1", Digest: "sha256:2", Bytes: 250, Elapsed: 25 * time.Second}, nil)
		events.Started("b:1")
		events.Finished("b:1", Image{Elapsed: time.Second}, errors.New("gone"))
		want := strings.Join([]string{
			`level=INFO msg="image started" image=a:1`,
			`level=INFO msg="image under way" image=a:1 doing=downloading bytes=100 of=250 layers=1 ofLayers=3`,
			`level=INFO msg="image under way" image=a:1 doing=downloading bytes=200 of=250 layers=1 ofLayers=3`,
			`level=INFO msg="image ready" image=a:1 id=sha256:1 digest=sha256:2 bytes=250 elapsed=25s`,
			`level=INFO msg="image started" image=b:1`,
			`level=ERROR msg="image failed" image=b:1 elapsed=1s`,
			"",
		}, "\n")
		if diff := cmp.Diff(want, out.String()); diff != "" {
			t.Errorf("events (-want +got):\n%s", diff)
		}
	})
}

func TestBytesAreCountedInPowersOfAThousand(t *testing.T) {
	for n, want := range map[int64]string{0: "0 B", 999: "999 B", 1000: "1.0 kB", 999_949: "999.9 kB", 999_999: "1.0 MB", 1_500_000_000: "1.5 GB"} {
		if got := byteCount(n); got != want {
			t.Errorf("%d: got %s, want %s", n, got, want)
		}
	}
}
