//go:generate ../../generate.sh

// Package ami is the data source that finds the newest published image.
//
// What enters is the name of a parameter or of a line of images; what leaves is one image with its tags. An image that
// `flowagent-publish` did not publish is never found.
package ami

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"github.com/aws/aws-sdk-go-v2/service/ssm"
	"github.com/hashicorp/hcl/v2/hcldec"
	"github.com/hashicorp/packer-plugin-sdk/common"
	"github.com/hashicorp/packer-plugin-sdk/hcl2helper"
	packersdk "github.com/hashicorp/packer-plugin-sdk/packer"
	"github.com/hashicorp/packer-plugin-sdk/template/config"
	"github.com/zclconf/go-cty/cty"

	"github.com/flowviz/flowagent/packer/plugin/internal/ami"
)

// limit bounds the few calls to AWS, the SDK's retries included.
const limit = 2 * time.Minute

// Config says which image is meant: by parameter, or by image and tags. Credentials come from the AWS SDK's default chain.
type Config struct {
	common.PackerConfig `mapstructure:",squash"`

	// Name of the Systems Manager parameter that holds the image's id, as `ssm_parameter` of `flowagent-publish` wrote it;
	// this or image.
	Parameter string `mapstructure:"ssm_parameter"`
	// Name of the line of images, as `image` of `flowagent-publish` says it: the newest verified one is meant.
	Image string `mapstructure:"image"`
	// Tags that the image must have besides, with their values.
	Tags map[string]string `mapstructure:"tags"`
	// AWS region. Empty: the environment's or the profile's own.
	Region string `mapstructure:"region"`
	// Name of a profile in the shared AWS configuration. Empty: the environment's choice.
	Profile string `mapstructure:"profile"`
}

// DatasourceOutput is the image.
type DatasourceOutput struct {
	// Id, such as ami-0123456789abcdef0.
	ID string `mapstructure:"id"`
	// Region in which it is.
	Region string `mapstructure:"region"`
	// Name.
	Name string `mapstructure:"name"`
	// Its tags, those of `flowagent-publish` among them.
	Tags map[string]string `mapstructure:"tags"`
	// When it was made, such as 2026-11-24T08:30:00.000Z.
	CreationDate string `mapstructure:"creation_date"`
}

// Datasource is what Packer calls.
type Datasource struct {
	config Config
}

var _ packersdk.Datasource = (*Datasource)(nil)

// ConfigSpec is the settings' layout in HCL.
func (d *Datasource) ConfigSpec() hcldec.ObjectSpec { return d.config.FlatMapstructure().HCL2Spec() }

// OutputSpec is the result's layout in HCL.
func (d *Datasource) OutputSpec() hcldec.ObjectSpec {
	return (&DatasourceOutput{}).FlatMapstructure().HCL2Spec()
}

// Configure reads the settings and checks them.
func (d *Datasource) Configure(raws ...any) error {
	if err := config.Decode(&d.config, nil, raws...); err != nil {
		return err
	}
	var errs []error
	if (d.config.Parameter == "") == (d.config.Image == "") {
		errs = append(errs, errors.New("set one of ssm_parameter and image: they are two ways to name an image"))
	}
	if d.config.Region != "" && !ami.IsRegion(d.config.Region) {
		errs = append(errs, fmt.Errorf("region %q is none: write it like eu-central-1", d.config.Region))
	}
	return errors.Join(errs...)
}

// Execute asks AWS.
func (d *Datasource) Execute() (cty.Value, error) {
	none := cty.NullVal(cty.EmptyObject)
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	cfg, err := ami.Load(ctx, d.config.Profile, d.config.Region)
	if err != nil {
		return none, err
	}
	found, err := d.find(ctx, cfg)
	if err != nil {
		return none, fmt.Errorf("find the image in %s: %w", cfg.Region, err)
	}
	return hcl2helper.HCL2ValueFromConfig(DatasourceOutput{
		ID: aws.ToString(found.ImageId), Region: cfg.Region, Name: aws.ToString(found.Name), Tags: ami.Tags(found.Tags),
		CreationDate: aws.ToString(found.CreationDate),
	}, d.OutputSpec()), nil
}

func (d *Datasource) find(ctx context.Context, cfg aws.Config) (types.Image, error) {
	input := &ec2.DescribeImagesInput{Filters: []types.Filter{
		{Name: aws.String("state"), Values: []string{"available"}},
		{Name: aws.String("tag:" + ami.TagVerified), Values: []string{ami.Verified}},
	}}
	meant := ""
	if d.config.Parameter != "" {
		got, err := ssm.NewFromConfig(cfg).GetParameter(ctx, &ssm.GetParameterInput{Name: &d.config.Parameter})
		if err != nil {
			return types.Image{}, fmt.Errorf("read the parameter %s: %w", d.config.Parameter, err)
		}
		id := aws.ToString(got.Parameter.Value)
		if !ami.IsID(id) {
			return types.Image{}, fmt.Errorf("the parameter %s holds %q, which is no image: have flowagent-publish write it", d.config.Parameter, id)
		}
		input.ImageIds = []string{id}
		meant = fmt.Sprintf("image %s of the parameter %s", id, d.config.Parameter)
	} else {
		// Anybody may share an image that has these tags.
		input.Owners = []string{"self"}
		input.Filters = append(input.Filters, types.Filter{Name: aws.String("tag:" + ami.TagImage), Values: []string{d.config.Image}})
		meant = "verified image of the line " + d.config.Image
	}
	for _, name := range slices.Sorted(maps.Keys(d.config.Tags)) {
		input.Filters = append(input.Filters, types.Filter{Name: aws.String("tag:" + name), Values: []string{d.config.Tags[name]}})
		meant += fmt.Sprintf(", tagged %s=%s", name, d.config.Tags[name])
	}
	var images []types.Image
	pages := ec2.NewDescribeImagesPaginator(ec2.NewFromConfig(cfg), input)
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return types.Image{}, fmt.Errorf("list images: %w", err)
		}
		images = append(images, page.Images...)
	}
	// Whether filters count beside an id is the service's affair.
	images = slices.DeleteFunc(images, func(i types.Image) bool { return !d.fits(i) })
	if len(images) == 0 {
		return types.Image{}, fmt.Errorf("there is no available %s: publish one, or correct the settings", meant)
	}
	// Its dates are of one form, and so in order as texts.
	return slices.MaxFunc(images, func(a, b types.Image) int {
		return strings.Compare(aws.ToString(a.CreationDate), aws.ToString(b.CreationDate))
	}), nil
}

// fits tells whether an image is what the settings ask for, its line aside.
func (d *Datasource) fits(i types.Image) bool {
	tags := ami.Tags(i.Tags)
	for name, value := range d.config.Tags {
		if got, found := tags[name]; !found || got != value {
			return false
		}
	}
	return i.State == types.ImageStateAvailable && tags[ami.TagVerified] == ami.Verified
}
