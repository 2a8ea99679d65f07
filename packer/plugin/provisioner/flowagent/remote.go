package flowagent

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"al.essio.dev/pkg/shellescape"
	packersdk "github.com/hashicorp/packer-plugin-sdk/packer"

	"github.com/flowviz/flowagent/packer/plugin/internal/lines"
)

const (
	// endGrace is how long a command may take to end after it was told to: longer than scopeGrace, in which systemd kills
	// what doesn't listen.
	endGrace = 30 * time.Second
	// scopeGrace is what systemd gives the processes of a command between SIGTERM and SIGKILL; dpkg needs some seconds to
	// leave its database in order.
	scopeGrace = "10s"
	// stopTries is how often a stop is tried, every 0.2 s: for a minute, longer than systemd-run tries to register a scope,
	// which is D-Bus' 25 s.
	stopTries = "300"
)

// errCut says that the connection ended in the middle of a command.
var errCut = errors.New("the connection to the target was cut")

// remote runs commands on the target, as root and as processes that don't outlive the connection.
type remote struct {
	comm        packersdk.Communicator
	ui          packersdk.Ui
	sudo        []string          // what makes a command root's; nil when the connection is root's own
	environment map[string]string // of every command
	scopes      bool              // the target has systemd, and each command gets a scope
	token       string            // makes the scopes' names this build's own
	count       int
}

// step is one command on the target.
type step struct {
	name   string        // what is being done, for people: "install Docker Engine"
	script string        // for /bin/sh, which stops it at the first command that fails
	input  []byte        // the script's standard input; may be secret
	limit  time.Duration // 0 for none
	quiet  bool          // its standard output is an answer, and not shown
}

// guard is the command that the connection starts. It is the same for every step, so that nothing of a script, of its
// variables or of its input is in an argument list: these come as two lines of base64 on standard input. The input
// stays open as long as the command may run; when it ends, because the build was cancelled, the connection was cut or
// the plugin was killed, systemd ends every process of the command's scope, whatever session or group it moved to. The
// scope may not be there yet when the input ends, so its stop is tried until it succeeds or the command has ended.
//
// $1 is the scope's name, empty on a target without systemd, where steps are short and change nothing.
const guard = `IFS= read -r FLOWAGENT_SCRIPT && IFS= read -r FLOWAGENT_INPUT || exit 124
export FLOWAGENT_SCRIPT FLOWAGENT_INPUT LC_ALL=C.UTF-8 DEBIAN_FRONTEND=noninteractive NEEDRESTART_SUSPEND=1
inner='script=$(printf %s "$FLOWAGENT_SCRIPT" | base64 -d) || exit 124
input=$FLOWAGENT_INPUT
unset FLOWAGENT_SCRIPT FLOWAGENT_INPUT
printf %s "$input" | base64 -d | { unset input; set -eu; eval "$script"; }'
if [ -z "$1" ]; then exec /bin/sh -c "$inner"; fi
exec 3<&0 </dev/null
{ while IFS= read -r line; do :; done <&3
  exec 3<&-
  tries=` + stopTries + `
  until systemctl stop --no-block "$1.scope"; do
    tries=$((tries - 1))
    [ "$tries" -gt 0 ] || break
    sleep 0.2
  done; } >/dev/null 2>&1 &
watcher=$!
exec 3<&-
status=0
systemd-run --scope --quiet --collect --unit="$1" --property=TimeoutStopSec=` + scopeGrace + ` -- /bin/sh -c "$inner" || status=$?
kill "$watcher" 2>/dev/null
exit "$status"`

// run carries out a step and returns its standard output. It returns when nothing of the step runs any more, as far as
// the target can be asked.
func (r *remote) run(ctx context.Context, s step) (string, error) {
	if s.limit > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, s.limit, fmt.Errorf("not done after %s", s.limit))
		defer cancel()
	}
	if ctx.Err() != nil {
		return "", fmt.Errorf("%s: %w", s.name, context.Cause(ctx))
	}
	scope := ""
	if r.scopes {
		r.count++
		scope = fmt.Sprintf("packer-flowagent-%s-%d", r.token, r.count)
	}
	command := slices.Concat(r.sudo, []string{"/bin/sh", "-c", guard, "flowagent-guard", scope})

	input, hold := io.Pipe()
	defer hold.Close()
	said := lines.New(r.ui.Say)
	var answer bytes.Buffer
	cmd := &packersdk.RemoteCmd{Command: shellescape.QuoteCommand(command), Stdin: input, Stdout: &answer, Stderr: said}
	if !s.quiet {
		cmd.Stdout = io.MultiWriter(&answer, said)
	}
	if err := r.comm.Start(ctx, cmd); err != nil {
		return "", fmt.Errorf("%s: no command can be started on the target: %w", s.name, err)
	}
	go func() {
		// Fails when the command ends without reading, which its exit code then says.
		_, _ = io.WriteString(hold, encode(r.prologue()+s.script)+"\n"+encode(string(s.input))+"\n")
	}()
	ended := make(chan int, 1)
	go func() { ended <- cmd.Wait() }()
	select {
	case code := <-ended:
		said.Flush()
		if err := r.judge(s, code, said, answer.String()); err != nil {
			return answer.String(), err
		}
		return answer.String(), nil
	case <-ctx.Done():
	}
	_ = hold.Close() // the target's guard takes it from there
	grace := time.NewTimer(endGrace)
	defer grace.Stop()
	select {
	case <-ended:
		said.Flush()
		return "", fmt.Errorf("%s: %w%s", s.name, context.Cause(ctx), said.Quote())
	case <-grace.C:
		return "", fmt.Errorf("%s: %w; the target did not say within %s that the command has ended", s.name, context.Cause(ctx), endGrace)
	}
}

// judge makes an error of an exit code.
func (r *remote) judge(s step, code int, said *lines.Log, answer string) error {
	switch code {
	case 0:
		return nil
	case packersdk.CmdDisconnect, 123: // 123 is what the SDK's own transport says when Packer is gone
		return fmt.Errorf("%s: %w: see whether the machine runs and can be reached, and build again%s", s.name, errCut, said.Quote())
	}
	if said.Empty() && s.quiet {
		said.Remember(answer)
	}
	return &stepError{step: s.name, code: code, output: said.Quote()}
}

// stepError is a step that the target's own commands failed.
type stepError struct {
	step   string
	code   int
	output string
}

func (e *stepError) Error() string {
	return fmt.Sprintf("%s: a command on the target ended with code %d%s", e.step, e.code, e.output)
}

// prologue sets the variables inside the script.
func (r *remote) prologue() string {
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(r.environment)) {
		fmt.Fprintf(&b, "export %s=%s\n", name, shellescape.Quote(r.environment[name]))
	}
	return b.String()
}

func encode(text string) string { return base64.StdEncoding.EncodeToString([]byte(text)) }

// upload sends a file to the path on the target, as the connection's own user, and returns the SHA-256 of what was read.
func (r *remote) upload(ctx context.Context, f file, to string) (string, error) {
	local, err := os.Open(f.local)
	if err != nil {
		return "", fmt.Errorf("%w: it was there when the build began", err)
	}
	defer local.Close()
	info, err := local.Stat()
	if err != nil {
		return "", err
	}
	sum := sha256.New()
	sent := make(chan error, 1)
	// The communicator takes no context, but it stops when there is nothing more to read.
	go func() { sent <- r.comm.Upload(to, &cancelledReader{ctx, io.TeeReader(local, sum)}, &info) }()
	select {
	case err := <-sent:
		if ctx.Err() != nil {
			return "", fmt.Errorf("upload %s: %w", f.local, context.Cause(ctx))
		}
		if err != nil {
			return "", fmt.Errorf("upload %s to the target's %s: %w: see whether its disk is full and the connection holds", f.local, to, err)
		}
		return hex.EncodeToString(sum.Sum(nil)), nil
	case <-ctx.Done():
		return "", fmt.Errorf("upload %s: %w", f.local, context.Cause(ctx))
	}
}

type cancelledReader struct {
	ctx context.Context
	io.Reader
}

func (r *cancelledReader) Read(p []byte) (int, error) {
	if r.ctx.Err() != nil {
		return 0, context.Cause(r.ctx)
	}
	return r.Reader.Read(p)
}
