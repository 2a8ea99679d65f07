package probe

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func shell(script string) *Command { return &Command{Argv: []string{"sh", "-c", script}} }

func TestCommand_TheExitCodeDecides(t *testing.T) {
	tests := map[string]struct {
		command *Command
		status  Status
		output  string
	}{
		"0":                     {&Command{Argv: []string{"true"}}, Pass, "true exits with 0"},
		"0 and a line":          {shell("echo; echo all is well; echo more"), Pass, "sh: all is well"},
		"1":                     {&Command{Argv: []string{"/bin/false"}}, Fail, "/bin/false exits with 1"},
		"7 and a line":          {shell("echo broken >&2; exit 7"), Fail, "sh exits with 7: broken"},
		"a signal":              {shell("kill -TERM $$"), Fail, "sh: signal: terminated"},
		"no such program":       {&Command{Argv: []string{"no-such-program"}}, Fail, "no such program in /usr/local/sbin:"},
		"no such path":          {&Command{Argv: []string{"/no/such/program"}}, Fail, "no such file or directory"},
		"a relative path":       {&Command{Argv: []string{"./program"}}, Fail, "write the program's absolute path, or its bare name"},
		"nothing":               {&Command{}, Fail, "no program is configured"},
		"no such directory":     {&Command{Argv: []string{"true"}, Dir: "/no/such"}, Fail, "no such file or directory"},
		"an escape in its line": {shell(`printf '\033[31mred\n'`), Pass, "sh: ?[31mred"},
		"more than a pipe":      {shell("head -c 1000000 /dev/zero | tr '\\0' x; exit 3"), Fail, "xxx…"},
		"no shell":              {&Command{Argv: []string{"echo", "$HOME; exit 1"}}, Pass, "echo: $HOME; exit 1"},
		"no input":              {&Command{Argv: []string{"cat"}}, Pass, "cat exits with 0"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) { expect(t, test.command.Probe(t.Context()), test.status, test.output) })
	}
}

func TestCommand_GetsACleanEnvironment(t *testing.T) {
	t.Setenv("DB_PASSWORD", "hunter2")
	p := &Command{Argv: []string{"sh", "-c", "env | sort | tr '\\n' ' '"}, Env: []string{"MODE=check"}, Dir: "/tmp"}
	expect(t, p.Probe(t.Context()), Pass, "sh: LANG=C.UTF-8 MODE=check PATH="+CommandPath+" PWD=/tmp")
}

func TestCommand_WhatItLeavesInItsGroupIsKilled(t *testing.T) {
	file := filepath.Join(t.TempDir(), "pid")
	// The one left behind holds the output open, for which exec.Cmd would wait.
	p := shell("sleep 1000 & echo $! >" + file + "; echo done")
	expect(t, p.Probe(t.Context()), Pass, "sh: done")
	gone(t, file)
}

func TestCommand_IsKilledWithItsGroupWhenTimeIsOver(t *testing.T) {
	file := filepath.Join(t.TempDir(), "pid")
	ctx := newOverdue(t.Context())
	p := shell("trap '' TERM; echo working; sleep 1000 & echo $! >" + file + "; wait")
	result := make(chan Result, 1)
	go func() { result <- p.Probe(ctx) }()
	until(t, "process number", func() bool {
		pid, err := os.ReadFile(file)
		return err == nil && strings.HasSuffix(string(pid), "\n") || len(result) > 0
	})
	ctx.pass()
	expect(t, <-result, Fail, "sh was killed: no answer in time: working")
	gone(t, file)
}

// until waits for what comes in its own time, as long as the test may last.
func until(t *testing.T, what string, there func() bool) {
	t.Helper()
	for !there() {
		select {
		case <-t.Context().Done():
			t.Fatalf("no %s", what)
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// overdue is a context whose deadline passes when a test says so.
type overdue struct {
	context.Context
	passed chan struct{}
}

func newOverdue(parent context.Context) *overdue { return &overdue{parent, make(chan struct{})} }

func (o *overdue) pass()                 { close(o.passed) }
func (o *overdue) Done() <-chan struct{} { return o.passed }

func (o *overdue) Err() error {
	select {
	case <-o.passed:
		return context.DeadlineExceeded
	default:
		return nil
	}
}

// The reader may come to run only after the program has ended.
func TestFirstLine_TakesWhatIsInThePipeWhenTimeIsOver(t *testing.T) {
	for text, want := range map[string]string{
		"":                 "",
		"\nbroken\nmore\n": "broken",
		strings.Repeat("\n", commandKept) + "late": "",
	} {
		out, in, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		defer out.Close()
		defer in.Close() // open until then, as by a process that escaped
		if _, err := in.WriteString(text); err != nil {
			t.Fatal(err)
		}
		if err := out.SetReadDeadline(time.Unix(1, 0)); err != nil {
			t.Fatal(err)
		}
		if got := firstLine(out); got != want {
			t.Errorf("%d bytes in the pipe: got %q, want %q", len(text), got, want)
		}
	}
}

// A process that left the session keeps the pipe open; the probe doesn't wait for it.
func TestCommand_OneThatEscapesIsNotWaitedFor(t *testing.T) {
	file := filepath.Join(t.TempDir(), "pid")
	p := shell("setsid sh -c 'echo $$ >" + file + "; exec sleep 1000' & while ! [ -s " + file + " ]; do :; done; echo done")
	expect(t, p.Probe(t.Context()), Pass, "sh: done")
	kill(t, file)
}

// gone waits until the process whose number is in the file has ended: it is init's to reap.
func gone(t *testing.T, file string) {
	t.Helper()
	settle(t, "processes ", 0, func() int {
		stat, err := os.ReadFile("/proc/" + number(t, file) + "/stat")
		if err != nil || strings.Contains(string(stat), ") Z ") {
			return 0
		}
		return 1
	})
}

func number(t *testing.T, file string) string {
	t.Helper()
	pid, err := os.ReadFile(file)
	if err != nil || len(pid) < 2 {
		t.Fatalf("no process number: %v", err)
	}
	return strings.TrimSpace(string(pid))
}

func kill(t *testing.T, file string) {
	t.Helper()
	if got := (&Command{Argv: []string{"sh", "-c", "kill -KILL " + number(t, file)}}).Probe(t.Context()); got.Status != Pass {
		t.Errorf("the process that escaped can't be killed: %s", got.Output)
	}
}
