package workload

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// cancelGrace is how long compose has to react to SIGTERM. It only stops waiting then; containers stay as they are.
	cancelGrace = 10 * time.Second
	// lockPoll is how often a lock is tried that a process without an agent holds. flock can't be waited for and
	// given up at the same time.
	lockPoll = 100 * time.Millisecond
	// shownLines of compose's own output are enough for its reason; the lines before are progress.
	shownLines = 5
)

// compose executes the plugin on the project and waits for its end. When ctx ends first, the plugin and its children
// get SIGTERM, and SIGKILL after a grace.
//
// One compose command runs at a time. An agent that was killed may have left one behind, which must end before the
// next begins: two of them would fight for container names. The lock is an open file that the plugin inherits, so it
// is held for as long as either lives.
func (r *Runner) compose(ctx context.Context, args ...string) error {
	_, err := r.composeLines(ctx, args...)
	return err
}

// composeLines is compose for a command whose output is of use.
func (r *Runner) composeLines(ctx context.Context, args ...string) (lines []string, err error) {
	plugin, err := r.plugin()
	if err != nil {
		return nil, err
	}
	p := r.project
	if err := os.MkdirAll(p.dockerConfigDir(), 0o700); err != nil {
		return nil, fmt.Errorf("make compose's empty configuration directory: %w", err)
	}
	lock, err := lockFile(ctx, filepath.Join(p.runDir, "compose.lock"))
	if err != nil {
		return nil, fmt.Errorf("wait for another compose command to end: %w", err)
	}
	defer lock.Close()

	cmd := exec.CommandContext(ctx, plugin, append(p.composeFlags(), args...)...)
	cmd.Dir = p.directory()
	cmd.Env = p.env
	cmd.ExtraFiles = []*os.File{lock}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) }
	cmd.WaitDelay = cancelGrace
	var output tail
	cmd.Stdout, cmd.Stderr = &output, &output // Stdin stays /dev/null: there is nobody to ask
	begin := time.Now()
	err = cmd.Run()
	r.log.Debug("compose ended", "command", args[0], "elapsed", time.Since(begin), "error", err != nil)
	if ctx.Err() != nil {
		if cmd.Process != nil {
			// The group's leader is gone; whatever it left in the group goes, too.
			_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		}
		return nil, fmt.Errorf("compose %s: %w", args[0], context.Cause(ctx))
	}
	lines = output.lines(maxTail)
	if err != nil {
		return nil, &composeError{command: args[0], err: err, lines: r.scrubber().lines(reasons(lines))}
	}
	return lines, nil
}

// composeFlags come before the command's name.
func (p *Project) composeFlags() []string {
	flags := []string{"--ansi", "never", "--project-directory", p.directory(), "-p", p.Name()}
	for _, file := range append(p.files[:len(p.files):len(p.files)], p.overridePath()) {
		flags = append(flags, "-f", file)
	}
	for _, profile := range p.profiles {
		flags = append(flags, "--profile", profile)
	}
	return flags
}

// composeError is a compose command that failed, with what it said.
type composeError struct {
	command string
	err     error
	lines   []string // scrubbed
}

func (e *composeError) Error() string {
	text := fmt.Sprintf("compose %s: %v", e.command, e.err)
	if len(e.lines) > 0 {
		text += ": " + strings.Join(e.lines, "; ")
	}
	return text
}

func (e *composeError) Unwrap() error { return e.err }

// reasons are the last lines of compose's output without its progress (" Container x  Started").
func reasons(lines []string) []string {
	var kept []string
	for _, line := range lines {
		object, rest, _ := strings.Cut(line, " ")
		switch object {
		case "Container", "Network", "Volume", "Image":
			// An error about one object is repeated, without its name, at the end.
			if fields := strings.Fields(rest); len(fields) <= 2 || strings.Contains(rest, "Error") {
				continue
			}
		}
		if len(kept) == 0 || kept[len(kept)-1] != line {
			kept = append(kept, line)
		}
	}
	if len(kept) == 0 {
		kept = lines
	}
	return kept[max(0, len(kept)-shownLines):]
}

// lines scrubs, then shortens: a secret that is cut in two would no longer be found.
func (s scrubber) lines(lines []string) []string {
	out := make([]string, len(lines))
	for i, line := range lines {
		out[i] = shorten(s.scrub(line))
	}
	return out
}

// lockFile takes an exclusive lock that lasts until every copy of the returned file is closed.
func lockFile(ctx context.Context, path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	var ticker *time.Ticker
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return f, nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) {
			f.Close()
			return nil, fmt.Errorf("lock %s: %w", path, err)
		}
		if ticker == nil {
			ticker = time.NewTicker(lockPoll)
			defer ticker.Stop()
		}
		select {
		case <-ctx.Done():
			f.Close()
			return nil, context.Cause(ctx)
		case <-ticker.C:
		}
	}
}
