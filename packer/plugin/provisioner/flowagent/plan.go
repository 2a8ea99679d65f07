package flowagent

import (
	"context"
	"crypto/sha256"
	"debug/elf"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/flowviz/flowagent/agent/config"
	"github.com/flowviz/flowagent/agent/image"
	"github.com/flowviz/flowagent/agent/workload"
)

const (
	remoteBinary = "/usr/bin/flowagent"
	remoteConfig = "/etc/flowagent/config.yaml"
	remoteDropIn = "/etc/flowagent/config.d"
)

// file is one file on its way from this machine to the target, where it belongs to root.
type file struct {
	local, remote string
	mode          fs.FileMode
	size          int64
}

// plan is what a build will do to the target, checked as far as that can be without one.
type plan struct {
	binary       file
	checksum     string // SHA-256 of the binary, 64 hexadecimal digits
	architecture string // as uname -m has it
	files        []file // configuration, drop-ins, files and archives, in the order of their paths on the target
}

// size is how many bytes will be uploaded.
func (p *plan) size() int64 {
	total := p.binary.size
	for _, f := range p.files {
		total += f.size
	}
	return total
}

// makePlan looks at everything that the settings name. The error joins all that is wrong.
func makePlan(ctx context.Context, c *Config) (*plan, error) {
	p := &plan{}
	var errs []error
	note := func(err error) {
		if err != nil {
			errs = append(errs, err)
		}
	}
	note(p.readBinary(c))
	p.addFiles(c, note)
	cfg, err := readConfiguration(c)
	note(err)
	if cfg != nil {
		note(p.checkWorkload(ctx, c, cfg))
		note(p.addArchives(c, cfg))
		note(checkPasswords(c, cfg))
	}
	slices.SortFunc(p.files, func(a, b file) int { return strings.Compare(a.remote, b.remote) })
	return p, errors.Join(errs...)
}

// machines are the architectures that nodes have: what uname -m says, by the machine that an ELF file is for.
var machines = map[elf.Machine]string{elf.EM_X86_64: "x86_64", elf.EM_AARCH64: "aarch64"}

func (p *plan) readBinary(c *Config) error {
	info, err := regular("binary", c.Binary)
	if err != nil {
		return err
	}
	p.binary = file{local: c.Binary, remote: remoteBinary, mode: 0o755, size: info.Size()}
	f, err := os.Open(c.Binary)
	if err != nil {
		return fmt.Errorf("binary: %w", err)
	}
	defer f.Close()
	program, err := elf.NewFile(f)
	if err != nil {
		return fmt.Errorf("binary: %s is no Linux program: build it with GOOS=linux, or correct the path", c.Binary)
	}
	known := false
	if p.architecture, known = machines[program.Machine]; !known {
		return fmt.Errorf("binary: %s is for the machine %s: build it for amd64 or arm64", c.Binary, program.Machine)
	}
	sum := sha256.New()
	if _, err := io.Copy(sum, f); err != nil {
		return fmt.Errorf("binary: read %s: %w", c.Binary, err)
	}
	p.checksum = hex.EncodeToString(sum.Sum(nil))
	if want := checksumForm.FindStringSubmatch(c.BinaryChecksum); want != nil && !strings.EqualFold(want[1], p.checksum) {
		return fmt.Errorf("binary: %s has the SHA-256 %s, and binary_checksum says %s: correct either, or fetch the binary again", c.Binary, p.checksum, strings.ToLower(want[1]))
	}
	return nil
}

// regular demands a regular file on this machine.
func regular(field, name string) (fs.FileInfo, error) {
	info, err := os.Stat(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("%s: %s doesn't exist on this machine: correct the path; relative ones start in %s", field, name, workingDirectory())
	case err != nil:
		return nil, fmt.Errorf("%s: %w", field, err)
	case !info.Mode().IsRegular():
		return nil, fmt.Errorf("%s: %s is not a regular file: correct the path", field, name)
	}
	return info, nil
}

func workingDirectory() string {
	dir, err := os.Getwd()
	if err != nil {
		return "the directory that packer was started in"
	}
	return dir
}

// addFiles adds the configuration, the drop-ins and the other files.
func (p *plan) addFiles(c *Config, note func(error)) {
	add := func(field, local, remote string, executable bool) {
		info, err := regular(field, local)
		if err != nil {
			note(err)
			return
		}
		if taken := slices.IndexFunc(p.files, func(f file) bool { return f.remote == remote }); taken >= 0 {
			note(fmt.Errorf("%s: %s would be written twice, from %s and from %s: remove one", field, remote, p.files[taken].local, local))
			return
		}
		mode := fs.FileMode(0o644)
		if executable && info.Mode()&0o111 != 0 {
			mode = 0o755
		}
		p.files = append(p.files, file{local: local, remote: remote, mode: mode, size: info.Size()})
	}
	add("config", c.ConfigFile, remoteConfig, false)
	for _, local := range c.DropIns {
		name := filepath.Base(local)
		if !strings.HasSuffix(name, ".yaml") || strings.HasPrefix(name, ".") {
			note(fmt.Errorf("drop_ins: %s would not be read: rename it to end in .yaml and not to begin with a dot", local))
			continue
		}
		add("drop_ins", local, path.Join(remoteDropIn, name), false)
	}
	for _, remote := range slices.Sorted(maps.Keys(c.Files)) {
		if err := checkRemote(remote); err != nil {
			note(err)
			continue
		}
		add("files", c.Files[remote], remote, true)
	}
}

// volatile directories are empty when a clone of the image boots.
var volatile = []string{"/run/", "/tmp/", "/var/tmp/", "/proc/", "/sys/", "/dev/"}

func checkRemote(remote string) error {
	switch {
	case !path.IsAbs(remote) || path.Clean(remote) != remote || strings.ContainsAny(remote, "\x00\n"):
		return fmt.Errorf("files: %q is no path on the target: write an absolute one, without .. and without / at its end", remote)
	case slices.ContainsFunc(volatile, func(dir string) bool { return strings.HasPrefix(remote, dir) }):
		return fmt.Errorf("files: %s would be gone when a clone of the image boots: put it elsewhere, such as below /etc/flowagent", remote)
	}
	return nil
}

// readConfiguration checks the configuration and returns it as the target will read it: relative paths in it begin
// where it will be. It returns nil when it can't be read, or has problems.
func readConfiguration(c *Config) (*config.Config, error) {
	var here, there []config.Layer
	var errs []error
	add := func(local, remote string) {
		layer, err := config.ReadFile(local)
		if err != nil {
			errs = append(errs, err)
			return
		}
		here = append(here, layer)
		there = append(there, config.Layer{Name: remote, Data: layer.Data})
	}
	if _, err := os.Stat(c.ConfigFile); err != nil {
		return nil, nil // addFiles has said so
	}
	add(c.ConfigFile, remoteConfig)
	dropIns := slices.Clone(c.DropIns)
	slices.SortFunc(dropIns, func(a, b string) int { return strings.Compare(filepath.Base(a), filepath.Base(b)) })
	for _, local := range dropIns {
		if _, err := os.Stat(local); err == nil {
			add(local, path.Join(remoteDropIn, filepath.Base(local)))
		}
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	if _, err := config.Parse(here...); err != nil { // under its names here, where somebody will look for the lines
		return nil, fmt.Errorf("the configuration has problems:\n%w", err)
	}
	loaded, err := config.Parse(there...)
	if err != nil {
		return nil, fmt.Errorf("the configuration has problems where it will be on the target:\n%w", err)
	}
	return &loaded.Config, nil
}

// checkWorkload reads the Compose files as the target will: from a copy of its directories.
func (p *plan) checkWorkload(ctx context.Context, c *Config, cfg *config.Config) error {
	wanted := cfg.Workload
	if len(wanted.Files) == 0 {
		return errors.New("config: workload.files names no Compose file: a node without an application needs no image")
	}
	root, err := os.MkdirTemp("", "packer-flowagent-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(root)
	var missing []error
	wanted.Files = nil
	for _, name := range cfg.Workload.Files {
		if !slices.ContainsFunc(p.files, func(f file) bool { return f.remote == name }) {
			missing = append(missing, fmt.Errorf("files: the configuration's workload.files names %s, which would not be on the target: add it to files", name))
		}
		wanted.Files = append(wanted.Files, filepath.Join(root, name))
	}
	if len(missing) > 0 {
		return errors.Join(missing...)
	}
	for _, f := range p.files {
		if f.size > maxText {
			continue // nothing that Compose reads
		}
		if err := copyFile(f.local, filepath.Join(root, f.remote)); err != nil {
			return err
		}
	}
	project, err := workload.Load(ctx, wanted, filepath.Join(root, "run"), filepath.Join(root, "run/secrets"))
	if err == nil {
		err = errors.Join(
			project.CheckServices("drain.order", cfg.Drain.Order),
			project.CheckServices("workload.reconcile.leave", cfg.Workload.Reconcile.Leave),
			project.CheckItems(cfg.Secrets.Items),
			image.Check(project.Images(), cfg.Workload.Pull.Pin),
		)
	}
	if err != nil {
		// The directory is gone when somebody reads this.
		return fmt.Errorf("the Compose files have problems: %s", strings.ReplaceAll(err.Error(), root, ""))
	}
	return nil
}

// maxText is above every file that Compose reads, and below every image archive.
const maxText = 4 << 20

func copyFile(from, to string) error {
	content, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(to), 0o700); err != nil {
		return err
	}
	return os.WriteFile(to, content, 0o600)
}

// addArchives adds the image archives where the configuration has the agent look for them.
func (p *plan) addArchives(c *Config, cfg *config.Config) error {
	if len(c.ImageArchives) == 0 {
		return nil
	}
	dir := cfg.Workload.Pull.Archives
	if dir == "" {
		return errors.New("image_archives: the configuration names no directory for them: set workload.pull.archives, such as /var/lib/flowagent/images")
	}
	var errs []error
	for _, local := range c.ImageArchives {
		name := filepath.Base(local)
		remote := path.Join(dir, name)
		info, err := regular("image_archives", local)
		switch {
		case err != nil:
			errs = append(errs, err)
		case !strings.HasSuffix(name, ".tar") && !strings.HasSuffix(name, ".tar.gz"):
			errs = append(errs, fmt.Errorf("image_archives: %s is not taken for an archive: name it .tar or .tar.gz", local))
		case slices.ContainsFunc(p.files, func(f file) bool { return f.remote == remote }):
			errs = append(errs, fmt.Errorf("image_archives: %s would be written twice: give each archive a name of its own", remote))
		default:
			p.files = append(p.files, file{local: local, remote: remote, mode: 0o644, size: info.Size()})
		}
	}
	return errors.Join(errs...)
}

// checkPasswords finds passwords that no registry asks for: most likely a typing error.
func checkPasswords(c *Config, cfg *config.Config) error {
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(c.RegistryPasswords)) {
		if !slices.ContainsFunc(cfg.Registries, func(r config.Registry) bool { return r.PasswordSecret == name }) {
			errs = append(errs, fmt.Errorf("registry_passwords: no registry of the configuration has the passwordSecret %q: correct the name", name))
		}
	}
	return errors.Join(errs...)
}
