package workload

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/distribution/reference"

	"github.com/flowviz/flowagent/internal/atomicfile"
)

// LabelContentVersion marks a container with the version of the secrets it was created for. Compose recreates a service
// whose label changed; it can't see that the content of a secret did.
const LabelContentVersion = "io.github.flowviz.flowagent.content-version"

const overrideHeader = `# Written by flowagent at every start from the Compose files and its configuration.
# Changes made here are lost. It holds no secret, only where secrets are mounted.
`

// Override is the Compose file that is merged over the operator's own. pinned maps an image reference, as [Project.Images]
// names it, to the name@digest to run instead; labels maps a service to its [LabelContentVersion]. Both may be nil.
// The same input always gives the same bytes.
func (p *Project) Override(pinned, labels map[string]string) ([]byte, error) {
	var errs []error
	for service := range labels {
		if !slices.Contains(p.Services(), service) {
			errs = append(errs, fmt.Errorf("label for %q, which is not an active service", service))
		}
	}
	var out bytes.Buffer
	out.WriteString(overrideHeader)
	out.WriteString("services:")
	empty := true
	for _, name := range p.Services() {
		var body bytes.Buffer
		image := p.model.Services[name].Image
		if pin, found := pinned[image]; found && pin != image {
			if err := checkPin(pin); err != nil {
				errs = append(errs, fmt.Errorf("image %s: %w", image, err))
			}
			fmt.Fprintf(&body, "    image: %s\n", quote(pin))
		}
		if label, found := labels[name]; found {
			fmt.Fprintf(&body, "    labels:\n      %s: %s\n", LabelContentVersion, quote(label))
		}
		p.writeMounts(&body, name)
		if body.Len() == 0 {
			continue
		}
		if empty {
			out.WriteString("\n")
			empty = false
		}
		fmt.Fprintf(&out, "  %s:\n", quote(name))
		out.Write(body.Bytes())
	}
	if empty {
		out.WriteString(" {}\n")
	}
	return out.Bytes(), errors.Join(errs...)
}

func (p *Project) writeMounts(out *bytes.Buffer, service string) {
	type mount struct{ source, target string }
	var mounts []mount
	for _, use := range p.uses {
		if use.Service != service {
			continue
		}
		store := p.serviceStore(service)
		m := mount{store, secretsMount}
		if use.ForcesRestart {
			m = mount{filepath.Join(store, use.File), use.Target}
		}
		if !slices.Contains(mounts, m) {
			mounts = append(mounts, m)
		}
	}
	if len(mounts) == 0 {
		return
	}
	out.WriteString("    secrets: !reset null\n    volumes:\n")
	for _, m := range mounts {
		fmt.Fprintf(out, "      - type: bind\n        source: %s\n        target: %s\n        read_only: true\n        bind: {create_host_path: false}\n",
			quote(m.source), quote(m.target))
	}
}

func checkPin(pin string) error {
	ref, err := reference.ParseNormalizedNamed(pin)
	if err != nil {
		return fmt.Errorf("pinned to %q: %w", pin, err)
	}
	if _, ok := ref.(reference.Digested); !ok {
		return fmt.Errorf("pinned to %q, which has no digest", pin)
	}
	return nil
}

// quote makes s a YAML scalar that compose takes literally. A JSON string is one, and compose replaces $$ by $.
func quote(s string) string {
	text, err := json.Marshal(strings.ReplaceAll(s, "$", "$$"))
	if err != nil {
		panic(err) // a string always has a JSON form
	}
	return string(text)
}

// overridePath is the generated file.
func (p *Project) overridePath() string { return filepath.Join(p.runDir, "compose.override.yaml") }

// WriteOverride puts [Project.Override] where [Runner.Up] finds it and tells whether that changed anything. A reader
// sees the old file or the new one, never half of one.
func (p *Project) WriteOverride(pinned, labels map[string]string) (changed bool, err error) {
	content, err := p.Override(pinned, labels)
	if err != nil {
		return false, err
	}
	p.override.Store(&content)
	return p.writeOverride(content)
}

// restoreOverride writes again what [Project.WriteOverride] wrote last, should somebody have changed or removed it.
func (p *Project) restoreOverride() error {
	content := p.override.Load()
	if content == nil {
		return errors.New("the override was never written")
	}
	_, err := p.writeOverride(*content)
	return err
}

func (p *Project) writeOverride(content []byte) (changed bool, err error) {
	old, err := os.ReadFile(p.overridePath())
	if err == nil && bytes.Equal(old, content) {
		return false, nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false, fmt.Errorf("read the last override: %w", err)
	}
	if err := os.MkdirAll(p.runDir, 0o755); err != nil {
		return false, fmt.Errorf("write the override: %w", err)
	}
	if err := atomicfile.Write(p.overridePath(), content, 0o600); err != nil {
		return false, fmt.Errorf("write the override: %w: check that %s is writable and not full", err, p.runDir)
	}
	return true, nil
}
