package secret_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	sm "github.com/aws/aws-sdk-go-v2/service/secretsmanager"
	"github.com/google/go-cmp/cmp"

	"github.com/flowviz/flowagent/agent/config"
	"github.com/flowviz/flowagent/agent/secret"
	"github.com/flowviz/flowagent/internal/awsfake"
	"github.com/flowviz/flowagent/test/lab"
)

// cloud is moto behind awsfake, with what tests prepare there.
type cloud struct {
	*awsfake.Server
	endpoint string // of the fake
	t        *testing.T
}

func newCloud(t *testing.T) *cloud {
	t.Helper()
	fake, err := awsfake.New(lab.Moto(t))
	if err != nil {
		t.Fatal(err)
	}
	return &cloud{fake, serve(t, fake), t}
}

func (c *cloud) deps() secret.Deps { return secret.Deps{AWS: awsAt(c.endpoint)} }

func (c *cloud) manager(region string) *sm.Client {
	cfg, err := awsAt(c.endpoint)(c.t.Context(), region)
	if err != nil {
		c.t.Fatal(err)
	}
	return sm.NewFromConfig(cfg)
}

// create makes a secret in the node's own region and returns its ARN and first version.
func (c *cloud) create(name, value string) (arn, version string) {
	c.t.Helper()
	out, err := c.manager("").CreateSecret(c.t.Context(), &sm.CreateSecretInput{Name: &name, SecretString: &value})
	if err != nil {
		c.t.Fatal(err)
	}
	return *out.ARN, *out.VersionId
}

// rotate puts a new version and returns its id.
func (c *cloud) rotate(name, value string) string {
	c.t.Helper()
	out, err := c.manager("").PutSecretValue(c.t.Context(), &sm.PutSecretValueInput{SecretId: &name, SecretString: &value})
	if err != nil {
		c.t.Fatal(err)
	}
	return *out.VersionId
}

func (c *cloud) remove(name string) {
	c.t.Helper()
	if _, err := c.manager("").DeleteSecret(c.t.Context(), &sm.DeleteSecretInput{SecretId: &name}); err != nil {
		c.t.Fatal(err)
	}
}

func smItem(name string, from config.SecretsManagerSource) config.Secret {
	return config.Secret{Name: name, From: config.Source{SecretsManager: &from}}
}

func TestFortyFiveSecretsTakeThreeBatches(t *testing.T) {
	c := newCloud(t)
	var cfg config.Secrets
	for i := range 45 {
		name := fmt.Sprintf("app/%02d", i)
		c.create(name, fmt.Sprintf(`{"password": "p%02d", "port": %d}`, i, i))
		cfg.Items = append(cfg.Items,
			smItem(fmt.Sprintf("password%02d", i), config.SecretsManagerSource{ID: name, Key: "password"}),
			smItem(fmt.Sprintf("port%02d", i), config.SecretsManagerSource{ID: name, Key: "port"}))
	}
	k := newKeeper(t, cfg, c.deps())
	if got := len(refresh(t, k)); got != 90 {
		t.Errorf("changed: got %d, want 90", got)
	}
	for i := range 45 {
		mustHold(t, k, fmt.Sprintf("password%02d", i), fmt.Sprintf("p%02d", i))
		mustHold(t, k, fmt.Sprintf("port%02d", i), fmt.Sprint(i))
	}
	if got := c.Calls("BatchGetSecretValue"); got != 3 {
		t.Errorf("batches: got %d, want 3", got)
	}
	if got := c.Calls("GetSecretValue"); got != 0 {
		t.Errorf("single reads: got %d, want none", got)
	}

	version := c.rotate("app/07", `{"password": "`+canary+`", "port": 7}`)
	if diff := cmp.Diff([]string{"password07"}, refresh(t, k)); diff != "" {
		t.Errorf("after the rotation (-want +got):\n%s", diff)
	}
	mustHold(t, k, "password07", canary)
	if got := statusOf(t, k, "password07").Version; got != version {
		t.Errorf("version: got %q, want %q", got, version)
	}

	// The batch action denied: every secret is still read, one by one, and later refreshes don't ask in vain.
	var log logBuffer
	deps := c.deps()
	deps.Log = log.logger()
	c.Inject("BatchGetSecretValue", awsfake.Always, awsfake.AccessDenied())
	k = newKeeper(t, cfg, deps)
	before := c.Calls("BatchGetSecretValue")
	refresh(t, k)
	mustHold(t, k, "password44", "p44")
	if got := c.Calls("GetSecretValue"); got != 45 {
		t.Errorf("single reads: got %d, want 45", got)
	}
	denied := c.Calls("BatchGetSecretValue") - before
	refresh(t, k)
	if got := c.Calls("BatchGetSecretValue") - before; got != denied {
		t.Errorf("batches after it was learnt that they are denied: got %d, want none", got-denied)
	}
	if got := strings.Count(log.String(), "secrets are read one by one"); got != 1 {
		t.Errorf("hints in the log: got %d, want 1:\n%s", got, log.String())
	}
	mustHide(t, "log", log.String())
}

func TestSecretsManagerReferencesOfEveryForm(t *testing.T) {
	c := newCloud(t)
	arn, first := c.create("flowviz/app", "one")
	second := c.rotate("flowviz/app", "two")
	binary := []byte{0, 1, 0xff, '\n'}
	if _, err := c.manager("").CreateSecret(t.Context(), &sm.CreateSecretInput{Name: aws.String("binary"), SecretBinary: binary}); err != nil {
		t.Fatal(err)
	}
	if _, err := c.manager("eu-west-1").CreateSecret(t.Context(), &sm.CreateSecretInput{Name: aws.String("flowviz/app"), SecretString: aws.String("europe")}); err != nil {
		t.Fatal(err)
	}
	foreign, err := c.manager("eu-west-1").DescribeSecret(t.Context(), &sm.DescribeSecretInput{SecretId: aws.String("flowviz/app")})
	if err != nil {
		t.Fatal(err)
	}
	// A secret whose name extends another's ARN must not be taken for it.
	c.create("flowviz/app-longer", "longer")

	id := "flowviz/app"
	k := newKeeper(t, items(
		smItem("name", config.SecretsManagerSource{ID: id}),
		smItem("arn", config.SecretsManagerSource{ID: arn}),
		smItem("partial", config.SecretsManagerSource{ID: arn[:len(arn)-len("-AbCdEf")]}),
		smItem("longer", config.SecretsManagerSource{ID: "flowviz/app-longer"}),
		smItem("binary", config.SecretsManagerSource{ID: "binary"}),
		smItem("current", config.SecretsManagerSource{ID: id, Stage: "AWSCURRENT"}),
		smItem("previous", config.SecretsManagerSource{ID: id, Stage: "AWSPREVIOUS"}),
		smItem("first", config.SecretsManagerSource{ID: id, VersionID: first}),
		smItem("region", config.SecretsManagerSource{ID: id, Region: "eu-west-1"}),
		smItem("foreign arn", config.SecretsManagerSource{ID: *foreign.ARN}),
	), c.deps())
	refresh(t, k)
	for name, want := range map[string]string{
		"name": "two", "arn": "two", "partial": "two", "longer": "longer", "binary": string(binary), "current": "two",
		"previous": "one", "first": "one", "region": "europe", "foreign arn": "europe",
	} {
		mustHold(t, k, name, want)
	}
	for name, want := range map[string][2]string{
		"name":     {second, "secretsManager:flowviz/app"},
		"previous": {first, "secretsManager:flowviz/app@AWSPREVIOUS"},
		"first":    {first, "secretsManager:flowviz/app@" + first},
	} {
		s := statusOf(t, k, name)
		if got := [2]string{s.Version, s.Source}; got != want {
			t.Errorf("version and source of %s: got %q, want %q", name, got, want)
		}
	}
	// A batch for the node's region, one for the region of the ARNs and one for Ireland; one read for each version that
	// is not the current one.
	if got := [2]int{c.Calls("BatchGetSecretValue"), c.Calls("GetSecretValue")}; got != [2]int{3, 2} {
		t.Errorf("batches and single reads: got %v, want [3 2]", got)
	}
}

func TestASingleSecretNeedsNoBatch(t *testing.T) {
	c := newCloud(t)
	c.create("app", `{"a": 1, "b": 2}`)
	k := newKeeper(t, items(smItem("a", config.SecretsManagerSource{ID: "app", Key: "a"}), smItem("b", config.SecretsManagerSource{ID: "app", Key: "b"})), c.deps())
	refresh(t, k)
	if got := [2]int{c.Calls("BatchGetSecretValue"), c.Calls("GetSecretValue")}; got != [2]int{0, 1} {
		t.Errorf("batches and single reads: got %v, want [0 1]", got)
	}
}

func TestSecretsManagerFailuresDecideOnEachSecretAlone(t *testing.T) {
	c := newCloud(t)
	for _, name := range []string{"good", "deleted", "denied", "broken", "undecryptable"} {
		c.create(name, canary+name)
	}
	var cfg config.Secrets
	for _, name := range []string{"good", "deleted", "denied", "broken", "undecryptable"} {
		cfg.Items = append(cfg.Items, smItem(name, config.SecretsManagerSource{ID: name}))
	}
	var log logBuffer
	deps := c.deps()
	deps.Log = log.logger()
	k := newKeeper(t, cfg, deps)
	refresh(t, k)

	c.remove("deleted")
	c.Inject("BatchGetSecretValue", 1, awsfake.PartialBatch(map[string]string{
		"denied": "AccessDeniedException", "broken": "InternalServiceError", "undecryptable": "DecryptionFailure",
	}))
	changed, err := refuse(t, k)
	if diff := cmp.Diff([]string{"deleted", "denied", "undecryptable"}, changed); diff != "" {
		t.Errorf("changed (-want +got):\n%s", diff)
	}
	mustSay(t, err, "secret deleted from secretsManager:deleted: not found", "secret denied from secretsManager:denied: access denied", "allow secretsmanager:GetSecretValue", "secret broken", "InternalServiceError", "kms:Decrypt")
	mustHold(t, k, "good", canary+"good")
	mustHold(t, k, "broken", canary+"broken")
	for name, want := range map[string]secret.State{"good": secret.Fresh, "broken": secret.Stale, "deleted": secret.Withdrawn, "denied": secret.Withdrawn, "undecryptable": secret.Withdrawn} {
		mustBeIn(t, k, name, want)
	}
	mustHide(t, "error", err.Error())
	mustHide(t, "log", log.String())

	changed, _ = refuse(t, k) // still deleted
	if diff := cmp.Diff([]string{"denied", "undecryptable"}, changed); diff != "" {
		t.Errorf("once they may be read again (-want +got):\n%s", diff)
	}
}

func TestSecretsManagerInTroubleKeepsEverySecret(t *testing.T) {
	const session = "IQoJb3JpZ2luX2VjE" // the node's own, which no keeper of secrets knows to hide
	c := newCloud(t)
	c.create("a", canary)
	c.create("b", canary)
	k := newKeeper(t, items(smItem("a", config.SecretsManagerSource{ID: "a"}), smItem("b", config.SecretsManagerSource{ID: "b"})), c.deps())
	refresh(t, k)
	for name, fault := range map[string]awsfake.Fault{
		"5xx":             awsfake.Unavailable(),
		"throttled":       awsfake.Throttled(),
		"lost reply":      awsfake.LoseReply(),
		"expired token":   awsfake.Refuse(http.StatusBadRequest, "ExpiredTokenException", "The security token included in the request is expired"),
		"wrong signature": awsfake.Refuse(http.StatusBadRequest, "InvalidSignatureException", "should have been 'POST x-amz-security-token:"+session),
		"proxy's page": func(http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "<html>"+canary+"</html>") })
		},
	} {
		t.Run(name, func(t *testing.T) {
			c.Inject("BatchGetSecretValue", awsfake.Always, fault)
			defer c.Heal("BatchGetSecretValue")
			changed, err := refuse(t, k)
			if changed != nil {
				t.Errorf("got changed %v, want none", changed)
			}
			mustBeOnly(t, err, secret.ErrUnavailable)
			mustHide(t, "error", err.Error())
			if strings.Contains(err.Error(), session) {
				t.Errorf("got %q, which holds the session's token", err)
			}
			mustHold(t, k, "a", canary)
			mustBeIn(t, k, "a", secret.Stale)
		})
	}
	t.Run("hanging", func(t *testing.T) {
		c.Inject("BatchGetSecretValue", awsfake.Always, awsfake.Hang())
		defer c.Heal("BatchGetSecretValue")
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		_, err := k.Refresh(ctx)
		mustBeOnly(t, err, secret.ErrUnavailable)
		mustSay(t, err, "no answer")
		mustHold(t, k, "b", canary)
	})
	if got := c.Calls("GetSecretValue"); got != 0 {
		t.Errorf("single reads of a service in trouble: got %d, want none", got)
	}
	if changed := refresh(t, k); changed != nil {
		t.Errorf("after the trouble: got changed %v, want none", changed)
	}
	mustBeIn(t, k, "a", secret.Fresh)
}

func TestOneMalformedIdSpoilsNoBatch(t *testing.T) {
	c := newCloud(t)
	c.create("good", "fine")
	c.Inject("BatchGetSecretValue", 1, awsfake.Refuse(http.StatusBadRequest, "InvalidParameterException", "Invalid id"))
	k := newKeeper(t, items(smItem("good", config.SecretsManagerSource{ID: "good"}), smItem("bad", config.SecretsManagerSource{ID: "not there"})), c.deps())
	_, err := refuse(t, k)
	mustBeOnly(t, err, secret.ErrNotFound)
	mustHold(t, k, "good", "fine")
	mustLack(t, k, "bad")
}

func TestABatchThatComesInPagesOrLeavesSecretsOutIsCompleted(t *testing.T) {
	c := newCloud(t)
	for _, name := range []string{"a", "b", "c"} {
		c.create(name, "value of "+name)
	}
	pages := []string{
		`{"SecretValues": [{"ARN": "arn:aws:secretsmanager:us-east-1:123456789012:secret:b-AbCdEf", "Name": "b", "SecretString": "value of b", "VersionId": "v"}], "Errors": [], "NextToken": "more"}`,
		`{"SecretValues": [{"ARN": "arn:aws:secretsmanager:us-east-1:123456789012:secret:a-AbCdEf", "Name": "a", "SecretString": "value of a", "VersionId": "v"}], "Errors": []}`,
	}
	c.Handle("BatchGetSecretValue", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/x-amz-json-1.1")
		fmt.Fprint(w, pages[0])
		pages = slices.Delete(pages, 0, 1)
	}))
	k := newKeeper(t, items(smItem("a", config.SecretsManagerSource{ID: "a"}), smItem("b", config.SecretsManagerSource{ID: "b"}), smItem("c", config.SecretsManagerSource{ID: "c"})), c.deps())
	refresh(t, k)
	for _, name := range []string{"a", "b", "c"} {
		mustHold(t, k, name, "value of "+name)
	}
	if got := c.Calls("GetSecretValue"); got != 1 {
		t.Errorf("single reads: got %d, want 1, of the secret that no page had", got)
	}
}

func TestAWSThatIsNotSetUpIsUnavailable(t *testing.T) {
	var tries atomic.Int64
	deps := secret.Deps{AWS: func(context.Context, string) (aws.Config, error) {
		tries.Add(1)
		return aws.Config{}, errors.New("no region: set AWS_REGION")
	}}
	k := newKeeper(t, items(smItem("a", config.SecretsManagerSource{ID: "a"}), ssmItem("b", "b", "")), deps)
	for range 2 {
		_, err := refuse(t, k)
		mustSay(t, err, "secret a", "secret b", "AWS is not set up: no region: set AWS_REGION")
		mustBeOnly(t, err, secret.ErrUnavailable)
	}
	if got := tries.Load(); got != 4 {
		t.Errorf("got %d tries, want 4: a failure must not be kept", got)
	}
}

// silent is an HTTP client whose servers never answer.
type silent struct{}

func (silent) Do(r *http.Request) (*http.Response, error) {
	<-r.Context().Done()
	return nil, r.Context().Err()
}

func TestARefreshOfHangingServicesEndsInTime(t *testing.T) {
	for _, c := range []struct {
		secrets int
		want    time.Duration
	}{{1, 10 * time.Second}, {100, 20 * time.Second}} {
		synctest.Test(t, func(t *testing.T) {
			deps := secret.Deps{AWS: func(ctx context.Context, region string) (aws.Config, error) {
				cfg, err := awsAt("http://127.0.0.1:1")(ctx, region)
				cfg.HTTPClient = silent{}
				return cfg, err
			}}
			var cfg config.Secrets
			for i := range c.secrets {
				cfg.Items = append(cfg.Items,
					smItem(fmt.Sprintf("sm%d", i), config.SecretsManagerSource{ID: fmt.Sprint(i), Stage: "AWSPENDING"}),
					ssmItem(fmt.Sprintf("ssm%d", i), fmt.Sprint(i), ""))
			}
			k := newKeeper(t, cfg, deps)
			start := time.Now()
			_, err := refuse(t, k)
			if got := time.Since(start); got != c.want {
				t.Errorf("%d secrets: got an end after %s, want %s", c.secrets, got, c.want)
			}
			mustBeOnly(t, err, secret.ErrUnavailable)
			mustSay(t, err, "secret sm0 ", "secret ssm0 ", fmt.Sprintf("secret sm%d ", c.secrets-1), "no answer")
		})
	}
}
