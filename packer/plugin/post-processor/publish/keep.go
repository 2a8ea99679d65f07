package publish

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"github.com/aws/aws-sdk-go-v2/service/ssm"
	ssmtypes "github.com/aws/aws-sdk-go-v2/service/ssm/types"
	packersdk "github.com/hashicorp/packer-plugin-sdk/packer"

	"github.com/flowviz/flowagent/packer/plugin/internal/ami"
)

// old is an image that another one supersedes.
type old struct {
	types.Image
	created time.Time
}

// superseded finds the images of the line that are to go in a region: those beyond the count, old enough and not in
// use. An error anywhere means that nothing goes.
func (p *PostProcessor) superseded(ctx context.Context, r *region, all parameters) ([]old, error) {
	if p.config.Keep == nil {
		return nil, nil
	}
	images, err := r.line(ctx, p.config.Image)
	if err != nil {
		return nil, fmt.Errorf("list the images of %s in %s: %w", p.config.Image, r.region, err)
	}
	candidates := images[min(p.config.Keep.Count, len(images)):]
	limit := time.Now().Add(-p.config.Keep.Age)
	candidates = slices.DeleteFunc(candidates, func(o old) bool { return o.created.After(limit) })
	if len(candidates) == 0 {
		return nil, nil
	}
	used, err := r.used(ctx, candidates)
	if err != nil {
		return nil, fmt.Errorf("see which images are in use in %s: %w", r.region, err)
	}
	for _, parameter := range all {
		if parameter.region == r {
			used[parameter.before] = true
		}
	}
	return slices.DeleteFunc(candidates, func(o old) bool { return used[aws.ToString(o.ImageId)] || protected(o.Image) }), nil
}

// protected tells whether AWS would refuse to deregister the image, which somebody asked it to. The values are
// "disabled", "enabled" and "enabled-with-cooldown".
func protected(i types.Image) bool {
	return strings.HasPrefix(aws.ToString(i.DeregistrationProtection), "enabled")
}

// line lists the account's own published images but the new one, the newest first.
func (r *region) line(ctx context.Context, name string) ([]old, error) {
	var images []old
	pages := ec2.NewDescribeImagesPaginator(r.ec2, &ec2.DescribeImagesInput{
		Owners: []string{"self"},
		Filters: []types.Filter{
			{Name: aws.String("tag:" + ami.TagImage), Values: []string{name}},
			{Name: aws.String("tag:" + ami.TagVerified), Values: []string{ami.Verified}},
		},
		IncludeDisabled: aws.Bool(true),
	})
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return nil, err
		}
		for _, i := range page.Images {
			if aws.ToString(i.ImageId) == r.id {
				continue
			}
			created, err := time.Parse(time.RFC3339, aws.ToString(i.CreationDate))
			if err != nil {
				return nil, fmt.Errorf("%s has the creation date %q: %w", aws.ToString(i.ImageId), aws.ToString(i.CreationDate), err)
			}
			images = append(images, old{i, created})
		}
	}
	slices.SortFunc(images, func(a, b old) int {
		if c := b.created.Compare(a.created); c != 0 {
			return c
		}
		return strings.Compare(aws.ToString(a.ImageId), aws.ToString(b.ImageId))
	})
	return images, nil
}

// used are the ids of images that something in the region uses: all those of launch templates, and of the candidates
// those of instances.
func (r *region) used(ctx context.Context, candidates []old) (map[string]bool, error) {
	used := map[string]bool{}
	if err := r.usedByTemplates(ctx, used); err != nil {
		return nil, err
	}
	var ids []string
	for _, o := range candidates {
		ids = append(ids, aws.ToString(o.ImageId))
	}
	for some := range slices.Chunk(ids, 200) { // the most values of a filter
		pages := ec2.NewDescribeInstancesPaginator(r.ec2, &ec2.DescribeInstancesInput{Filters: []types.Filter{
			{Name: aws.String("image-id"), Values: some},
			{Name: aws.String("instance-state-name"), Values: []string{"pending", "running", "shutting-down", "stopping", "stopped"}},
		}})
		for pages.HasMorePages() {
			page, err := pages.NextPage(ctx)
			if err != nil {
				return nil, fmt.Errorf("list instances: %w", err)
			}
			for _, reservation := range page.Reservations {
				for _, instance := range reservation.Instances {
					used[aws.ToString(instance.ImageId)] = true
				}
			}
		}
	}
	return used, nil
}

// usedByTemplates adds the images of every version of every launch template. Without a template's name AWS would list
// the latest and default versions only.
func (r *region) usedByTemplates(ctx context.Context, used map[string]bool) error {
	resolved := map[string]bool{}
	templates := ec2.NewDescribeLaunchTemplatesPaginator(r.ec2, &ec2.DescribeLaunchTemplatesInput{})
	for templates.HasMorePages() {
		page, err := templates.NextPage(ctx)
		if err != nil {
			return fmt.Errorf("list launch templates: %w", err)
		}
		for _, template := range page.LaunchTemplates {
			versions := ec2.NewDescribeLaunchTemplateVersionsPaginator(r.ec2, &ec2.DescribeLaunchTemplateVersionsInput{LaunchTemplateId: template.LaunchTemplateId})
			for versions.HasMorePages() {
				page, err := versions.NextPage(ctx)
				if err != nil {
					return fmt.Errorf("list the versions of launch template %s: %w", aws.ToString(template.LaunchTemplateName), err)
				}
				for _, version := range page.LaunchTemplateVersions {
					if version.LaunchTemplateData == nil {
						continue
					}
					id := aws.ToString(version.LaunchTemplateData.ImageId)
					used[id] = true
					name, isParameter := strings.CutPrefix(id, "resolve:ssm:")
					if !isParameter || resolved[name] {
						continue
					}
					resolved[name] = true
					if err := r.usedByParameter(ctx, name, used); err != nil {
						return fmt.Errorf("launch template %s: %w", aws.ToString(template.LaunchTemplateName), err)
					}
				}
			}
		}
	}
	return nil
}

// usedByParameter adds the image that a launch template finds by a parameter, such as /flowviz/ami or /flowviz/ami:3.
func (r *region) usedByParameter(ctx context.Context, name string, used map[string]bool) error {
	got, err := r.ssm.GetParameter(ctx, &ssm.GetParameterInput{Name: &name})
	var none *ssmtypes.ParameterNotFound
	var noVersion *ssmtypes.ParameterVersionNotFound
	switch {
	case errors.As(err, &none), errors.As(err, &noVersion):
		return nil // it can't launch anything
	case err != nil:
		return fmt.Errorf("read the parameter %s: %w", name, err)
	}
	used[aws.ToString(got.Parameter.Value)] = true
	return nil
}

// deregister removes the superseded images with their snapshots, or says which they are.
func (p *PostProcessor) deregister(ctx context.Context, ui packersdk.Ui, regions []*region) error {
	for _, r := range regions {
		for _, o := range r.older {
			what := fmt.Sprintf("%s in %s (%s, of %s)", aws.ToString(o.ImageId), r.region, aws.ToString(o.Name), o.created.Format(time.DateOnly))
			if p.config.Keep.DryRun {
				ui.Say("would deregister " + what)
				continue
			}
			if _, err := r.ec2.DeregisterImage(ctx, &ec2.DeregisterImageInput{ImageId: o.ImageId}); err != nil {
				return fmt.Errorf("deregister %s: %w", what, err)
			}
			ui.Say("deregistered " + what)
			for _, id := range snapshots(o.Image) {
				if _, err := r.ec2.DeleteSnapshot(ctx, &ec2.DeleteSnapshotInput{SnapshotId: &id}); err != nil {
					return fmt.Errorf("deregistered %s, but its snapshot %s is left: %w", what, id, err)
				}
			}
		}
	}
	return nil
}
