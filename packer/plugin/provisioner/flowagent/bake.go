package flowagent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"

	"al.essio.dev/pkg/shellescape"
	packersdk "github.com/hashicorp/packer-plugin-sdk/packer"

	"github.com/flowviz/flowagent/golden/install"
)

// bake is one target on its way to an image.
type bake struct {
	remote
	config *Config
	plan   *plan
	facts  *facts
	staged string   // directory on the target for uploads; empty while there is none
	held   []string // apt's timers that were stopped
	sealed bool
}

// all goes through the steps in their order. What it leaves on a target that stays no image is said by each.
func (b *bake) all(ctx context.Context) error {
	var err error
	if b.facts, err = b.askFacts(ctx); err != nil {
		return err
	}
	if err := b.facts.check(b.config, b.plan); err != nil {
		return err
	}
	b.scopes = true
	if !b.facts.root {
		b.sudo = []string{"sudo", "-n", "--"}
	}
	// Also for a build that ends in the middle, on a target that may live on.
	defer b.leave(context.WithoutCancel(ctx))
	for _, part := range []struct {
		what string
		do   func(context.Context) error
	}{
		{"Waiting for the target's first boot to end", b.awaitFirstBoot},
		{"Holding apt's timers", b.holdApt},
		{"Installing packages", b.installPackages},
		{"Uploading flowagent and the node's files", b.upload},
		{"Installing flowagent", b.install},
		{"Putting images in", b.putImages},
		{"Writing the software bills of materials", b.writeSBOMs},
		{"Sealing and verifying the image", b.sealAndVerify},
	} {
		b.ui.Say(part.what + "...")
		if err := part.do(ctx); err != nil {
			return err
		}
	}
	return nil
}

// command is a step that runs one program on the target.
func (b *bake) command(ctx context.Context, name string, limit time.Duration, words ...string) error {
	_, err := b.run(ctx, step{name: name, script: shellescape.QuoteCommand(words), limit: limit})
	return err
}

// awaitFirstBoot waits for cloud-init, which may be installing packages itself, and looks at the target again.
func (b *bake) awaitFirstBoot(ctx context.Context) error {
	if b.facts.cloudInit {
		// 2 is for a boot that is over and complained: what it complains of need not concern the node.
		_, err := b.run(ctx, step{name: "wait for cloud-init", limit: b.config.CloudInitTimeout, script: `
status=0
cloud-init status --wait --long || status=$?
[ "$status" = 0 ] || [ "$status" = 2 ]`})
		if err != nil {
			return fmt.Errorf("%w\nSee /var/log/cloud-init-output.log on the target (packer build -on-error=ask keeps it)", err)
		}
	}
	var err error
	if b.facts, err = b.askFacts(ctx); err != nil {
		return err
	}
	return b.facts.checkRoom(b.config, b.plan)
}

func (b *bake) holdApt(ctx context.Context) error {
	stopped, err := b.run(ctx, step{name: "stop apt's timers", script: holdTimers, limit: b.config.StepTimeout, quiet: true})
	b.held = strings.Fields(stopped)
	if err != nil {
		return err
	}
	_, err = b.run(ctx, step{name: "wait for other users of apt", script: awaitUnits, limit: b.config.LockTimeout})
	return err
}

// upload sends everything to a directory of the connection's user, and checks what arrived.
func (b *bake) upload(ctx context.Context) error {
	// Not /tmp, which is in memory on Debian 13.
	plain := b.remote
	plain.sudo = nil
	plain.scopes = false
	dir, err := plain.run(ctx, step{name: "make a directory for uploads", script: "mktemp -d /var/tmp/packer-flowagent.XXXXXXXX", limit: b.config.StepTimeout, quiet: true})
	if err != nil {
		return err
	}
	b.staged = strings.TrimSpace(dir)
	var sums strings.Builder
	for i, f := range b.uploads() {
		b.ui.Say(fmt.Sprintf("%s (%s)", f.remote, size(f.size)))
		sum, err := b.remote.upload(ctx, f, b.stagedPath(i))
		if err != nil {
			return err
		}
		if i == 0 && sum != b.plan.checksum {
			return fmt.Errorf("upload %s: the file changed during the build: build again", f.local)
		}
		fmt.Fprintf(&sums, "%s  %s\n", sum, b.stagedPath(i))
	}
	_, err = b.run(ctx, step{
		name: "check what arrived", script: "sha256sum --check --quiet --strict -", input: []byte(sums.String()), limit: b.config.StepTimeout,
	})
	return err
}

// uploads are all files, the binary first.
func (b *bake) uploads() []file { return append([]file{b.plan.binary}, b.plan.files...) }

// stagedPath is where upload number i is. Its name says nothing, so that no name has to be quoted for scp.
func (b *bake) stagedPath(i int) string { return path.Join(b.staged, fmt.Sprintf("upload-%d", i)) }

func size(bytes int64) string {
	if bytes < 1<<20 {
		return fmt.Sprintf("%d KiB", (bytes+1023)>>10)
	}
	return fmt.Sprintf("%d MiB", bytes>>20)
}

// install puts everything in its place and has the binary install what it brings.
func (b *bake) install(ctx context.Context) error {
	uploads := b.uploads()
	if err := b.place(ctx, "install the binary", uploads[:1], 0); err != nil {
		return err
	}
	heed, err := b.installSettings(ctx)
	if err != nil {
		return err
	}
	if err := b.place(ctx, "install the node's files", uploads[1:], 1); err != nil {
		return err
	}
	if err := b.command(ctx, "check the configuration on the target", b.config.StepTimeout, remoteBinary, "config", "validate"); err != nil {
		return err
	}
	// The engine's settings may be new. That it starts with them is seen here and not at the first boot.
	_, err = b.run(ctx, step{name: "start Docker Engine and enable the node's units", limit: b.config.StepTimeout, script: `
systemctl daemon-reload
systemctl enable --quiet docker.service flowagent.service
systemctl restart docker.service || { journalctl --no-pager --quiet --lines=20 --unit=docker.service; exit 1; }
` + strings.Join(heed, "\n")})
	return err
}

// installSettings has the binary install what it brings, and returns the commands by which the target heeds at once what the
// rest of the build depends on.
func (b *bake) installSettings(ctx context.Context) (heed []string, err error) {
	words := []string{remoteBinary, "image", "install", "--output=json", "--profile=" + strings.Join(b.config.Profiles, ",")}
	answer, err := b.run(ctx, step{name: "install the node's units and settings", script: shellescape.QuoteCommand(words), limit: b.config.StepTimeout, quiet: true})
	var result install.Result
	if json.Unmarshal([]byte(answer), &result) != nil {
		if err == nil {
			err = fmt.Errorf("install the node's units and settings: flowagent does not say what it did: is the binary of this plugin's version? It said: %.200s", answer)
		}
		return nil, err
	}
	for _, command := range result.Activate {
		if heededAtOnce(command) {
			heed = append(heed, command)
		}
	}
	result.Activate = nil // the others are heeded by a clone, at its first boot
	var table strings.Builder
	_ = result.WriteTable(&table) // into memory
	b.ui.Say(strings.TrimSpace(table.String()))
	return heed, err
}

// heededAtOnce tells whether a command is one that the build itself needs: verification judges who listens now. The engine is
// restarted in any case. Others would start the application here, or shut the build out by the packet filter or by SSH.
func heededAtOnce(command string) bool {
	return strings.HasSuffix(command, " systemd-resolved.service")
}

// place moves uploads to where they belong; first is the number of the first one.
func (b *bake) place(ctx context.Context, name string, files []file, first int) error {
	var script strings.Builder
	for i, f := range files {
		to := shellescape.Quote(f.remote)
		// Moved within its own directory at the end: a program that runs can't be written to.
		fmt.Fprintf(&script, "mkdir -p %s\n", shellescape.Quote(path.Dir(f.remote)))
		fmt.Fprintf(&script, "install --owner=root --group=root --mode=%04o %s %s.new\n", f.mode, b.stagedPath(first+i), to)
		fmt.Fprintf(&script, "mv -T %s.new %s\nrm %s\n", to, to, b.stagedPath(first+i))
	}
	_, err := b.run(ctx, step{name: name, script: "umask 022\n" + script.String(), limit: b.config.StepTimeout})
	return err
}

// putImages loads and pulls the images of the Compose files, with passwords on standard input where there are some.
func (b *bake) putImages(ctx context.Context) error {
	if b.config.SkipImages {
		b.ui.Say("left out (skip_images): nodes pull them at their first boot")
		return nil
	}
	words := []string{remoteBinary, "image", "pull"}
	var input []byte
	if len(b.config.RegistryPasswords) > 0 {
		words = append(words, "--secrets-stdin")
		var err error
		if input, err = json.Marshal(b.config.RegistryPasswords); err != nil {
			return err
		}
	}
	_, err := b.run(ctx, step{name: "load and pull the images", script: shellescape.QuoteCommand(words), input: input, limit: b.config.ImageTimeout})
	return err
}

// remoteSBOMs is where they stay on the image.
const remoteSBOMs = "/usr/share/flowagent"

// writeSBOMs comes before the seal, which removes what the package manager need not know.
func (b *bake) writeSBOMs(ctx context.Context) error {
	words := []string{remoteBinary, "image", "sbom", "--output=json", "--output-dir=" + remoteSBOMs}
	answer, err := b.run(ctx, step{name: "write the SBOMs", script: shellescape.QuoteCommand(words), limit: b.config.StepTimeout, quiet: true})
	if err != nil {
		return err
	}
	var written struct {
		Files []struct {
			Path string `json:"path"`
		} `json:"files"`
	}
	if err := json.Unmarshal([]byte(answer), &written); err != nil || len(written.Files) == 0 {
		return fmt.Errorf("write the SBOMs: flowagent does not say which files it wrote: is the binary of this plugin's version? It said: %.200s", answer)
	}
	for _, f := range written.Files {
		b.ui.Say(f.Path)
		if b.config.SBOMDirectory == "" {
			continue
		}
		content, err := b.run(ctx, step{name: "read " + f.Path, script: shellescape.QuoteCommand([]string{"cat", "--", f.Path}), limit: b.config.StepTimeout, quiet: true})
		if err != nil {
			return err
		}
		local := filepath.Join(b.config.SBOMDirectory, path.Base(f.Path))
		if err := writeLocal(local, content); err != nil {
			return fmt.Errorf("sbom_directory: %w", err)
		}
		b.ui.Say("here as " + local)
	}
	return nil
}

func writeLocal(name, content string) error {
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return err
	}
	return os.WriteFile(name, []byte(content), 0o644)
}

// sealAndVerify takes the machine's identity away and has what is left judged, last of all. The connection lives on; a new
// one would not be let in. Both are one step: the seal also takes sudo from a user that only this machine has.
func (b *bake) sealAndVerify(ctx context.Context) error {
	if b.config.SkipSeal {
		b.ui.Say("left out (skip_seal): this is no image to publish")
		return nil
	}
	if err := b.removeStaged(ctx); err != nil {
		return err
	}
	verify := []string{remoteBinary, "image", "verify", "--output=json"}
	for _, port := range b.config.AllowPorts {
		verify = append(verify, "--allow-port="+port)
	}
	for _, pattern := range b.config.AllowFiles {
		verify = append(verify, "--allow-file="+pattern)
	}
	seal := []string{remoteBinary, "image", "seal", "--yes"}
	b.sealed = true // from here on in part, whatever comes of it
	answer, err := b.run(ctx, step{
		name:   "seal and verify the image",
		script: shellescape.QuoteCommand(seal) + " >&2\n" + shellescape.QuoteCommand(verify),
		limit:  2 * b.config.StepTimeout,
		quiet:  true,
	})
	var failed *stepError
	if err != nil && !errors.As(err, &failed) {
		return err
	}
	var found report
	if json.Unmarshal([]byte(answer), &found) != nil || len(found.Checks) == 0 {
		if err == nil {
			err = fmt.Errorf("verify the image: flowagent gives no report: is the binary of this plugin's version? It said: %.200s", answer)
		}
		return err
	}
	if b.config.VerifyReport != "" {
		if err := writeLocal(b.config.VerifyReport, answer); err != nil {
			return fmt.Errorf("verify_report: %w", err)
		}
	}
	bad := found.show(b.ui)
	if err == nil && found.OK && len(bad) == 0 {
		return nil
	}
	return fmt.Errorf("the image is not fit to be cloned:\n  %s", strings.Join(bad, "\n  "))
}

// report is what `flowagent image verify --output json` prints.
type report struct {
	OK     bool `json:"ok"`
	Checks []struct {
		Name     string   `json:"name"`
		Status   string   `json:"status"`
		Reason   string   `json:"reason"`
		Findings []string `json:"findings"`
	} `json:"checks"`
}

// show prints a line for each check and returns those of the failed ones.
func (r *report) show(ui packersdk.Ui) (bad []string) {
	for _, c := range r.Checks {
		line := fmt.Sprintf("%-6s %-20s %s", c.Status, c.Name, c.Reason)
		ui.Say(line)
		if !strings.EqualFold(c.Status, "fail") {
			continue
		}
		bad = append(bad, strings.Join(append([]string{c.Name + ": " + c.Reason}, c.Findings...), "\n    "))
	}
	if !r.OK && len(bad) == 0 {
		bad = append(bad, "flowagent image verify says so without a reason")
	}
	return bad
}

func (b *bake) removeStaged(ctx context.Context) error {
	if b.staged == "" {
		return nil
	}
	err := b.command(ctx, "remove the uploads", b.config.StepTimeout, "rm", "-rf", "--", b.staged)
	if err == nil {
		b.staged = ""
	}
	return err
}

// leaveLimit is short, for the connection may be what broke.
const leaveLimit = 15 * time.Second

// leave gives back what was held on a target that did not become an image. A sealed one is left as it is, its timers
// stopped: they would write to it.
func (b *bake) leave(ctx context.Context) {
	if b.sealed {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, leaveLimit)
	defer cancel()
	if err := b.removeStaged(ctx); err != nil {
		b.ui.Error(fmt.Sprintf("%v; it is left on the target", err))
	}
	if len(b.held) > 0 {
		if err := b.command(ctx, "start apt's timers again", leaveLimit, append([]string{"systemctl", "start"}, b.held...)...); err != nil {
			b.ui.Error(err.Error())
		}
	}
}
