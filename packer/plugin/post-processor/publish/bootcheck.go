package publish

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"time"

	packersdk "github.com/hashicorp/packer-plugin-sdk/packer"

	"github.com/flowviz/flowagent/packer/plugin/internal/lines"
)

// bootCheckGrace is what the boot check's command gets to clean up when the build is cancelled, before it is killed: it
// may have to terminate an instance.
const bootCheckGrace = 2 * time.Minute

// bootCheck runs the command for each region.
func (p *PostProcessor) bootCheck(ctx context.Context, ui packersdk.Ui, images []image) error {
	if len(p.config.BootCheck) == 0 {
		return nil
	}
	for _, i := range images {
		ui.Say(fmt.Sprintf("Boot check of %s in %s...", i.id, i.region))
		if err := p.runBootCheck(ctx, ui, i); err != nil {
			return fmt.Errorf("boot check of %s in %s: %w", i.id, i.region, err)
		}
	}
	return nil
}

func (p *PostProcessor) runBootCheck(ctx context.Context, ui packersdk.Ui, i image) error {
	ctx, cancel := context.WithTimeoutCause(ctx, p.config.BootCheckTimeout, fmt.Errorf("not done after %s (boot_check_timeout)", p.config.BootCheckTimeout))
	defer cancel()
	words := p.config.BootCheck
	cmd := exec.CommandContext(ctx, words[0], words[1:]...)
	cmd.Env = append(os.Environ(), "AMI_ID="+i.id, "AWS_REGION="+i.region)
	if p.config.Profile != "" {
		cmd.Env = append(cmd.Env, "AWS_PROFILE="+p.config.Profile)
	}
	// A group of its own, so that Ctrl-C reaches it once, from here, and its children with it.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) }
	cmd.WaitDelay = bootCheckGrace
	said := lines.New(ui.Say)
	cmd.Stdout, cmd.Stderr = said, said
	err := cmd.Run()
	said.Flush()
	if cmd.Process != nil {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) // what it left
	}
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return fmt.Errorf("%w%s", context.Cause(ctx), said.Quote())
	}
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return fmt.Errorf("%s ended with code %d: the image is not fit%s", words[0], exit.ExitCode(), said.Quote())
	}
	return fmt.Errorf("%w: correct boot_check", err)
}
