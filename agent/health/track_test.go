package health

import (
	"strings"
	"testing"
	"time"

	"github.com/flowviz/flowagent/agent/config"
	"github.com/flowviz/flowagent/agent/health/probe"
)

// checked is a check with the configuration's defaults.
func checked(name string) Check {
	return Check{Name: name, Kind: "tcp", Scope: config.ScopeNode, Gate: config.GateAuto, Interval: 5 * time.Second, Timeout: 3 * time.Second, Rise: 2, Fall: 3}
}

func TestTrack_RiseAndFallCountResultsInARow(t *testing.T) {
	for _, c := range []struct{ results, want string }{
		{"", "?"},
		{"+", "??"},
		{"++", "??+"},
		{"w+", "??+"},
		{"+-+-+-", "???????"},
		{"---", "???-"},
		{"--+--", "??????"},
		{"++--+--+", "??+++++++"},
		{"++---", "??+++-"},
		{"++---+", "??+++--"},
		{"++---+-++", "??+++----+"},
		{"++---++", "??+++--+"},
		{"++ww", "??+ww"},
		{"++w-", "??+ww"}, // a single failure changes nothing, nor does it take the warning back
		{"++w-+", "??+ww+"},
	} {
		now := time.Unix(1e9, 0)
		track := newTrack(checked("a"), now)
		got := word(track)
		for _, r := range c.results {
			now = now.Add(5 * time.Second)
			track.observe(probe.Result{Status: map[rune]probe.Status{'+': probe.Pass, 'w': probe.Warn, '-': probe.Fail}[r]}, time.Millisecond, now)
			got += word(track)
		}
		if got != c.want {
			t.Errorf("%q: got %s, want %s", c.results, got, c.want)
		}
	}
}

// word is one letter for what a track amounts to.
func word(t track) string {
	switch {
	case t.phase == pending:
		return "?"
	case t.phase == down:
		return "-"
	case t.status() == probe.Warn:
		return "w"
	}
	return "+"
}

func TestTrack_SilenceBringsItDownAtOnceAndResultsBringItBack(t *testing.T) {
	start := time.Unix(1e9, 0)
	pass := probe.Result{Status: probe.Pass, Output: "fine"}
	track := newTrack(checked("a"), start)
	track.observe(pass, 0, start)
	track.observe(pass, 0, start)
	limit := 15 * time.Second // three intervals
	if track.expire(start.Add(limit - 1)) {
		t.Error("stale before its time")
	}
	if !track.expire(start.Add(limit)) || track.phase != down {
		t.Errorf("after %v without a result: got %v, want down", limit, track.phase)
	}
	if track.expire(start.Add(2 * limit)) {
		t.Error("silence is news only once")
	}
	if got := track.output(); !strings.Contains(got, "no result since 2001-09-09T01:46:40Z") {
		t.Errorf("output: got %q", got)
	}
	track.observe(pass, 0, start.Add(limit))
	if track.phase != down || track.output() != "passed 1 of 2: fine" {
		t.Errorf("after one pass: got %v %q, want down", track.phase, track.output())
	}
	track.observe(pass, 0, start.Add(limit))
	if track.phase != up || track.output() != "fine" {
		t.Errorf("after two passes: got %v %q, want up", track.phase, track.output())
	}
}

func TestTrack_AnOverdueProbeIsAFailureAndNoSignOfLife(t *testing.T) {
	start := time.Unix(1e9, 0)
	track := newTrack(checked("a"), start)
	track.observe(probe.Result{Status: probe.Pass}, 0, start)
	track.observe(probe.Result{Status: probe.Pass}, 0, start)
	track.overdue(3*time.Second, start.Add(9*time.Second))
	if got, want := track.output(), "failed 1 of 3: the probe did not end within 3s"; got != want || track.phase != up {
		t.Errorf("got %v %q, want up %q", track.phase, got, want)
	}
	if !track.expire(start.Add(15 * time.Second)) {
		t.Error("an overdue probe put off the silence")
	}
}

func TestCheck_StaleAfterThreeIntervalsOrWhenTheLatestProbeIsOverdue(t *testing.T) {
	for _, c := range []struct{ interval, timeout, want time.Duration }{
		{5 * time.Second, 3 * time.Second, 15 * time.Second},
		{time.Second, time.Minute, time.Minute + 1100*time.Millisecond + grace},
	} {
		check := Check{Interval: c.interval, Timeout: c.timeout}
		if got := check.staleAfter(); got != c.want {
			t.Errorf("every %v within %v: got %v, want %v", c.interval, c.timeout, got, c.want)
		}
	}
}

func TestOutput_IsOneBoundedLineWhateverAServerSays(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"fine", "fine"},
		{"two\r\nlines\x1b[31m\x00", "two  lines [31m "},
		{"not \xff UTF-8", "not \uFFFD UTF-8"},
		{strings.Repeat("é", 200), strings.Repeat("é", 150) + "…"},
		{"a" + strings.Repeat("é", 200), "a" + strings.Repeat("é", 149) + "…"},
	} {
		if got := oneLine(c.text); got != c.want {
			t.Errorf("%q: got %q, want %q", c.text, got, c.want)
		}
	}
}
