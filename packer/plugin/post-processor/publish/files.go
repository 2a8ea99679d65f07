package publish

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/google/renameio/v2"
	packersdk "github.com/hashicorp/packer-plugin-sdk/packer"
)

// manifest is what is known of an image, as it is written.
type manifest struct {
	Image        string            `json:"image"`
	Published    time.Time         `json:"published"`
	AMIs         map[string]string `json:"amis"` // by region
	Parameter    string            `json:"parameter,omitempty"`
	GitRevision  string            `json:"gitRevision"`
	AgentVersion string            `json:"agentVersion"`
	SourceImage  string            `json:"sourceImage,omitempty"`
	SBOMs        []sbom            `json:"sboms,omitempty"`
	Verified     bool              `json:"verified"`            // always true: nothing else is published
	BootCheck    string            `json:"bootCheck,omitempty"` // "passed", where there was one
	Tags         map[string]string `json:"tags,omitempty"`      // the template's own
}

type sbom struct {
	Name   string `json:"name"`
	SHA256 string `json:"sha256"`
}

// describe collects what is known of the image.
func (p *PostProcessor) describe(artifact packersdk.Artifact, images []image) (*manifest, error) {
	m := &manifest{
		Image: p.config.Image, Published: time.Now().UTC().Truncate(time.Second), AMIs: map[string]string{}, Parameter: p.config.Parameter,
		GitRevision: p.config.GitRevision, AgentVersion: p.config.AgentVersion, SourceImage: p.config.SourceImage, Tags: p.config.Tags,
	}
	for _, i := range images {
		m.AMIs[i.region] = i.id
	}
	if m.SourceImage == "" {
		// As the amazon builders have it; after another one nothing is known.
		if data, ok := artifact.State("generated_data").(map[string]any); ok {
			m.SourceImage, _ = data["SourceAMI"].(string)
		} else if data, ok := artifact.State("generated_data").(map[any]any); ok { // the same, after its way through gob
			m.SourceImage, _ = data["SourceAMI"].(string)
		}
	}
	if err := checkReport(p.config.VerifyReport); err != nil {
		return nil, err
	}
	m.Verified = true
	for _, name := range p.config.SBOMs {
		sum, err := fileSum(name)
		if err != nil {
			return nil, fmt.Errorf("sboms: %w: have the provisioner write it (sbom_directory), or correct the path", err)
		}
		m.SBOMs = append(m.SBOMs, sbom{filepath.Base(name), sum})
	}
	if len(p.config.BootCheck) > 0 {
		m.BootCheck = "passed" // it is written after the check
	}
	return m, nil
}

// checkReport demands a report of `flowagent image verify` that finds the image fit.
func checkReport(name string) error {
	content, err := os.ReadFile(name)
	if err != nil {
		return fmt.Errorf("verify_report: %w: have the provisioner write it, or correct the path", err)
	}
	var report struct {
		OK     bool              `json:"ok"`
		Checks []json.RawMessage `json:"checks"`
	}
	if err := json.Unmarshal(content, &report); err != nil || len(report.Checks) == 0 {
		return fmt.Errorf("verify_report: %s is no report of `flowagent image verify --output json`: correct the path", name)
	}
	if !report.OK {
		return fmt.Errorf("verify_report: %s says that the image is not fit to be cloned: see its failed checks", name)
	}
	return nil
}

func fileSum(name string) (string, error) {
	f, err := os.Open(name)
	if err != nil {
		return "", err
	}
	defer f.Close()
	sum := sha256.New()
	if _, err := io.Copy(sum, f); err != nil {
		return "", err
	}
	return hex.EncodeToString(sum.Sum(nil)), nil
}

// written are files that were replaced, with what they held before.
type written []former

type former struct {
	name    string
	content []byte // nil where there was no file
}

// writeFiles writes the variables and the manifest, each as a whole.
func (p *PostProcessor) writeFiles(m *manifest) (written, error) {
	var files written
	for _, f := range []struct {
		field, name string
		content     any
	}{
		{"variables_file", p.config.VariablesFile, map[string]any{p.config.Variable: m.AMIs}},
		{"manifest", p.config.Manifest, m},
	} {
		if f.name == "" {
			continue
		}
		before, err := os.ReadFile(f.name)
		if err == nil || errors.Is(err, fs.ErrNotExist) {
			err = writeJSON(f.name, f.content)
		}
		if err != nil {
			return nil, errors.Join(fmt.Errorf("%s: %w", f.field, err), files.restore())
		}
		files = append(files, former{f.name, before})
	}
	return files, nil
}

func writeJSON(name string, content any) error {
	text, err := json.MarshalIndent(content, "", "  ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return err
	}
	return renameio.WriteFile(name, append(text, '\n'), 0o644)
}

// restore puts back what the files held.
func (w written) restore() error {
	var errs []error
	for _, f := range w {
		var err error
		if f.content == nil {
			err = os.Remove(f.name)
		} else {
			err = renameio.WriteFile(f.name, f.content, 0o644)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("%s names an image that is not published, and can't be put back: %w", f.name, err))
		}
	}
	return errors.Join(errs...)
}
