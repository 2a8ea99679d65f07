package iam

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws/arn"
	"github.com/distribution/reference"

	"github.com/flowviz/flowagent/agent/config"
	"github.com/flowviz/flowagent/agent/launch"
)

// Policy is what a node needs.
type Policy struct {
	Document
	// Notes say, one sentence each, what was left out because nothing names it, and what doesn't fit.
	Notes []string
}

// Limits on a policy's size in characters (IAM User Guide, "IAM and AWS STS quotas").
const (
	managedLimit = 6144
	inlineLimit  = 10240 // all inline policies of a role together
)

// Needed derives the policy of a node from its configuration. Every statement has its reason in the code that makes the call;
// a test holds the actions against those calls.
//
// The error lists everything that is wrong with the place, or that has to be known of it and isn't.
func Needed(cfg config.Config, place Place) (Policy, error) {
	if err := place.check(); err != nil {
		return Policy{}, err
	}
	b := &builder{cfg: cfg, place: place, policy: Policy{Document: Document{Version: version, Statement: []Statement{}}}}
	b.secrets()
	b.images()
	if cfg.Node.Provider != config.ProviderLocal {
		b.membership()
		b.metrics()
	} else if len(place.Groups) > 0 || place.Standalone {
		b.problem("node.provider is local: such a node asks nobody for its Auto Scaling group, so name none")
	}
	b.events()
	if err := errors.Join(b.problems...); err != nil {
		return Policy{}, err
	}
	switch size := b.policy.Size(); {
	case size > inlineLimit:
		b.note("The policy has %d characters, and a role's inline policies may have %d together: name parameters and secrets that hold several values each, or grant it in parts.", size, inlineLimit)
	case size > managedLimit:
		b.note("The policy has %d characters, and a managed policy may have %d: grant it inline, where %d are allowed.", size, managedLimit, inlineLimit)
	}
	return b.policy, nil
}

// builder adds statement to statement.
type builder struct {
	cfg      config.Config
	place    Place
	policy   Policy
	problems []error
}

func (b *builder) note(format string, args ...any) {
	b.policy.Notes = append(b.policy.Notes, fmt.Sprintf(format, args...))
}

// problem keeps what is missing, each once.
func (b *builder) problem(text string) {
	if !slices.ContainsFunc(b.problems, func(err error) bool { return err.Error() == text }) {
		b.problems = append(b.problems, errors.New(text))
	}
}

// allow adds a statement, in the one order that a policy has for the same needs.
func (b *builder) allow(s Statement) {
	s.Effect = allow
	s.Action, s.Resource = sorted(s.Action), sorted(s.Resource)
	for _, keys := range s.Condition {
		for key, values := range keys {
			keys[key] = sorted(values)
		}
	}
	b.policy.Statement = append(b.policy.Statement, s)
}

func sorted(list List) List {
	return slices.Compact(slices.Sorted(slices.Values(list)))
}

// region is where a call goes; "" is the node's own.
func (b *builder) region(name string) string {
	if name = cmp.Or(name, b.place.Region); name == "" {
		b.problem("the node's region is not known: name it with --region")
	}
	return name
}

func (b *builder) account() string {
	if b.place.Account == "" {
		b.problem("the node's account is not known, and a policy that leaves it open would allow other accounts' resources: give its twelve digits with --account ('aws sts get-caller-identity' prints them)")
	}
	return b.place.Account
}

// own is the ARN of a resource in the node's account.
func (b *builder) own(service, region, resource string) string {
	return arn.ARN{Partition: b.place.partition(), Service: service, Region: b.region(region), AccountID: b.account(), Resource: resource}.String()
}

// inRegions narrows what can't be narrowed by resource to the regions where the node calls.
func inRegions(regions ...string) Conditions {
	return Conditions{"StringEquals": {"aws:RequestedRegion": regions}}
}

// current is the staging label that a batch reads (BatchGetSecretValue).
const current = "AWSCURRENT"

// fromSecretsManager begins the names of parameters that stand for secrets (Systems Manager User Guide, "Referencing Secrets
// Manager secrets from Parameter Store parameters").
const fromSecretsManager = "/aws/reference/secretsmanager/"

// secrets are read by agent/secret.
func (b *builder) secrets() {
	var (
		secrets, parameters        List // resources
		secretHosts, parameterHost List // regions
		together                   = map[string]map[string]bool{}
	)
	read := func(id, region string) {
		secrets = append(secrets, b.secret(id, region))
		secretHosts = append(secretHosts, region)
	}
	for _, item := range b.cfg.Secrets.Items {
		if s := item.From.SecretsManager; s != nil {
			region := b.region(cmp.Or(s.Region, regionOf(s.ID)))
			read(s.ID, region)
			if s.VersionID == "" && cmp.Or(s.Stage, current) == current {
				if together[region] == nil {
					together[region] = map[string]bool{}
				}
				together[region][s.ID] = true
			}
		}
		if s := item.From.SSM; s != nil {
			region := b.region(cmp.Or(s.Region, regionOf(s.Name)))
			parameters = append(parameters, b.parameter(s.Name, region))
			parameterHost = append(parameterHost, region)
			if id, refers := strings.CutPrefix(s.Name, fromSecretsManager); refers {
				id, _, _ = strings.Cut(id, ":")
				read(id, region)
			}
		}
	}
	if len(secrets) > 0 {
		b.allow(Statement{
			Sid: "ReadOwnSecrets", Action: List{"secretsmanager:GetSecretValue"}, Resource: secrets,
			Purpose:  "read the secrets of secrets.items",
			Wildcard: suffixReason(secrets),
		})
	}
	var batches []string
	for _, region := range slices.Sorted(maps.Keys(together)) {
		if len(together[region]) > 1 { // one alone is read without a batch
			batches = append(batches, region)
		}
	}
	if len(batches) > 0 {
		b.allow(Statement{
			Sid: "ReadSecretsInBatches", Action: List{"secretsmanager:BatchGetSecretValue"}, Resource: List{"*"}, Condition: inRegions(batches...),
			Purpose:  "read up to 20 secrets with one call; each needs GetSecretValue all the same",
			Wildcard: "BatchGetSecretValue has no resource; which secrets it returns is decided by ReadOwnSecrets",
		})
	}
	if len(parameters) > 0 {
		b.allow(Statement{
			Sid: "ReadOwnParameters", Action: List{"ssm:GetParameters"}, Resource: parameters,
			Purpose: "read the parameters of secrets.items",
		})
	}
	b.keys(secrets, secretHosts, parameters, parameterHost)
}

// keys let Secrets Manager and Parameter Store decrypt with the node's permission, and the node itself never.
func (b *builder) keys(secrets, secretRegions, parameters, parameterRegions List) {
	var keys List
	for _, key := range b.place.Keys {
		if !strings.HasPrefix(key, "arn:") {
			key = b.own("kms", "", "key/"+key)
		}
		keys = append(keys, key)
	}
	switch {
	case len(secrets)+len(parameters) == 0 && len(keys) > 0:
		b.problem("a KMS key is named, but the configuration reads nothing from Secrets Manager or Parameter Store: leave --kms-key out")
		return
	case len(secrets)+len(parameters) > 0 && len(keys) == 0:
		b.note("No KMS key is named: secrets under AWS's own keys (aws/secretsmanager, aws/ssm) are readable; name a key of your own with --kms-key.")
		return
	}
	if len(secrets) > 0 {
		b.allow(Statement{
			Sid: "DecryptOwnSecrets", Action: List{"kms:Decrypt"}, Resource: keys,
			Condition: b.through("secretsmanager", secretRegions, "SecretARN", secrets),
			Purpose:   "let Secrets Manager decrypt these secrets, and nothing else under the same key",
		})
	}
	if len(parameters) > 0 {
		b.allow(Statement{
			Sid: "DecryptOwnParameters", Action: List{"kms:Decrypt"}, Resource: keys,
			Condition: b.through("ssm", parameterRegions, "PARAMETER_ARN", parameters),
			Purpose:   "let Parameter Store decrypt these parameters, and nothing else under the same key",
		})
	}
}

// through are the conditions under which a service may use a key: in these regions, for these resources. Both services name
// the resource in the encryption context (Secrets Manager User Guide, "Encryption context"; Systems Manager User Guide, "How
// Parameter Store uses KMS").
func (b *builder) through(service string, regions List, context string, resources List) Conditions {
	c := Conditions{}
	add := func(operator, key string, values List) {
		if c[operator] == nil {
			c[operator] = map[string]List{}
		}
		c[operator][key] = values
	}
	var hosts List
	operator := "StringEquals"
	for _, region := range regions {
		host := service + "." + region + ".amazonaws.com"
		if p := b.place.partition(); p != "aws" && p != "aws-us-gov" {
			// KMS documents the name for these two alone. The region stands, whatever the domain.
			operator, host = "StringLike", service+"."+region+".*"
		}
		hosts = append(hosts, host)
	}
	add(operator, "kms:ViaService", hosts)
	operator = "StringEquals"
	if slices.ContainsFunc(resources, wild) {
		operator = "StringLike"
	}
	add(operator, "kms:EncryptionContext:"+context, slices.Clone(resources))
	return c
}

// wholeARN is the ARN of a secret with the six characters that Secrets Manager appends. A name that itself ends like that is
// taken for one: AWS advises against such names for this very reason.
var wholeARN = regexp.MustCompile(`-[A-Za-z0-9]{6}$`)

// suffix is that end of an ARN, where it isn't known.
const suffix = "-??????"

func (b *builder) secret(id, region string) string {
	switch {
	case !strings.HasPrefix(id, "arn:"):
		return b.own("secretsmanager", region, "secret:"+id+suffix)
	case wholeARN.MatchString(id):
		return id
	}
	return id + suffix
}

func suffixReason(secrets List) string {
	if !slices.ContainsFunc(secrets, wild) {
		return ""
	}
	return "Secrets Manager appends six characters to a secret's name, which are known once it exists: name its whole ARN for an exact one"
}

// parameter is the ARN of a parameter without its version or label, for which there is no resource.
func (b *builder) parameter(name, region string) string {
	if parsed, err := arn.Parse(name); err == nil {
		parsed.Resource, _, _ = strings.Cut(parsed.Resource, ":")
		return parsed.String()
	}
	name, _, _ = strings.Cut(name, ":")
	if strings.HasPrefix(name, "/aws/service/") { // public, and of no account
		return arn.ARN{Partition: b.place.partition(), Service: "ssm", Region: region, Resource: "parameter" + name}.String()
	}
	return b.own("ssm", region, "parameter/"+strings.TrimPrefix(name, "/"))
}

// regionOf is the region in an ARN; "" for a name.
func regionOf(id string) string {
	parsed, err := arn.Parse(id)
	if err != nil {
		return ""
	}
	return parsed.Region
}

// images are pulled by the engine, with a token that agent/image fetches.
func (b *builder) images() {
	if !slices.ContainsFunc(b.cfg.Registries, func(r config.Registry) bool { return r.ECR != nil }) || b.cfg.Workload.Pull.Policy == config.PullNever {
		return
	}
	var regions []string
	var repositories List
	for _, image := range b.place.Images {
		named, err := reference.ParseDockerRef(image)
		if err != nil {
			b.problem(fmt.Sprintf("image %q: %s; write it like 123456789012.dkr.ecr.eu-central-1.amazonaws.com/shop/api", image, err))
			continue
		}
		i := slices.IndexFunc(b.cfg.Registries, func(r config.Registry) bool {
			return r.ECR != nil && strings.EqualFold(r.Host, reference.Domain(named))
		})
		if i < 0 {
			continue
		}
		registry := b.cfg.Registries[i]
		account, region, found := config.ECRHost(strings.ToLower(registry.Host))
		if !found { // a name of one's own for it
			account, region = b.account(), registry.ECR.Region
		}
		repositories = append(repositories, arn.ARN{
			Partition: b.place.partition(), Service: "ecr", Region: region, AccountID: account, Resource: "repository/" + reference.Path(named),
		}.String())
		regions = append(regions, cmp.Or(registry.ECR.Region, region))
	}
	if len(repositories) == 0 {
		b.note("No image of an ECR registry is named: none can be pulled. The Compose files name them, or --image.")
		return
	}
	b.allow(Statement{
		Sid: "AuthorizeRegistry", Action: List{"ecr:GetAuthorizationToken"}, Resource: List{"*"}, Condition: inRegions(regions...),
		Purpose:  "fetch the token that the engine pulls with",
		Wildcard: "GetAuthorizationToken has no resource; what can be pulled with the token is decided by PullOwnImages",
	})
	b.allow(Statement{
		Sid: "PullOwnImages", Action: List{"ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer"}, Resource: repositories,
		Purpose: "pull manifests and layers of the Compose files' images",
	})
}

// membership is what agent/drain and agent/launch ask and tell of the instance's place in its Auto Scaling group.
func (b *builder) membership() {
	switch {
	case b.place.Standalone:
		b.allow(Statement{
			Sid: "DescribeFleet", Action: List{"autoscaling:DescribeAutoScalingInstances"}, Resource: List{"*"}, Condition: inRegions(b.region("")),
			Purpose:  "see that the instance is in no Auto Scaling group",
			Wildcard: "Auto Scaling's Describe actions have no resource",
		})
		return
	case len(b.place.Groups) == 0:
		b.problem("a node on EC2 completes the lifecycle hooks of its Auto Scaling group, and none is named: name each with --group, or say --no-group for nodes that no group launches")
		return
	}
	b.allow(Statement{
		Sid: "DescribeFleet",
		Action: List{
			"autoscaling:DescribeAutoScalingInstances", "autoscaling:DescribeAutoScalingGroups", "autoscaling:DescribeLifecycleHooks",
			"elasticloadbalancing:DescribeTargetGroupAttributes", "elasticloadbalancing:DescribeTargetHealth",
		},
		Resource: List{"*"}, Condition: inRegions(b.region("")),
		Purpose:  "find the instance's group, its hooks and its target groups, and see when these send no more requests",
		Wildcard: "Describe actions of Auto Scaling and Elastic Load Balancing have no resource",
	})
	var groups, counts, targets List
	for _, group := range b.place.Groups {
		name, isARN := groupIn(group)
		if !isARN {
			name = group
			group = b.own("autoscaling", "", "autoScalingGroup:*:autoScalingGroupName/"+name)
		}
		groups = append(groups, group)
		counts = append(counts, b.own("ssm", "", "parameter"+launch.Parameter(name)))
	}
	b.allow(Statement{
		Sid: "CompleteOwnHooks", Action: List{"autoscaling:CompleteLifecycleAction", "autoscaling:RecordLifecycleActionHeartbeat"},
		Resource: groups, Condition: b.tagged(),
		Purpose:  "keep lifecycle actions alive and complete them; AWS narrows that to the group, not to the instance",
		Wildcard: reasonWhere(groups, "a group's ARN has an id, which is known once it exists: name its whole ARN for an exact one"),
	})
	b.allow(Statement{
		Sid: "CountLaunchFailures", Action: List{"ssm:DeleteParameter", "ssm:GetParameter", "ssm:PutParameter"}, Resource: counts,
		Purpose: "count launches of the group that failed in a row, so that a broken release doesn't replace instances without end",
	})
	if len(b.place.TargetGroups) == 0 {
		b.note("No target group is named: a node that Auto Scaling hasn't deregistered (a spot interruption, a shutdown, a drain by an operator) waits drain.deregisterDelay instead. Name each with --target-group.")
		return
	}
	for _, group := range b.place.TargetGroups {
		if _, isARN := cut(group, "elasticloadbalancing", "targetgroup/"); !isARN {
			group = b.own("elasticloadbalancing", "", "targetgroup/"+group+"/*")
		}
		targets = append(targets, group)
	}
	b.allow(Statement{
		Sid: "LeaveOwnTargetGroups", Action: List{"elasticloadbalancing:DeregisterTargets", "elasticloadbalancing:RegisterTargets"},
		Resource: targets, Condition: b.tagged(),
		Purpose:  "take the node out of its target groups, and back in where a drain is taken back",
		Wildcard: reasonWhere(targets, "a target group's ARN ends in an id, which is known once it exists: name its whole ARN for an exact one"),
	})
	b.allow(Statement{
		Sid: "LookUpTargets", Action: List{"ec2:DescribeInstances", "ec2:DescribeInternetGateways", "ec2:DescribeSubnets", "ec2:DescribeVpcs"},
		Resource: List{"*"}, Condition: inRegions(b.region("")),
		Purpose:  "be let register a target again: Elastic Load Balancing asks for these beside RegisterTargets",
		Wildcard: "EC2's Describe actions have no resource",
	})
}

func reasonWhere(resources List, reason string) string {
	if slices.ContainsFunc(resources, wild) {
		return reason
	}
	return ""
}

// tagged are the tags that a resource must have; nil for none.
func (b *builder) tagged() Conditions {
	if len(b.place.Tags) == 0 {
		return nil
	}
	tags := map[string]List{}
	for key, value := range b.place.Tags {
		tags["aws:ResourceTag/"+key] = List{value}
	}
	return Conditions{"StringEquals": tags}
}

// metrics are sent by agent/cloudwatch.
func (b *builder) metrics() {
	section := b.cfg.CloudWatch
	if section == nil {
		return
	}
	conditions := inRegions(b.region(section.Region))
	conditions["StringEquals"]["cloudwatch:namespace"] = List{section.Namespace}
	b.allow(Statement{
		Sid: "PublishMetrics", Action: List{"cloudwatch:PutMetricData"}, Resource: List{"*"}, Condition: conditions,
		Purpose:  "send the two metrics of a rollout",
		Wildcard: "PutMetricData has no resource; the namespace narrows it",
	})
}

// events are put by agent/notify.
func (b *builder) events() {
	section := b.cfg.Notify.EventBridge
	if section == nil {
		return
	}
	bus := section.Bus
	if !strings.HasPrefix(bus, "arn:") {
		bus = b.own("events", section.Region, "event-bus/"+bus)
	}
	b.allow(Statement{
		Sid: "PublishEvents", Action: List{"events:PutEvents"}, Resource: List{bus},
		Purpose: "tell the bus what happens to the node",
	})
}
