package probe

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Command passes when a program exits with 0 and fails with any other code. The first line that it prints, to standard
// output or error, is part of the result: it must not hold a secret.
type Command struct {
	// Argv is the program and its arguments; no shell is involved. A name without a slash is looked for in [CommandPath].
	Argv []string
	// Dir is where it runs; empty for the root directory.
	Dir string
	// Env is added, as NAME=value, to an environment that has PATH and LANG=C.UTF-8 only: nothing of the agent's own is
	// handed on. Not for secrets.
	Env []string
}

// CommandPath is the PATH of probes' programs: systemd's own default.
const CommandPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// commandLine is how much of the first line is kept; a line on a terminal holds about twice as much.
const commandLine = 200

// Probe runs the program in a process group of its own and kills the group when ctx ends, as well as what the program
// leaves behind in it. A process that moves to another group or session escapes that.
func (p *Command) Probe(ctx context.Context) Result {
	if len(p.Argv) == 0 {
		return failed("no program is configured")
	}
	if err := ctx.Err(); err != nil {
		return failed("%s was not started: %v", p.Argv[0], plain(ctx, err))
	}
	program, err := lookUp(p.Argv[0])
	if err != nil {
		return failed("%s: %v", p.Argv[0], plain(ctx, err))
	}
	out, in, err := os.Pipe()
	if err != nil {
		return failed("run %s: %v", p.Argv[0], err)
	}
	defer out.Close()
	cmd := &exec.Cmd{
		Path: program, Args: p.Argv, Dir: p.Dir, Env: append([]string{"PATH=" + CommandPath, "LANG=C.UTF-8"}, p.Env...),
		// One file for both, handed to the program itself: no goroutine copies, and the lines keep their order.
		Stdout: in, Stderr: in,
		// A session of its own has no terminal to ask for a password on. The program must not outlive a crashed agent
		// either.
		SysProcAttr: &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGKILL},
	}
	if cmd.Dir == "" {
		cmd.Dir = "/"
	}
	// The kernel sends Pdeathsig when the thread that forked ends, not the process: keep the thread until then.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	err = cmd.Start()
	_ = in.Close()
	if err != nil {
		return failed("run %s: %v", p.Argv[0], plain(ctx, err))
	}
	line := make(chan string, 1)
	go func() { line <- firstLine(out) }()

	killed := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(killed)
		killGroup(cmd.Process.Pid)
	})
	await := awaitExit(cmd.Process.Pid)
	interrupted := !stop()
	if interrupted {
		<-killed
	}
	// Not reaped yet, so the number still is this group's.
	killGroup(cmd.Process.Pid)
	waitErr := cmd.Wait()
	// All they wrote is in the pipe. Its end need not come: a process that left the group may hold it open.
	_ = out.SetReadDeadline(time.Unix(1, 0))
	said := <-line

	var exit *exec.ExitError
	switch {
	case await != nil:
		return failed("wait for %s: %v", p.Argv[0], await)
	case waitErr == nil && !interrupted:
		return passed("%s%s", p.Argv[0], after(": ", said, " exits with 0"))
	case interrupted:
		return failed("%s was killed: %v%s", p.Argv[0], plain(ctx, ctx.Err()), after(": ", said, ""))
	case errors.As(waitErr, &exit) && exit.Exited():
		return failed("%s exits with %d%s", p.Argv[0], exit.ExitCode(), after(": ", said, ""))
	}
	return failed("%s: %v%s", p.Argv[0], waitErr, after(": ", said, ""))
}

func after(separator, said, otherwise string) string {
	if said == "" {
		return otherwise
	}
	return separator + said
}

// lookUp finds a program as execvp(3) would with CommandPath, whatever PATH the agent itself has.
func lookUp(name string) (string, error) {
	if name != "" && !strings.Contains(name, "/") {
		for dir := range strings.SplitSeq(CommandPath, ":") {
			if path, err := exec.LookPath(dir + "/" + name); err == nil {
				return path, nil
			}
		}
		return "", fmt.Errorf("no such program in %s", CommandPath)
	}
	if name == "" || name[0] != '/' {
		return "", errors.New("write the program's absolute path, or its bare name")
	}
	return name, nil
}

// awaitExit waits until the process has ended, and leaves it to be reaped.
func awaitExit(pid int) error {
	for {
		err := unix.Waitid(unix.P_PID, pid, nil, unix.WEXITED|unix.WNOWAIT, nil)
		if err != unix.EINTR {
			return err
		}
	}
}

func killGroup(pid int) { _ = syscall.Kill(-pid, syscall.SIGKILL) }

// firstLine returns the first line with something in it. It reads on to the end, so that the program never waits for a
// full pipe, or until out's deadline, and then takes what is in the pipe.
func firstLine(out *os.File) string {
	var kept []byte
	part := make([]byte, 4<<10)
	for {
		n, err := out.Read(part)
		kept = append(kept, part[:min(n, commandKept-len(kept))]...)
		if err != nil {
			break
		}
	}
	if pipe, err := out.SyscallConn(); err == nil {
		_ = pipe.Control(func(fd uintptr) { kept = append(kept, held(int(fd), commandKept-len(kept))...) })
	}
	return excerpt(string(kept), commandLine)
}

// held returns what a pipe that doesn't block holds now, at most limit bytes.
func held(pipe, limit int) []byte {
	all := make([]byte, limit)
	size := 0
	for size < limit {
		n, err := unix.Read(pipe, all[size:])
		if err == unix.EINTR {
			continue
		}
		if n <= 0 { // empty, or at its end
			break
		}
		size += n
	}
	return all[:size]
}

// commandKept is what is held of the output: the first line, and whatever blank lines come before it.
const commandKept = 4 << 10
