package flowagent

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// patience bounds a wait for what takes less than a second; the rest is for a loaded CI machine.
const patience = time.Minute

// The guard runs in the shell that runs it on a target. Its systemd-run registers the scope only when a stop of it has
// been refused, as a build that ends at the wrong moment has it.
func TestAScopeThatStartsAfterTheStopIsStopped(t *testing.T) {
	bin, state := t.TempDir(), t.TempDir()
	for name, script := range map[string]string{
		"systemctl": `#!/bin/sh
if [ -e "$STATE/scope" ]; then kill -- "-$(cat "$STATE/scope")"; exit; fi
: >"$STATE/refused"
exit 5
`,
		// A session is what a scope is to systemd: its processes can be named together.
		"systemd-run": `#!/bin/sh
until [ -e "$STATE/refused" ]; do sleep 0.01; done
until [ "$1" = -- ]; do shift; done
shift
exec setsid --wait /bin/sh -c 'echo $$ >"$STATE/new" && mv "$STATE/new" "$STATE/scope" && exec "$@"' sh "$@"
`,
	} {
		if err := os.WriteFile(filepath.Join(bin, name), []byte(script), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, "/bin/sh", "-c", guard, "flowagent-guard", "test")
	cmd.Env = []string{"PATH=" + bin + ":" + os.Getenv("PATH"), "STATE=" + state}
	// It has the step and then no build any more.
	cmd.Stdin = strings.NewReader(encode("echo begun; sleep 1000") + "\n" + encode("") + "\n")
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.Cancel = func() error {
		session, err := os.ReadFile(filepath.Join(state, "scope"))
		if err != nil {
			return cmd.Process.Kill()
		}
		id, err := strconv.Atoi(strings.TrimSpace(string(session)))
		if err != nil {
			return errors.Join(err, cmd.Process.Kill())
		}
		return errors.Join(syscall.Kill(-id, syscall.SIGKILL), cmd.Process.Kill())
	}
	// It returns when nothing has the output open any more.
	err := cmd.Run()
	if ctx.Err() != nil {
		t.Fatalf("the step still runs after %s: %v, %s", patience, err, &out)
	}
	if want := 128 + int(syscall.SIGTERM); cmd.ProcessState.ExitCode() != want {
		t.Errorf("got exit code %d and %s, want %d", cmd.ProcessState.ExitCode(), &out, want)
	}
	if _, err := os.Stat(filepath.Join(state, "scope")); err != nil {
		t.Errorf("the scope never started: %v", err)
	}
}
