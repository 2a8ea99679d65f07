// Package ami is what the post-processor and the data source both know of published images: how AWS is reached, and the
// tags that an image bears.
//
// What enters are a profile's name and a region, and tags as EC2 gives them; what leaves are SDK configurations and
// plain maps. Credentials come from the SDK's default chain alone; none is ever a setting of the template.
package ami

import (
	"context"
	"fmt"
	"regexp"

	"github.com/aws/aws-sdk-go-v2/aws"
	awsconfig "github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"github.com/aws/smithy-go/middleware"

	"github.com/flowviz/flowagent/agent/awserror"
)

// The tags of a published image.
const (
	TagImage        = "flowagent:image"         // the line of images that it belongs to, such as flowviz-node
	TagVerified     = "flowagent:verified"      // "true": `flowagent image verify` found nothing
	TagGitRevision  = "flowagent:git-revision"  // of the templates
	TagAgentVersion = "flowagent:agent-version" // of the flowagent binary
	TagSourceImage  = "flowagent:source-image"  // the AMI it was made from
	TagSBOM         = "flowagent:sbom-sha256"   // of the first bill of materials
	TagBootCheck    = "flowagent:boot-check"    // "passed", where there was one
)

// Verified is the value of TagVerified.
const Verified = "true"

// DataType is a parameter's whose value AWS takes only if it is an image that the account can use.
const DataType = "aws:ec2:image"

var (
	idForm     = regexp.MustCompile(`^ami-[0-9a-f]{8,17}$`)
	regionForm = regexp.MustCompile(`^[a-z]{2,}(-[a-z]+)+-[0-9]+$`)
)

// IsID tells whether a text has the form of an image's id.
func IsID(text string) bool { return idForm.MatchString(text) }

// IsRegion tells whether a text has the form of a region's name.
func IsRegion(text string) bool { return regionForm.MatchString(text) }

// Load prepares to call AWS in a region, "" for the environment's or the profile's own. profile is a name of the shared
// configuration file, "" for the environment's choice.
func Load(ctx context.Context, profile, region string) (aws.Config, error) {
	options := []func(*awsconfig.LoadOptions) error{awsconfig.WithRegion(region), awsconfig.WithAPIOptions([]func(*middleware.Stack) error{awserror.WithoutQuotes})}
	if profile != "" {
		options = append(options, awsconfig.WithSharedConfigProfile(profile))
	}
	cfg, err := awsconfig.LoadDefaultConfig(ctx, options...)
	if err != nil {
		return aws.Config{}, fmt.Errorf("prepare to call AWS: %w", err)
	}
	if cfg.Region == "" {
		return aws.Config{}, fmt.Errorf("no AWS region is known: name one, or set AWS_REGION")
	}
	return cfg, nil
}

// Tags makes a map of EC2's list.
func Tags(list []types.Tag) map[string]string {
	tags := map[string]string{}
	for _, t := range list {
		tags[aws.ToString(t.Key)] = aws.ToString(t.Value)
	}
	return tags
}
