package config

import (
	"bytes"
	"encoding/json"
	"path/filepath"
	"testing"

	"github.com/goccy/go-yaml"
	"github.com/santhosh-tekuri/jsonschema/v6"
)

// compileSchema compiles what Schema publishes.
func compileSchema(t testing.TB) *jsonschema.Schema {
	t.Helper()
	document, err := jsonschema.UnmarshalJSON(bytes.NewReader(Schema()))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	if err := c.AddResource("schema.json", document); err != nil {
		t.Fatal(err)
	}
	compiled, err := c.Compile("schema.json")
	if err != nil {
		t.Fatal(err)
	}
	return compiled
}

// asJSON reads YAML the way an editor does, without any of this package's own reading.
func asJSON(t testing.TB, data []byte) any {
	t.Helper()
	var value any
	if err := yaml.Unmarshal(bytes.TrimPrefix(data, utf8BOM), &value); err != nil {
		t.Fatalf("YAML: %v", err)
	}
	text, err := json.Marshal(value)
	if err != nil {
		t.Fatal(err)
	}
	document, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	return document
}

func TestEveryExampleIsAcceptedByTheSchemaAndByParse(t *testing.T) {
	published := compileSchema(t)
	for path, data := range examples(t) {
		if err := published.Validate(asJSON(t, data)); err != nil {
			t.Errorf("%s: schema: %v", path, err)
		}
		if _, err := Parse(Layer{Name: "/etc/flowagent/" + filepath.Base(path), Data: data}); err != nil {
			t.Errorf("%s: %v", path, err)
		}
	}
}

func TestTheSchemaRefusesWhatAnEditorCanTell(t *testing.T) {
	published := compileSchema(t)
	for _, document := range []string{
		"apiVersion: flowagent/v2",
		"kind: Fleet",
		"nodes: {}",
		"node: {provider: azure}",
		"secrets: {refresh: 5}",
		"secrets: {items: [{from: {file: {path: /x}}}]}",
		"secrets: {items: [{name: a b}]}",
		"secrets: {items: [{name: a, value: x}]}",
		"secrets: {items: [{name: a, from: {}}]}",
		"secrets: {items: [{name: a, from: {file: {path: /x}, age: {file: /x}}}]}",
		"secrets: {items: [{name: a, onChange: maybe}]}",
		"secrets: {items: [{name: a, onChange: {signal: SIGKILL}}]}",
		"secrets: {items: [{name: a, from: {age: {file: /x, key: a..b}}}]}",
		"secrets: {vault: {address: vault.local}}",
		"registries: [{username: u}]",
		"registries: [{host: 'https://x'}]",
		"registries: [{host: x, password: y}]",
		"workload: {project: App}",
		"workload: {files: compose.yaml}",
		"workload: {files: [a, a]}",
		"workload: {files: ['']}",
		"workload: {variables: {A: 1.10}}",
		"workload: {variables: {'a b': c}}",
		"workload: {engine: 'tcp://x'}",
		"workload: {pull: {parallel: 33}}",
		"workload: {pull: {parallel: '4'}}",
		"workload: {pull: {policy: sometimes}}",
		"workload: {cleanUp: {minFree: 10}}",
		"health: {listen: localhost}",
		"health: {checks: {}}",
		"health: {checks: [{tcp: {address: 'x:1'}}]}",
		"health: {checks: [{name: a, tcp: {address: x}}]}",
		"health: {checks: [{name: a, tcp: {address: 'x:1'}, file: {path: /x}}]}",
		"health: {checks: [{name: a, rise: 0}]}",
		"health: {checks: [{name: a, scope: fleet}]}",
		"health: {checks: [{name: a, gate: sometimes}]}",
		"health: {checks: [{name: a, redis: {primary: 'yes'}}]}",
		"health: {checks: [{name: a, http: {statuses: [99]}}]}",
		"health: {checks: [{name: a, disk: {warn: 10}}]}",
		"health: {checks: [{name: a, systemd: {unit: nginx}}]}",
		"health: {checks: [{name: a/b}]}",
		"lifecycle: {launchHook: 'a b'}",
		"lifecycle: {rebalance: maybe}",
		"drain: {order: [a b]}",
	} {
		if published.Validate(asJSON(t, []byte(document))) == nil {
			t.Errorf("accepted: %s", document)
		}
	}
}

func TestTheSchemaAcceptsAPartialLayer(t *testing.T) {
	published := compileSchema(t)
	for _, document := range []string{
		"{}",
		"drain: {budget: 5m}",
		"drain: null",
		"node: {provider: null}",
		"workload: {variables: {TAG: null}, cleanUp: {minFree: 0}}",
		"secrets: {items: [{name: a, onChange: {signal: SIGRTMIN+3}}]}",
		"secrets: {items: [{name: a, from: {age: {key: ''}, file: null}}]}",
		"registries: [{host: '[::1]:5000', ecr: null}]",
		"health: {checks: [{name: a, interval: 10s}, {name: b, tcp: null, gate: null}]}",
		"health: {checks: [{name: a, clock: {}, file: null}]}",
	} {
		if err := published.Validate(asJSON(t, []byte(document))); err != nil {
			t.Errorf("%s: %v", document, err)
		}
	}
}

func TestTheStarterHasEverySectionAndIsCommented(t *testing.T) {
	var sections map[string]any
	if err := yaml.Unmarshal(Starter(), &sections); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"apiVersion", "kind", "node", "secrets", "registries", "workload", "health", "drain"} {
		if _, found := sections[name]; !found {
			t.Errorf("the starter has no %s", name)
		}
	}
	if got := bytes.Count(Starter(), []byte("#")); got < 20 {
		t.Errorf("got %d comments, want the starter to explain itself", got)
	}
}
