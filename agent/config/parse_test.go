package config

import (
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write the problems of testdata/invalid/*.yaml to the files beside them")

// base is the least a main file holds.
const base = "apiVersion: flowagent/v1\nkind: Node\nworkload: {project: app, files: [/c.yaml]}\n"

func layer(name, data string) Layer { return Layer{Name: name, Data: []byte(data)} }

func mustParse(t *testing.T, layers ...Layer) *Loaded {
	t.Helper()
	loaded, err := Parse(layers...)
	if err != nil {
		t.Fatalf("Parse: %v", err)
	}
	return loaded
}

// problemsOf parses what must not parse.
func problemsOf(t *testing.T, layers ...Layer) Problems {
	t.Helper()
	_, err := Parse(layers...)
	var problems Problems
	if !errors.As(err, &problems) || len(problems) == 0 {
		t.Fatalf("Parse: got %v, want Problems", err)
	}
	return problems
}

// problemsIn parses a fragment beside the base.
func problemsIn(t *testing.T, fragment string) string {
	t.Helper()
	return problemsOf(t, layer("/etc/main.yaml", base), layer("/etc/more.yaml", fragment)).Error()
}

func TestEveryProblemIsReportedAtOnceWithItsPlace(t *testing.T) {
	files, err := filepath.Glob("testdata/invalid/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no test data: %v", err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			got := problemsOf(t, layer("/etc/flowagent/config.yaml", string(data))).Error() + "\n"
			if strings.Contains(got, "hunter2") {
				t.Errorf("a pasted secret is repeated:\n%s", got)
			}
			golden := strings.TrimSuffix(file, ".yaml") + ".txt"
			if *update {
				if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), got); diff != "" {
				t.Errorf("problems (-want +got):\n%s", diff)
			}
		})
	}
}

func TestADocumentThatSetsLittleGetsTheDefaults(t *testing.T) {
	got := mustParse(t, layer("/etc/flowagent/config.yaml", base)).Config
	want := Default()
	want.Workload.Project = "app"
	want.Workload.Files = []string{"/c.yaml"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("config (-want +got):\n%s", diff)
	}
}

func TestEveryKindOfValueIsRead(t *testing.T) {
	data, err := os.ReadFile("testdata/onprem.yaml")
	if err != nil {
		t.Fatal(err)
	}
	got := mustParse(t, layer("/etc/flowagent/config.yaml", string(data))).Config
	want := Default()
	want.Node = Node{Environment: "factory-7", Provider: ProviderLocal}
	want.Secrets = Secrets{
		Age: AgeIdentity{IdentityFile: "/etc/flowagent/age.key"},
		Vault: Vault{
			Address:   "https://vault.factory.local:8200",
			Namespace: "plant",
			CAFile:    "/etc/flowagent/vault-ca.pem",
			AppRole:   &VaultAppRole{Mount: "approle", RoleID: "675a50e7-cfe0-be76-e35f-49ec009731ea", SecretIDCredential: "vault-secret-id"},
		},
		Items: []Secret{
			{Name: "registry_password", From: Source{Age: &AgeSource{File: "/etc/flowagent/secrets.age", Key: "registry.password"}}},
			{Name: "session_key", From: Source{Credential: &CredentialSource{Name: "flowviz.session-key"}}},
			{Name: "license", From: Source{File: &FileSource{Path: "/etc/flowviz/license.json", Key: `a\.b.0`}}},
			{Name: "db_password", From: Source{Vault: &VaultSource{Mount: "kv", Path: "team/app", Key: "db.password", Version: 4}}, OnChange: OnChange{Signal: "SIGUSR1"}},
		},
	}
	want.Registries = []Registry{
		{Host: "registry.factory.local", Username: "puller", PasswordSecret: "registry_password"},
		{Host: "docker.io"},
	}
	want.Workload.Project = "wms"
	want.Workload.Files = []string{"/etc/flowagent/compose.yaml"}
	want.Workload.Profiles = []string{"*"}
	want.Workload.Variables = map[string]string{"BANNER": "two\nlines\n", "EMPTY": ""}
	want.Workload.Engine = "unix:///run/docker.sock"
	want.Workload.Pull.Policy = PullNever
	want.Workload.Pull.Archives = "/etc/flowagent/images"
	want.Workload.Pull.BeginTimeout = Duration(time.Minute)
	want.Workload.Pull.IdleTimeout = Duration(1500 * time.Millisecond)
	want.Workload.Pull.TotalTimeout = Duration(90 * time.Minute)
	want.Workload.CleanUp = CleanUp{}
	want.Workload.Reconcile = Reconcile{Leave: []string{"db"}}
	want.Health.Listen = "127.0.0.1:9180"
	want.Notify.Webhook = &Webhook{
		URL: "https://hooks.factory.local/flowagent/", TokenSecret: "registry_password", SigningSecret: "registry_password",
		Timeout: Duration(5 * time.Second), CAFile: "/etc/flowagent/factory.pem",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("config (-want +got):\n%s", diff)
	}
}

func TestAnItemsDefaultsAreFilledIn(t *testing.T) {
	loaded := mustParse(t, layer("/etc/main.yaml", base+`
secrets:
  vault: {address: "https://v", tokenFile: /t}
  items:
    - {name: a, from: {secretsManager: {id: x}}}
    - {name: b, from: {secretsManager: {id: x, versionId: v}}}
    - {name: c, from: {vault: {path: x}}}
`))
	items := loaded.Config.Secrets.Items
	if got := items[0].From.SecretsManager.Stage; got != "AWSCURRENT" {
		t.Errorf("stage: got %q, want AWSCURRENT", got)
	}
	if got := items[1].From.SecretsManager.Stage; got != "" {
		t.Errorf("stage beside a version id: got %q, want none", got)
	}
	if got := items[2].From.Vault.Mount; got != "secret" {
		t.Errorf("mount: got %q, want secret", got)
	}
	if got := loaded.Origins["secrets.items[a].from.secretsManager.stage"].String(); got != "default" {
		t.Errorf("origin of the stage: got %q, want default", got)
	}
}

func TestNoPartOfAPastedSecretIsRepeated(t *testing.T) {
	const canary = "hunter2Canary"
	for _, fragment := range []string{
		"secrets: CANARY",
		"secrets: [CANARY]",
		"secrets: {CANARY: }",
		"secrets: {'CANARY x': 1}",
		"secrets: {refresh: CANARY}",
		"secrets: {refresh: 5mCANARY}",
		"secrets: {items: CANARY}",
		"secrets: {items: {db: CANARY}}",
		"secrets: {items: [CANARY]}",
		"secrets: {items: [{name: '  CANARY', from: {age: {file: /x}}}]}",
		"secrets: {items: [{name: a, from: CANARY}]}",
		"secrets: {items: [{name: a, from: {CANARY}}]}",
		"secrets: {items: [{name: a, from: {value: CANARY}}]}",
		"secrets: {items: [{name: a, from: {age: CANARY}}]}",
		"secrets: {items: [{name: a, from: {age: {file: /x, key: '.CANARY'}}}]}",
		"secrets: {items: [{name: a, from: {age: {file: /x, key: {CANARY: 1}}}}]}",
		"secrets: {items: [{name: a, from: {ssm: {name: '$CANARY'}}}]}",
		"secrets: {items: [{name: a, from: {ssm: {name: x, region: CANARY}}}]}",
		"secrets: {items: [{name: a, from: {vault: {path: '/CANARY', version: CANARY}}}]}",
		"secrets: {items: [{name: a, from: {age: {file: /x}}, onChange: CANARY}]}",
		"secrets: {items: [{name: a, from: {age: {file: /x}}, onChange: {signal: CANARY}}]}",
		"secrets: {items: [{name: a, from: {age: {file: /x}}, password: CANARY}]}",
		"secrets: {vault: {address: 'https://u:CANARY@x'}}",
		"secrets: {vault: {address: 'CANARY'}}",
		"secrets: {vault: {token: CANARY}}",
		"secrets: {vault: {appRole: {roleId: x, secretId: CANARY}}}",
		"secrets: {age: {identity: CANARY}}",
		"registries: [CANARY]",
		"registries: {CANARY: CANARY}",
		"registries: [{host: 'https://CANARY', password: CANARY}]",
		"registries: [{host: x, password: CANARY}]",
		"registries: [{host: x, passwd: CANARY, CANARY}]",
		"registries: [{host: x, username: u, passwordSecret: CANARY}]",
		"registries: [{host: x, username: u, passwordSecret: 'CANARY!'}]",
		"registries: [{host: x, username: [CANARY]}]",
		"registries: [{host: x, ecr: CANARY}]",
		"registries: [{host: x, ecr: {region: CANARY}}]",
		"workload: {variables: {A: [CANARY]}}",
		"workload: {variables: [DB_PASSWORD=CANARY]}",
		"workload: {variables: {DB_PASSWORD=CANARY: }}",
		"workload: {variables: {A: \"CANARY\\0\"}}",
		"secrets: 'CANARY",
		"secrets: \"CANARY",
		"secrets: {CANARY",
		"secrets: [CANARY",
		"secrets:\n\tCANARY: 1",
		"secrets:\n CANARY\n  x: CANARY",
		"secrets: CANARY: CANARY",
		"secrets: !CANARY x",
		"secrets: &CANARY x",
		"secrets: *CANARY",
		"secrets: @CANARY",
		"secrets: `CANARY",
		"secrets: %CANARY",
		"%CANARY\n---\na: 1",
		"%YAML CANARY\n---\na: 1",
		"secrets: |CANARY\n x",
		"secrets: >9CANARY\n x",
		"secrets: \"\\xCANARY\"",
		"? CANARY\n: 1",
		"CANARY",
		"secrets: \x00CANARY",
		"secrets: \xffCANARY",
	} {
		text := strings.ReplaceAll(fragment, "CANARY", canary)
		if got := problemsIn(t, text+"\n"); strings.Contains(got, canary) {
			t.Errorf("%q is repeated:\n%s", text, got)
		}
	}
}

func TestUnknownFieldsComeWithAHint(t *testing.T) {
	for _, c := range []struct{ fragment, want string }{
		{"workload: {pull: {paralel: 3}}", "workload.pull.paralel: unknown field (did you mean `parallel`?)"},
		{"workload: {clean_up: {keep: 3}}", "workload.clean_up: unknown field (did you mean `cleanUp`?)"},
		{"workload: {parallel: 3}", "workload.parallel: unknown field (it belongs to workload.pull)"},
		{"registries: [{host: x, username: u, password_secret: p}]", "did you mean `passwordSecret`?"},
		{"registries: [{host: x, password: p}]", "put it in a secret and name it with passwordSecret"},
		{"secrets: {vault: {token: t}}", "write the token to a file and name the file with tokenFile"},
		{"health: {checks: [{name: a, redis: {address: 'x:1', password: p}}]}", "put it in a secret and name it with passwordSecret"},
		{"health: {checks: [{name: a, postgres: {password: p}}]}", "put it in a secret and name it with login.passwordSecret"},
		{"lifecycle: {launchTimeout: 10s}", "lifecycle.launchTimeout: must be at least 1m"},
		{"node: {zzz: 1}", "its neighbours are environment, color, release or provider"},
		{"health: {listen: ':1', Listen: ':2'}", "did you mean `listen`?"},
	} {
		if got := problemsIn(t, c.fragment); !strings.Contains(got, c.want) {
			t.Errorf("%s:\ngot  %s\nwant %s", c.fragment, got, c.want)
		}
	}
}

func TestWhatIsWrongBecauseOfAnotherProblemIsNotReported(t *testing.T) {
	for _, c := range []struct{ name, data, want string }{
		{"a required field of the wrong type", "apiVersion: flowagent/v1\nkind: Node\nworkload: {project: 5, files: [/c]}\n",
			"/m:3:21: workload.project: this is a number where text belongs (quote it)"},
		{"a source that is misspelt", base + "secrets:\n  items:\n    - {name: a, from: {agee: {file: /x}}}\n",
			"/m:6:24: secrets.items[a].from.agee: unknown field (did you mean `age`?)"},
		{"a reference to an item whose name was refused", base + "secrets: {items: [{name: 'a b', from: {file: {path: /x}}}]}\nregistries: [{host: x, username: u, passwordSecret: a_b}]\n",
			"/m:4:26: secrets.items[0].name: must be letters"},
		{"anything beside a layer that is not YAML", "apiVersion: flowagent/v1\nkind: Node\nworkload: {project: \"app\n",
			"/m:3:21: could not find end character of double-quoted text (close the quote)"},
	} {
		t.Run(c.name, func(t *testing.T) {
			problems := problemsOf(t, layer("/m", c.data))
			for i, want := range strings.Split(c.want, "\n") {
				if i >= len(problems) || !strings.HasPrefix(problems[i].Error(), want) {
					t.Errorf("got\n%s\nwant\n%s", problems, c.want)
				}
			}
			if n := strings.Count(c.want, "\n") + 1; len(problems) != n {
				t.Errorf("got %d problems, want %d:\n%s", len(problems), n, problems)
			}
		})
	}
}

func TestProblemsAreSortedByLayerAndLine(t *testing.T) {
	problems := problemsOf(t,
		layer("/z.yaml", "apiVersion: flowagent/v1\nkind: Node\nworkload:\n  files: [/c]\ndrain: {budget: 0s}\n"),
		layer("/a.yaml", "drain: {order: [5]}\nnode: {provider: x, a: 1}\n"))
	var got []string
	for _, p := range problems {
		got = append(got, p.Origin.String())
	}
	want := []string{"/z.yaml:3:1", "/z.yaml:5:17", "/a.yaml:1:17", "/a.yaml:2:18", "/a.yaml:2:21"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("places (-want +got):\n%s", diff)
	}
}

func TestARegistryThatECRWouldNotRecogniseNeedsARegion(t *testing.T) {
	for host, ok := range map[string]bool{
		"123456789012.dkr.ecr.us-east-1.amazonaws.com":          true,
		"123456789012.dkr.ecr.cn-north-1.amazonaws.com.cn":      true,
		"123456789012.dkr.ecr-fips.us-gov-west-1.amazonaws.com": true,
		"123456789012.dkr-ecr.us-west-2.on.aws":                 true,
		"registry.factory.local":                                false,
		"12.dkr.ecr.us-east-1.amazonaws.com":                    false,
	} {
		_, err := Parse(layer("/m", base+"registries: [{host: "+host+", ecr: {}}]\n"))
		if (err == nil) != ok {
			t.Errorf("%s: got %v, want accepted %v", host, err, ok)
		}
	}
}

func TestParseWithoutLayersSaysWhatToDo(t *testing.T) {
	if got, want := problemsOf(t).Error(), "flowagent config init"; !strings.Contains(got, want) {
		t.Errorf("got %q, want it to mention %q", got, want)
	}
}

func TestAWebhookIsReachedOverHTTPSUnlessNobodyElseCanListen(t *testing.T) {
	for _, c := range []struct{ webhook, refused string }{
		{"url: https://hooks.example.com/a, tokenSecret: key", ""},
		{"url: 'https://10.0.0.7:8443/a?b=c', signingSecret: key", ""},
		{"url: 'http://127.0.0.1:8080/', tokenSecret: key", ""},
		{"url: 'http://localhost:8080', tokenSecret: key", ""},
		{"url: 'http://[::1]:8080'", ""},
		{"url: 'http://192.168.1.5/a', signingSecret: key", ""},
		{"url: 'http://[fd00::1]/a'", ""},
		{"url: 'HTTP://192.168.1.5/a', tokenSecret: key", "notify.webhook.tokenSecret"},
		{"url: 'http://[::ffff:10.0.0.1]/a', tokenSecret: key", "notify.webhook.tokenSecret"},
		{"url: 'http://hooks.example.com/a'", "notify.webhook.url"},
		{"url: 'http://203.0.113.9/a'", "notify.webhook.url"},
		{"url: 'http://169.254.169.254/latest/user-data'", "notify.webhook.url"}, // instance metadata
		{"url: 'http://127.0.0.1/', caFile: ca.pem", "notify.webhook.caFile"},
		{"url: 'https://user:pass@hooks.example.com/'", "notify.webhook.url"},
		{"url: 'https://hooks.example.com/', signingSecret: kee", "notify.webhook.signingSecret"},
		{"timeout: 3s", "notify.webhook.url"},
	} {
		_, err := Parse(layer("/etc/flowagent/config.yaml", base+"secrets: {items: [{name: key, from: {file: {path: /k}}}]}\nnotify: {webhook: {"+c.webhook+"}}\n"))
		switch {
		case c.refused == "" && err != nil:
			t.Errorf("%s: %v", c.webhook, err)
		case c.refused != "" && (err == nil || !strings.Contains(err.Error(), c.refused+": ") || strings.Count(err.Error(), "\n") > 0):
			t.Errorf("%s: got %v, want one problem at %s", c.webhook, err, c.refused)
		}
	}
}
