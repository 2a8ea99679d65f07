package iam

import (
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws/arn"
)

// Place is where a node runs and what no configuration tells of it. What is empty is unknown: an ARN is never widened because
// of that. It is an error where a permission needs it, and a note where the node can do without.
type Place struct {
	// Account is the node's own, twelve digits. Needed for everything that isn't named by its whole ARN.
	Account string
	// Region is the node's own, such as eu-central-1.
	Region string
	// Partition is aws, aws-cn and so on; empty for the one that Region's name tells.
	Partition string
	// Groups are the Auto Scaling groups that launch such nodes, by name or ARN; none with Standalone alone.
	Groups []string
	// Standalone says that no Auto Scaling group launches the node.
	Standalone bool
	// TargetGroups are those of Groups, by name or ARN. Without any, a node can't take itself out.
	TargetGroups []string
	// Keys are the KMS keys of one's own that secrets and parameters are encrypted with, by id or ARN. AWS's managed keys,
	// aws/secretsmanager and aws/ssm, need no permission.
	Keys []string
	// Images are references of the images that the node runs, as in its Compose files. Those of other registries than the
	// configuration's ECR ones don't matter.
	Images []string
	// Tags are what Groups and TargetGroups must be tagged with, all of them, for the node to change something there.
	Tags map[string]string
}

var (
	accountID = regexp.MustCompile(`^[0-9]{12}$`)
	// As in the configuration: us-east-1, us-gov-west-1, eusc-de-east-1.
	regionName = regexp.MustCompile(`^[a-z]{2,}(-[a-z]+)+-[0-9]+$`)
	partition  = regexp.MustCompile(`^aws(-[a-z]+)*$`)
	// Visible characters but the colon (CreateAutoScalingGroup, AutoScalingGroupName), and of those none that a policy reads
	// in another way: wildcards, and the dollar of its variables.
	groupName = regexp.MustCompile(`^[!-#%-)+-9;->@-~]{1,255}$`)
	// CreateTargetGroup, Name.
	targetGroupName = regexp.MustCompile(`^[A-Za-z0-9-]{1,32}$`)
	// A UUID, or mrk- and 32 digits for a key in several regions.
	keyID = regexp.MustCompile(`^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$|^mrk-[0-9a-f]{32}$`)
	// What IAM's StringEquals takes for what it says: no variable in it.
	tagText = regexp.MustCompile(`^[^$*?]{1,256}$`)
)

// check refuses, all at once, what can't be right in itself.
func (p Place) check() error {
	var problems []error
	refuse := func(format string, args ...any) { problems = append(problems, fmt.Errorf(format, args...)) }
	if p.Account != "" && !accountID.MatchString(p.Account) {
		refuse("account %q: write its twelve digits, such as 123456789012, with leading zeros", p.Account)
	}
	if p.Region != "" && !regionName.MatchString(p.Region) {
		refuse("region %q: write it like eu-central-1", p.Region)
	}
	if p.Partition != "" && !partition.MatchString(p.Partition) {
		refuse("partition %q: write it like aws, aws-cn or aws-us-gov", p.Partition)
	}
	if p.Standalone && len(p.Groups) > 0 {
		refuse("a node without an Auto Scaling group has none to name: keep one of both")
	}
	for _, group := range p.Groups {
		name, isARN := groupIn(group)
		if !isARN {
			name = group
		}
		if !groupName.MatchString(name) {
			refuse("group %q is no name or ARN of an Auto Scaling group; wildcards are not taken, so name each one", group)
		}
	}
	for _, group := range p.TargetGroups {
		if rest, isARN := cut(group, "elasticloadbalancing", "targetgroup/"); !(isARN && strings.Contains(rest, "/")) && !targetGroupName.MatchString(group) {
			refuse("target group %q is no name or ARN of one; wildcards are not taken, so name each one", group)
		}
	}
	for _, key := range p.Keys {
		if _, isKey := cut(key, "kms", "key/"); !isKey && !keyID.MatchString(key) {
			refuse("KMS key %q is no id or ARN of a key; an alias is no resource of a policy, so name its key: aws kms describe-key tells it", key)
		}
	}
	for _, key := range slices.Sorted(maps.Keys(p.Tags)) {
		if !tagText.MatchString(key) || !tagText.MatchString(p.Tags[key]) {
			refuse("tag %q=%q: write a key and a value of 1 to 256 characters, without $ * ?", key, p.Tags[key])
		}
	}
	if len(p.TargetGroups) > 0 && len(p.Groups) == 0 {
		refuse("target groups belong to an Auto Scaling group, and none is named: name it, too")
	}
	if len(p.Tags) > 0 && len(p.Groups) == 0 {
		refuse("tags are those of Auto Scaling groups and target groups, and none is named: name them, too")
	}
	return errors.Join(problems...)
}

// groupIn is the name in an Auto Scaling group's ARN; false for anything else.
func groupIn(text string) (string, bool) {
	rest, found := cut(text, "autoscaling", "autoScalingGroup:")
	if !found {
		return "", false
	}
	_, name, found := strings.Cut(rest, ":autoScalingGroupName/")
	return name, found
}

// cut returns what follows prefix in the resource of a service's ARN; false for anything else, and for patterns.
func cut(text, service, prefix string) (string, bool) {
	parsed, err := arn.Parse(text)
	if err != nil || parsed.Service != service || strings.ContainsAny(text, "*?$ ") {
		return "", false
	}
	rest, found := strings.CutPrefix(parsed.Resource, prefix)
	return rest, found && rest != ""
}

// partitions are what begins the names of regions outside the partition aws, longer ones first. Source: the AWS SDK's list of
// partitions.
var partitions = []struct{ prefix, name string }{
	{"us-isob-", "aws-iso-b"}, {"us-isof-", "aws-iso-f"}, {"eu-isoe-", "aws-iso-e"}, {"eusc-", "aws-eusc"},
	{"us-gov-", "aws-us-gov"}, {"us-iso-", "aws-iso"}, {"cn-", "aws-cn"},
}

func (p Place) partition() string {
	if p.Partition != "" {
		return p.Partition
	}
	for _, known := range partitions {
		if strings.HasPrefix(p.Region, known.prefix) {
			return known.name
		}
	}
	return "aws"
}
