package eventlog

import (
	"bytes"
	"errors"
	"log/slog"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/coreos/go-systemd/v22/journal"
	"github.com/google/go-cmp/cmp"
)

// entry is what reached the journal.
type entry struct {
	Message  string
	Priority journal.Priority
	Fields   map[string]string
}

func TestJournal_HasEachAttributeInTheMessageAndAsAField(t *testing.T) {
	var got []entry
	log := slog.New(newJournalHandler(func(message string, p journal.Priority, fields map[string]string) error {
		got = append(got, entry{message, p, fields})
		return nil
	}, "flowagent.service", os.Stderr))
	log.Debug("not shown in any form")
	log.Info("agent stopped")
	log.With("phase", "images").Warn("stage tries again", "attempt", 2, "wait", 1500*time.Millisecond, "error", errors.New("no route"))
	log.WithGroup("drain").With("stepName", "stop").Error("step failed", slog.Group("left", "requests", 3))

	want := []entry{
		{"agent stopped", journal.PriInfo, map[string]string{
			"SYSLOG_IDENTIFIER": "flowagent", "OBJECT_SYSTEMD_UNIT": "flowagent.service", "FLOWAGENT_EVENT": "agent stopped",
		}},
		{`stage tries again phase=images attempt=2 wait=1.5s error="no route"`, journal.PriWarning, map[string]string{
			"SYSLOG_IDENTIFIER": "flowagent", "OBJECT_SYSTEMD_UNIT": "flowagent.service", "FLOWAGENT_EVENT": "stage tries again",
			"FLOWAGENT_PHASE": "images", "FLOWAGENT_ATTEMPT": "2", "FLOWAGENT_WAIT": "1.5s", "FLOWAGENT_ERROR": "no route",
		}},
		{"step failed drain.stepName=stop drain.left.requests=3", journal.PriErr, map[string]string{
			"SYSLOG_IDENTIFIER": "flowagent", "OBJECT_SYSTEMD_UNIT": "flowagent.service", "FLOWAGENT_EVENT": "step failed",
			"FLOWAGENT_DRAIN_STEP_NAME": "stop", "FLOWAGENT_DRAIN_LEFT_REQUESTS": "3",
		}},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("entries (-want +got):\n%s", diff)
	}
}

func TestJournal_ThatTakesNothingLosesNoEvent(t *testing.T) {
	var backup bytes.Buffer
	log := slog.New(newJournalHandler(func(string, journal.Priority, map[string]string) error {
		return errors.New("journald is being restarted")
	}, "", &backup))
	log.With("phase", "secrets").Info("stage done", "elapsed", time.Second)
	if want := `level=INFO msg="stage done" phase=secrets elapsed=1s`; !strings.Contains(backup.String(), want) {
		t.Errorf("got %q on stderr, want it to have %q", backup.String(), want)
	}
}

func TestTerminal_IsReadableAndRedWhereItHurts(t *testing.T) {
	t.Setenv("NO_COLOR", "")
	t.Setenv("TERM", "xterm")
	var b bytes.Buffer
	New(&b, Terminal).Error("boot failed", "phase", "images", "error", errors.New("no such image"))
	for _, want := range []string{"boot failed", "images", "\x1b[", "no such image"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("got %q, want it to have %q", b.String(), want)
		}
	}
	b.Reset()
	t.Setenv("NO_COLOR", "1")
	New(&b, Terminal).Error("boot failed", "error", errors.New("no such image"))
	if got, want := b.String()[len("15:04:05"):], " ERR boot failed error=\"no such image\"\n"; got != want {
		t.Errorf("without color: got %q, want %q after the time", got, want)
	}
}

func TestAuto_IsTextForAPipeAndJSONOnlyWhenAskedFor(t *testing.T) {
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer read.Close()
	defer write.Close()
	if got := choose(write); got != Text {
		t.Errorf("a pipe: got %s, want %s", got, Text)
	}
	var b bytes.Buffer
	New(&b, JSON).Info("ready", "elapsed", 2)
	if !strings.Contains(b.String(), `"msg":"ready","elapsed":2}`) {
		t.Errorf("got %q, want a JSON line", b.String())
	}
}

func TestParse_SaysWhatThereIs(t *testing.T) {
	if f, err := Parse("journal"); err != nil || f != Journal {
		t.Errorf("got %q, %v", f, err)
	}
	_, err := Parse("syslog")
	if want := `"syslog" is unknown: use auto, journal, terminal, text or json`; err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

func TestUnitOf_IsTheServiceThatSystemdStarted(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ groups, want string }{
		"version 2":            {"0::/system.slice/flowagent.service\n", "flowagent.service"},
		"version 1 beside 2":   {"12:pids:/other.service\n1:name=systemd:/system.slice/flowagent.service\n0::/\n", "flowagent.service"},
		"groups of its own":    {"0::/system.slice/flowagent.service/worker/1\n", "flowagent.service"},
		"an instance":          {"0::/system.slice/system-flowagent.slice/flowagent@blue.service\n", "flowagent@blue.service"},
		"a user's":             {"0::/user.slice/user-1000.slice/user@1000.service/app.slice/flowagent.service\n", "flowagent.service"},
		"somebody's session":   {"0::/user.slice/user-0.slice/session-3.scope\n", ""},
		"a container":          {"0::/\n", ""},
		"another's controller": {"12:pids:/system.slice/flowagent.service\n", ""},
		"nothing":              {"", ""},
		"what is no group":     {"flowagent.service\n", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got := unitOf(c.groups); got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}
