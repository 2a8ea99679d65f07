package install

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"

	ansiblefree "github.com/flowviz/flowagent/ansible-free"
)

// stepLimit bounds one step. Each works on some files and takes well under a second; the rest is for a slow disk.
const stepLimit = time.Minute

// Step is one command that follows the files.
type Step struct {
	Command string `json:"command"`
	// Done is false in a dry run, and where the command isn't there: see Reason.
	Done   bool   `json:"done"`
	Reason string `json:"reason,omitempty"`
}

// enable makes the group and the directories and has units start at boot. The commands are this machine's own and read files
// below the root, so a directory needs no running system, and no program of its own is run.
func (in *installer) enable(ctx context.Context) error {
	units := ansiblefree.UnitsOf(in.Profiles...)
	commands := [][]string{
		{"systemd-sysusers", "--root=" + in.Options.Root, "flowagent.conf"},
		{"systemd-tmpfiles", "--root=" + in.Options.Root, "--create", "flowagent.conf"},
		in.systemctl("enable", units.Enable...),
	}
	if len(units.Mask) > 0 {
		commands = append(commands, in.systemctl("mask", units.Mask...))
	}
	if in.onRunningSystem() {
		commands = append(commands, []string{"systemctl", "daemon-reload"})
	}
	var failed []error
	for _, command := range commands {
		step := Step{Command: strings.Join(command, " ")}
		_, err := exec.LookPath(command[0])
		switch {
		case err != nil:
			step.Reason = command[0] + " is not on this machine"
		case in.DryRun:
			step.Reason = "dry run"
		default:
			if err := run(ctx, command); err != nil {
				step.Reason = err.Error()
				failed = append(failed, err)
			} else {
				step.Done = true
			}
		}
		in.result.Steps = append(in.result.Steps, step)
	}
	return errors.Join(failed...)
}

func (in *installer) systemctl(verb string, units ...string) []string {
	return append([]string{"systemctl", "--root=" + in.Options.Root, "--quiet", verb}, units...)
}

// onRunningSystem is sd_booted(3), for this machine's own root.
func (in *installer) onRunningSystem() bool {
	if in.Options.Root != "/" {
		return false
	}
	_, err := os.Lstat("/run/systemd/system")
	return err == nil
}

func run(ctx context.Context, command []string) error {
	ctx, cancel := context.WithTimeout(ctx, stepLimit)
	defer cancel()
	cmd := exec.CommandContext(ctx, command[0], command[1:]...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s: %w: %s", strings.Join(command, " "), err, strings.TrimSpace(out.String()))
	}
	return nil
}
