package iam

import (
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/flowviz/flowagent/agent/config"
)

// parseConfig adds what every configuration has to the sections of a test.
func parseConfig(t *testing.T, sections string) config.Config {
	t.Helper()
	text := "apiVersion: flowagent/v1\nkind: Node\nworkload: {project: shop, files: [/etc/flowagent/compose.yaml]}\n" + sections
	if strings.HasPrefix(sections, "apiVersion") {
		text = sections
	}
	loaded, err := config.Parse(config.Layer{Name: "/etc/flowagent/config.yaml", Data: []byte(text)})
	if err != nil {
		t.Fatal(err)
	}
	return loaded.Config
}

// home is a node of one group.
var home = Place{Account: "123456789012", Region: "eu-central-1", Groups: []string{"shop-blue"}}

func mustNeed(t *testing.T, sections string, place Place) Policy {
	t.Helper()
	p, err := Needed(parseConfig(t, sections), place)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// statement finds one by its Sid; nil where there is none.
func (d Document) statement(sid string) *Statement {
	i := slices.IndexFunc(d.Statement, func(s Statement) bool { return s.Sid == sid })
	if i < 0 {
		return nil
	}
	return &d.Statement[i]
}

func mustHave(t *testing.T, p Policy, sid string) Statement {
	t.Helper()
	s := p.statement(sid)
	if s == nil {
		t.Fatalf("no statement %s in %+v", sid, p.Document)
	}
	return *s
}

func TestSecretsAreNamedOneByOne(t *testing.T) {
	p := mustNeed(t, `
secrets:
  items:
    - {name: a, from: {secretsManager: {id: shop/app, key: db.password}}}
    - {name: b, from: {secretsManager: {id: shop/app, key: api.key}}}
    - {name: c, from: {secretsManager: {id: "arn:aws:secretsmanager:eu-west-1:210987654321:secret:shared/tls-AbCdEf"}}}
    - {name: d, from: {secretsManager: {id: "arn:aws:secretsmanager:eu-central-1:123456789012:secret:rds!db-7d1"}}}
    - {name: e, from: {ssm: {name: /shop/token:3}}}
    - {name: f, from: {ssm: {name: plain, region: us-east-1}}}
    - {name: g, from: {ssm: {name: "arn:aws:ssm:eu-west-1:210987654321:parameter/shared/x:prod"}}}
    - {name: h, from: {ssm: {name: /aws/service/global/x}}}
    - {name: i, from: {ssm: {name: /aws/reference/secretsmanager/shop/legacy}}}
    - {name: j, from: {file: {path: /etc/x}}}
`, home)
	want := List{
		"arn:aws:secretsmanager:eu-central-1:123456789012:secret:rds!db-7d1-??????",
		"arn:aws:secretsmanager:eu-central-1:123456789012:secret:shop/app-??????",
		"arn:aws:secretsmanager:eu-central-1:123456789012:secret:shop/legacy-??????",
		"arn:aws:secretsmanager:eu-west-1:210987654321:secret:shared/tls-AbCdEf",
	}
	if diff := cmp.Diff(want, mustHave(t, p, "ReadOwnSecrets").Resource); diff != "" {
		t.Errorf("secrets (-want +got):\n%s", diff)
	}
	want = List{
		"arn:aws:ssm:eu-central-1:123456789012:parameter/aws/reference/secretsmanager/shop/legacy",
		"arn:aws:ssm:eu-central-1:123456789012:parameter/shop/token",
		"arn:aws:ssm:eu-central-1::parameter/aws/service/global/x",
		"arn:aws:ssm:eu-west-1:210987654321:parameter/shared/x",
		"arn:aws:ssm:us-east-1:123456789012:parameter/plain",
	}
	if diff := cmp.Diff(want, mustHave(t, p, "ReadOwnParameters").Resource); diff != "" {
		t.Errorf("parameters (-want +got):\n%s", diff)
	}
}

func TestSecretsAreReadInBatchesWhereARegionHasTwo(t *testing.T) {
	secret := func(name, rest string) string {
		return fmt.Sprintf("    - {name: %s, from: {secretsManager: {%s}}}\n", name, rest)
	}
	for name, tt := range map[string]struct{ items, regions string }{
		"one secret":             {secret("a", "id: x"), ""},
		"two keys of one":        {secret("a", "id: x, key: k") + secret("b", "id: x, key: l"), ""},
		"two secrets":            {secret("a", "id: x") + secret("b", "id: y"), "eu-central-1"},
		"one in each region":     {secret("a", "id: x") + secret("b", "id: x, region: eu-west-1"), ""},
		"two, of which one old":  {secret("a", "id: x") + secret("b", "id: y, stage: AWSPREVIOUS"), ""},
		"two in another region":  {secret("a", "id: x, region: eu-west-1") + secret("b", "id: y, region: eu-west-1"), "eu-west-1"},
		"two in each of regions": {secret("a", "id: x") + secret("b", "id: y") + secret("c", "id: x, region: eu-west-1") + secret("d", "id: y, region: eu-west-1"), "eu-central-1 eu-west-1"},
	} {
		t.Run(name, func(t *testing.T) {
			s := mustNeed(t, "secrets:\n  items:\n"+tt.items, home).statement("ReadSecretsInBatches")
			got := ""
			if s != nil {
				got = strings.Join(s.Condition["StringEquals"]["aws:RequestedRegion"], " ")
			}
			if got != tt.regions {
				t.Errorf("got batches in %q, want them in %q", got, tt.regions)
			}
		})
	}
}

func TestKeysDecryptTheNodesOwnSecretsAlone(t *testing.T) {
	place := home
	place.Keys = []string{"0a1b2c3d-0a1b-0a1b-0a1b-0a1b2c3d4e5f", "arn:aws:kms:eu-central-1:210987654321:key/mrk-0123456789abcdef0123456789abcdef"}
	p := mustNeed(t, "secrets: {items: [{name: a, from: {secretsManager: {id: shop/app}}}, {name: b, from: {ssm: {name: /shop/token}}}]}\n", place)
	keys := List{"arn:aws:kms:eu-central-1:123456789012:key/0a1b2c3d-0a1b-0a1b-0a1b-0a1b2c3d4e5f", place.Keys[1]}
	secrets := mustHave(t, p, "DecryptOwnSecrets")
	want := Conditions{
		"StringEquals": {"kms:ViaService": {"secretsmanager.eu-central-1.amazonaws.com"}},
		"StringLike":   {"kms:EncryptionContext:SecretARN": {"arn:aws:secretsmanager:eu-central-1:123456789012:secret:shop/app-??????"}},
	}
	if diff := cmp.Diff(want, secrets.Condition); diff != "" || !slices.Equal(secrets.Resource, keys) {
		t.Errorf("got %q under conditions (-want +got):\n%s", secrets.Resource, diff)
	}
	parameters := mustHave(t, p, "DecryptOwnParameters")
	want = Conditions{"StringEquals": {
		"kms:ViaService":                      {"ssm.eu-central-1.amazonaws.com"},
		"kms:EncryptionContext:PARAMETER_ARN": {"arn:aws:ssm:eu-central-1:123456789012:parameter/shop/token"},
	}}
	if diff := cmp.Diff(want, parameters.Condition); diff != "" {
		t.Errorf("conditions of parameters (-want +got):\n%s", diff)
	}
}

func TestPartitionsFollowFromTheRegion(t *testing.T) {
	place := home
	place.Keys = []string{"mrk-0123456789abcdef0123456789abcdef"}
	for region, tt := range map[string]struct{ partition, via string }{
		"us-east-1":       {"aws", "StringEquals kms:ViaService secretsmanager.us-east-1.amazonaws.com"},
		"us-gov-west-1":   {"aws-us-gov", "StringEquals kms:ViaService secretsmanager.us-gov-west-1.amazonaws.com"},
		"cn-north-1":      {"aws-cn", "kms:ViaService secretsmanager.cn-north-1.*"},
		"us-isob-east-1":  {"aws-iso-b", "kms:ViaService secretsmanager.us-isob-east-1.*"},
		"eusc-de-east-1":  {"aws-eusc", "kms:ViaService secretsmanager.eusc-de-east-1.*"},
		"ap-northeast-11": {"aws", "StringEquals kms:ViaService secretsmanager.ap-northeast-11.amazonaws.com"},
	} {
		place.Region = region
		p := mustNeed(t, "secrets: {items: [{name: a, from: {secretsManager: {id: shop}}}]}\n", place)
		if got := mustHave(t, p, "ReadOwnSecrets").Resource[0]; !strings.HasPrefix(got, "arn:"+tt.partition+":secretsmanager:"+region+":") {
			t.Errorf("in %s, got %s, want partition %s", region, got, tt.partition)
		}
		if got := mustHave(t, p, "DecryptOwnSecrets").Condition.String(); !strings.Contains(got, tt.via) {
			t.Errorf("in %s, got conditions %q, want %q in them", region, got, tt.via)
		}
	}
	place.Region, place.Partition = "xx-new-1", "aws-new"
	p := mustNeed(t, "", Place{Account: home.Account, Region: "xx-new-1", Partition: "aws-new", Groups: home.Groups})
	if got := mustHave(t, p, "CompleteOwnHooks").Resource[0]; !strings.HasPrefix(got, "arn:aws-new:autoscaling:xx-new-1:") {
		t.Errorf("got %s, want the partition that was given", got)
	}
}

func TestImagesNameTheirRepositories(t *testing.T) {
	const registries = `
registries:
  - {host: 123456789012.dkr.ecr.us-east-1.amazonaws.com, ecr: {}}
  - {host: 210987654321.dkr-ecr-fips.us-west-2.on.aws, ecr: {}}
  - {host: "registry.example.com:5000", ecr: {region: eu-west-1}}
  - {host: 123456789012.dkr.ecr.ap-south-1.amazonaws.com, ecr: {region: ap-south-2}}
`
	place := home
	place.Images = []string{
		"123456789012.dkr.ecr.us-east-1.amazonaws.com/shop/api:2026.11",
		"123456789012.dkr.ecr.us-east-1.amazonaws.com/shop/api@sha256:" + strings.Repeat("1", 64),
		"210987654321.dkr-ecr-fips.us-west-2.on.aws/base",
		"registry.example.com:5000/mirror/cache",
		"123456789012.dkr.ecr.ap-south-1.amazonaws.com/x",
		"postgres:17", "ghcr.io/shop/other:1",
	}
	p := mustNeed(t, registries, place)
	want := List{
		"arn:aws:ecr:ap-south-1:123456789012:repository/x",
		"arn:aws:ecr:eu-west-1:123456789012:repository/mirror/cache",
		"arn:aws:ecr:us-east-1:123456789012:repository/shop/api",
		"arn:aws:ecr:us-west-2:210987654321:repository/base",
	}
	if diff := cmp.Diff(want, mustHave(t, p, "PullOwnImages").Resource); diff != "" {
		t.Errorf("repositories (-want +got):\n%s", diff)
	}
	token := mustHave(t, p, "AuthorizeRegistry")
	if got := token.Condition.String(); got != "StringEquals aws:RequestedRegion ap-south-2 | eu-west-1 | us-east-1 | us-west-2" {
		t.Errorf("got a token under conditions %q", got)
	}

	for name, sections := range map[string]string{
		"a policy that never pulls": registries + "workload: {pull: {policy: never}}\n",
		"no ECR registry":           "registries: []\n",
	} {
		loaded, err := config.Parse(
			config.Layer{Name: "/a", Data: []byte("apiVersion: flowagent/v1\nkind: Node\nworkload: {project: shop, files: [/c.yaml]}\n")},
			config.Layer{Name: "/b", Data: []byte("apiVersion: flowagent/v1\nkind: Node\n" + sections)})
		if err != nil {
			t.Fatal(err)
		}
		p, err := Needed(loaded.Config, place)
		if err != nil || p.statement("AuthorizeRegistry") != nil || p.statement("PullOwnImages") != nil {
			t.Errorf("%s: got %v, %+v, want nothing of ECR", name, err, p.Document)
		}
	}
}

func TestHooksAreThoseOfTheNamedGroups(t *testing.T) {
	place := home
	whole := "arn:aws:autoscaling:eu-central-1:123456789012:autoScalingGroup:5c1b2a3d-0a1b-0a1b-0a1b-0a1b2c3d4e5f:autoScalingGroupName/shop green/2"
	place.Groups = []string{"shop-blue", strings.ReplaceAll(whole, " ", "-")}
	place.TargetGroups = []string{"blue", "arn:aws:elasticloadbalancing:eu-central-1:123456789012:targetgroup/green/73e2d6bc24d8a067"}
	place.Tags = map[string]string{"Environment": "production"}
	p := mustNeed(t, "", place)
	hooks := mustHave(t, p, "CompleteOwnHooks")
	want := List{
		"arn:aws:autoscaling:eu-central-1:123456789012:autoScalingGroup:*:autoScalingGroupName/shop-blue",
		"arn:aws:autoscaling:eu-central-1:123456789012:autoScalingGroup:5c1b2a3d-0a1b-0a1b-0a1b-0a1b2c3d4e5f:autoScalingGroupName/shop-green/2",
	}
	if diff := cmp.Diff(want, hooks.Resource); diff != "" {
		t.Errorf("groups (-want +got):\n%s", diff)
	}
	want = List{"arn:aws:ssm:eu-central-1:123456789012:parameter/flowagent/launch-failures/shop-blue", "arn:aws:ssm:eu-central-1:123456789012:parameter/flowagent/launch-failures/shop-green_2"}
	if diff := cmp.Diff(want, mustHave(t, p, "CountLaunchFailures").Resource); diff != "" {
		t.Errorf("parameters (-want +got):\n%s", diff)
	}
	targets := mustHave(t, p, "LeaveOwnTargetGroups")
	want = List{"arn:aws:elasticloadbalancing:eu-central-1:123456789012:targetgroup/blue/*", place.TargetGroups[1]}
	if diff := cmp.Diff(want, targets.Resource); diff != "" {
		t.Errorf("target groups (-want +got):\n%s", diff)
	}
	for _, s := range []Statement{hooks, targets} {
		if got := s.Condition.String(); got != "StringEquals aws:ResourceTag/Environment production" {
			t.Errorf("%s is under conditions %q, want the tag", s.Sid, got)
		}
	}
}

func TestMetricsAndEventsGoToOnePlace(t *testing.T) {
	p := mustNeed(t, "cloudWatch: {namespace: Shop/production, region: eu-west-1}\nnotify: {eventBridge: {bus: shop, region: eu-west-2}}\n", home)
	if got := mustHave(t, p, "PublishMetrics").Condition.String(); got != "StringEquals aws:RequestedRegion eu-west-1, StringEquals cloudwatch:namespace Shop/production" {
		t.Errorf("got metrics under conditions %q", got)
	}
	if got := mustHave(t, p, "PublishEvents").Resource[0]; got != "arn:aws:events:eu-west-2:123456789012:event-bus/shop" {
		t.Errorf("got events for %s", got)
	}
	bus := "arn:aws:events:eu-west-2:210987654321:event-bus/shared"
	p = mustNeed(t, "notify: {eventBridge: {bus: \""+bus+"\"}}\n", home)
	if got := mustHave(t, p, "PublishEvents").Resource[0]; got != bus {
		t.Errorf("got events for %s, want %s", got, bus)
	}
}

// A node that isn't on EC2 has no group, and sends no metrics; what it reads and tells is the same.
func TestANodeOutsideEC2NeedsLess(t *testing.T) {
	sections := "node: {provider: local}\ncloudWatch: {namespace: Shop}\nsecrets: {items: [{name: a, from: {ssm: {name: /a}}}]}\nnotify: {eventBridge: {bus: shop}}\n"
	p := mustNeed(t, sections, Place{Account: "123456789012", Region: "eu-central-1"})
	if got, want := sids(p.Document), []string{"ReadOwnParameters", "PublishEvents"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	p = mustNeed(t, "node: {provider: local}\n", Place{})
	if text, err := json.Marshal(p.Document); err != nil || string(text) != `{"Version":"2012-10-17","Statement":[]}` {
		t.Errorf("without anything of AWS, got %s, %v", text, err)
	}
}

func TestANodeOfNoGroupLooksAndChangesNothing(t *testing.T) {
	p := mustNeed(t, "", Place{Account: "123456789012", Region: "eu-central-1", Standalone: true})
	if got, want := sids(p.Document), []string{"DescribeFleet"}; !slices.Equal(got, want) || len(p.Statement[0].Action) != 1 {
		t.Errorf("got %+v, want %q with one action", p.Statement, want)
	}
}

func sids(d Document) []string {
	var all []string
	for _, s := range d.Statement {
		all = append(all, s.Sid)
	}
	return all
}

func TestWhatIsNotNamedIsNoted(t *testing.T) {
	const sections = "secrets: {items: [{name: a, from: {ssm: {name: /a}}}]}\nregistries: [{host: 123456789012.dkr.ecr.us-east-1.amazonaws.com, ecr: {}}]\n"
	bare := mustNeed(t, sections, home)
	for _, want := range []string{"No target group is named", "No KMS key is named", "No image of an ECR registry is named"} {
		if !slices.ContainsFunc(bare.Notes, func(note string) bool { return strings.HasPrefix(note, want) }) {
			t.Errorf("got notes %q, want one with %q", bare.Notes, want)
		}
	}
	place := home
	place.TargetGroups, place.Keys = []string{"blue"}, []string{"mrk-0123456789abcdef0123456789abcdef"}
	place.Images = []string{"123456789012.dkr.ecr.us-east-1.amazonaws.com/shop"}
	if whole := mustNeed(t, sections, place); len(whole.Notes) > 0 {
		t.Errorf("got notes %q where everything is named", whole.Notes)
	}
	var many strings.Builder
	many.WriteString("secrets:\n  items:\n")
	for i := range 300 {
		if fmt.Fprintf(&many, "    - {name: s%d, from: {ssm: {name: /shop/production/%d}}}\n", i, i); i == 80 {
			p := mustNeed(t, many.String(), home)
			if got := p.Notes[len(p.Notes)-1]; !strings.Contains(got, "a managed policy may have 6144") {
				t.Errorf("with %d characters, got the note %q", p.Size(), got)
			}
		}
	}
	p := mustNeed(t, many.String(), home)
	if got := p.Notes[len(p.Notes)-1]; !strings.Contains(got, "may have 10240 together") {
		t.Errorf("with %d characters, got the note %q", p.Size(), got)
	}
}

func TestWhatIsMissingOrWrongIsRefusedAllAtOnce(t *testing.T) {
	const reads = "secrets: {items: [{name: a, from: {secretsManager: {id: shop}}}]}\n"
	for name, tt := range map[string]struct {
		sections string
		place    Place
		want     []string
	}{
		"nothing known":       {reads, Place{}, []string{"account is not known", "--account", "region is not known", "--region", "none is named: name each with --group"}},
		"an account's name":   {reads, Place{Account: "production"}, []string{`account "production": write its twelve digits`}},
		"a zone":              {reads, Place{Region: "eu-central-1a"}, []string{`region "eu-central-1a": write it like`}},
		"a wildcard group":    {reads, Place{Groups: []string{"shop-*"}}, []string{`group "shop-*"`, "wildcards are not taken"}},
		"a group's variable":  {reads, Place{Groups: []string{"${aws:username}"}}, []string{`is no name or ARN of an Auto Scaling group`}},
		"another ARN":         {reads, Place{Groups: []string{"arn:aws:iam::123456789012:role/x"}}, []string{"is no name or ARN of an Auto Scaling group"}},
		"half of an ARN":      {reads, Place{Groups: []string{"arn:aws:autoscaling:eu-central-1:123456789012:autoScalingGroup:x"}}, []string{"is no name or ARN of an Auto Scaling group"}},
		"a target without id": {reads, Place{Groups: []string{"a"}, TargetGroups: []string{"arn:aws:elasticloadbalancing:eu-central-1:123456789012:targetgroup/x"}}, []string{"is no name or ARN of one"}},
		"a wildcard target":   {reads, Place{Groups: []string{"a"}, TargetGroups: []string{"arn:aws:elasticloadbalancing:eu-central-1:123456789012:targetgroup/*"}}, []string{"target group", "wildcards are not taken"}},
		"a key's alias":       {reads, Place{Keys: []string{"alias/shop"}}, []string{`KMS key "alias/shop"`, "an alias is no resource of a policy"}},
		"a key for nothing":   {"", Place{Account: "123456789012", Region: "eu-central-1", Standalone: true, Keys: []string{"mrk-0123456789abcdef0123456789abcdef"}}, []string{"leave --kms-key out"}},
		"a partition":         {reads, Place{Partition: "gcp"}, []string{`partition "gcp"`}},
		"target groups alone": {reads, Place{TargetGroups: []string{"blue"}}, []string{"target groups belong to an Auto Scaling group"}},
		"tags alone":          {reads, Place{Tags: map[string]string{"a": "b"}}, []string{"tags are those of Auto Scaling groups"}},
		"a tag's variable":    {reads, Place{Groups: []string{"a"}, Tags: map[string]string{"a": "${b}"}}, []string{`tag "a"="${b}"`}},
		"both kinds of node":  {reads, Place{Standalone: true, Groups: []string{"a"}}, []string{"keep one of both"}},
		"a group on-prem":     {"node: {provider: local}\n", Place{Groups: []string{"a"}}, []string{"node.provider is local"}},
		"no image": {"registries: [{host: 123456789012.dkr.ecr.us-east-1.amazonaws.com, ecr: {}}]\n",
			Place{Account: "123456789012", Region: "eu-central-1", Standalone: true, Images: []string{"Shop:1"}}, []string{`image "Shop:1"`, "write it like"}},
	} {
		t.Run(name, func(t *testing.T) {
			p, err := Needed(parseConfig(t, tt.sections), tt.place)
			if err == nil {
				t.Fatalf("got %+v, want an error", p)
			}
			for _, want := range tt.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("got %q, want %q in it", err, want)
				}
			}
		})
	}
}

// everything is a configuration and a place that need every statement there is.
func everything(t *testing.T) Policy {
	t.Helper()
	text, err := os.ReadFile("../config/testdata/aws.yaml")
	if err != nil {
		t.Fatal(err)
	}
	place := home
	place.TargetGroups, place.Keys = []string{"blue"}, []string{"mrk-0123456789abcdef0123456789abcdef"}
	place.Images = []string{"123456789012.dkr.ecr.us-east-1.amazonaws.com/shop"}
	_, document, _ := strings.Cut(string(text), "apiVersion")
	second := "items:\n    - {name: second, from: {secretsManager: {id: flowviz/production/second}}}\n"
	return mustNeed(t, "apiVersion"+strings.Replace(document, "items:\n", second, 1), place)
}

func TestEveryWildcardHasAReason(t *testing.T) {
	sid := regexp.MustCompile(`^[A-Za-z0-9]+$`)
	seen := map[string]bool{}
	for _, s := range everything(t).Statement {
		if !sid.MatchString(s.Sid) || seen[s.Sid] {
			t.Errorf("Sid %q is not unique, or no word of letters and digits", s.Sid)
		}
		seen[s.Sid] = true
		if s.Purpose == "" {
			t.Errorf("%s has no purpose", s.Sid)
		}
		if hasOne := slices.ContainsFunc(s.Resource, wild); hasOne != (s.Wildcard != "") {
			t.Errorf("%s on %q has the reason %q", s.Sid, s.Resource, s.Wildcard)
		}
		if slices.Contains(s.Resource, "*") && len(s.Condition) == 0 {
			t.Errorf("%s on every resource has no condition", s.Sid)
		}
		if slices.ContainsFunc(s.Action, wild) {
			t.Errorf("%s has a wildcard in %q", s.Sid, s.Action)
		}
	}
}

// What is printed is read as what was meant: nobody's own JSON can differ from it in more than order.
func TestAPolicySurvivesItsOwnJSON(t *testing.T) {
	p := everything(t)
	text, err := json.Marshal(p.Document)
	if err != nil {
		t.Fatal(err)
	}
	read, err := Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	if differences := Compare(p.Document, read); len(differences) > 0 {
		t.Errorf("got differences: %q", differences)
	}
	for i, s := range read.Statement {
		if diff := cmp.Diff(p.Statement[i].Condition, s.Condition); diff != "" {
			t.Errorf("conditions of %s (-want +got):\n%s", s.Sid, diff)
		}
	}
}
