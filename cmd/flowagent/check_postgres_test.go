package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/flowviz/flowagent/test/lab"
)

// said is what one of the two programs did.
type said struct {
	Code   int
	Stdout string
	stderr string
}

// pair runs pg_isready and `flowagent check postgres` side by side.
type pair struct {
	isready string
	version int // of pg_isready, the first number
	env     []string
}

// newPair finds the real pg_isready. Both programs get an environment without PG* and an empty home.
func newPair(t *testing.T) pair {
	t.Helper()
	env := slices.DeleteFunc(os.Environ(), func(variable string) bool {
		return strings.HasPrefix(variable, "PG") || strings.HasPrefix(variable, "LC_") || strings.HasPrefix(variable, "HOME=")
	})
	// Under the race detector every process would sleep for a second before it ends.
	env = append(env, "LC_ALL=C", "HOME="+t.TempDir(), "GORACE=atexit_sleep_ms=0")
	p := pair{isready: lab.PostgresProgram(t, "pg_isready"), env: env}
	stdout := p.start(t, p.isready, "--version")().Stdout
	if _, err := fmt.Sscanf(stdout, "pg_isready (PostgreSQL) %d.", &p.version); err != nil {
		t.Fatalf("%s says %q of its version: %v", p.isready, stdout, err)
	}
	return p
}

// with adds variables to the environment of both.
func (p pair) with(variables ...string) pair {
	p.env = append(slices.Clip(p.env), variables...)
	return p
}

// agree asks both with the same arguments. Their exit codes must be want, and what they print to stdout the same.
func (p pair) agree(t *testing.T, want int, args ...string) said {
	t.Helper()
	theirs, ours := p.run(t, args)
	if theirs.Code != want {
		t.Errorf("pg_isready %q: got exit code %d, want %d\n%s%s", args, theirs.Code, want, theirs.Stdout, theirs.stderr)
	}
	if diff := cmp.Diff(theirs, ours, cmp.FilterPath(isStderr, cmp.Ignore())); diff != "" {
		t.Errorf("flowagent check postgres %q differs from pg_isready (- pg_isready, + flowagent):\n%s\nflowagent says %q", args, diff, ours.stderr)
	}
	return ours
}

func isStderr(path cmp.Path) bool { return path.Last().String() == ".stderr" }

// run starts both before it waits for either, since some wait for their timeout.
func (p pair) run(t *testing.T, args []string) (theirs, ours said) {
	t.Helper()
	waitTheirs := p.start(t, p.isready, args...)
	waitOurs := p.start(t, "flowagent", append([]string{"check", "postgres"}, args...)...)
	return waitTheirs(), waitOurs()
}

func (p pair) start(t *testing.T, program string, args ...string) func() said {
	t.Helper()
	var stdout, stderr bytes.Buffer
	cmd := exec.CommandContext(t.Context(), program, args...)
	cmd.Env, cmd.Stdout, cmd.Stderr = p.env, &stdout, &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return func() said {
		err := cmd.Wait()
		var exit *exec.ExitError
		if err != nil && !errors.As(err, &exit) {
			t.Fatalf("%s: %v", program, err)
		}
		return said{cmd.ProcessState.ExitCode(), stdout.String(), stderr.String()}
	}
}

// at are the arguments for a server on this machine.
func at(port int, args ...string) []string {
	return append([]string{"-h", "127.0.0.1", "-p", strconv.Itoa(port)}, args...)
}

// conninfo are the arguments for a connection string to a server on this machine.
func conninfo(port int, settings string) []string {
	return []string{"-d", "host=127.0.0.1 port=" + strconv.Itoa(port) + " " + settings}
}
