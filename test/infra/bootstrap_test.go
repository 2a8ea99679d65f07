package infra

import (
	"strings"
	"testing"
)

func TestBootstrap(t *testing.T) {
	t.Parallel()
	w := newWorkspace(t, "bootstrap")
	variables := []string{"-var=bucket_prefix=flowviz-bootstrap", "-var=drift_repository=flowviz/flowagent"}
	w.succeed(t, append([]string{"apply", "-auto-approve"}, variables...)...)
	bucket := "flowviz-bootstrap-" + account

	t.Run("an applied bootstrap plans nothing", func(t *testing.T) {
		w.wantNoDifference(t, variables...)
	})

	t.Run("states are kept in versions, encrypted by a key, and private", func(t *testing.T) {
		versioning := ask[struct{ Status string }](t, "s3api", "get-bucket-versioning", "--bucket", bucket)
		if versioning.Status != "Enabled" {
			t.Errorf("versioning: got %q, want Enabled", versioning.Status)
		}
		encryption := ask[[]string](t, "s3api", "get-bucket-encryption", "--bucket", bucket,
			"--query", "ServerSideEncryptionConfiguration.Rules[].ApplyServerSideEncryptionByDefault.SSEAlgorithm")
		if len(encryption) != 1 || encryption[0] != "aws:kms" {
			t.Errorf("encryption: got %v, want aws:kms", encryption)
		}
		blocked := ask[map[string]bool](t, "s3api", "get-public-access-block", "--bucket", bucket, "--query", "PublicAccessBlockConfiguration")
		if len(blocked) != 4 {
			t.Errorf("public access: got %v, want four blocks", blocked)
		}
		for name, on := range blocked {
			if !on {
				t.Errorf("public access: %s is off", name)
			}
		}
	})

	t.Run("the drift role is for one branch of one repository, and reads", func(t *testing.T) {
		role := ask[struct {
			Role struct{ AssumeRolePolicyDocument document }
		}](t, "iam", "get-role", "--role-name", "terraform-drift")
		subject := role.Role.AssumeRolePolicyDocument.Statement[0].Condition["StringEquals"]["token.actions.githubusercontent.com:sub"]
		if got, want := strings.Join(subject, " "), "repo:flowviz/flowagent:ref:refs/heads/main"; got != want {
			t.Errorf("who may take the role: got %q, want %q", got, want)
		}
		attached := ask[[]string](t, "iam", "list-attached-role-policies", "--role-name", "terraform-drift", "--query", "AttachedPolicies[].PolicyName")
		if len(attached) != 1 || attached[0] != "ReadOnlyAccess" {
			t.Errorf("policies: got %v, want ReadOnlyAccess alone", attached)
		}
	})
}
