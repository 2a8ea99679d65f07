package config

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestChangesNameFieldsAndItems(t *testing.T) {
	const first = `
health:
  checks:
    - {name: api, http: {url: "http://127.0.0.1:1/"}}
    - {name: disk, disk: {path: /}}
drain: {budget: 5m, order: [a, b]}
`
	before := merged(t, first, "").Config
	for _, c := range []struct {
		what, layer string
		want        []string
	}{
		{"nothing", "", nil},
		{"fields, a list and a section", "node: {environment: x}\ndrain: {budget: 6m, order: [b, a]}\ncloudWatch: {namespace: A}\n",
			[]string{"node.environment", "drain.budget", "drain.order", "cloudWatch"}},
		{"a changed and a new item", "health: {checks: [{name: disk, interval: 9s}, {name: api2, tcp: {address: 'a:1'}}]}\n",
			[]string{"health.checks[api2]", "health.checks[disk]"}},
		{"a removed item", "health: {checks: null}\n", []string{"health.checks[api]", "health.checks[disk]"}},
	} {
		after := merged(t, first, c.layer).Config
		if diff := cmp.Diff(c.want, Changes(before, after)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", c.what, diff)
		}
	}
	after := before
	after.Health.Checks = []Check{before.Health.Checks[1], before.Health.Checks[0]}
	if diff := cmp.Diff([]string{"health.checks"}, Changes(before, after)); diff != "" {
		t.Errorf("another order (-want +got):\n%s", diff)
	}
}

func TestACheckKnowsItsSecrets(t *testing.T) {
	check := Check{
		HTTP: &HTTPCheck{SecretHeaders: map[string]string{"X-Token": "token", "X-Key": "key"}},
		Redis: &RedisCheck{
			PasswordSecret: "cache", Sentinel: &RedisSentinel{PasswordSecret: "sentinel"},
		},
		Postgres: &PostgresCheck{Login: &PostgresLogin{PasswordSecret: "cache"}},
	}
	if diff := cmp.Diff([]string{"cache", "key", "sentinel", "token"}, check.Secrets()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if got := (Check{TCP: &TCPCheck{}}).Secrets(); len(got) > 0 {
		t.Errorf("a check without secrets: got %q", got)
	}
}
