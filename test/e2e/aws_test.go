package e2e

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync/atomic"

	"github.com/aws/aws-sdk-go-v2/credentials"
	sm "github.com/aws/aws-sdk-go-v2/service/secretsmanager"

	"github.com/flowviz/flowagent/internal/awsfake"
	"github.com/flowviz/flowagent/test/lab"
)

const (
	region = "us-east-1" // the metadata mock's own
	// ecrAccount is the account in the name of the ECR registry; a lab has one, so one node at a time.
	ecrAccount = "123456789012"
)

var accounts atomic.Int64

// useAWS gives the node an AWS of its own: moto, with awsfake in front.
func (n *node) useAWS(instance bool) {
	n.t.Helper()
	fake, err := awsfake.New(motoURL(n.t))
	if err != nil {
		n.t.Fatal(err)
	}
	account := fmt.Sprintf("%012d", 200000000000+accounts.Add(1))
	if n.registry != nil && strings.HasPrefix(n.registry.Host, ecrAccount) {
		account = ecrAccount // moto's token has to be the one that the registry takes
	}
	if !instance {
		n.env["AWS_ACCESS_KEY_ID"], n.env["AWS_SECRET_ACCESS_KEY"] = "testing", "testing"
		n.env["AWS_REGION"] = region
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.Header.Set("X-Moto-Account-Id", account)
		fake.ServeHTTP(w, r)
	}))
	n.t.Cleanup(server.Close)
	n.aws = fake
	n.env["AWS_ENDPOINT_URL"] = server.URL
	n.vault = sm.New(sm.Options{
		BaseEndpoint: &server.URL, Region: region,
		Credentials: credentials.NewStaticCredentialsProvider("testing", "testing", ""),
	})
}

// awayFromEC2 fails the test when the node, which is no instance, asks a metadata service.
func (n *node) awayFromEC2() {
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		n.t.Errorf("a node that is no instance asked the metadata service for %s", r.URL.Path)
	}))
	n.t.Cleanup(server.Close)
	n.env["AWS_EC2_METADATA_SERVICE_ENDPOINT"] = server.URL
}

// announcements are what EC2 says to an instance; empty for nothing.
type announcements struct {
	state     string // target lifecycle state
	spot      string // instance action, as JSON
	rebalance string // recommendation, as JSON
}

// onEC2 starts a metadata service with this user data, for an instance in service.
func (n *node) onEC2(userData string) {
	n.t.Helper()
	n.userData = userData
	n.find(announcements{state: "InService"})
}

// find has the next agent hear this with its first question: its metadata service is another one, which starts with it.
func (n *node) find(a announcements) {
	n.t.Helper()
	n.metadata = lab.MetadataService(n.t, n.metadataConfig(a))
	n.env["AWS_EC2_METADATA_SERVICE_ENDPOINT"] = n.metadata.URL
}

// announce changes what EC2 says to an agent that runs, which hears of it a moment later.
func (n *node) announce(a announcements) {
	n.t.Helper()
	if err := n.metadata.Configure(n.metadataConfig(a)); err != nil {
		n.t.Fatal(err)
	}
}

// metadataConfig has the mock announce nothing by itself: it serves other values at the paths of announcements.
func (n *node) metadataConfig(a announcements) string {
	n.t.Helper()
	const latest = "/latest/meta-data/"
	config, err := json.Marshal(map[string]any{
		"userdata": map[string]any{"values": map[string]any{
			"userdata": base64.StdEncoding.EncodeToString([]byte(n.userData)),
		}},
		"metadata": map[string]any{
			"paths": map[string]any{
				"target-lifecycle-state": latest + "unused/1", "spot": latest + "unused/2",
				"rebalance-rec-time": latest + "unused/3", "events": latest + "unused/4",
				"kernel-id": latest + "autoscaling/target-lifecycle-state", "ramdisk-id": latest + "spot/instance-action",
				"product-codes": latest + "events/recommendations/rebalance",
			},
			"values": map[string]any{"kernel-id": a.state, "ramdisk-id": a.spot, "product-codes": a.rebalance, "instance-life-cycle": "spot"},
		},
	})
	if err != nil {
		n.t.Fatal(err)
	}
	return string(config)
}

func (n *node) createSecret(name, value string) {
	n.t.Helper()
	n.learn(value)
	if _, err := n.vault.CreateSecret(n.t.Context(), &sm.CreateSecretInput{Name: &name, SecretString: &value}); err != nil {
		n.t.Fatal(err)
	}
}

// rotate gives a secret a new value.
func (n *node) rotate(name, value string) {
	n.t.Helper()
	n.learn(value)
	if _, err := n.vault.PutSecretValue(n.t.Context(), &sm.PutSecretValueInput{SecretId: &name, SecretString: &value}); err != nil {
		n.t.Fatal(err)
	}
}

func (n *node) rotateBinary(name string, value []byte) {
	n.t.Helper()
	if _, err := n.vault.PutSecretValue(n.t.Context(), &sm.PutSecretValueInput{SecretId: &name, SecretBinary: value}); err != nil {
		n.t.Fatal(err)
	}
}

func (n *node) deleteSecret(name string) {
	n.t.Helper()
	now := true
	if _, err := n.vault.DeleteSecret(n.t.Context(), &sm.DeleteSecretInput{SecretId: &name, ForceDeleteWithoutRecovery: &now}); err != nil {
		n.t.Fatal(err)
	}
}

// environment is the agent's whole environment.
func (n *node) environment() []string {
	env := []string{"PATH=" + os.Getenv("PATH")}
	for name, value := range n.env {
		env = append(env, name+"="+value)
	}
	return env
}
