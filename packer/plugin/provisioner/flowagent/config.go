//go:generate ../../generate.sh

package flowagent

import (
	"errors"
	"fmt"
	"net/url"
	"path"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/packer-plugin-sdk/common"
	packersdk "github.com/hashicorp/packer-plugin-sdk/packer"
	"github.com/hashicorp/packer-plugin-sdk/template/interpolate"

	ansiblefree "github.com/flowviz/flowagent/ansible-free"
)

// Where an engine comes from.
const (
	engineDistribution = "distribution"
	engineDocker       = "docker"
)

// Docker's own repository and the key that signs it, as https://docs.docker.com/engine/install/debian/ gives them.
const (
	dockerRepository  = "https://download.docker.com/linux"
	dockerFingerprint = "9DC858229FC7DD38854AE2D88D81803C0EBFCD88"
)

// Config is what a template says to the provisioner.
type Config struct {
	common.PackerConfig `mapstructure:",squash"`

	// Path of the flowagent binary on this machine, a Linux program of the target's architecture. It is installed as
	// /usr/bin/flowagent and brings the units, drop-ins, users and settings with it.
	Binary string `mapstructure:"binary" required:"true"`
	// SHA-256 of the binary, 64 hexadecimal digits, with or without `sha256:` before it. The build ends before a machine
	// starts when the file is another one.
	BinaryChecksum string `mapstructure:"binary_checksum"`
	// Path of the node's configuration on this machine; it becomes /etc/flowagent/config.yaml. It is checked here, together
	// with the Compose files it names, before a machine starts.
	ConfigFile string `mapstructure:"config" required:"true"`
	// Paths of drop-ins on this machine, which become /etc/flowagent/config.d/NAME. Their names end in `.yaml`, and their
	// order is that of their names.
	DropIns []string `mapstructure:"drop_ins"`
	// Other files of the node: the absolute path on the target, and the path on this machine. The Compose files that the
	// configuration names must be among them. They belong to root; a file that is executable here is so there. Not a place
	// for secrets: what is in an image is no secret.
	Files map[string]string `mapstructure:"files"`
	// Paths of image archives on this machine (`docker save` or OCI layout, `.tar` or `.tar.gz`). They are put into the
	// directory that the configuration names as `workload.pull.archives`, which must be set then, and stay there, because
	// an engine forgets the digest of an image that came from an archive.
	ImageArchives []string `mapstructure:"image_archives"`
	// Leave the images out of the image: nodes pull them at their first boot. Images are otherwise pulled by the digests in
	// the Compose files, with the agent's own code and the configuration's registries.
	SkipImages bool `mapstructure:"skip_images"`
	// Passwords of registries for this build: the name of the secret in the configuration, and its value. They travel over
	// the connection's standard input, are held in memory alone and never written. A registry of Amazon ECR needs none: the
	// builder instance's role is used.
	RegistryPasswords map[string]string `mapstructure:"registry_passwords"`

	// Where Docker Engine and the compose plugin come from when the target lacks them: `distribution` (the default) for
	// Debian's and Ubuntu's own packages, `docker` for Docker's repository.
	Engine string `mapstructure:"engine"`
	// Version of the engine's package: the whole of it (`26.1.5+dfsg1-9+b4`), or its upstream part (`29.0.1`). The build
	// fails when the repository has no such version, or the target has another one already. Empty: whatever the repository
	// offers.
	EngineVersion string `mapstructure:"engine_version"`
	// Version of the compose plugin's package, likewise.
	ComposeVersion string `mapstructure:"compose_version"`
	// Base address of a mirror of Docker's repository, for `engine = "docker"`. Default `https://download.docker.com/linux`;
	// the distribution's name is added to it.
	EngineRepository string `mapstructure:"engine_repository"`
	// Fingerprint of the key that signs the repository, 40 hexadecimal digits. Default: that of Docker's key.
	EngineKeyFingerprint string `mapstructure:"engine_key_fingerprint"`

	// Profiles of settings that `flowagent image install` puts on the node, with the packages that they are for: `agent`
	// (the units alone, and part of every choice), `base` (engine, journal, names, clock, security updates, cloud-init), `ec2`
	// (EC2's time service) and `hardening` (packet filter, SSH, kernel). Default `["base", "hardening"]`.
	Profiles []string `mapstructure:"profiles"`
	// Ports that may be listened on while the image is made, besides the one of `health.listen`, such as `22` or `68/udp`.
	// `flowagent image verify` fails for any other. Default: SSH and DHCP's clients.
	AllowPorts []string `mapstructure:"allow_ports"`
	// Patterns of files in which credentials are known to be harmless, such as `/app/lib/tests/*.pem`: absolute paths in the
	// system or in an image, with `*`, `?` and `[…]` within one part of a path. `flowagent image verify` counts what it finds in
	// them and doesn't fail for it.
	AllowFiles []string `mapstructure:"allow_files"`
	// Directory on this machine for the software bills of materials (SPDX and CycloneDX, as JSON), which is made where it is
	// missing. They stay on the image too, in /usr/share/flowagent. Empty: only there.
	SBOMDirectory string `mapstructure:"sbom_directory"`
	// File on this machine for what `flowagent image verify` found, as JSON. It is written for a failed verification too,
	// and `flowagent-publish` asks for it.
	VerifyReport string `mapstructure:"verify_report"`
	// Leave identity on the machine and don't verify it: for trying a template out on a machine that lives on. The result
	// is no image to publish.
	SkipSeal bool `mapstructure:"skip_seal"`

	// Variables for the commands on the target, such as `https_proxy`. They reach the commands over standard input, never
	// by an argument or a file; passwords in addresses are masked in all output.
	Environment map[string]string `mapstructure:"environment"`
	// Free disk space that the target must have on /var, in MiB, before anything is installed; what this provisioner
	// uploads is added to it. Default 2048.
	MinimumFreeMB int `mapstructure:"minimum_free_mb"`
	// Longest wait for cloud-init to end. Default `10m`.
	CloudInitTimeout time.Duration `mapstructure:"cloud_init_timeout"`
	// Longest wait for another program's hold on apt. Default `10m`.
	LockTimeout time.Duration `mapstructure:"lock_timeout"`
	// Longest time for installing packages. Default `20m`.
	InstallTimeout time.Duration `mapstructure:"install_timeout"`
	// Longest time for loading and pulling all images. Default `30m`.
	ImageTimeout time.Duration `mapstructure:"image_timeout"`
	// Longest time for any other single step. Default `5m`.
	StepTimeout time.Duration `mapstructure:"step_timeout"`

	profiles []ansiblefree.Profile // of Profiles, once they are checked
	ctx      interpolate.Context
}

var (
	checksumForm    = regexp.MustCompile(`^(?:sha256:)?([0-9a-fA-F]{64})$`)
	versionForm     = regexp.MustCompile(`^[0-9A-Za-z][0-9A-Za-z.+:~-]*$`) // deb-version(7), without the underscore of file names
	fingerprintForm = regexp.MustCompile(`^[0-9A-F]{40}$`)
	portForm        = regexp.MustCompile(`^[1-9][0-9]{0,4}(/(tcp|udp))?$`)
	variableForm    = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)
)

// setDefaults fills what the template left out.
func (c *Config) setDefaults() {
	if c.Engine == "" {
		c.Engine = engineDistribution
	}
	if c.EngineRepository == "" {
		c.EngineRepository = dockerRepository
	}
	if c.EngineKeyFingerprint == "" {
		c.EngineKeyFingerprint = dockerFingerprint
	}
	c.EngineKeyFingerprint = strings.ToUpper(strings.ReplaceAll(c.EngineKeyFingerprint, " ", ""))
	if len(c.Profiles) == 0 {
		c.Profiles = []string{"base", "hardening"}
	}
	if c.MinimumFreeMB == 0 {
		c.MinimumFreeMB = 2048
	}
	for _, d := range []struct {
		field *time.Duration
		value time.Duration
	}{
		{&c.CloudInitTimeout, 10 * time.Minute}, // a first boot that upgrades packages takes minutes
		{&c.LockTimeout, 10 * time.Minute},      // unattended-upgrades may be in the middle of a kernel
		{&c.InstallTimeout, 20 * time.Minute},   // under software emulation everything takes ten times as long
		{&c.ImageTimeout, 30 * time.Minute},
		{&c.StepTimeout, 5 * time.Minute},
	} {
		if *d.field == 0 {
			*d.field = d.value
		}
	}
}

// check finds what is wrong with the settings by themselves; what they name is looked at by plan.
func (c *Config) check() error {
	var errs []error
	refuse := func(format string, arguments ...any) { errs = append(errs, fmt.Errorf(format, arguments...)) }
	if c.Binary == "" {
		refuse("binary is missing: name the flowagent binary for the target, such as the one that `make build` makes")
	}
	if c.ConfigFile == "" {
		refuse("config is missing: name the node's configuration; `flowagent config init` writes one to begin with")
	}
	if c.BinaryChecksum != "" && !checksumForm.MatchString(c.BinaryChecksum) {
		refuse("binary_checksum is no SHA-256: write 64 hexadecimal digits, as sha256sum prints them")
	}
	if c.Engine != engineDistribution && c.Engine != engineDocker {
		refuse("engine %q is unknown: use %q or %q", c.Engine, engineDistribution, engineDocker)
	}
	for _, v := range []struct{ field, value string }{{"engine_version", c.EngineVersion}, {"compose_version", c.ComposeVersion}} {
		if v.value != "" && !versionForm.MatchString(v.value) {
			refuse("%s %q is no version of a package: write it as `apt-cache madison` prints it", v.field, v.value)
		}
	}
	if u, err := url.Parse(c.EngineRepository); err != nil || u.Host == "" || (u.Scheme != "https" && u.Scheme != "http") || u.User != nil {
		refuse("engine_repository is no address of a repository: write it like %s, without a password", dockerRepository)
	}
	if !fingerprintForm.MatchString(c.EngineKeyFingerprint) {
		refuse("engine_key_fingerprint is no fingerprint: write its 40 hexadecimal digits, as `gpg --show-keys` prints them")
	}
	var err error
	if c.profiles, err = ansiblefree.ParseProfiles(c.Profiles); err != nil {
		refuse("profiles: %w", err)
	}
	for _, port := range c.AllowPorts {
		if !portForm.MatchString(port) {
			refuse("allow_ports: %q is no port: write it like 22 or 68/udp", port)
		}
	}
	for _, pattern := range c.AllowFiles {
		// The flag that it is passed by is a list.
		if _, err := path.Match(pattern, ""); err != nil || !path.IsAbs(pattern) || strings.ContainsAny(pattern, ",\"\n") {
			refuse("allow_files: %q is no pattern of paths: begin it with a slash, close its brackets and use no comma, quote or line end", pattern)
		}
	}
	for name, value := range c.Environment {
		if !variableForm.MatchString(name) {
			refuse("environment: %q is not a variable's name: use letters, digits and underscores", name)
		}
		if strings.ContainsAny(value, "\x00\n") {
			refuse("environment: the value of %s has a line end or a NUL byte: remove it", name)
		}
	}
	for name, value := range c.RegistryPasswords {
		if value == "" {
			refuse("registry_passwords: the value for %q is empty: set the variable that it comes from", name)
		}
	}
	if c.SkipImages && (len(c.ImageArchives) > 0 || len(c.RegistryPasswords) > 0) {
		refuse("skip_images leaves out what image_archives and registry_passwords are for: remove either")
	}
	if c.MinimumFreeMB < 0 {
		refuse("minimum_free_mb is negative: use 0 or more")
	}
	for name, d := range map[string]time.Duration{
		"cloud_init_timeout": c.CloudInitTimeout, "lock_timeout": c.LockTimeout, "install_timeout": c.InstallTimeout,
		"image_timeout": c.ImageTimeout, "step_timeout": c.StepTimeout,
	} {
		if d < time.Second {
			refuse("%s is below a second: give it a unit, such as 10m", name)
		}
	}
	slices.SortFunc(errs, func(a, b error) int { return strings.Compare(a.Error(), b.Error()) }) // maps come in any order
	return errors.Join(errs...)
}

// guard has every secret of the settings masked in whatever this process prints or logs.
func (c *Config) guard() {
	for _, password := range c.RegistryPasswords {
		packersdk.LogSecretFilter.Set(password)
	}
	for _, value := range c.Environment {
		if u, err := url.Parse(value); err == nil && u.User != nil {
			if password, set := u.User.Password(); set && password != "" {
				packersdk.LogSecretFilter.Set(password, url.QueryEscape(password), url.PathEscape(password))
			}
			packersdk.LogSecretFilter.Set(u.User.String())
		}
	}
}
