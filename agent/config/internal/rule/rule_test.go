package rule

import (
	"regexp"
	"testing"
)

func TestEveryPatternCompilesAndIsExplained(t *testing.T) {
	for path, f := range Fields {
		if _, err := regexp.Compile(f.Pattern); err != nil {
			t.Errorf("%s: %v", path, err)
		}
		if (f.Pattern != "" || f.Maximum != 0) && f.Says == "" {
			t.Errorf("%s: a value can be refused without a word on what it should be", path)
		}
	}
}

func TestPatternsTakeWhatTheirOwnersTake(t *testing.T) {
	for _, c := range []struct {
		path  string
		value string
		want  bool
	}{
		{"secrets.items[].name", "db_password", true},
		{"secrets.items[].name", "tls.key", true},
		{"secrets.items[].name", "..data", false},
		{"secrets.items[].name", ".hidden", false},
		{"secrets.items[].name", "a/b", false},
		{"secrets.items[].name", "-x", false},
		{"secrets.items[].from.credential.name", "flowviz.session-key", true},
		{"secrets.items[].from.credential.name", "a@b c", true},
		{"secrets.items[].from.credential.name", "..", false},
		{"secrets.items[].from.credential.name", ".", false},
		{"secrets.items[].from.credential.name", "a/b", false},
		{"secrets.items[].from.credential.name", "a:b", false},
		{"secrets.items[].from.age.key", "db.password", true},
		{"secrets.items[].from.age.key", `a\.b.0`, true},
		{"secrets.items[].from.age.key", "a..b", false},
		{"secrets.items[].from.age.key", ".a", false},
		{"secrets.items[].from.age.key", "a.", false},
		{"secrets.items[].from.age.key", `a\`, false},
		{"secrets.items[].from.ssm.region", "us-gov-west-1", true},
		{"secrets.items[].from.ssm.region", "Frankfurt", false},
		{"secrets.items[].from.ssm.name", "arn:aws:ssm:us-east-1:123456789012:parameter/a/b", true},
		{"secrets.items[].from.ssm.name", "/a/b:3", true},
		{"secrets.items[].from.secretsManager.id", "arn:aws:secretsmanager:us-east-1:123456789012:secret:a/b-AbCdEf", true},
		{"secrets.items[].from.secretsManager.id", "rds!db-1", true},
		{"secrets.items[].from.secretsManager.id", "two words", false},
		{"secrets.items[].from.vault.path", "team/app", true},
		{"secrets.items[].from.vault.path", "/team", false},
		{"secrets.items[].from.vault.path", "team//app", false},
		{"secrets.items[].from.vault.path", "team?x", false},
		{"secrets.items[].onChange.signal", "SIGHUP", true},
		{"secrets.items[].onChange.signal", "SIGRTMIN+3", true},
		{"secrets.items[].onChange.signal", "SIGKILL", false},
		{"secrets.items[].onChange.signal", "HUP", false},
		{"registries[].host", "registry.factory.local:5000", true},
		{"registries[].host", "localhost", true},
		{"registries[].host", "[::1]:5000", true},
		{"registries[].host", "https://x", false},
		{"registries[].host", "x/y", false},
		{"workload.project", "flowviz-2_a", true},
		{"workload.project", "FlowViz", false},
		{"workload.project", "-x", false},
		{"workload.profiles[]", "*", true},
		{"workload.profiles[]", "-x", false},
		{"workload.variables", "IMAGE_TAG", true},
		{"workload.variables", "2X", false},
		{"health.checks[].name", "db-1.main_a", true},
		{"health.checks[].name", ".", false},
		{"health.checks[].name", "a/b", false},
		{"health.checks[].name", "a?b", false},
		{"health.checks[].redis.address", "cache.internal:6379", true},
		{"health.checks[].redis.address", "[fe80::1%eth0]:6379", true},
		{"health.checks[].redis.address", "/run/valkey.sock", true},
		{"health.checks[].redis.address", "redis://cache:6379", false},
		{"health.checks[].redis.address", "user:password@cache:6379", false},
		{"health.checks[].redis.address", "cache", false},
		{"health.checks[].postgres.host", "db.internal", true},
		{"health.checks[].postgres.host", "fd00::5", true},
		{"health.checks[].postgres.host", "/run/postgresql", true},
		{"health.checks[].postgres.host", "db1,db2", false},
		{"health.checks[].postgres.host", "postgres://db", false},
		{"health.checks[].postgres.hosts[]", "[fd00::5]:5432", true},
		{"health.checks[].postgres.hosts[]", "db:5432", true},
		{"health.checks[].postgres.hosts[]", "fd00::5", false},
		{"health.checks[].http.headers", "X-Check", true},
		{"health.checks[].http.headers", "X Check", false},
		{"health.checks[].systemd.unit", "app@1.service", true},
		{"health.checks[].systemd.unit", "nginx", false},
		{"health.checks[].clock.server", "ntp.factory.local", true},
		{"health.checks[].clock.server", "[::1]:123", true},
		{"health.checks[].clock.server", "ntp://x", false},
		{"drain.order[]", "worker.1", true},
		{"drain.order[]", "a b", false},
	} {
		if got := regexp.MustCompile(Fields[c.path].Pattern).MatchString(c.value); got != c.want {
			t.Errorf("%s %q: got %v, want %v", c.path, c.value, got, c.want)
		}
	}
}
