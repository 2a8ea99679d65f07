//go:generate ../../generate.sh

package publish

import (
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/packer-plugin-sdk/common"
	"github.com/hashicorp/packer-plugin-sdk/template/interpolate"
)

// Config is what a template says to the post-processor. Credentials come from the AWS SDK's default chain: variables,
// the shared configuration, the role of the machine.
type Config struct {
	common.PackerConfig `mapstructure:",squash"`

	// Name of the line of images, such as `flowviz-node`: the tag by which older ones are found.
	Image string `mapstructure:"image" required:"true"`
	// Version of the flowagent binary in the image, as `flowagent version` prints it.
	AgentVersion string `mapstructure:"agent_version" required:"true"`
	// Path of the provisioner's `verify_report` on this machine. Without one that says that the image is fit, nothing is
	// published.
	VerifyReport string `mapstructure:"verify_report" required:"true"`
	// Name of a profile in the shared AWS configuration. Empty: the environment's choice.
	Profile string `mapstructure:"profile"`
	// Name of the Systems Manager parameter that is to hold the image's id, such as `/flowviz/production/ami`. It is
	// written in each region that has the image, with the data type `aws:ec2:image`, and after everything else. When one
	// region fails, the others get back what they had. Empty: no parameter.
	Parameter string `mapstructure:"ssm_parameter"`
	// Command on this machine, a list of words, that boots the image and tells by its exit code whether it is fit. It is
	// run once for each region, with AMI_ID and AWS_REGION in its environment. Without success nothing is published.
	BootCheck []string `mapstructure:"boot_check"`
	// Longest time for one boot check. Default `20m`.
	BootCheckTimeout time.Duration `mapstructure:"boot_check_timeout"`
	// File for Terraform on this machine, which ends in `.auto.tfvars.json` so that Terraform reads it by itself: a map of
	// image ids by region. Empty: none.
	VariablesFile string `mapstructure:"variables_file"`
	// Name of the variable in that file. Default `ami_ids`.
	Variable string `mapstructure:"variable"`
	// File for the manifest on this machine: the images with what they were made of, as JSON. Empty: none.
	Manifest string `mapstructure:"manifest"`
	// Revision of the templates. Default: what git says of the current directory, with `-dirty` where files differ from it.
	GitRevision string `mapstructure:"git_revision"`
	// Id of the image that this one was made from. Default: what the builder says.
	SourceImage string `mapstructure:"source_image"`
	// Paths of bills of materials on this machine, such as those in the provisioner's `sbom_directory`. Their SHA-256 go
	// into the manifest, that of the first one into a tag.
	SBOMs []string `mapstructure:"sboms"`
	// Further tags of the images. Those that begin with `flowagent:` are the post-processor's own.
	Tags map[string]string `mapstructure:"tags"`
	// Which older images of the line are deregistered, with their snapshots, before the new one is published. Left out: none.
	Keep *Keep `mapstructure:"keep"`

	ctx interpolate.Context
}

// Keep says which older images of the line stay. One goes when it is neither among the newest nor young enough, and is
// not in use: by an instance in any state but terminated, by any version of a launch template, by the parameter, or by
// AWS's protection against deregistration.
type Keep struct {
	// How many of the newest stay, besides the new one. At least 1.
	Count int `mapstructure:"count" required:"true"`
	// How old an image must be to go. Default `0s`: the count decides.
	Age time.Duration `mapstructure:"age"`
	// Say what would be deregistered and do nothing.
	DryRun bool `mapstructure:"dry_run"`
}

var (
	// parameterForm is AWS's: https://docs.aws.amazon.com/systems-manager/latest/userguide/sysman-parameter-name-constraints.html
	parameterForm = regexp.MustCompile(`^/?[A-Za-z0-9_.-]+(/[A-Za-z0-9_.-]+){0,14}$`)
	variableForm  = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_-]*$`)
)

const variablesSuffix = ".auto.tfvars.json"

func (c *Config) setDefaults() {
	if c.BootCheckTimeout == 0 {
		c.BootCheckTimeout = 20 * time.Minute // an instance boots in one; a load balancer or a licence server may take their time
	}
	if c.Variable == "" {
		c.Variable = "ami_ids"
	}
}

func (c *Config) check() error {
	var errs []error
	refuse := func(format string, arguments ...any) { errs = append(errs, fmt.Errorf(format, arguments...)) }
	if c.Image == "" {
		refuse("image is missing: name the line of images, such as flowviz-node")
	}
	if c.AgentVersion == "" {
		refuse("agent_version is missing: write what `flowagent version` prints")
	}
	if c.VerifyReport == "" {
		refuse("verify_report is missing: have the provisioner write one (verify_report), and name it here")
	}
	if c.Parameter != "" && !parameterForm.MatchString(c.Parameter) {
		refuse("ssm_parameter %q is no name of a parameter: write it like /flowviz/production/ami", c.Parameter)
	}
	if len(c.BootCheck) > 0 && c.BootCheck[0] == "" {
		refuse("boot_check has no command: its first word is one")
	}
	if c.BootCheckTimeout < time.Second {
		refuse("boot_check_timeout is below a second: give it a unit, such as 20m")
	}
	if c.VariablesFile != "" && !strings.HasSuffix(c.VariablesFile, variablesSuffix) {
		refuse("variables_file: Terraform would not read %s by itself: have its name end in %s", c.VariablesFile, variablesSuffix)
	}
	if !variableForm.MatchString(c.Variable) {
		refuse("variable %q is no name of a Terraform variable: use letters, digits and underscores", c.Variable)
	}
	for _, name := range slices.Sorted(maps.Keys(c.Tags)) {
		if strings.HasPrefix(name, "flowagent:") || strings.HasPrefix(name, "aws:") || name == "" {
			refuse("tags: %q can't be set: choose a name that begins neither with flowagent: nor with aws:", name)
		}
	}
	if c.Keep != nil {
		if c.Keep.Count < 1 {
			refuse("keep: count is below 1: without an older image there is nothing to go back to")
		}
		if c.Keep.Age < 0 {
			refuse("keep: age is negative: write how old an image must be to go, such as 720h")
		}
	}
	if c.Parameter == "" && c.VariablesFile == "" && c.Manifest == "" {
		refuse("nothing is published: set ssm_parameter, variables_file or manifest")
	}
	return errors.Join(errs...)
}
