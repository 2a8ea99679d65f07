package e2e

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"filippo.io/age"
	"github.com/goccy/go-yaml"
	"github.com/moby/moby/api/pkg/authconfig"
	"github.com/moby/moby/api/types/registry"
	"github.com/moby/moby/client"

	"github.com/flowviz/flowagent/internal/awsfake"
	"github.com/flowviz/flowagent/test/lab"
)

// scene is case.yaml: what surrounds a node, and what must come of it.
type scene struct {
	// Age is encrypted as secrets.age beside config.yaml; its identity is age.key.
	Age map[string]any `yaml:"age"`
	// SecretsManager holds secrets by name; it is reached with credentials from the environment, or through the
	// instance's role where there is userData.
	SecretsManager map[string]string `yaml:"secretsManager"`
	// AWS has calls that go wrong, by action: denied, throttled or unavailable.
	AWS map[string]string `yaml:"aws"`
	// Registry is one of lab.Names, or "local" for one on 127.0.0.1. It holds ${APP}, which the engine doesn't have then.
	Registry string `yaml:"registry"`
	// UserData makes the machine an EC2 instance with this user data.
	UserData string `yaml:"userData"`

	// Ready is for boots, Refused for refusals.
	Ready   *readiness `yaml:"ready"`
	Refused *refusal   `yaml:"refused"`
}

// readiness is what the status of a ready node must say, and what its containers must read.
type readiness struct {
	Provider    string            `yaml:"provider"`
	Environment string            `yaml:"environment"`
	Services    map[string]string `yaml:"services"` // phase by name
	Secrets     map[string]string `yaml:"secrets"`  // state by name
	// Files are contents by service and path; Modes are "MODE UID:GID" by service and path.
	Files map[string]map[string]string `yaml:"files"`
	Modes map[string]map[string]string `yaml:"modes"`
}

// refusal is how an agent that can't start must end.
type refusal struct {
	Exit int `yaml:"exit"`
	// Says are parts of the last thing it prints; Warns are parts of its events.
	Says  []string `yaml:"says"`
	Warns []string `yaml:"warns"`
	// Never is what must not be printed, besides every secret.
	Never []string `yaml:"never"`
}

// furnish reads dir's case.yaml, if it has one, sets up what it asks for, and copies the directory into the node.
func (n *node) furnish(dir string) {
	n.t.Helper()
	content, err := os.ReadFile(filepath.Join(dir, "case.yaml"))
	if err != nil && !os.IsNotExist(err) {
		n.t.Fatal(err)
	}
	if n.expand == nil {
		n.expand = map[string]string{"@DIR@": n.etc()}
	}
	var s scene
	decode := func() {
		s = scene{}
		if err := yaml.NewDecoder(strings.NewReader(n.expanded(string(content))), yaml.Strict()).Decode(&s); err != nil && len(content) > 0 {
			n.t.Fatalf("%s/case.yaml: %v", dir, err)
		}
	}
	decode()
	if s.Registry != "" {
		n.useRegistry(s.Registry)
		decode() // a secret may hold the registry's password
	}
	if s.Age != nil {
		n.encrypt(s.Age)
	}
	if s.UserData != "" {
		n.onEC2(s.UserData)
	} else {
		n.awayFromEC2()
	}
	if s.SecretsManager != nil || s.AWS != nil {
		if n.aws == nil {
			n.useAWS(s.UserData != "")
		}
		for name, value := range s.SecretsManager {
			n.createSecret(name, value)
		}
	}
	for action, name := range s.AWS {
		fault, known := map[string]awsfake.Fault{
			"denied": awsfake.AccessDenied(), "throttled": awsfake.Throttled(), "unavailable": awsfake.Unavailable(),
		}[name]
		if !known {
			n.t.Fatalf("%s/case.yaml: AWS can't be %q", dir, name)
		}
		n.aws.Inject(action, awsfake.Always, fault)
	}
	n.scene = s
	n.copyIn(dir)
}

// expanded fills in the places of a case's file.
func (n *node) expanded(text string) string {
	for place, value := range n.expand {
		text = strings.ReplaceAll(text, place, value)
	}
	return text
}

// copyIn puts the files of dir where the agent reads them, over those that are there.
func (n *node) copyIn(dir string) {
	n.t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		n.t.Fatal(err)
	}
	for _, entry := range entries {
		if entry.Name() == "case.yaml" {
			continue
		}
		content, err := os.ReadFile(filepath.Join(dir, entry.Name()))
		if err != nil {
			n.t.Fatal(err)
		}
		n.write(entry.Name(), n.expanded(string(content)))
	}
}

// encrypt writes document, encrypted for the node, as secrets.age.
func (n *node) encrypt(document map[string]any) {
	n.t.Helper()
	n.learn(document)
	identity, err := age.GenerateX25519Identity()
	if err != nil {
		n.t.Fatal(err)
	}
	plain, err := yaml.Marshal(document)
	if err != nil {
		n.t.Fatal(err)
	}
	var encrypted bytes.Buffer
	w, err := age.Encrypt(&encrypted, identity.Recipient())
	if err != nil {
		n.t.Fatal(err)
	}
	if _, err := w.Write(plain); err != nil {
		n.t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		n.t.Fatal(err)
	}
	n.write("age.key", identity.String()+"\n")
	n.write("secrets.age", encrypted.String())
}

// learn keeps every text of a document as a secret that must not be shown.
func (n *node) learn(value any) {
	switch value := value.(type) {
	case map[string]any:
		for _, part := range value {
			n.learn(part)
		}
	case []any:
		for _, part := range value {
			n.learn(part)
		}
	case string:
		var document map[string]any
		if json.Unmarshal([]byte(value), &document) == nil {
			n.learn(document)
			return
		}
		if len(value) >= shortestSecret {
			n.secrets = append(n.secrets, value)
		}
	}
}

// shortestSecret is what can be searched for: shorter texts turn up by chance.
const shortestSecret = 8

// useRegistry starts a registry that has ${APP}; the engine hasn't.
func (n *node) useRegistry(host string) {
	n.t.Helper()
	if host == "local" {
		n.registry = lab.Registry(n.t)
	} else {
		n.registry = lab.RegistryAt(n.t, host)
	}
	n.expand["@REGISTRY@"] = n.registry.Host
	n.expand["@REGISTRY_PASSWORD@"] = n.registry.Password
	n.app = n.push(n.registry.Host+"/"+n.project+"/app:1", nil)
}

// useSlowRegistry is useRegistry for a local one, at whose door answers can be made to wait. It needs secretsManager.
func (n *node) useSlowRegistry() {
	n.t.Helper()
	n.registry = lab.Registry(n.t)
	n.slow = newNarrow(n.t, n.registry.Host)
	noise := make([]byte, 4*largeAnswer)
	if _, err := rand.Read(noise); err != nil {
		n.t.Fatal(err)
	}
	n.app = n.push(n.slow.address+"/"+n.project+"/app:1", map[string][]byte{"/noise": noise})
	n.nameRegistry("e2e/registry", n.slow.address)
}

// useRegistryFor is useRegistry for a local one, whose password is a secret of that name. It needs secretsManager.
func (n *node) useRegistryFor(secret string) {
	n.t.Helper()
	n.registry = lab.Registry(n.t)
	n.app = n.push(n.registry.Host+"/"+n.project+"/app:1", nil)
	n.nameRegistry(secret, n.registry.Host)
}

// nameRegistry has the configuration name the node's registry, and a secret hold its password.
func (n *node) nameRegistry(secret, host string) {
	n.t.Helper()
	n.createSecret(secret, n.registry.Password)
	n.dropIn("50-registry.yaml", fmt.Sprintf(`secrets:
  items: [{name: registry_password, from: {secretsManager: {id: %s}}}]
registries: [{host: %q, username: %s, passwordSecret: registry_password}]
`, secret, host, n.registry.Username))
	n.settle()
}

// push sends an image of test/lab/app with some more files to the node's registry, and leaves it there alone.
func (n *node) push(ref string, files map[string][]byte) string {
	n.t.Helper()
	// Of its own content: removing it must not remove another test's image.
	all := map[string][]byte{"/etc/e2e": []byte(ref)}
	for name, content := range files {
		all[name] = content
	}
	lab.AppImageWith(n.t, ref, all)
	n.t.Cleanup(n.halt) // before the image is removed
	auth, err := authconfig.Encode(registry.AuthConfig{Username: n.registry.Username, Password: n.registry.Password})
	if err != nil {
		n.t.Fatal(err)
	}
	push, err := n.engine.ImagePush(n.t.Context(), ref, client.ImagePushOptions{RegistryAuth: auth})
	if err != nil {
		n.t.Fatal(err)
	}
	if err := push.Wait(n.t.Context()); err != nil {
		n.t.Fatalf("push %s: %v", ref, err)
	}
	n.forget(ref)
	return ref
}

// forget removes an image from the engine.
func (n *node) forget(ref string) {
	n.t.Helper()
	if _, err := n.engine.ImageRemove(n.t.Context(), ref, client.ImageRemoveOptions{PruneChildren: true}); err != nil {
		n.t.Fatal(err)
	}
}

// cases are the directories below dir.
func cases(t *testing.T, dir string) []string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(dir, "*", "config.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	if len(found) == 0 {
		t.Fatalf("no case in %s", dir)
	}
	for i := range found {
		found[i] = filepath.Dir(found[i])
	}
	return found
}
