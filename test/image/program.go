package main

import (
	"bytes"
	"context"
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
	// endLimit is what a program may take to end when it is asked to: Packer deletes what it made, and stops its machine.
	endLimit = 30 * time.Second
	// shownLines is as much of a failed program's output as is worth reading.
	shownLines = 15
)

// program is a command that ends with the proof: it is asked to by SIGTERM, and killed with all that it started after endLimit.
func program(ctx context.Context, arguments ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, arguments[0], arguments[1:]...)
	// A group of its own, so that Ctrl-C reaches it through here only, and once.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: unix.SIGTERM}
	cmd.Cancel = func() error { return cmd.Process.Signal(unix.SIGTERM) }
	cmd.WaitDelay = endLimit
	return cmd
}

// run runs a program to its end, with its output in a log of this name. An error has the log's last lines.
func (p *proof) run(ctx context.Context, name string, env []string, arguments ...string) (stdout string, err error) {
	path := filepath.Join(p.work, name+".log")
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return "", err
	}
	log, err := os.Create(path)
	if err != nil {
		return "", err
	}
	defer log.Close()
	var out bytes.Buffer
	cmd := program(ctx, arguments...)
	cmd.Dir, cmd.Env = p.root, append(os.Environ(), env...)
	cmd.Stdout, cmd.Stderr = &both{&out, log}, log
	err = cmd.Run()
	if cmd.Process != nil {
		_ = unix.Kill(-cmd.Process.Pid, unix.SIGKILL) // whatever it left behind; mostly nothing
	}
	if err != nil {
		written, _ := os.ReadFile(path)
		return "", fmt.Errorf("%s: %w\n%s", strings.Join(arguments, " "), err, lastLines(string(written), shownLines))
	}
	return strings.TrimSpace(out.String()), nil
}

// both is one writer for two.
type both struct {
	out *bytes.Buffer
	log *os.File
}

func (b *both) Write(p []byte) (int, error) {
	b.out.Write(p)
	return b.log.Write(p)
}

func lastLines(text string, n int) string {
	lines := strings.Split(strings.TrimRight(text, "\n"), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}
