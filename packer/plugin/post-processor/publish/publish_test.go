package publish

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"github.com/aws/aws-sdk-go-v2/service/ssm"
	ssmtypes "github.com/aws/aws-sdk-go-v2/service/ssm/types"
	"github.com/google/go-cmp/cmp"
	packersdk "github.com/hashicorp/packer-plugin-sdk/packer"

	"github.com/flowviz/flowagent/packer/plugin/internal/ami"
	"github.com/flowviz/flowagent/test/lab"
)

const (
	home  = "eu-central-1"
	other = "us-east-1"
	name  = "/flowviz/test/ami"
)

// cloud is AWS as moto plays it, behind a proxy that a test has refuse things.
type cloud struct {
	t *testing.T

	mu     sync.Mutex
	refuse func(r *http.Request) bool
}

func newCloud(t *testing.T) *cloud {
	t.Helper()
	target, err := url.Parse(lab.Moto(t))
	if err != nil {
		t.Fatal(err)
	}
	c := &cloud{t: t}
	proxy := httputil.NewSingleHostReverseProxy(target)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c.mu.Lock()
		refuse := c.refuse
		c.mu.Unlock()
		if refuse != nil && refuse(r) {
			w.Header().Set("Content-Type", "application/x-amz-json-1.1")
			w.WriteHeader(http.StatusBadRequest)
			fmt.Fprint(w, `{"__type": "AccessDeniedException", "message": "the test said no"}`)
			return
		}
		proxy.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	t.Setenv("AWS_ENDPOINT_URL", server.URL)
	t.Setenv("AWS_ACCESS_KEY_ID", "test")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "test")
	t.Setenv("AWS_EC2_METADATA_DISABLED", "true")
	t.Setenv("AWS_CONFIG_FILE", filepath.Join(t.TempDir(), "none"))
	return c
}

// refuseWhen has AWS refuse one operation in one region.
func (c *cloud) refuseWhen(operation, region string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.refuse = func(r *http.Request) bool {
		return strings.HasSuffix(r.Header.Get("X-Amz-Target"), operation) && strings.Contains(r.Header.Get("Authorization"), "/"+region+"/")
	}
}

func (c *cloud) config(region string) aws.Config {
	c.t.Helper()
	cfg, err := ami.Load(c.t.Context(), "", region)
	if err != nil {
		c.t.Fatal(err)
	}
	return cfg
}

func (c *cloud) ec2(region string) *ec2.Client { return ec2.NewFromConfig(c.config(region)) }
func (c *cloud) ssm(region string) *ssm.Client { return ssm.NewFromConfig(c.config(region)) }

// instance starts one of some image that moto has from the beginning, or of the given one.
func (c *cloud) instance(region, image string) string {
	c.t.Helper()
	client := c.ec2(region)
	if image == "" {
		found, err := client.DescribeImages(c.t.Context(), &ec2.DescribeImagesInput{Owners: []string{"amazon"}})
		if err != nil || len(found.Images) == 0 {
			c.t.Fatalf("images to begin with: %v", err)
		}
		image = *found.Images[0].ImageId
	}
	started, err := client.RunInstances(c.t.Context(), &ec2.RunInstancesInput{ImageId: &image, MinCount: aws.Int32(1), MaxCount: aws.Int32(1), InstanceType: types.InstanceTypeT3Micro})
	if err != nil {
		c.t.Fatal(err)
	}
	return *started.Instances[0].InstanceId
}

// image makes an image with tags.
func (c *cloud) image(region, title string, tags map[string]string) string {
	c.t.Helper()
	client := c.ec2(region)
	made, err := client.CreateImage(c.t.Context(), &ec2.CreateImageInput{InstanceId: aws.String(c.instance(region, "")), Name: &title})
	if err != nil {
		c.t.Fatal(err)
	}
	if len(tags) > 0 {
		var list []types.Tag
		for key, value := range tags {
			list = append(list, types.Tag{Key: &key, Value: &value})
		}
		if _, err := client.CreateTags(c.t.Context(), &ec2.CreateTagsInput{Resources: []string{*made.ImageId}, Tags: list}); err != nil {
			c.t.Fatal(err)
		}
	}
	return *made.ImageId
}

// published makes an image as an earlier publication left it.
func (c *cloud) published(title string) string {
	return c.image(home, title, map[string]string{ami.TagImage: "node", ami.TagVerified: ami.Verified})
}

func (c *cloud) parameter(region string) (value, dataType string) {
	c.t.Helper()
	got, err := c.ssm(region).GetParameter(c.t.Context(), &ssm.GetParameterInput{Name: aws.String(name)})
	if err != nil {
		if strings.Contains(err.Error(), "ParameterNotFound") {
			return "", ""
		}
		c.t.Fatal(err)
	}
	return *got.Parameter.Value, aws.ToString(got.Parameter.DataType)
}

func (c *cloud) setParameter(region, value, dataType string) {
	c.t.Helper()
	_, err := c.ssm(region).PutParameter(c.t.Context(), &ssm.PutParameterInput{
		Name: aws.String(name), Value: &value, DataType: &dataType, Type: ssmtypes.ParameterTypeString, Overwrite: aws.Bool(true),
	})
	if err != nil {
		c.t.Fatal(err)
	}
}

// here tells which of the images are there, in their order.
func (c *cloud) here(ids ...string) []string {
	c.t.Helper()
	found, err := c.ec2(home).DescribeImages(c.t.Context(), &ec2.DescribeImagesInput{Owners: []string{"self"}})
	if err != nil {
		c.t.Fatal(err)
	}
	return slices.DeleteFunc(slices.Clone(ids), func(id string) bool {
		return !slices.ContainsFunc(found.Images, func(i types.Image) bool { return *i.ImageId == id })
	})
}

// artifact is what a build of the amazon plugin hands over.
func artifact(id string) packersdk.Artifact {
	return &packersdk.MockArtifact{IdValue: id, StateValues: map[string]any{"generated_data": map[string]any{"SourceAMI": "ami-0fedcba9876543210"}}}
}

// room is a directory with what a build leaves on the builder.
type room struct {
	dir       string
	variables string
	manifest  string
}

func newRoom(t *testing.T) *room {
	t.Helper()
	dir := t.TempDir()
	for file, content := range map[string]string{
		"verify.json": `{"ok": true, "checks": [{"name": "all"}]}`, "bad.json": `{"ok": false, "checks": [{"name": "all"}]}`, "sbom.json": "{}",
	} {
		if err := os.WriteFile(filepath.Join(dir, file), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return &room{dir, filepath.Join(dir, "image.auto.tfvars.json"), filepath.Join(dir, "manifest.json")}
}

// publish runs the post-processor as Packer does, with settings over the usual ones. It returns what it said.
func (r *room) publish(t *testing.T, id string, changes map[string]any) (string, error) {
	t.Helper()
	settings := map[string]any{
		"image": "node", "agent_version": "1.2.3", "git_revision": "0123abc", "verify_report": filepath.Join(r.dir, "verify.json"),
		"ssm_parameter": name, "variables_file": r.variables, "manifest": r.manifest, "sboms": []string{filepath.Join(r.dir, "sbom.json")},
	}
	for key, value := range changes {
		settings[key] = value
	}
	p := &PostProcessor{}
	if err := p.Configure(settings); err != nil {
		return "", err
	}
	var said strings.Builder
	ui := &packersdk.BasicUi{Reader: strings.NewReader(""), Writer: &said, ErrorWriter: &said}
	got, keep, force, err := p.PostProcess(t.Context(), ui, artifact(id))
	if err == nil && (got.Id() != id || !keep || !force) {
		t.Errorf("the artifact: got %s, keep %t, by force %t; want it kept as it is", got.Id(), keep, force)
	}
	return said.String(), err
}

func (r *room) json(t *testing.T, file string) map[string]any {
	t.Helper()
	content, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var document map[string]any
	if err := json.Unmarshal(content, &document); err != nil {
		t.Fatal(err)
	}
	return document
}

func TestPublishesInEveryRegion(t *testing.T) {
	c, r := newCloud(t), newRoom(t)
	here, there := c.image(home, "new", nil), c.image(other, "new", nil)
	checked := filepath.Join(r.dir, "checked")
	if _, err := r.publish(t, other+":"+there+","+home+":"+here, map[string]any{
		"boot_check": []string{"sh", "-c", `echo "$AWS_REGION $AMI_ID" >>"$0"`, checked}, "tags": map[string]string{"team": "ops"},
	}); err != nil {
		t.Fatal(err)
	}
	for region, id := range map[string]string{home: here, other: there} {
		if value, dataType := c.parameter(region); value != id || dataType != "aws:ec2:image" {
			t.Errorf("the parameter in %s: got %q of type %q, want %s of type aws:ec2:image", region, value, dataType, id)
		}
	}
	if got, want := r.json(t, r.variables), map[string]any{"ami_ids": map[string]any{home: here, other: there}}; !cmp.Equal(got, want) {
		t.Errorf("the variables (-want +got):\n%s", cmp.Diff(want, got))
	}
	manifest := r.json(t, r.manifest)
	delete(manifest, "published")
	const empty = "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a" // SHA-256 of {}
	want := map[string]any{
		"image": "node", "amis": map[string]any{home: here, other: there}, "parameter": name, "gitRevision": "0123abc", "agentVersion": "1.2.3",
		"sourceImage": "ami-0fedcba9876543210", "sboms": []any{map[string]any{"name": "sbom.json", "sha256": empty}}, "verified": true,
		"bootCheck": "passed", "tags": map[string]any{"team": "ops"},
	}
	if diff := cmp.Diff(want, manifest); diff != "" {
		t.Errorf("the manifest (-want +got):\n%s", diff)
	}
	found, err := c.ec2(home).DescribeImages(t.Context(), &ec2.DescribeImagesInput{ImageIds: []string{here}})
	if err != nil {
		t.Fatal(err)
	}
	wantTags := map[string]string{
		ami.TagImage: "node", ami.TagVerified: "true", ami.TagGitRevision: "0123abc", ami.TagAgentVersion: "1.2.3",
		ami.TagSourceImage: "ami-0fedcba9876543210", ami.TagSBOM: empty, ami.TagBootCheck: "passed", "team": "ops",
	}
	if diff := cmp.Diff(wantTags, ami.Tags(found.Images[0].Tags)); diff != "" {
		t.Errorf("the image's tags (-want +got):\n%s", diff)
	}
	content, err := os.ReadFile(checked)
	if want := home + " " + here + "\n" + other + " " + there + "\n"; err != nil || string(content) != want {
		t.Errorf("boot checks: got %q and %v, want %q", content, err, want)
	}
}

// nothingPublished demands that all is as it was: parameters, files, old images.
func nothingPublished(t *testing.T, c *cloud, r *room, before map[string]string) {
	t.Helper()
	for region, want := range before {
		if got, _ := c.parameter(region); got != want {
			t.Errorf("the parameter in %s: got %q, want %q as before", region, got, want)
		}
	}
	for _, file := range []string{r.variables, r.manifest} {
		if content, err := os.ReadFile(file); err == nil && string(content) != "before" {
			t.Errorf("%s holds %s, want what it held before", file, content)
		}
	}
}

func TestARegionThatFailsPublishesNothingAnywhere(t *testing.T) {
	c, r := newCloud(t), newRoom(t)
	former := c.image(home, "former", nil)
	c.setParameter(home, former, ami.DataType) // the other region never had one
	if err := os.WriteFile(r.manifest, []byte("before"), 0o644); err != nil {
		t.Fatal(err)
	}
	here, there := c.image(home, "new", nil), c.image(other, "new", nil)
	c.refuseWhen("PutParameter", other)
	_, err := r.publish(t, home+":"+here+","+other+":"+there, nil)
	if err == nil || !strings.Contains(err.Error(), "write the parameter "+name+" in "+other) || !strings.Contains(err.Error(), "the test said no") {
		t.Errorf("got %v, want which parameter could not be written, and why", err)
	}
	nothingPublished(t, c, r, map[string]string{home: former, other: ""})
	if _, err := os.Stat(r.variables); err == nil {
		t.Error("the variables are left")
	}
	if content, err := os.ReadFile(r.manifest); err != nil || string(content) != "before" {
		t.Errorf("the manifest: got %q and %v, want what was there", content, err)
	}
}

func TestANewParameterIsTakenBack(t *testing.T) {
	c, r := newCloud(t), newRoom(t)
	here, there := c.image(home, "new", nil), c.image(other, "new", nil)
	c.refuseWhen("PutParameter", other) // after the one at home, which is new
	if _, err := r.publish(t, home+":"+here+","+other+":"+there, nil); err == nil {
		t.Error("got no error")
	}
	nothingPublished(t, c, r, map[string]string{home: "", other: ""})
}

func TestNothingIsPublishedOfAnImageThatIsNotFit(t *testing.T) {
	c, r := newCloud(t), newRoom(t)
	id := c.image(home, "new", nil)
	ours := home + ":" + id
	for what, test := range map[string]struct {
		artifact string
		changes  map[string]any
		want     string
	}{
		"not verified":              {ours, map[string]any{"verify_report": filepath.Join(r.dir, "bad.json")}, "is not fit to be cloned"},
		"no report":                 {ours, map[string]any{"verify_report": filepath.Join(r.dir, "none.json")}, "have the provisioner write it"},
		"it does not boot":          {ours, map[string]any{"boot_check": []string{"sh", "-c", "echo no answer on :9180; exit 3"}}, "sh ended with code 3: the image is not fit; the end of what it said:\n  no answer on :9180"},
		"the check hangs":           {ours, map[string]any{"boot_check": []string{"sleep", "300"}, "boot_check_timeout": "1s"}, "not done after 1s"},
		"an SBOM is missing":        {ours, map[string]any{"sboms": []string{filepath.Join(r.dir, "none")}}, "sboms: "},
		"the image is not there":    {home + ":ami-00000000000000000", nil, "look for ami-00000000000000000 in " + home},
		"no AMI":                    {"VirtualBox-1", nil, "is no list of AMIs by region"},
		"the manifest has no place": {ours, map[string]any{"manifest": filepath.Join(r.dir, "sbom.json", "m.json")}, "manifest: "},
	} {
		_, err := r.publish(t, test.artifact, test.changes)
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: got %v, want %q", what, err, test.want)
		}
		nothingPublished(t, c, r, map[string]string{home: ""})
		if _, err := os.Stat(r.variables); err == nil {
			t.Errorf("%s: the variables are left", what)
		}
	}
	c.setParameter(home, id, "text")
	if _, err := r.publish(t, ours, nil); err == nil || !strings.Contains(err.Error(), "it has the data type text") {
		t.Errorf("a parameter of another type: got %v, want its type", err)
	}
}

func TestKeepsWhatIsNewOrInUse(t *testing.T) {
	c, r := newCloud(t), newRoom(t)
	client := c.ec2(home)
	template := c.published("used by an old version of a launch template")
	resolved := c.published("used by a launch template's parameter")
	running := c.published("used by an instance")
	stopped := c.published("used by an instance that is stopped")
	current := c.published("the parameter's own")
	unused, another := c.published("unused"), c.published("unused, too")
	stranger := c.image(home, "of another line", map[string]string{ami.TagImage: "edge", ami.TagVerified: ami.Verified})

	templateOf := func(title string, ids ...string) {
		for i, id := range ids {
			data := &types.RequestLaunchTemplateData{ImageId: &id}
			var err error
			if i == 0 {
				_, err = client.CreateLaunchTemplate(t.Context(), &ec2.CreateLaunchTemplateInput{LaunchTemplateName: &title, LaunchTemplateData: data})
			} else {
				_, err = client.CreateLaunchTemplateVersion(t.Context(), &ec2.CreateLaunchTemplateVersionInput{LaunchTemplateName: &title, LaunchTemplateData: data})
			}
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	c.setParameter(home, current, ami.DataType)
	if _, err := c.ssm(home).PutParameter(t.Context(), &ssm.PutParameterInput{Name: aws.String("/other/ami"), Value: &resolved, Type: ssmtypes.ParameterTypeString}); err != nil {
		t.Fatal(err)
	}
	templateOf("app", stranger, template, stranger, stranger) // neither the default version nor the latest
	templateOf("resolving", "resolve:ssm:/other/ami")
	c.instance(home, running)
	off := c.instance(home, stopped)
	if _, err := client.StopInstances(t.Context(), &ec2.StopInstancesInput{InstanceIds: []string{off}}); err != nil {
		t.Fatal(err)
	}
	id := c.image(home, "new", nil)
	all := []string{template, resolved, running, stopped, current, unused, another, stranger, id}
	keep := func(more map[string]any) map[string]any {
		settings := map[string]any{"count": 1}
		for key, value := range more {
			settings[key] = value
		}
		return map[string]any{"keep": settings}
	}

	if _, err := r.publish(t, home+":"+id, keep(map[string]any{"age": "24h"})); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(all, c.here(all...)); diff != "" {
		t.Errorf("with an age of a day, of images of today (-want +got):\n%s", diff)
	}
	c.setParameter(home, current, ami.DataType)
	said, err := r.publish(t, home+":"+id, keep(map[string]any{"dry_run": true}))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(all, c.here(all...)); diff != "" {
		t.Errorf("after a dry run (-want +got):\n%s", diff)
	}
	// moto's images may all be of one second: which of the unused ones is the newest, it doesn't tell.
	if n := strings.Count(said, "would deregister"); n < 1 || n > 2 || !(strings.Contains(said, "would deregister "+unused) || strings.Contains(said, "would deregister "+another)) {
		t.Errorf("the dry run says:\n%s\nwant that unused images would go", said)
	}
	for _, kept := range []string{template, resolved, running, stopped, current, stranger, id} {
		if strings.Contains(said, "would deregister "+kept) {
			t.Errorf("the dry run would deregister %s, which is in use:\n%s", kept, said)
		}
	}
	c.setParameter(home, current, ami.DataType)
	if _, err := r.publish(t, home+":"+id, keep(nil)); err != nil {
		t.Fatal(err)
	}
	left := c.here(all...)
	if len(left) >= len(all) {
		t.Error("no unused image was deregistered")
	}
	for _, kept := range []string{template, resolved, running, stopped, current, stranger, id} {
		if !slices.Contains(left, kept) {
			t.Errorf("%s was deregistered, which is in use", kept)
		}
	}
}

func TestACancelledBuildPublishesNothing(t *testing.T) {
	c, r := newCloud(t), newRoom(t)
	id := c.image(home, "new", nil)
	p := &PostProcessor{}
	if err := p.Configure(map[string]any{
		"image": "node", "agent_version": "1", "git_revision": "1", "verify_report": filepath.Join(r.dir, "verify.json"), "ssm_parameter": name,
		"boot_check": []string{"sh", "-c", `touch "$0"; sleep 300`, filepath.Join(r.dir, "started")},
	}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ended := make(chan error)
	go func() {
		ui := &packersdk.BasicUi{Reader: strings.NewReader(""), Writer: &strings.Builder{}, ErrorWriter: &strings.Builder{}}
		_, _, _, err := p.PostProcess(ctx, ui, artifact(home+":"+id))
		ended <- err
	}()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for begun := false; !begun; {
		select {
		case <-tick.C:
			_, err := os.Stat(filepath.Join(r.dir, "started"))
			begun = err == nil
		case err := <-ended:
			t.Fatalf("it ended before the boot check began: %v", err)
		}
	}
	cancel()
	if err := <-ended; err == nil || !strings.Contains(err.Error(), "canceled") {
		t.Errorf("got %v, want that it was cancelled", err)
	}
	nothingPublished(t, c, r, map[string]string{home: ""})
}

func TestRefusesSettingsThatCantWork(t *testing.T) {
	for want, changes := range map[string]map[string]any{
		"image is missing":              {"image": ""},
		"agent_version is missing":      {"agent_version": ""},
		"verify_report is missing":      {"verify_report": ""},
		"is no name of a parameter":     {"ssm_parameter": "/a b"},
		"would not read /tmp/x.json":    {"variables_file": "/tmp/x.json"},
		"is no name of a Terraform":     {"variable": "a b"},
		`tags: "flowagent:image" can't`: {"tags": map[string]string{"flowagent:image": "x"}},
		"keep: count is below 1":        {"keep": map[string]any{"count": 0}},
		"nothing is published: set":     {"ssm_parameter": "", "variables_file": "", "manifest": ""},
		"boot_check_timeout is below a": {"boot_check_timeout": "1ms"},
	} {
		if _, err := newRoom(t).publish(t, "", changes); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: got %v, want %q", changes, err, want)
		}
	}
}
