// Package process runs the programs that benches time.
//
// What enters is a command; what leaves are the time it took, whether it answers, and, when it failed, the end of what it
// printed. A process never outlives its Close, and nobody copies its output beside the measurement.
package process

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"
)

const (
	// stopLimit is what a process may take to end after SIGTERM; an agent has only servers to close.
	stopLimit = 10 * time.Second
	// shownOutput is as much of a failed command's output as is worth reading, in bytes.
	shownOutput = 4 << 10
)

// Command is what to run.
type Command struct {
	Arguments []string // the program first
	Dir       string   // "" for the current one
	Env       []string // in addition to the bench's own; the last value of a name wins
}

// Process is a running command.
type Process struct {
	Started time.Time

	cmd    *exec.Cmd
	output *os.File
	ended  chan struct{}
	took   time.Duration // valid once ended is closed
	err    error         // likewise
}

// Start runs the command in a process group of its own. The process must be closed.
func Start(c Command) (*Process, error) {
	path, err := exec.LookPath(c.Arguments[0])
	if err != nil {
		return nil, err
	}
	if path, err = filepath.Abs(path); err != nil { // for the directory it will run in
		return nil, err
	}
	// A file: nobody copies output beside the measurement.
	output, err := os.CreateTemp("", "bench-output-*")
	if err != nil {
		return nil, err
	}
	_ = os.Remove(output.Name()) // it lasts as long as it is open
	cmd := exec.Command(path, c.Arguments[1:]...)
	cmd.Dir = c.Dir
	cmd.Env = append(os.Environ(), c.Env...)
	cmd.Stdout, cmd.Stderr = output, output
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	p := &Process{cmd: cmd, output: output, ended: make(chan struct{}), Started: time.Now()}
	if err := cmd.Start(); err != nil {
		_ = output.Close()
		return nil, err
	}
	go func() {
		p.err = cmd.Wait()
		p.took = time.Since(p.Started)
		close(p.ended)
	}()
	return p, nil
}

// ID is the process's number.
func (p *Process) ID() int { return p.cmd.Process.Pid }

// Ended is closed when the process has ended.
func (p *Process) Ended() <-chan struct{} { return p.ended }

// Early is why a process that was to run on has ended; only after Ended.
func (p *Process) Early() error {
	err := p.err
	if err == nil {
		err = errors.New("exit status 0")
	}
	return fmt.Errorf("it ended early: %w", err)
}

// Wait waits until the process has ended, and says after which time it did so without a failure.
func (p *Process) Wait(ctx context.Context) (time.Duration, error) {
	select {
	case <-p.ended:
		return p.took, p.err
	case <-ctx.Done():
		return 0, context.Cause(ctx)
	}
}

// Close stops the process and forgets what it printed.
func (p *Process) Close() {
	p.Stop()
	_ = p.output.Close()
}

// Stop ends the process and its children, if they haven't. It may be called more than once.
func (p *Process) Stop() {
	select {
	case <-p.ended:
		return
	default:
	}
	_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGTERM)
	limit := time.NewTimer(stopLimit)
	defer limit.Stop()
	select {
	case <-p.ended:
	case <-limit.C:
		_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL)
		<-p.ended
	}
}

// Output is the end of what the process printed.
func (p *Process) Output() (string, error) {
	info, err := p.output.Stat()
	if err != nil {
		return "", err
	}
	content := make([]byte, min(info.Size(), shownOutput))
	if _, err := p.output.ReadAt(content, info.Size()-int64(len(content))); err != nil {
		return "", err
	}
	return string(bytes.TrimSpace(content)), nil
}

// Blame is err with the end of what the process printed.
func (p *Process) Blame(err error) error {
	text, readErr := p.Output()
	switch {
	case readErr != nil:
		return fmt.Errorf("%w; its output can't be read: %v", err, readErr)
	case text == "":
		return fmt.Errorf("%w; it printed nothing", err)
	}
	return fmt.Errorf("%w; it printed\n%s", err, text)
}
