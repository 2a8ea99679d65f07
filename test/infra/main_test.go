// Package infra holds infrastructure/ against AWS as moto plays it: formatting, validation, terraform test, and production
// as a whole, which is applied, planned again and read back by the AWS command line.
//
// What enters is the configuration as it is in the repository, copied aside; nothing in the repository is written. All
// tests share one account, which is empty when they begin and gone when they end. scripts/infra-test.sh prepares what they
// need.
package infra

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	packersdk "github.com/hashicorp/packer-plugin-sdk/packer"

	"github.com/flowviz/flowagent/packer/plugin/post-processor/publish"
	"github.com/flowviz/flowagent/test/infra/cloud"
	"github.com/flowviz/flowagent/test/lab"
)

const (
	region    = "us-east-1"
	account   = "123456789012" // moto's
	domain    = "flowviz.example"
	parameter = "/flowviz/production/ami"
	// limit is for one command. The longest, applying production, takes four minutes on two idle cores, most of which the
	// provider sleeps.
	limit = 25 * time.Minute
)

// image is what the post-processor published, before any test.
var image string

func TestMain(m *testing.M) {
	code, err := run(m)
	if err != nil {
		log.Fatal(err)
	}
	os.Exit(code)
}

func run(m *testing.M) (int, error) {
	for name, value := range map[string]string{
		"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_REGION": region, "AWS_DEFAULT_REGION": region,
		"AWS_EC2_METADATA_DISABLED": "true", "AWS_CONFIG_FILE": os.DevNull, "AWS_SHARED_CREDENTIALS_FILE": os.DevNull,
		"AWS_PAGER":          "",
		"CHECKPOINT_DISABLE": "1", "TF_IN_AUTOMATION": "1", "TF_INPUT": "0", "NO_PROXY": "127.0.0.1",
		// moto proves domains after a minute, and knows AWS's own policies only when told to.
		"MOTO_ACM_VALIDATION_WAIT": "0", "MOTO_IAM_LOAD_MANAGED_POLICIES": "true",
	} {
		os.Setenv(name, value)
	}
	for _, name := range []string{"AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_CA_BUNDLE"} {
		os.Unsetenv(name)
	}

	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	moto, err := lab.StartMoto(ctx)
	if err != nil {
		return 0, err
	}
	defer moto.Stop()
	account, err := cloud.New(moto.URL)
	if err != nil {
		return 0, err
	}
	server := httptest.NewServer(account)
	defer server.Close()
	os.Setenv("AWS_ENDPOINT_URL", server.URL)

	if err := prepare(ctx); err != nil {
		return 0, fmt.Errorf("prepare the account: %w", err)
	}
	return m.Run(), nil
}

// prepare makes what the runbook has one make before Terraform: a zone, an image, and the bucket of states.
func prepare(ctx context.Context) error {
	if _, err := aws(ctx, "route53", "create-hosted-zone", "--name", domain, "--caller-reference", "test"); err != nil {
		return err
	}
	if _, err := aws(ctx, "s3api", "create-bucket", "--bucket", "flowviz-terraform-state-"+account); err != nil {
		return err
	}
	var err error
	if image, err = makeImage(ctx, "published"); err != nil {
		return err
	}
	if err := publishImage(ctx, image, parameter, "/flowviz/staging/ami"); err != nil {
		return err
	}
	unverified, err := makeImage(ctx, "unverified")
	if err != nil {
		return err
	}
	for name, value := range map[string]string{"/flowviz/production/unverified": unverified, "/flowviz/production/not-an-image": "none"} {
		if _, err := aws(ctx, "ssm", "put-parameter", "--type", "String", "--name", name, "--value", value); err != nil {
			return err
		}
	}
	return nil
}

// makeImage is what Packer's builder does.
func makeImage(ctx context.Context, name string) (string, error) {
	id := func(arguments ...string) (string, error) {
		out, err := aws(ctx, append(arguments, "--output", "text")...)
		return strings.TrimSpace(string(out)), err
	}
	base, err := id("ec2", "describe-images", "--owners", "amazon", "--query", "Images[?Architecture=='x86_64'] | [0].ImageId")
	if err != nil {
		return "", err
	}
	instance, err := id("ec2", "run-instances", "--image-id", base, "--instance-type", "t3.micro", "--query", "Instances[0].InstanceId")
	if err != nil {
		return "", err
	}
	return id("ec2", "create-image", "--instance-id", instance, "--name", name, "--query", "ImageId")
}

// publishImage runs the Packer plugin's post-processor as Packer does after a build.
func publishImage(ctx context.Context, id string, parameters ...string) error {
	dir, err := os.MkdirTemp("", "publish-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	report := filepath.Join(dir, "verify.json")
	if err := os.WriteFile(report, []byte(`{"ok": true, "checks": [{"name": "all"}]}`), 0o600); err != nil {
		return err
	}
	for _, name := range parameters {
		var p publish.PostProcessor
		err := p.Configure(map[string]any{
			"image": "wms-node", "agent_version": "1.0.0", "verify_report": report, "git_revision": "test", "source_image": "ami-0fedcba9876543210",
			"ssm_parameter": name,
		})
		if err != nil {
			return err
		}
		artifact := &packersdk.MockArtifact{IdValue: region + ":" + id, StateValues: map[string]any{}}
		if _, _, _, err := p.PostProcess(ctx, packersdk.TestUi(nil), artifact); err != nil {
			return err
		}
	}
	return nil
}

// aws runs the AWS command line and returns what it printed.
func aws(ctx context.Context, arguments ...string) ([]byte, error) {
	// The command line asks the real RDS whatever the variable says.
	cmd := exec.CommandContext(ctx, "aws", append(slices.Clone(arguments), "--endpoint-url", os.Getenv("AWS_ENDPOINT_URL"))...)
	var problems bytes.Buffer
	cmd.Stderr = &problems
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("aws %s: %w: %s", strings.Join(arguments, " "), err, strings.TrimSpace(problems.String()))
	}
	return out, nil
}

// ask runs the AWS command line and decodes its answer.
func ask[T any](t *testing.T, arguments ...string) T {
	t.Helper()
	out, err := aws(t.Context(), append(arguments, "--output", "json")...)
	if err != nil {
		t.Fatal(err)
	}
	var answer T
	if err := json.Unmarshal(out, &answer); err != nil {
		t.Fatalf("aws %s: %v in %s", strings.Join(arguments, " "), err, out)
	}
	return answer
}

// tell runs the AWS command line for what it does.
func tell(t *testing.T, arguments ...string) {
	t.Helper()
	if _, err := aws(t.Context(), arguments...); err != nil {
		t.Fatal(err)
	}
}
