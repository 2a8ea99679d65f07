package workload

import (
	"encoding/base64"
	"fmt"
	"net/url"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/flowviz/flowagent/agent/secret"
)

const canary = "p@ss/w0rd+Canary?"

func known(values ...string) map[string]secret.Value {
	m := make(map[string]secret.Value)
	for i, v := range values {
		m[fmt.Sprintf("item%d", i)] = secret.NewValue([]byte(v))
	}
	return m
}

func TestLeaksFindsASecretWhereverTheEngineWouldSeeIt(t *testing.T) {
	for place, service := range map[string]string{
		"environment.DB":       "environment: {DB: %q}",
		"environment.URL":      "environment: [%q]",
		"command[1]":           "command: [run, %q]",
		"entrypoint[0]":        "entrypoint: [%q]",
		"labels.note":          "labels: {note: %q}",
		"healthcheck.test[1]":  "healthcheck: {test: [CMD, %q]}",
		"build.args.TOKEN":     "build: {context: ., args: {TOKEN: %q}}",
		"logging.options.auth": "logging: {driver: syslog, options: {auth: %q}}",
		"annotations.a":        "annotations: {a: %q}",
	} {
		t.Run(place, func(t *testing.T) {
			text := canary
			if place == "environment.URL" {
				text = "URL=postgres://app:" + url.QueryEscape(canary) + "@db/app"
			}
			p := mustLoad(t, "services:\n  a:\n    image: x\n    "+fmt.Sprintf(service, text)+"\n")
			leaks, _ := p.Leaks(known("other secret value", canary+"\n"))
			if len(leaks) != 1 || leaks[0].Path != place || leaks[0].Service != "a" || leaks[0].Secret != "item1" {
				t.Fatalf("got %+v, want one leak of item1 at %s of a", leaks, place)
			}
			if strings.Contains(fmt.Sprintf("%+v %s", leaks[0], leaks[0]), canary) {
				t.Errorf("the message holds the value: %s", leaks[0])
			}
		})
	}
}

func TestLeaksFindsASecretInEnvFilesAndDriverOptions(t *testing.T) {
	dir := write(t, map[string]string{
		"compose.yaml": `
services: {a: {image: x, env_file: [app.env], volumes: ["share:/data"], configs: [c]}}
volumes: {share: {driver_opts: {type: cifs, o: "username=u,password=` + canary + `"}}}
configs: {c: {content: "key=` + canary + `"}}
`,
		"app.env": "PASSWORD=" + canary + "\n",
	})
	p, err := loadIn(t, dir)
	if err != nil {
		t.Fatal(err)
	}
	leaks, _ := p.Leaks(known(canary))
	var places []string
	for _, leak := range leaks {
		places = append(places, leak.Service+" "+leak.Path)
	}
	want := []string{"a environment.PASSWORD", " volumes.share.driver_opts.o", " configs.c.content"}
	if diff := cmp.Diff(want, places); diff != "" {
		t.Errorf("places (-want +got):\n%s", diff)
	}
}

func TestLeaksComeInAFixedOrder(t *testing.T) {
	p := mustLoad(t, `
services: {a: {image: x, volumes: ["share:/data"], networks: [wire]}}
volumes: {share: {driver_opts: {o: "`+canary+`"}}}
networks: {wire: {driver_opts: {o: "`+canary+`"}}}
`)
	want := []string{"volumes.share.driver_opts.o", "networks.wire.driver_opts.o"}
	for range 32 { // a random order would pass once in 2^32 runs
		leaks, _ := p.Leaks(known(canary))
		var places []string
		for _, leak := range leaks {
			places = append(places, leak.Path)
		}
		if diff := cmp.Diff(want, places); diff != "" {
			t.Fatalf("places (-want +got):\n%s", diff)
		}
	}
}

func TestLeaksKnowsTheSecretsOfTheFilesThemselves(t *testing.T) {
	dir := write(t, map[string]string{
		"compose.yaml": "services: {a: {image: x, environment: {P: \"${PW}\"}, secrets: [pw]}}\nsecrets: {pw: {environment: PW}}\n",
		".env":         "PW=" + "from-dot-env-1" + "\n",
	})
	p, err := loadIn(t, dir)
	if err != nil {
		t.Fatal(err)
	}
	leaks, _ := p.Leaks(nil)
	if len(leaks) != 1 || leaks[0].Path != "environment.P" || leaks[0].Secret != "pw" {
		t.Errorf("got %+v, want one leak of pw at environment.P", leaks)
	}
}

func TestNeedleFindsEncodedSecrets(t *testing.T) {
	n, ok := newNeedle(secret.NewValue([]byte(canary)))
	if !ok {
		t.Fatal("the canary is too short")
	}
	for _, text := range []string{
		canary, "x" + canary + "y", url.QueryEscape(canary), url.PathEscape(canary),
		strings.ToLower(url.QueryEscape("/+")) + "?" + strings.ReplaceAll(url.QueryEscape(canary), "%2F", "%2f"),
		"p%40ss%2fw0rd+Canary%3f",
		base64.StdEncoding.EncodeToString([]byte(canary)),
		base64.URLEncoding.EncodeToString([]byte("u:" + canary)),
		base64.StdEncoding.EncodeToString([]byte("a" + canary + "zz")),
		base64.RawStdEncoding.EncodeToString([]byte("app:" + canary + "@db")),
	} {
		if !n.in(text) {
			t.Errorf("not found in %q", text)
		}
	}
	for _, text := range []string{"", "p@ss", "Canary?", base64.StdEncoding.EncodeToString([]byte("something else entirely"))} {
		if n.in(text) {
			t.Errorf("found in %q", text)
		}
	}
}

func TestShortSecretsAreOnlyFoundWhole(t *testing.T) {
	p := mustLoad(t, `services: {a: {image: x, environment: {PIN: "4711", URL: "http://h:4711/", FLAG: "yes", EMPTY: ""}}}`)
	leaks, _ := p.Leaks(known("4711", "yes", ""))
	if len(leaks) != 1 || leaks[0].Path != "environment.PIN" {
		t.Errorf("got %+v, want just environment.PIN", leaks)
	}
}

func TestLiteralValuesUnderSecretNamesAreWarnedAbout(t *testing.T) {
	p := mustLoad(t, `
services:
  a:
    image: x
    environment:
      DB_PASSWORD: hunter2
      API_KEY: abc
      apiToken: not-matched
      TOKEN: abc
      DB_PASSWORD_FILE: /run/secrets/db_password
      TLS_KEY: /run/secrets/key
      EMPTY_SECRET: ""
      MONKEY: banana
      BROKER: redis://:pw@cache:6379/0
      USER_ONLY: postgres://app@db/app
`)
	leaks, warnings := p.Leaks(nil)
	if len(leaks) != 0 {
		t.Errorf("got leaks %+v, want none", leaks)
	}
	var places []string
	for _, warning := range warnings {
		places = append(places, warning.Path)
		if strings.Contains(warning.String(), "hunter2") {
			t.Errorf("the warning holds the value: %s", warning)
		}
	}
	if diff := cmp.Diff([]string{"environment.API_KEY", "environment.BROKER", "environment.DB_PASSWORD", "environment.TOKEN"}, places); diff != "" {
		t.Errorf("warnings (-want +got):\n%s", diff)
	}
}

func TestScrubberTakesSecretsOutOfText(t *testing.T) {
	pem := "-----BEGIN KEY-----\nMIIEvQIBADANBgkqhkiG9w0BAQEFAASC\nBKcwggSjAgEAAoIBAQC7VJTUt9Us8cKj\n-----END KEY-----\n"
	s := newScrubber([]secret.Value{secret.NewValue([]byte(canary)), secret.NewValue([]byte("4711")), secret.NewValue([]byte(pem)), {}})
	for text, want := range map[string]string{
		"login with " + canary + " failed":            "login with [redacted] failed",
		"dsn=postgres://u:" + url.QueryEscape(canary): "dsn=postgres://u:[redacted]",
		"pin 4711 wrong":                              "pin [redacted] wrong",
		"line MIIEvQIBADANBgkqhkiG9w0BAQEFAASC":       "line [redacted]",
		"-----BEGIN KEY-----":                         "-----BEGIN KEY-----",
		"all fine":                                    "all fine",
	} {
		if got := s.scrub(text); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

func FuzzNeedleIsFoundInWhatContainsIt(f *testing.F) {
	f.Add("p@ss/w0rd", "before", "after")
	f.Add("\x00\xff12345678", "", "x")
	f.Fuzz(func(t *testing.T, value, before, after string) {
		n, ok := newNeedle(secret.NewValue([]byte(value)))
		if !ok || len(n.whole) < minPart {
			return
		}
		for form, text := range map[string]string{
			"raw":    before + n.whole + after,
			"query":  before + url.QueryEscape(n.whole) + after,
			"base64": base64.StdEncoding.EncodeToString([]byte(before + n.whole + after)),
		} {
			if !n.in(text) {
				t.Errorf("%q not found as %s in %q", value, form, text)
			}
		}
	})
}
