package health

import (
	"fmt"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/flowviz/flowagent/agent/health/probe"
)

// phase is what a check's results amount to.
type phase int

const (
	pending phase = iota // too few results in a row to tell
	up
	down
)

func (p phase) String() string {
	switch p {
	case up:
		return "up"
	case down:
		return "down"
	default:
		return "pending"
	}
}

// track turns the results of one check into a phase. It has no clock of its own.
type track struct {
	rise, fall int
	staleAfter time.Duration

	phase  phase
	since  time.Time    // when the phase began
	streak int          // results in a row: above 0 passed, below 0 failed
	good   probe.Status // of the last result that didn't fail
	last   probe.Result
	probed time.Time // when the last probe ended by itself; zero for never
	heard  time.Time // that, or when the track began
	took   time.Duration
	stale  bool

	counts [3]uint64 // results by status
}

func newTrack(c Check, now time.Time) track {
	return track{rise: c.Rise, fall: c.Fall, staleAfter: c.staleAfter(), since: now, heard: now}
}

// observe takes a result. A warning is as good as a pass: the thing works.
func (t *track) observe(r probe.Result, took time.Duration, now time.Time) {
	t.probed, t.heard, t.took, t.stale = now, now, took, false
	t.count(r, now)
}

// overdue takes a probe that outlived its deadline for a failure, without taking it for a sign of life.
func (t *track) overdue(after time.Duration, now time.Time) {
	t.count(probe.Result{Output: fmt.Sprintf("the probe did not end within %v", after)}, now)
}

func (t *track) count(r probe.Result, now time.Time) {
	r.Output = oneLine(r.Output)
	t.last = r
	t.counts[r.Status]++
	if r.Status == probe.Fail {
		t.streak = min(t.streak, 0) - 1
	} else {
		t.streak = max(t.streak, 0) + 1
		t.good = r.Status
	}
	switch {
	case t.phase != up && t.streak >= t.rise:
		t.enter(up, now)
	case t.phase != down && -t.streak >= t.fall:
		t.enter(down, now)
	}
}

// expire brings a check down that has been silent for too long, and tells whether that is news.
func (t *track) expire(now time.Time) bool {
	if t.stale || now.Sub(t.heard) < t.staleAfter {
		return false
	}
	t.stale = true
	t.streak = 0
	if t.phase != down {
		t.enter(down, now)
	}
	return true
}

func (t *track) enter(p phase, now time.Time) { t.phase, t.since = p, now }

// status is what the check counts for: an answer that isn't there yet is no pass, and a single failure no fail.
func (t *track) status() probe.Status {
	if t.phase != up {
		return probe.Fail
	}
	return t.good
}

// output is the last finding, with what is missing until it counts.
func (t *track) output() string {
	switch {
	case t.stale:
		return fmt.Sprintf("no result since %s: the probe hangs", t.heard.UTC().Format(time.RFC3339))
	case t.streak == 0:
		return "not probed yet"
	case t.phase != up && t.streak > 0:
		return join(fmt.Sprintf("passed %d of %d", t.streak, t.rise), t.last.Output)
	case t.phase != down && t.streak < 0:
		return join(fmt.Sprintf("failed %d of %d", -t.streak, t.fall), t.last.Output)
	}
	return t.last.Output
}

func join(a, b string) string {
	if b == "" {
		return a
	}
	return a + ": " + b
}

// longestOutput bounds one finding, in bytes: a sentence. What is longer comes from the other side of a connection.
const longestOutput = 300

// oneLine makes a finding fit for one line of a terminal, whoever it came from.
func oneLine(text string) string {
	if len(text) > longestOutput {
		end := longestOutput
		for end > 0 && !utf8.RuneStart(text[end]) {
			end--
		}
		text = text[:end] + "…"
	}
	text = strings.ToValidUTF8(text, "\uFFFD")
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || r == '\u2028' || r == '\u2029' {
			return ' '
		}
		return r
	}, text)
}
