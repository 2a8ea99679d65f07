package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"
)

const (
	// stopGrace is how long a stand-in may take to end after SIGTERM. None of them has work worth waiting for; the
	// slowest, a Python server, needs well under a second.
	stopGrace = 5 * time.Second
	// logKept bounds the log that is held for a failure report: the last part is what explains an end.
	logKept = 64 << 10
)

// Process is one stand-in that runs beside a test, in a process group of its own. It dies with the process that
// started it.
type Process struct {
	name string
	pid  int
	log  tail
	done chan struct{}
	err  error // why it ended; valid once done is closed
}

// start runs cmd and keeps its output. The program ends with Stop, or when this process ends, whatever happens first.
func start(name string, cmd *exec.Cmd) (*Process, error) {
	p := &Process{name: name, done: make(chan struct{})}
	cmd.Stdout, cmd.Stderr = &p.log, &p.log
	cmd.WaitDelay = stopGrace
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Setpgid = true
	cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL

	started := make(chan error)
	go func() {
		// The kernel sends Pdeathsig when the thread that forked ends, not the process: keep the thread until then.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err != nil {
			return
		}
		p.err = cmd.Wait()
		close(p.done)
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	p.pid = cmd.Process.Pid
	return p, nil
}

// Log returns the end of what the program printed so far.
func (p *Process) Log() string { return p.log.String() }

// Done is closed when the program has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// Stop asks the program and its children to end, then makes them. It returns when they are gone and may be called more
// than once.
func (p *Process) Stop() {
	p.signal(syscall.SIGTERM)
	grace := time.NewTimer(stopGrace)
	defer grace.Stop()
	select {
	case <-p.done:
	case <-grace.C:
	}
	p.signal(syscall.SIGKILL)
	<-p.done
}

func (p *Process) signal(s syscall.Signal) {
	select {
	case <-p.done:
		// The group's number may belong to somebody else by now; what the program left in it died with its parent.
	default:
		_ = syscall.Kill(-p.pid, s)
	}
}

// pollEvery is the distance between two looks at something that is about to become true: short against the 0.1 to 2
// seconds that the stand-ins take to start, long against the cost of a look.
const pollEvery = 20 * time.Millisecond

// await calls ready until it returns nil, the program ends or ctx is done; the error then says what was missing last
// and shows the program's log.
func (p *Process) await(ctx context.Context, ready func(context.Context) error) error {
	ticker := time.NewTicker(pollEvery)
	defer ticker.Stop()
	for {
		err := ready(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-p.done:
			return fmt.Errorf("%s ended before it was ready: %w\n%s", p.name, errors.Join(p.err, err), p.Log())
		case <-ctx.Done():
			return fmt.Errorf("%s is not ready: %w: %w\n%s", p.name, context.Cause(ctx), err, p.Log())
		case <-ticker.C:
		}
	}
}

// tail keeps the last logKept bytes written to it.
type tail struct {
	mu  sync.Mutex
	buf bytes.Buffer
	cut bool
}

func (t *tail) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.buf.Write(b)
	if t.buf.Len() > 2*logKept {
		t.buf.Next(t.buf.Len() - logKept)
		t.cut = true
	}
	return len(b), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := strings.TrimRight(t.buf.String(), "\n")
	if t.cut {
		return "[…]" + s
	}
	return s
}
