package health

import (
	"os"
	"reflect"
	"regexp"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/flowviz/flowagent/agent/config"
	"github.com/flowviz/flowagent/agent/health/probe"
	"github.com/flowviz/flowagent/agent/secret"
)

// configured reads the document that has every kind of check.
func configured(t *testing.T) []config.Check {
	t.Helper()
	data, err := os.ReadFile("../config/testdata/checks.yaml")
	if err != nil {
		t.Fatal(err)
	}
	loaded, err := config.Parse(config.Layer{Name: "/etc/flowagent/config.yaml", Data: data})
	if err != nil {
		t.Fatal(err)
	}
	return loaded.Config.Health.Checks
}

func TestBuild_EveryKindThatCanBeConfiguredBecomesItsProbe(t *testing.T) {
	secrets := func(name string) (secret.Value, bool) { return secret.NewValue([]byte(name)), true }
	checks, err := Checks(configured(t), Deps{Secret: secrets, Project: "wms"})
	if err != nil {
		t.Fatal(err)
	}
	got, kinds := map[string]probe.Probe{}, map[string]bool{}
	for _, c := range checks {
		got[c.Name] = c.Probe
		kinds[c.Kind] = true
	}
	password := func() secret.Value { return secret.Value{} } // functions are compared by what they return, below
	ca := &probe.ClientTLS{CAFile: "/etc/flowagent/factory-ca.pem"}
	want := map[string]probe.Probe{
		"schema": &probe.Postgres{
			Hosts: []probe.PostgresHost{
				{Name: "db1.factory.local"}, {Name: "db2.factory.local", Port: "5433"}, {Name: "fd00::5", Port: "5432"}, {Name: "/run/postgresql"},
			},
			User: "wms", Database: "wms",
			TLS: probe.PostgresTLS{
				Mode: "verify-full", Negotiation: "direct", RootFile: "/etc/flowagent/factory-ca.pem",
				CertFile: "/etc/flowagent/node.pem", KeyFile: "/etc/flowagent/node.key",
			},
			Login: &probe.PostgresLogin{Password: password, Query: "SELECT version = '42'\nFROM alembic_version\n", Expect: "t"},
		},
		"queue": &probe.Redis{
			Addresses: []string{"sentinel1:26379", "sentinel2:26379"}, User: "worker", Password: password, Primary: true,
			TLS:      &probe.ClientTLS{CAFile: "/etc/flowagent/factory-ca.pem", ServerName: "valkey.factory.local"},
			Sentinel: &probe.RedisSentinel{Primary: "mymaster", User: "watch", Password: password},
		},
		"shards": &probe.Redis{Addresses: []string{"[::1]:6379"}, Cluster: true},
		"api": &probe.HTTP{
			URL: "https://127.0.0.1:8443/health", Statuses: []int{200, 204}, Match: regexp.MustCompile(`"status": *"(ok|warn)"`),
			Headers: map[string]string{"Host": "wms.factory.local"}, SecretHeaders: map[string]func() secret.Value{"Authorization": password}, TLS: ca,
		},
		"scales": &probe.TCP{Address: "scales.factory.local:4001", Send: "S\r\n", Expect: "S S", TLS: &probe.ClientTLS{}},
		"certificate": &probe.TLS{
			Address: "127.0.0.1:443", TLS: &probe.ClientTLS{CAFile: "/etc/flowagent/factory-ca.pem", ServerName: "wms.factory.local"},
			WarnBefore: 720 * time.Hour, FailBefore: 24 * time.Hour,
		},
		"worker": &probe.Container{Project: "wms", Service: "worker", Replicas: 2, MaxRestarts: 5},
		"disk": &probe.Disk{
			Path: "/var/lib/docker", Warn: probe.Room{Bytes: 20 << 30}, Fail: probe.Room{Percent: 2.5}, WarnInodes: 10, FailInodes: 2.5,
		},
		"backup":       &probe.File{Path: "/var/backups/stamp", WarnAge: 26 * time.Hour, FailAge: 50 * time.Hour, MinSize: 1000},
		"raid":         &probe.Command{Argv: []string{"/usr/local/bin/raid-ok", "--quiet"}, Dir: "/var/lib", Env: []string{"LANG=C"}},
		"nginx":        &probe.Systemd{Unit: "nginx.service"},
		"clock":        &probe.Clock{Server: "ntp.factory.local", Warn: 250 * time.Millisecond, Fail: time.Minute},
		"kernel-clock": &probe.Clock{Warn: 500 * time.Millisecond, Fail: time.Minute},
	}
	options := cmp.Options{
		cmp.Comparer(func(a, b func() secret.Value) bool { return (a == nil) == (b == nil) }),
		cmp.Comparer(func(a, b *regexp.Regexp) bool { return a == b || a != nil && b != nil && a.String() == b.String() }),
		cmpopts.IgnoreUnexported(probe.Disk{}, probe.File{}),
	}
	if diff := cmp.Diff(want, got, options); diff != "" {
		t.Errorf("probes (-want +got):\n%s", diff)
	}
	for _, f := range reflect.VisibleFields(reflect.TypeFor[config.Check]()) {
		if kind := f.Tag.Get("yaml"); f.Type.Kind() == reflect.Pointer && !kinds[kind] {
			t.Errorf("kind %s can be configured, and nothing here makes a probe of it", kind)
		}
	}
}

func TestBuild_APasswordIsAskedForEachTime(t *testing.T) {
	now, known := "first", true
	secrets := func(name string) (secret.Value, bool) {
		if name != "cache_password" || !known {
			return secret.Value{}, false
		}
		return secret.NewValue([]byte(now)), true
	}
	built, err := Build(config.Check{Name: "cache", Redis: &config.RedisCheck{Address: "x:1", PasswordSecret: "cache_password"}}, Deps{Secret: secrets})
	if err != nil {
		t.Fatal(err)
	}
	password := built.(*probe.Redis).Password
	for _, want := range []string{"first", "rotated"} {
		now = want
		if got := string(password().Reveal()); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	known = false
	if !password().IsZero() {
		t.Error("a secret that was withdrawn still has a value")
	}
}

func TestChecks_CarryTheirRhythmAndMeaning(t *testing.T) {
	checks, err := Checks(configured(t)[:1], Deps{})
	if err != nil {
		t.Fatal(err)
	}
	checks[0].Probe = nil
	want := Check{
		Name: "schema", Kind: "postgres", Scope: config.ScopeShared, Gate: config.GateAlways,
		Interval: 30 * time.Second, Timeout: 5 * time.Second, Rise: 1, Fall: 5,
	}
	if diff := cmp.Diff(want, checks[0]); diff != "" {
		t.Errorf("check (-want +got):\n%s", diff)
	}
}

func TestBuild_PostgresTrustsTheSystemWhereNoAuthorityIsNamed(t *testing.T) {
	for _, c := range []struct {
		tls  config.PostgresTLS
		want string
	}{
		{config.PostgresTLS{Mode: "verify-full"}, "system"},
		{config.PostgresTLS{Mode: "verify-full", CAFile: "/ca.pem"}, "/ca.pem"},
		{config.PostgresTLS{Mode: "require"}, ""},
	} {
		built, err := Build(config.Check{Name: "db", Postgres: &config.PostgresCheck{Host: "db", Port: 5432, TLS: c.tls}}, Deps{})
		if err != nil {
			t.Fatal(err)
		}
		if got := built.(*probe.Postgres).TLS.RootFile; got != c.want {
			t.Errorf("%+v: got %q, want %q", c.tls, got, c.want)
		}
	}
}
