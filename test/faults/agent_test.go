package faults

import (
	"bufio"
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// patience bounds every wait: the longest drain here, forty seconds, on a machine with far too much to do.
const patience = 3 * time.Minute

// agent is one process of flowagent, with what it wrote.
type agent struct {
	t     *testing.T
	pid   int
	ended chan struct{} // closed when it has
	code  int           // valid then

	mu    sync.Mutex
	lines []line
	news  chan struct{} // closed with the next line
}

// line is one event of the agent's log.
type line struct {
	Msg   string `json:"msg"`
	Phase string `json:"phase"`
	Error string `json:"error"`

	text string
}

// startAgent runs the agent, which ends with this process at the latest.
func startAgent(t *testing.T, dir string, environment []string, arguments ...string) *agent {
	t.Helper()
	a := &agent{t: t, ended: make(chan struct{}), news: make(chan struct{})}
	cmd := exec.Command(agentBinary, append([]string{
		"--config", filepath.Join(dir, "config.yaml"), "--run-dir", filepath.Join(dir, "run"), "--state-dir", filepath.Join(dir, "state"),
		"run", "--log-format", "json",
	}, arguments...)...)
	cmd.Dir, cmd.Env = dir, environment
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	output, writer := io.Pipe()
	cmd.Stdout, cmd.Stderr = writer, writer
	cmd.WaitDelay = time.Second // for a drain hook that outlives a killed agent with its output open
	read := make(chan struct{})
	go func() {
		defer close(read)
		a.read(output)
	}()
	started := make(chan error)
	go func() {
		runtime.LockOSThread() // Pdeathsig comes when the thread that forked ends
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err != nil {
			return
		}
		_ = cmd.Wait() // the exit code tells
		_ = writer.Close()
		<-read // the last lines, too
		a.code = cmd.ProcessState.ExitCode()
		close(a.ended)
	}()
	if err := <-started; err != nil {
		t.Fatal(err)
	}
	a.pid = cmd.Process.Pid
	return a
}

func (a *agent) read(from io.Reader) {
	lines := bufio.NewScanner(from)
	for lines.Scan() {
		l := line{text: lines.Text()}
		_ = json.Unmarshal(lines.Bytes(), &l) // what a crash prints is text
		a.mu.Lock()
		a.lines = append(a.lines, l)
		close(a.news)
		a.news = make(chan struct{})
		a.mu.Unlock()
	}
	_, _ = io.Copy(io.Discard, from) // behind a line that is too long
}

// log is all that the agent wrote.
func (a *agent) log() string {
	a.mu.Lock()
	defer a.mu.Unlock()
	var b strings.Builder
	for _, l := range a.lines {
		b.WriteString(l.text + "\n")
	}
	return b.String()
}

// find returns the first line that matches, or else a channel that is closed with the next one.
func (a *agent) find(match func(line) bool) (line, <-chan struct{}) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, l := range a.lines {
		if match(l) {
			return l, nil
		}
	}
	return line{}, a.news
}

// await returns the first line that matches. It fails the test when the agent ends without it.
func (a *agent) await(what string, match func(line) bool) line {
	a.t.Helper()
	late := time.NewTimer(patience)
	defer late.Stop()
	for {
		found, more := a.find(match)
		if more == nil {
			return found
		}
		select {
		case <-more:
		case <-a.ended:
			if found, more := a.find(match); more == nil {
				return found
			}
			a.t.Fatalf("the agent ended with %d before this: %s", a.code, what)
		case <-late.C:
			a.t.Fatalf("not seen in %v: %s", patience, what)
		}
	}
}

// awaitStep waits until a step of the drain is under way.
func (a *agent) awaitStep(name string) {
	a.t.Helper()
	a.await("step "+name, func(l line) bool { return l.Msg == "stage started" && l.Phase == "drain."+name })
}

// awaitStepOver waits until a step has ended, well or not.
func (a *agent) awaitStepOver(name string) {
	a.t.Helper()
	a.await("the end of step "+name, func(l line) bool {
		return (l.Msg == "stage done" || l.Msg == "stage failed") && l.Phase == "drain."+name
	})
}

// awaitDrain waits for the drain's end and returns what failed in it.
func (a *agent) awaitDrain() string {
	a.t.Helper()
	return a.await("the drain's end", func(l line) bool { return l.Msg == "drain done" || l.Msg == "drain ended with failures" }).Error
}

func (a *agent) signal(s syscall.Signal) {
	select {
	case <-a.ended: // its number may be another's
	default:
		_ = syscall.Kill(a.pid, s)
	}
}

// wait returns the exit code of an agent that is about to end.
func (a *agent) wait() int {
	a.t.Helper()
	late := time.NewTimer(patience)
	defer late.Stop()
	select {
	case <-a.ended:
	case <-late.C:
		a.t.Fatalf("the agent didn't end in %v", patience)
	}
	return a.code
}

// buildAgent builds flowagent into dir, with the race detector.
func buildAgent(root, dir string) ([]byte, error) {
	build := exec.Command("go", "build", "-race", "-o", filepath.Join(dir, "flowagent"), "./cmd/flowagent")
	build.Dir, build.Env = root, os.Environ()
	return build.CombinedOutput()
}
