package infra

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/flowviz/flowagent/agent/config"
	"github.com/flowviz/flowagent/agent/iam"
)

const (
	blue      = "flowviz-asg-production-blue"
	green     = "flowviz-asg-production-green"
	variables = "-var-file=environments/production/terraform.tfvars"
)

// TestProduction applies production with its own variables and backend, and asks AWS what it got. Its parts follow each
// other: each leaves production as it found it.
func TestProduction(t *testing.T) {
	t.Parallel()
	w := newWorkspace(t, "", "-backend-config=environments/production/backend.hcl")
	w.succeed(t, "apply", "-auto-approve", "-parallelism=20", variables)

	t.Run("an applied production plans nothing", func(t *testing.T) { w.wantNoDifference(t, variables) })
	t.Run("the state is in the bucket, where backend.hcl says", func(t *testing.T) {
		keys := ask[[]string](t, "s3api", "list-objects-v2", "--bucket", "flowviz-terraform-state-"+account, "--query", "Contents[].Key")
		if len(keys) != 1 || keys[0] != "production/terraform.tfstate" {
			t.Errorf("objects: got %v, want the state alone: a lock is gone with its apply", keys)
		}
	})
	t.Run("nodes", testNodes)
	t.Run("load balancer", testLoadBalancer)
	t.Run("data", testData)
	t.Run("network", testNetwork)
	t.Run("permissions", func(t *testing.T) { testPermissions(t, w) })
	t.Run("secrets stay out of the state", func(t *testing.T) { testSecrets(t, w) })
	t.Run("what the rollout changes is no difference", func(t *testing.T) { testRollout(t, w) })
	t.Run("drift is found", func(t *testing.T) { testDrift(t, w) })
}

type launchTemplate struct {
	VersionNumber      int
	LaunchTemplateId   string
	LaunchTemplateData struct {
		ImageId, InstanceType, KeyName, UserData string
		MetadataOptions                          struct {
			HttpTokens, InstanceMetadataTags string
			HttpPutResponseHopLimit          int
		}
		BlockDeviceMappings []struct {
			Ebs struct {
				Encrypted  bool
				VolumeType string
			}
		}
	}
}

type autoScalingGroup struct {
	MinSize, MaxSize, DesiredCapacity int
	HealthCheckType                   string
	TargetGroupARNs                   []string
	LaunchTemplate                    struct{ LaunchTemplateId, Version string }
}

func groupOf(t *testing.T, name string) autoScalingGroup {
	t.Helper()
	found := ask[[]autoScalingGroup](t, "autoscaling", "describe-auto-scaling-groups", "--auto-scaling-group-names", name, "--query", "AutoScalingGroups")
	if len(found) != 1 {
		t.Fatalf("groups called %s: got %d, want 1", name, len(found))
	}
	return found[0]
}

func templateOf(t *testing.T) launchTemplate {
	t.Helper()
	versions := ask[[]launchTemplate](t, "ec2", "describe-launch-template-versions", "--launch-template-name", "flowviz-production-node", "--query", "LaunchTemplateVersions")
	if len(versions) != 1 {
		t.Fatalf("versions of the launch template: got %d, want 1", len(versions))
	}
	return versions[0]
}

func testNodes(t *testing.T) {
	template := templateOf(t)
	data := template.LaunchTemplateData

	t.Run("the image that the post-processor published is the launch template's", func(t *testing.T) {
		if data.ImageId != image {
			t.Errorf("image: got %s, want %s", data.ImageId, image)
		}
	})
	t.Run("metadata takes IMDSv2 alone, one hop away, with tags", func(t *testing.T) {
		if got := data.MetadataOptions; got.HttpTokens != "required" || got.HttpPutResponseHopLimit != 1 || got.InstanceMetadataTags != "enabled" {
			t.Errorf("got %+v", got)
		}
	})
	t.Run("disks are encrypted, and there is no key for SSH", func(t *testing.T) {
		if len(data.BlockDeviceMappings) != 1 || !data.BlockDeviceMappings[0].Ebs.Encrypted || data.BlockDeviceMappings[0].Ebs.VolumeType != "gp3" {
			t.Errorf("disks: got %+v, want one encrypted gp3", data.BlockDeviceMappings)
		}
		if data.KeyName != "" {
			t.Errorf("key: got %s, want none", data.KeyName)
		}
	})
	t.Run("both groups are on the template's numbered version", func(t *testing.T) {
		for _, name := range []string{blue, green} {
			got := groupOf(t, name)
			if got.LaunchTemplate.LaunchTemplateId != template.LaunchTemplateId || got.LaunchTemplate.Version != "1" {
				t.Errorf("%s: got version %s of %s, want 1 of %s", name, got.LaunchTemplate.Version, got.LaunchTemplate.LaunchTemplateId, template.LaunchTemplateId)
			}
		}
	})
	t.Run("two nodes of the first colour, none of the other", func(t *testing.T) {
		if got := groupOf(t, blue); got.MinSize != 2 || got.DesiredCapacity != 2 || got.MaxSize != 4 || got.HealthCheckType != "ELB" || len(got.TargetGroupARNs) != 1 {
			t.Errorf("blue: got %+v", got)
		}
		if got := groupOf(t, green); got.MinSize != 0 || got.DesiredCapacity != 0 || got.MaxSize != 4 {
			t.Errorf("green: got %+v", got)
		}
	})
	t.Run("hooks abandon a launch without a word and let a termination go on", func(t *testing.T) {
		for _, name := range []string{blue, green} {
			hooks := ask[[]struct {
				LifecycleHookName, LifecycleTransition, DefaultResult string
				HeartbeatTimeout                                      int
			}](t, "autoscaling", "describe-lifecycle-hooks", "--auto-scaling-group-name", name, "--query", "LifecycleHooks")
			got := map[string]string{}
			for _, h := range hooks {
				got[h.LifecycleHookName+" "+h.LifecycleTransition] = h.DefaultResult
				if h.HeartbeatTimeout != 300 {
					t.Errorf("%s, %s: waits %d s, want 300", name, h.LifecycleHookName, h.HeartbeatTimeout)
				}
			}
			want := map[string]string{
				"flowviz-launch autoscaling:EC2_INSTANCE_LAUNCHING":      "ABANDON",
				"flowviz-terminate autoscaling:EC2_INSTANCE_TERMINATING": "CONTINUE",
			}
			if !maps.Equal(got, want) {
				t.Errorf("%s: got %v, want %v", name, got, want)
			}
		}
	})
	t.Run("user data is a flowagent document that the image's configuration takes", func(t *testing.T) { testUserData(t, data.UserData) })
}

// nodeConfiguration is what a node runs with: the image's configuration, and the user data over it.
func nodeConfiguration(t *testing.T, encoded string) config.Config {
	t.Helper()
	document, err := base64.StdEncoding.DecodeString(encoded)
	if err != nil {
		t.Fatal(err)
	}
	if !config.IsDocument(document) {
		t.Fatalf("it is no flowagent document:\n%s", document)
	}
	path := filepath.Join(repository, "examples/wms/config.aws.yaml")
	main, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	absolute, err := filepath.Abs(path)
	if err != nil {
		t.Fatal(err)
	}
	loaded, err := config.Parse(config.Layer{Name: absolute, Data: main}, config.Layer{Name: "user-data", Data: document})
	if err != nil {
		t.Fatalf("%v\n%s", err, document)
	}
	return loaded.Config
}

func testUserData(t *testing.T, encoded string) {
	c := nodeConfiguration(t, encoded)
	if c.Node.Environment != "production" || c.Node.Release != "2026.11.1" || c.Node.Provider != config.ProviderEC2 {
		t.Errorf("node: got %+v", c.Node)
	}
	if c.Lifecycle.LaunchHook != "flowviz-launch" || c.Lifecycle.TerminateHook != "flowviz-terminate" {
		t.Errorf("hooks: got %+v", c.Lifecycle)
	}
	if time.Duration(c.Drain.Budget) != 10*time.Minute || time.Duration(c.Drain.DeregisterDelay) != 30*time.Second {
		t.Errorf("drain: got %+v", c.Drain)
	}
	if c.CloudWatch == nil || c.CloudWatch.Namespace != "FlowViz/production" {
		t.Errorf("metrics: got %+v", c.CloudWatch)
	}
	address := ask[string](t, "rds", "describe-db-instances", "--query", "DBInstances[0].Endpoint.Address")
	if got := c.Workload.Variables["WMS_DB_HOST"]; got != address {
		t.Errorf("database: got %q, want %q", got, address)
	}
	for _, s := range c.Secrets.Items {
		if s.From.SecretsManager == nil || s.From.SecretsManager.ID != "flowviz/production/app" {
			t.Errorf("secret %s: got %+v, want an entry of production", s.Name, s.From)
		}
	}
}

func testLoadBalancer(t *testing.T) {
	groups := ask[[]map[string]any](t, "elbv2", "describe-target-groups", "--query", "TargetGroups")
	byName := map[string]map[string]any{}
	for _, g := range groups {
		byName[g["TargetGroupName"].(string)] = g
	}
	t.Run("both target groups ask the agent, and are alike", func(t *testing.T) {
		one, other := byName["flowviz-blue-production"], byName["flowviz-green-production"]
		if one == nil || other == nil {
			t.Fatalf("target groups: got %v", slices.Sorted(maps.Keys(byName)))
		}
		if one["HealthCheckPort"] != "9180" || one["HealthCheckPath"] != "/health" {
			t.Errorf("health check: got %v %v", one["HealthCheckPort"], one["HealthCheckPath"])
		}
		for key := range one {
			if strings.HasPrefix(key, "HealthCheck") || key == "Port" || key == "Protocol" {
				if one[key] != other[key] {
					t.Errorf("%s: blue has %v, green has %v", key, one[key], other[key])
				}
			}
		}
		var attributes []map[string]string
		for _, g := range []map[string]any{one, other} {
			list := ask[[]struct{ Key, Value string }](t, "elbv2", "describe-target-group-attributes", "--target-group-arn", g["TargetGroupArn"].(string), "--query", "Attributes")
			of := map[string]string{}
			for _, a := range list {
				of[a.Key] = a.Value
			}
			attributes = append(attributes, of)
		}
		if !maps.Equal(attributes[0], attributes[1]) {
			t.Errorf("attributes: blue has %v, green has %v", attributes[0], attributes[1])
		}
		if attributes[0]["deregistration_delay.timeout_seconds"] != "30" || attributes[0]["slow_start.duration_seconds"] != "30" {
			t.Errorf("attributes: got %v", attributes[0])
		}
	})

	balancer := ask[string](t, "elbv2", "describe-load-balancers", "--names", "flowviz-alb-production", "--query", "LoadBalancers[0].LoadBalancerArn")
	t.Run("it speaks TLS 1.3 alone, with a certificate that was proven", func(t *testing.T) {
		listeners := ask[[]struct {
			Port         int
			SslPolicy    string
			Certificates []struct{ CertificateArn string }
		}](t, "elbv2", "describe-listeners", "--load-balancer-arn", balancer, "--query", "Listeners")
		for _, l := range listeners {
			if l.Port != 443 {
				continue
			}
			if l.SslPolicy != "ELBSecurityPolicy-TLS13-1-3-2021-06" {
				t.Errorf("policy: got %s", l.SslPolicy)
			}
			status := ask[string](t, "acm", "describe-certificate", "--certificate-arn", l.Certificates[0].CertificateArn, "--query", "Certificate.Status")
			if status != "ISSUED" {
				t.Errorf("certificate: got %s, want ISSUED", status)
			}
			return
		}
		t.Errorf("listeners: got %+v, want one on 443", listeners)
	})
	t.Run("it can't be deleted, drops invalid headers and keeps logs", func(t *testing.T) {
		list := ask[[]struct{ Key, Value string }](t, "elbv2", "describe-load-balancer-attributes", "--load-balancer-arn", balancer, "--query", "Attributes")
		got := map[string]string{}
		for _, a := range list {
			got[a.Key] = a.Value
		}
		for _, key := range []string{"deletion_protection.enabled", "routing.http.drop_invalid_header_fields.enabled", "access_logs.s3.enabled", "connection_logs.s3.enabled"} {
			if got[key] != "true" {
				t.Errorf("%s: got %q, want true", key, got[key])
			}
		}
	})
}

func testData(t *testing.T) {
	t.Run("the database is private, in two zones, encrypted and protected", func(t *testing.T) {
		got := ask[struct {
			PubliclyAccessible, MultiAZ, StorageEncrypted, DeletionProtection bool
			EngineVersion                                                     string
			MasterUserSecret                                                  struct{ SecretArn string }
		}](t, "rds", "describe-db-instances", "--db-instance-identifier", "flowviz-production", "--query", "DBInstances[0]")
		if got.PubliclyAccessible || !got.MultiAZ || !got.StorageEncrypted || !got.DeletionProtection || !strings.HasPrefix(got.EngineVersion, "17") || got.MasterUserSecret.SecretArn == "" {
			t.Errorf("got %+v", got)
		}
	})
	t.Run("the cache demands TLS and has a replica", func(t *testing.T) {
		got := ask[struct {
			AutomaticFailover, MultiAZ                        string
			TransitEncryptionEnabled, AtRestEncryptionEnabled bool
			MemberClusters                                    []string
		}](t, "elasticache", "describe-replication-groups", "--replication-group-id", "flowviz-cache-production", "--query", "ReplicationGroups[0]")
		if got.AutomaticFailover != "enabled" || !got.TransitEncryptionEnabled || !got.AtRestEncryptionEnabled || len(got.MemberClusters) != 2 {
			t.Errorf("got %+v", got)
		}
	})
	t.Run("buckets keep versions and let nobody in", func(t *testing.T) {
		for _, name := range []string{"backups", "assets", "logs"} {
			bucket := "flowviz-production-" + account + "-" + name
			if got := ask[struct{ Status string }](t, "s3api", "get-bucket-versioning", "--bucket", bucket); got.Status != "Enabled" {
				t.Errorf("%s: versioning is %q", bucket, got.Status)
			}
			for block, on := range ask[map[string]bool](t, "s3api", "get-public-access-block", "--bucket", bucket, "--query", "PublicAccessBlockConfiguration") {
				if !on {
					t.Errorf("%s: %s is off", bucket, block)
				}
			}
		}
	})
	t.Run("image tags can't be moved", func(t *testing.T) {
		got := ask[[]string](t, "ecr", "describe-repositories", "--query", "repositories[].imageTagMutability")
		if len(got) != 1 || got[0] != "IMMUTABLE" {
			t.Errorf("got %v", got)
		}
	})
}

func testNetwork(t *testing.T) {
	type rule struct {
		GroupId, CidrIpv4   string
		FromPort, ToPort    int
		IsEgress            bool
		ReferencedGroupInfo struct{ GroupId string }
		SecurityGroupRuleId string
	}
	vpc := ask[string](t, "ec2", "describe-vpcs", "--filters", "Name=tag:Name,Values=flowviz-production", "--query", "Vpcs[0].VpcId")
	names := map[string]string{}
	for _, g := range ask[[]struct{ GroupId, GroupName string }](t, "ec2", "describe-security-groups", "--filters", "Name=vpc-id,Values="+vpc, "--query", "SecurityGroups") {
		names[g.GroupId] = g.GroupName
	}
	rules := slices.DeleteFunc(ask[[]rule](t, "ec2", "describe-security-group-rules", "--query", "SecurityGroupRules"), func(r rule) bool { return names[r.GroupId] == "" })

	t.Run("the world reaches the load balancer's two ports and nothing else", func(t *testing.T) {
		for _, r := range rules {
			open := !r.IsEgress && r.CidrIpv4 != ""
			if open && (names[r.GroupId] != "flowviz-production-alb" || r.FromPort != r.ToPort || r.FromPort != 80 && r.FromPort != 443) {
				t.Errorf("%s lets %s in on %d to %d", names[r.GroupId], r.CidrIpv4, r.FromPort, r.ToPort)
			}
		}
	})
	t.Run("database and cache are reached by nodes alone, on their ports", func(t *testing.T) {
		got := map[string]int{}
		for _, r := range rules {
			if name := names[r.GroupId]; !r.IsEgress && (name == "flowviz-production-database" || name == "flowviz-production-cache") {
				got[name+" from "+names[r.ReferencedGroupInfo.GroupId]] = r.FromPort
			}
		}
		want := map[string]int{"flowviz-production-database from flowviz-production-node": 5432, "flowviz-production-cache from flowviz-production-node": 6379}
		if !maps.Equal(got, want) {
			t.Errorf("got %v, want %v", got, want)
		}
	})
	t.Run("nodes are reached by the load balancer alone, for the application and the agent", func(t *testing.T) {
		var got []int
		for _, r := range rules {
			if !r.IsEgress && names[r.GroupId] == "flowviz-production-node" {
				got = append(got, r.FromPort)
				if from := names[r.ReferencedGroupInfo.GroupId]; from != "flowviz-production-alb" {
					t.Errorf("port %d is open to %q", r.FromPort, from)
				}
			}
		}
		slices.Sort(got)
		if !slices.Equal(got, []int{8000, 9180}) {
			t.Errorf("ports: got %v, want 8000 and 9180", got)
		}
	})
	t.Run("the default security group lets nothing in or out", func(t *testing.T) {
		for _, r := range rules {
			if names[r.GroupId] == "default" {
				t.Errorf("it has a rule: %+v", r)
			}
		}
	})
	t.Run("the database's subnets have no way out", func(t *testing.T) {
		gateways := ask[[]string](t, "ec2", "describe-route-tables", "--filters", "Name=tag:Name,Values=flowviz-production-database", "--query", "RouteTables[].Routes[].GatewayId")
		for _, g := range gateways {
			if g != "local" {
				t.Errorf("route to %s", g)
			}
		}
	})
	t.Run("each zone has a NAT gateway", func(t *testing.T) {
		subnets := ask[[]string](t, "ec2", "describe-nat-gateways", "--filter", "Name=vpc-id,Values="+vpc, "--query", "NatGateways[].SubnetId")
		slices.Sort(subnets)
		if len(slices.Compact(subnets)) != 2 {
			t.Errorf("NAT gateways: got %v, want two, in different subnets", subnets)
		}
	})
}

// unlimited are the statements that AWS offers no resource for. What else has a star is a mistake.
var unlimited = []string{"AuthorizeRegistry", "DescribeFleet", "LookUpTargets", "OpenSessions", "PublishMetrics"}

func testPermissions(t *testing.T, w *workspace) {
	statements := map[string]statement{}
	for _, policy := range []string{"flowagent", "host"} {
		got := ask[document](t, "iam", "get-role-policy", "--role-name", "flowviz-production-node", "--policy-name", policy, "--query", "PolicyDocument")
		for _, s := range got.Statement {
			statements[s.Sid] = s
		}
	}
	t.Run("only what AWS knows no resource for is allowed on all", func(t *testing.T) {
		var got []string
		for sid, s := range statements {
			for _, action := range s.Action {
				if strings.Contains(action, "*") {
					t.Errorf("%s allows %s: name the actions", sid, action)
				}
			}
			if slices.Contains(s.Resource, "*") {
				got = append(got, sid)
			}
		}
		slices.Sort(got)
		if !slices.Equal(got, unlimited) {
			t.Errorf("got %v, want %v", got, unlimited)
		}
	})
	t.Run("nodes have no policy of AWS's", func(t *testing.T) {
		if got := ask[[]string](t, "iam", "list-attached-role-policies", "--role-name", "flowviz-production-node", "--query", "AttachedPolicies[].PolicyName"); len(got) != 0 {
			t.Errorf("got %v", got)
		}
	})
	t.Run("nodes read the application's secrets and not the database's master password", func(t *testing.T) {
		got := statements["ReadOwnSecrets"].Resource
		want := ask[string](t, "secretsmanager", "describe-secret", "--secret-id", "flowviz/production/app", "--query", "ARN")
		if !slices.Equal(got, words{want}) {
			t.Errorf("got %v, want %s alone", got, want)
		}
	})
	t.Run("nodes may do what flowagent iam-policy says that they need, and nothing else", testNeeded)
	t.Run("the output is what the role has", func(t *testing.T) {
		out := w.succeed(t, "output", "-json", "node_policies")
		for _, sid := range []string{"ReadOwnSecrets", "OpenSessions"} {
			if !strings.Contains(out, sid) {
				t.Errorf("%s isn't in it: %s", sid, out)
			}
		}
	})
}

// testNeeded compares the agent's policy with what a node of this deployment needs by its configuration.
func testNeeded(t *testing.T) {
	cfg := nodeConfiguration(t, templateOf(t).LaunchTemplateData.UserData)
	for i := range cfg.Secrets.Items {
		// The configuration names them, and Terraform knows which they are.
		source := cfg.Secrets.Items[i].From.SecretsManager
		source.ID = ask[string](t, "secretsmanager", "describe-secret", "--secret-id", source.ID, "--query", "ARN")
	}
	place := iam.Place{
		Account: account, Region: region, Groups: []string{blue, green},
		TargetGroups: ask[[]string](t, "elbv2", "describe-target-groups", "--query", "TargetGroups[].TargetGroupArn"),
		Keys:         []string{ask[string](t, "secretsmanager", "describe-secret", "--secret-id", "flowviz/production/app", "--query", "KmsKeyId")},
		Images:       []string{cfg.Workload.Variables["WMS_REGISTRY"] + "flowviz/app:" + cfg.Workload.Variables["IMAGE_TAG"]},
		Tags:         map[string]string{"Environment": "production"},
	}
	needed, err := iam.Needed(cfg, place)
	if err != nil {
		t.Fatal(err)
	}
	granted, err := iam.Parse(ask[json.RawMessage](t, "iam", "get-role-policy", "--role-name", "flowviz-production-node", "--policy-name", "flowagent", "--query", "PolicyDocument"))
	if err != nil {
		t.Fatal(err)
	}
	for _, difference := range iam.Compare(needed.Document, granted) {
		t.Error(difference)
	}
	if len(needed.Statement) < 9 {
		t.Errorf("%d statements are needed: the configuration isn't the one of this deployment", len(needed.Statement))
	}
}

// testSecrets gives every secret a value that nobody would guess, has Terraform look at everything again, and searches the
// state.
func testSecrets(t *testing.T, w *workspace) {
	passwords := map[string]string{}
	for _, id := range ask[[]string](t, "secretsmanager", "list-secrets", "--query", "SecretList[].Name") {
		if strings.HasPrefix(id, "rds!") {
			// RDS's own, whose value it made.
			var made struct{ Password string }
			if err := json.Unmarshal([]byte(ask[string](t, "secretsmanager", "get-secret-value", "--secret-id", id, "--query", "SecretString")), &made); err != nil {
				t.Fatal(err)
			}
			passwords["rds"] = made.Password
			continue
		}
		passwords[id] = "canary-" + base64.RawURLEncoding.EncodeToString([]byte(id))
		tell(t, "secretsmanager", "put-secret-value", "--secret-id", id, "--secret-string", `{"db": {"password": "`+passwords[id]+`"}, "cache": {"password": "`+passwords[id]+`"}}`)
	}
	if len(passwords) != 2 || passwords["rds"] == "" {
		t.Fatalf("secrets: got %v, want the application's and RDS's", slices.Sorted(maps.Keys(passwords)))
	}
	w.succeed(t, "apply", "-refresh-only", "-auto-approve", variables)
	state := w.succeed(t, "state", "pull")
	for id, password := range passwords {
		found, err := holds(state, password)
		if err != nil {
			t.Fatal(err)
		}
		if found {
			t.Errorf("the state has the value of %s", id)
		}
	}
	for _, kind := range []string{"aws_secretsmanager_secret_version", "random_password", "aws_secretsmanager_random_password"} {
		if strings.Contains(state, `"type": "`+kind+`"`) {
			t.Errorf("the state has a %s, which keeps a value", kind)
		}
	}
	if !strings.Contains(state, `"password": null`) {
		t.Error("the state says nothing of the database's password: has the test looked at the right one?")
	}
	w.wantNoDifference(t, variables)
}

// holds searches every string of a JSON document, as it reads and not as JSON spells it.
func holds(document, secret string) (bool, error) {
	var content any
	if err := json.Unmarshal([]byte(document), &content); err != nil {
		return false, fmt.Errorf("read the state: %w", err)
	}
	var search func(value any) bool
	search = func(value any) bool {
		switch value := value.(type) {
		case string:
			if strings.Contains(value, secret) {
				return true
			}
			var inner map[string]any // a document in a string, which has a spelling of its own
			return json.Unmarshal([]byte(value), &inner) == nil && search(inner)
		case []any:
			return slices.ContainsFunc(value, search)
		case map[string]any:
			return slices.ContainsFunc(slices.Collect(maps.Values(value)), search)
		}
		return false
	}
	return search(content), nil
}

func TestASecretIsFoundHoweverJSONSpellsIt(t *testing.T) {
	const secret = `pa"ss<word>&\`
	inner, err := json.Marshal(map[string]string{"username": "flowviz_admin", "password": secret})
	if err != nil {
		t.Fatal(err)
	}
	for name, value := range map[string]any{
		"a value":                secret,
		"a part of a value":      "postgres://admin:" + secret + "@db",
		"a document in a string": string(inner),
	} {
		state, err := json.Marshal(map[string]any{"resources": []any{map[string]any{"instances": []any{map[string]any{"attributes": map[string]any{"x": value}}}}}})
		if err != nil {
			t.Fatal(err)
		}
		if found, err := holds(string(state), secret); err != nil || !found {
			t.Errorf("%s: got %t, %v, want it found in %s", name, found, err, state)
		}
	}
	if found, err := holds(`{"resources": [{"name": "pass"}]}`, secret); err != nil || found {
		t.Errorf("a state without it: got %t, %v", found, err)
	}
}

// testRollout applies a new release and then does to AWS what a rollout does with it.
func testRollout(t *testing.T, w *workspace) {
	next := []string{variables, "-var=release=2026.11.2"}
	w.succeed(t, append([]string{"apply", "-auto-approve"}, next...)...)
	// The release that was there before, for whoever comes after.
	defer w.succeed(t, "apply", "-auto-approve", variables)

	t.Run("a new release is a new version of the template, and moves no group", func(t *testing.T) {
		latest := ask[int](t, "ec2", "describe-launch-templates", "--launch-template-names", "flowviz-production-node", "--query", "LaunchTemplates[0].LatestVersionNumber")
		if latest != 2 {
			t.Errorf("newest version: got %d, want 2", latest)
		}
		for _, name := range []string{blue, green} {
			if got := groupOf(t, name).LaunchTemplate.Version; got != "1" {
				t.Errorf("%s: got version %s, want 1 until a rollout moves it", name, got)
			}
		}
	})

	t.Run("weights, capacity and versions in a rollout are no difference", func(t *testing.T) {
		targets := func(color string) string {
			return ask[string](t, "elbv2", "describe-target-groups", "--names", "flowviz-"+color+"-production", "--query", "TargetGroups[0].TargetGroupArn")
		}
		balancer := ask[string](t, "elbv2", "describe-load-balancers", "--names", "flowviz-alb-production", "--query", "LoadBalancers[0].LoadBalancerArn")
		listener := ask[string](t, "elbv2", "describe-listeners", "--load-balancer-arn", balancer, "--query", "Listeners[?Port==`443`] | [0].ListenerArn")
		tell(t, "elbv2", "modify-listener", "--listener-arn", listener, "--default-actions", `[{"Type": "forward", "ForwardConfig": {"TargetGroups": [
			{"TargetGroupArn": "`+targets("blue")+`", "Weight": 90}, {"TargetGroupArn": "`+targets("green")+`", "Weight": 10}]}}]`)
		// moto answers 500 where a group is to start instances of the version that this apply made, so the other colour grows.
		tell(t, "autoscaling", "update-auto-scaling-group", "--auto-scaling-group-name", green, "--launch-template", "LaunchTemplateName=flowviz-production-node,Version=2")
		tell(t, "autoscaling", "update-auto-scaling-group", "--auto-scaling-group-name", blue, "--min-size", "3", "--desired-capacity", "3")
		w.wantNoDifference(t, next...)
	})
}

// testDrift changes something by hand that is nobody's but Terraform's.
func testDrift(t *testing.T, w *workspace) {
	drift := func(t *testing.T) (int, string) {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), filepath.Join(repository, "scripts/drift.sh"), "production")
		cmd.Env = append(os.Environ(), "INFRASTRUCTURE="+w.all)
		out, err := cmd.CombinedOutput()
		if cmd.ProcessState == nil {
			t.Fatal(err)
		}
		return cmd.ProcessState.ExitCode(), string(out)
	}
	if code, out := drift(t); code != 0 {
		t.Fatalf("before: exit code %d, want 0\n%s", code, out)
	}
	group := ask[string](t, "elbv2", "describe-target-groups", "--names", "flowviz-green-production", "--query", "TargetGroups[0].TargetGroupArn")
	tell(t, "elbv2", "modify-target-group-attributes", "--target-group-arn", group, "--attributes", "Key=deregistration_delay.timeout_seconds,Value=5")
	code, out := drift(t)
	if code != 2 || !strings.Contains(out, `aws_lb_target_group.color["green"]`) || !strings.Contains(out, "deregistration_delay") {
		t.Errorf("after: exit code %d, want 2 and the target group\n%s", code, out)
	}
}
