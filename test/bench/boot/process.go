package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

const (
	// stopLimit is what an agent may take to end after SIGTERM; it has only servers to close.
	stopLimit = 10 * time.Second
	// shownOutput is as much of a failed command's output as is worth reading, in bytes.
	shownOutput = 4 << 10
)

// process is a running command.
type process struct {
	cmd     *exec.Cmd
	output  *os.File
	started time.Time
	ended   chan struct{}
	took    time.Duration // valid once ended is closed
	err     error         // likewise
}

// start runs the command in a process group of its own. The process must be closed.
func start(b boot) (*process, error) {
	path, err := exec.LookPath(b.command[0])
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
	cmd := exec.Command(path, b.command[1:]...)
	cmd.Dir = b.dir
	cmd.Env = append(os.Environ(), b.env...)
	cmd.Stdout, cmd.Stderr = output, output
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	p := &process{cmd: cmd, output: output, ended: make(chan struct{}), started: time.Now()}
	if err := cmd.Start(); err != nil {
		_ = output.Close()
		return nil, err
	}
	go func() {
		p.err = cmd.Wait()
		p.took = time.Since(p.started)
		close(p.ended)
	}()
	return p, nil
}

// end waits until the process has ended, and says after which time it did so without a failure.
func (p *process) end(ctx context.Context) (time.Duration, error) {
	select {
	case <-p.ended:
		return p.took, p.err
	case <-ctx.Done():
		return 0, context.Cause(ctx)
	}
}

// close stops the process and forgets what it printed.
func (p *process) close() {
	p.stop()
	_ = p.output.Close()
}

// stop ends the process and its children, if they haven't. It may be called more than once.
func (p *process) stop() {
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

// lastOutput is the end of what the process printed, as the end of an error message.
func (p *process) lastOutput() string {
	info, err := p.output.Stat()
	if err != nil {
		return fmt.Sprintf("; its output can't be read: %v", err)
	}
	content := make([]byte, min(info.Size(), shownOutput))
	if _, err := p.output.ReadAt(content, info.Size()-int64(len(content))); err != nil {
		return fmt.Sprintf("; its output can't be read: %v", err)
	}
	text := strings.TrimSpace(string(content))
	if text == "" {
		return "; it printed nothing"
	}
	return "; it printed\n" + text
}
