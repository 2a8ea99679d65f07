package notice

import (
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
)

// reboot is the example of the EC2 User Guide with other values.
const reboot = `[{"NotBefore": "3 Feb 2027 09:00:43 GMT", "Code": "system-reboot", "Description": "scheduled reboot",
	"EventId": "instance-event-01", "NotAfter": "3 Feb 2027 09:17:23 GMT", "State": "active"}]`

var rebootNotice = Notice{
	Kind: Maintenance, ID: "maintenance/instance-event-01/2027-02-03T09:00:43Z", At: time.Date(2027, 2, 3, 9, 0, 43, 0, time.UTC),
	Detail: "system-reboot from 2027-02-03T09:00:43Z to 2027-02-03T09:17:23Z",
}

func TestAnswersBecomeNotices(t *testing.T) {
	at := time.Date(2026, 11, 24, 8, 22, 0, 0, time.UTC)
	for _, tt := range []struct {
		name   string
		read   func(string) ([]Notice, []doubt)
		answer string
		want   []Notice
		doubts []string // what they are about, and the word
	}{
		{"the end", readLifecycle, "Terminated", []Notice{{Kind: Terminate, ID: "lifecycle/Terminated", Detail: "Terminated"}}, nil},
		{"a warm pool", readLifecycle, "Warmed:Stopped", []Notice{{Kind: Lifecycle, ID: "lifecycle/Warmed:Stopped", Detail: "Warmed:Stopped"}}, nil},
		{"the end in a warm pool", readLifecycle, "Warmed:Terminated", []Notice{{Kind: Lifecycle, ID: "lifecycle/Warmed:Terminated", Detail: "Warmed:Terminated"}}, nil},
		{"a state in other letters", readLifecycle, "terminated", nil, []string{unknownState + " terminated"}},
		{"a lifecycle hook's state", readLifecycle, "Terminating:Wait", nil, []string{unknownState + " Terminating:Wait"}},

		{"spot", readSpot, `{"action": "stop", "time": "2026-11-24T08:22:00Z"}`,
			[]Notice{{Kind: Spot, ID: "spot/stop/2026-11-24T08:22:00Z", At: at, Detail: "stop"}}, nil},
		{"spot in another zone", readSpot, `{"action": "stop", "time": "2026-11-24T10:22:00+02:00"}`,
			[]Notice{{Kind: Spot, ID: "spot/stop/2026-11-24T08:22:00Z", At: at, Detail: "stop"}}, nil},
		{"spot without a time", readSpot, `{"action": "hibernate"}`, []Notice{{Kind: Spot, ID: "spot/hibernate", Detail: "hibernate"}}, []string{unknownTime + " "}},
		{"spot at a time that is none", readSpot, `{"action": "terminate", "time": "soon"}`,
			[]Notice{{Kind: Spot, ID: "spot/terminate", Detail: "terminate"}}, []string{unknownTime + " soon"}},
		{"spot with another action", readSpot, `{"action": "explode", "time": "2026-11-24T08:22:00Z"}`, nil, []string{unknownAction + " explode"}},
		{"spot null", readSpot, `null`, nil, []string{unknownAction + " "}},
		{"spot no JSON", readSpot, `<html>`, nil, []string{unreadable + " "}},
		{"spot cut off", readSpot, `{"action": "terminate"`, nil, []string{unreadable + " "}},
		{"spot of another shape", readSpot, `["terminate"]`, nil, []string{unreadable + " "}},

		{"rebalance", readRebalance, `{"noticeTime": "2026-11-24T08:22:00Z"}`,
			[]Notice{{Kind: Rebalance, ID: "rebalance/2026-11-24T08:22:00Z", Detail: "recommended at 2026-11-24T08:22:00Z"}}, nil},
		{"rebalance without a time", readRebalance, `{}`, nil, []string{unknownTime + " "}},
		{"rebalance no JSON", readRebalance, `yes`, nil, []string{unreadable + " "}},

		{"maintenance", readMaintenance, reboot, []Notice{rebootNotice}, nil},
		{"no maintenance", readMaintenance, `[]`, nil, nil},
		{"maintenance that is over", readMaintenance, `[
			{"Code": "system-reboot", "EventId": "e-1", "State": "completed", "NotBefore": "1 Jan 2027 09:00:00 GMT"},
			{"Code": "instance-stop", "EventId": "e-2", "State": "canceled", "NotBefore": "2 Jan 2027 09:00:00 GMT"},
			{"Code": "instance-retirement", "EventId": "e-3", "State": "active", "NotBefore": "12 Jan 2027 09:00:00 GMT"},
			{"Code": "system-reboot", "EventId": "e-4", "State": "postponed", "NotBefore": "14 Jan 2027 09:00:00 GMT"}]`,
			[]Notice{{
				Kind: Maintenance, ID: "maintenance/e-3/2027-01-12T09:00:00Z", At: time.Date(2027, 1, 12, 9, 0, 0, 0, time.UTC),
				Detail: "instance-retirement from 2027-01-12T09:00:00Z",
			}}, []string{unknownStage + " postponed"}},
		{"maintenance without an id or a readable time", readMaintenance, `[{"Code": "system-reboot", "State": "active", "NotBefore": "2027-01-12T09:00:00Z"}]`,
			[]Notice{{Kind: Maintenance, ID: "maintenance/system-reboot", Detail: "system-reboot"}}, []string{unknownTime + " 2027-01-12T09:00:00Z"}},
		{"maintenance no list", readMaintenance, `{"Code": "system-reboot"}`, nil, []string{unreadable + " "}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, doubts := tt.read(tt.answer)
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("notices (-want +got):\n%s", diff)
			}
			var about []string
			for _, d := range doubts {
				about = append(about, d.about+" "+d.word)
			}
			if diff := cmp.Diff(tt.doubts, about); diff != "" {
				t.Errorf("not understood (-want +got):\n%s", diff)
			}
		})
	}
}

func TestForeignWordsFitOnOneLine(t *testing.T) {
	for word, want := range map[string]string{
		"system-reboot":            "system-reboot",
		"two\nlines\x1b[31m":       "two\uFFFDlines\uFFFD[31m",
		strings.Repeat("é", 81):    strings.Repeat("é", 79) + "…",
		strings.Repeat("\xff", 80): strings.Repeat("\uFFFD", 80),
	} {
		if got := line(word); got != want {
			t.Errorf("line(%q) = %q, want %q", word, got, want)
		}
	}
	notices, _ := readMaintenance(`[{"Code": "a\nb` + strings.Repeat("c", 4000) + `", "EventId": "x\ny", "State": "active", "NotBefore": "3 Feb 2027 09:00:43 GMT"}]`)
	for _, n := range notices {
		if strings.ContainsAny(n.Detail+n.ID, "\n") || utf8.RuneCountInString(n.Detail) > 2*longestLine {
			t.Errorf("more than a line: %q", n)
		}
	}
	if len(notices) != 1 {
		t.Errorf("%d notices, want 1", len(notices))
	}
}

// Whatever a metadata service says, it is no panic and no notice without an id.
func FuzzAnswers(f *testing.F) {
	for _, seed := range []string{"Terminated", `{"action": "stop", "time": "2026-11-24T08:22:00Z"}`, `{"noticeTime": "2026-11-24T08:22:00Z"}`, reboot, `[{}]`, "<"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, answer string) {
		for _, read := range []func(string) ([]Notice, []doubt){readLifecycle, readSpot, readRebalance, readMaintenance} {
			notices, _ := read(answer)
			again, _ := read(answer)
			if diff := cmp.Diff(notices, again); diff != "" {
				t.Errorf("the same answer read twice differs:\n%s", diff)
			}
			for _, n := range notices {
				if n.ID == "" || n.Kind == "" || strings.Contains(n.Detail, "\n") || utf8.RuneCountInString(n.Detail) > 2*longestLine {
					t.Errorf("notice %+v of %q", n, answer)
				}
			}
		}
	})
}
