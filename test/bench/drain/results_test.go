package main

import (
	"strings"
	"testing"
	"time"
)

func TestTimeInWhichTwoContainersStopCountsOnce(t *testing.T) {
	at := func(seconds int) time.Time { return time.Unix(1000, 0).Add(time.Duration(seconds) * time.Second) }
	for _, test := range []struct {
		name  string
		spans []span
		want  time.Duration
	}{
		{"none", nil, 0},
		{"one after the other", []span{{at(5), at(7)}, {at(0), at(1)}}, 3 * time.Second},
		{"overlapping", []span{{at(0), at(4)}, {at(2), at(5)}}, 5 * time.Second},
		{"one within the other", []span{{at(0), at(9)}, {at(2), at(5)}, {at(8), at(10)}}, 10 * time.Second},
	} {
		if got := together(test.spans); got != test.want {
			t.Errorf("%s: got %v, want %v", test.name, got, test.want)
		}
	}
}

func TestEachBoundIsHeldAgainstTheWorstRound(t *testing.T) {
	good := round{noticed: time.Second, completed: 3 * time.Second, stopping: 2500 * time.Millisecond, questions: 0.4}
	for _, test := range []struct {
		name  string
		worst round
		want  []string // the verdicts
	}{
		{"all within", good, []string{"within", "within", "within"}},
		{"a late notice", round{noticed: noticeLimit + time.Millisecond}, []string{"beyond", "within", "within"}},
		{"a late completion", round{completed: 4 * time.Second, stopping: 2900 * time.Millisecond}, []string{"within", "beyond", "within"}},
	} {
		var out strings.Builder
		if err := (results{good, test.worst, good}).print(&out); err != nil {
			t.Fatal(err)
		}
		var got []string
		for line := range strings.Lines(out.String()) {
			if i := strings.LastIndex(line, ": "); strings.HasSuffix(line, ": within\n") || strings.HasSuffix(line, ": beyond\n") {
				got = append(got, strings.TrimSpace(line[i+1:]))
			}
		}
		if strings.Join(got, " ") != strings.Join(test.want, " ") {
			t.Errorf("%s: got %v, want %v from\n%s", test.name, got, test.want, out.String())
		}
	}
}
