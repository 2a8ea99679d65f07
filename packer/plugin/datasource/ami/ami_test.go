package ami

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"github.com/aws/aws-sdk-go-v2/service/ssm"
	ssmtypes "github.com/aws/aws-sdk-go-v2/service/ssm/types"

	"github.com/flowviz/flowagent/packer/plugin/internal/ami"
	"github.com/flowviz/flowagent/test/lab"
)

const region = "eu-central-1"

// cloud is AWS as moto plays it.
type cloud struct {
	t   *testing.T
	cfg aws.Config
}

func newCloud(t *testing.T) *cloud {
	t.Helper()
	t.Setenv("AWS_ENDPOINT_URL", lab.Moto(t))
	t.Setenv("AWS_ACCESS_KEY_ID", "test")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "test")
	t.Setenv("AWS_EC2_METADATA_DISABLED", "true")
	t.Setenv("AWS_CONFIG_FILE", filepath.Join(t.TempDir(), "none"))
	cfg, err := ami.Load(t.Context(), "", region)
	if err != nil {
		t.Fatal(err)
	}
	return &cloud{t, cfg}
}

// image makes an image with tags.
func (c *cloud) image(title string, tags map[string]string) string {
	c.t.Helper()
	client := ec2.NewFromConfig(c.cfg)
	source, err := client.DescribeImages(c.t.Context(), &ec2.DescribeImagesInput{Owners: []string{"amazon"}})
	if err != nil || len(source.Images) == 0 {
		c.t.Fatalf("images to begin with: %v", err)
	}
	started, err := client.RunInstances(c.t.Context(), &ec2.RunInstancesInput{ImageId: source.Images[0].ImageId, MinCount: aws.Int32(1), MaxCount: aws.Int32(1)})
	if err != nil {
		c.t.Fatal(err)
	}
	made, err := client.CreateImage(c.t.Context(), &ec2.CreateImageInput{InstanceId: started.Instances[0].InstanceId, Name: &title})
	if err != nil {
		c.t.Fatal(err)
	}
	for key, value := range tags {
		_, err := client.CreateTags(c.t.Context(), &ec2.CreateTagsInput{Resources: []string{*made.ImageId}, Tags: []types.Tag{{Key: &key, Value: &value}}})
		if err != nil {
			c.t.Fatal(err)
		}
	}
	return *made.ImageId
}

func (c *cloud) parameter(name, value string) {
	c.t.Helper()
	_, err := ssm.NewFromConfig(c.cfg).PutParameter(c.t.Context(), &ssm.PutParameterInput{Name: &name, Value: &value, Type: ssmtypes.ParameterTypeString})
	if err != nil {
		c.t.Fatal(err)
	}
}

// find runs the data source as Packer does, and returns the image's id, name and tag of the agent's version.
func find(t *testing.T, settings map[string]any) (id, title, version string, err error) {
	t.Helper()
	d := &Datasource{}
	settings["region"] = region
	if err := d.Configure(settings); err != nil {
		return "", "", "", err
	}
	value, err := d.Execute()
	if err != nil {
		return "", "", "", err
	}
	out := value.AsValueMap()
	if got := out["region"].AsString(); got != region {
		t.Errorf("region: got %s, want %s", got, region)
	}
	if out["creation_date"].AsString() == "" {
		t.Error("no creation date")
	}
	tags := out["tags"].AsValueMap()
	return out["id"].AsString(), out["name"].AsString(), tags[ami.TagAgentVersion].AsString(), nil
}

func TestFindsAPublishedImage(t *testing.T) {
	c := newCloud(t)
	blue := c.image("node-1", map[string]string{ami.TagImage: "node", ami.TagVerified: "true", ami.TagAgentVersion: "1.0.0", "color": "blue"})
	c.image("edge-1", map[string]string{ami.TagImage: "edge", ami.TagVerified: "true", ami.TagAgentVersion: "2.0.0"})
	unverified := c.image("node-2", map[string]string{ami.TagImage: "node", ami.TagAgentVersion: "3.0.0"})
	c.parameter("/good", blue)
	c.parameter("/unverified", unverified)
	c.parameter("/text", "hello")
	for what, settings := range map[string]map[string]any{
		"by parameter": {"ssm_parameter": "/good"},
		"by line":      {"image": "node"},
		"by tag":       {"image": "node", "tags": map[string]string{"color": "blue"}},
	} {
		if id, title, version, err := find(t, settings); err != nil || id != blue || title != "node-1" || version != "1.0.0" {
			t.Errorf("%s: got %s, %s, %s and %v; want %s, node-1, 1.0.0", what, id, title, version, err, blue)
		}
	}
	for want, settings := range map[string]map[string]any{
		"of the parameter /unverified: publish one":            {"ssm_parameter": "/unverified"},
		`the parameter /text holds "hello", which is no image`: {"ssm_parameter": "/text"},
		"read the parameter /none":                             {"ssm_parameter": "/none"},
		"tagged color=green: publish one":                      {"image": "node", "tags": map[string]string{"color": "green"}},
		"set one of ssm_parameter and image":                   {},
	} {
		if id, _, _, err := find(t, settings); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: got %s and %v, want %q", settings, id, err, want)
		}
	}
}
