package agent

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/aws/aws-sdk-go-v2/aws"
	awsconfig "github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/credentials/ec2rolecreds"
	"github.com/aws/aws-sdk-go-v2/feature/ec2/imds"
	"github.com/aws/smithy-go/middleware"

	"github.com/flowviz/flowagent/agent/awserror"
	"github.com/flowviz/flowagent/agent/node"
)

// awsConfigs makes the SDK's configuration of each region once. Credentials come from the SDK's default chain, which on
// EC2 ends at the instance's role.
type awsConfigs struct {
	home string // the node's own region; empty outside EC2
	role func(*awsconfig.LoadOptions) error

	mu       sync.Mutex
	byRegion map[string]aws.Config
}

// newAWS takes the node's metadata service; nil outside EC2, where none is ever asked.
func newAWS(home string, metadata *node.Metadata) *awsConfigs {
	role := awsconfig.WithEC2IMDSClientEnableState(imds.ClientDisabled)
	if metadata != nil {
		role = awsconfig.WithEC2RoleCredentialOptions(func(o *ec2rolecreds.Options) { o.Client = metadata.Client() })
	}
	return &awsConfigs{home: home, role: role, byRegion: map[string]aws.Config{}}
}

// Config returns the configuration of a region; "" is the node's own, or outside EC2 that of the SDK's environment.
func (c *awsConfigs) Config(ctx context.Context, region string) (aws.Config, error) {
	if region == "" {
		region = c.home
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if cfg, found := c.byRegion[region]; found {
		return cfg, nil
	}
	cfg, err := awsconfig.LoadDefaultConfig(ctx, awsconfig.WithRegion(region), c.role,
		awsconfig.WithAPIOptions([]func(*middleware.Stack) error{awserror.WithoutQuotes}))
	if err != nil {
		return aws.Config{}, fmt.Errorf("prepare to call AWS: %w", err)
	}
	if cfg.Region == "" {
		return aws.Config{}, errors.New("no AWS region is known here: name one with the secret or registry, or set AWS_REGION")
	}
	c.byRegion[region] = cfg
	return cfg, nil
}
