// Package publish is the post-processor that makes a built image known: to Systems Manager's parameters, to Terraform
// and to whoever reads the manifest.
//
// What enters is the artifact of an amazon builder; what leaves are tags, files and parameters, and fewer old images.
// Everything that can be refused comes first and the parameters last, so that a failure publishes nothing: Packer then
// deregisters the new image, and nothing may name it. An image that something uses is never deregistered.
package publish

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"github.com/aws/aws-sdk-go-v2/service/ssm"
	"github.com/hashicorp/hcl/v2/hcldec"
	packersdk "github.com/hashicorp/packer-plugin-sdk/packer"
	"github.com/hashicorp/packer-plugin-sdk/template/config"
	"github.com/hashicorp/packer-plugin-sdk/template/interpolate"

	"github.com/flowviz/flowagent/packer/plugin/internal/ami"
)

// PostProcessor is what Packer calls.
type PostProcessor struct {
	config Config
}

var _ packersdk.PostProcessor = (*PostProcessor)(nil)

// ConfigSpec is the settings' layout in HCL.
func (p *PostProcessor) ConfigSpec() hcldec.ObjectSpec { return p.config.FlatMapstructure().HCL2Spec() }

// Configure reads the settings and checks them, before anything is built.
func (p *PostProcessor) Configure(raws ...any) error {
	err := config.Decode(&p.config, &config.DecodeOpts{
		PluginType:         "flowagent-publish",
		Interpolate:        true,
		InterpolateContext: &p.config.ctx,
		InterpolateFilter:  &interpolate.RenderFilter{},
	}, raws...)
	if err != nil {
		return err
	}
	p.config.setDefaults()
	if err := p.config.check(); err != nil {
		return err
	}
	if p.config.GitRevision == "" {
		p.config.GitRevision, err = gitRevision(context.Background()) // reads a few files
	}
	return err
}

// gitRevision is the commit of the current directory, where Packer runs.
func gitRevision(ctx context.Context) (string, error) {
	git := func(arguments ...string) (string, error) {
		cmd := exec.CommandContext(ctx, "git", arguments...)
		var problems bytes.Buffer
		cmd.Stderr = &problems
		out, err := cmd.Output()
		if err != nil {
			return "", fmt.Errorf("ask git for the revision: %w: %s; set git_revision where there is no repository", err, strings.TrimSpace(problems.String()))
		}
		return strings.TrimSpace(string(out)), nil
	}
	revision, err := git("rev-parse", "HEAD")
	if err != nil {
		return "", err
	}
	changes, err := git("status", "--porcelain", "--untracked-files=no")
	if err == nil && changes != "" {
		revision += "-dirty"
	}
	return revision, err
}

// region is one region's part of the publication.
type region struct {
	image
	ec2   *ec2.Client
	ssm   *ssm.Client
	made  types.Image
	older []old // to be deregistered
}

// PostProcess publishes. The artifact is kept as it is.
func (p *PostProcessor) PostProcess(ctx context.Context, ui packersdk.Ui, artifact packersdk.Artifact) (packersdk.Artifact, bool, bool, error) {
	if err := p.publish(ctx, ui, artifact); err != nil {
		// Packer destroys what this can't keep by then.
		return nil, false, false, fmt.Errorf("%w\nNothing was published; Packer deregisters the new image unless another post-processor keeps it", err)
	}
	return artifact, true, true, nil
}

func (p *PostProcessor) publish(ctx context.Context, ui packersdk.Ui, artifact packersdk.Artifact) error {
	images, err := parseImages(artifact.Id())
	if err != nil {
		return err
	}
	made, err := p.describe(artifact, images)
	if err != nil {
		return err
	}
	regions, err := p.look(ctx, images)
	if err != nil {
		return err
	}
	if err := p.bootCheck(ctx, ui, images); err != nil {
		return err
	}
	parameters, err := p.readParameters(ctx, regions)
	if err != nil {
		return err
	}
	for _, r := range regions {
		if err := p.tag(ctx, r, made); err != nil {
			return err
		}
		if r.older, err = p.superseded(ctx, r, parameters); err != nil {
			return err
		}
	}
	files, err := p.writeFiles(made)
	if err != nil {
		return err
	}
	err = p.deregister(ctx, ui, regions)
	if err == nil {
		err = parameters.write(ctx, ui)
	}
	if err != nil {
		return errors.Join(err, files.restore())
	}
	return nil
}

// look finds each image in its region, and sees that it is complete.
func (p *PostProcessor) look(ctx context.Context, images []image) ([]*region, error) {
	var regions []*region
	for _, i := range images {
		cfg, err := ami.Load(ctx, p.config.Profile, i.region)
		if err != nil {
			return nil, err
		}
		r := &region{image: i, ec2: ec2.NewFromConfig(cfg), ssm: ssm.NewFromConfig(cfg)}
		found, err := r.ec2.DescribeImages(ctx, &ec2.DescribeImagesInput{ImageIds: []string{i.id}})
		if err != nil {
			return nil, fmt.Errorf("look for %s in %s: %w", i.id, i.region, err)
		}
		if len(found.Images) != 1 {
			return nil, fmt.Errorf("look for %s in %s: it is not there", i.id, i.region)
		}
		if r.made = found.Images[0]; r.made.State != types.ImageStateAvailable {
			return nil, fmt.Errorf("%s in %s is %s and not available: see its StateReason in EC2", i.id, i.region, r.made.State)
		}
		regions = append(regions, r)
	}
	return regions, nil
}

// tag says on the image, and on its snapshots, what it is.
func (p *PostProcessor) tag(ctx context.Context, r *region, made *manifest) error {
	tags := map[string]string{
		ami.TagImage: p.config.Image, ami.TagVerified: ami.Verified, ami.TagGitRevision: made.GitRevision,
		ami.TagAgentVersion: made.AgentVersion, ami.TagSourceImage: made.SourceImage,
	}
	if len(made.SBOMs) > 0 {
		tags[ami.TagSBOM] = made.SBOMs[0].SHA256
	}
	if made.BootCheck != "" {
		tags[ami.TagBootCheck] = made.BootCheck
	}
	for name, value := range p.config.Tags {
		tags[name] = value
	}
	var list []types.Tag
	for name, value := range tags {
		if value != "" {
			list = append(list, types.Tag{Key: aws.String(name), Value: aws.String(value)})
		}
	}
	_, err := r.ec2.CreateTags(ctx, &ec2.CreateTagsInput{Resources: append([]string{r.id}, snapshots(r.made)...), Tags: list})
	if err != nil {
		return fmt.Errorf("tag %s in %s: %w", r.id, r.region, err)
	}
	return nil
}

// snapshots are the ids of an image's own.
func snapshots(i types.Image) []string {
	var ids []string
	for _, device := range i.BlockDeviceMappings {
		if device.Ebs != nil && aws.ToString(device.Ebs.SnapshotId) != "" {
			ids = append(ids, *device.Ebs.SnapshotId)
		}
	}
	return ids
}
