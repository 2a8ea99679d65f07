package config

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestACheckGetsTheDefaultsOfItsKind(t *testing.T) {
	loaded := mustParse(t, layer("/m.yaml", base+`
health:
  checks:
    - {name: database, postgres: {host: db}, scope: shared}
    - {name: several, postgres: {hosts: [a, b]}}
    - {name: disk, disk: {path: /}}
    - {name: worker, container: {service: worker}}
    - {name: clock, clock: {fail: 5s}}
`))
	common := Check{Scope: ScopeNode, Gate: GateAuto, Interval: Duration(5 * time.Second), Timeout: Duration(3 * time.Second), Rise: 2, Fall: 3}
	check := func(name string, change func(*Check)) Check {
		c := common
		c.Name = name
		change(&c)
		return c
	}
	tls := PostgresTLS{Mode: "prefer", Negotiation: "postgres"}
	want := []Check{
		check("database", func(c *Check) { c.Scope, c.Postgres = ScopeShared, &PostgresCheck{Host: "db", Port: 5432, TLS: tls} }),
		check("several", func(c *Check) { c.Postgres = &PostgresCheck{Hosts: []string{"a", "b"}, TLS: tls} }),
		check("disk", func(c *Check) {
			c.Disk = &DiskCheck{Path: "/", Warn: Room{Share: 10}, Fail: Room{Share: 5}, WarnInodes: 5, FailInodes: 2.5}
		}),
		check("worker", func(c *Check) { c.Container = &ContainerCheck{Service: "worker", Replicas: 1, MaxRestarts: 3} }),
		check("clock", func(c *Check) {
			c.Clock = &ClockCheck{Warn: Duration(500 * time.Millisecond), Fail: Duration(5 * time.Second)}
		}),
	}
	if diff := cmp.Diff(want, loaded.Config.Health.Checks); diff != "" {
		t.Errorf("checks (-want +got):\n%s", diff)
	}
	checkRoundTrip(t, loaded)
}

func TestALaterLayerChangesOneFieldOfACheckOrItsKind(t *testing.T) {
	loaded := merged(t, "health: {checks: [{name: a, interval: 1s, tcp: {address: 'x:1'}}, {name: b, rise: 9, tcp: {address: 'y:1'}}]}\n",
		"health: {checks: [{name: a, interval: 10s}, {name: b, file: {path: /stamp}}]}\n")
	a, b := loaded.Config.Health.Checks[0], loaded.Config.Health.Checks[1]
	if a.TCP == nil || a.TCP.Address != "x:1" || a.Interval != Duration(10*time.Second) {
		t.Errorf("got %+v, want the earlier layer's kind and the later one's interval", a)
	}
	if b.TCP != nil || b.File == nil || b.File.Path != "/stamp" || b.Rise != 9 {
		t.Errorf("got %+v, want the later layer's kind alone, and the earlier one's rise", b)
	}
	if origin, found := loaded.Origins["health.checks[b].tcp.address"]; found {
		t.Errorf("the kind that was replaced still has a place: %v", origin)
	}
}

func TestAnImpossibleCheckIsRefusedAtItsPlace(t *testing.T) {
	const secrets = "secrets: {items: [{name: pw, from: {file: {path: /pw}}}]}\n"
	for _, c := range []struct{ check, want string }{
		{"{name: a}", "health.checks[a]: nothing to ask (use postgres, redis, http, tcp, tls, container, disk, file, command, systemd or clock)"},
		{"{name: a, clock: {}, disk: {path: /}}", "health.checks[a]: 2 kinds where one belongs: clock, disk (keep one)"},
		{"{name: agent, clock: {}}", "health.checks[agent].name: is the name of the agent's own state in /readyz"},
		{"{name: a b, clock: {}}", "health.checks[0].name: must be letters, digits,"},
		{"{name: a, interval: 50ms, clock: {}}", "health.checks[a].interval: must be at least 100ms"},
		{"{name: a, interval: 0s, clock: {}}", "health.checks[a].interval: must be longer than 0"},
		{"{name: a, timeout: 0s, clock: {}}", "health.checks[a].timeout: must be longer than 0"},
		{"{name: a, fall: 0, clock: {}}", "health.checks[a].fall: must be between 1 and 100"},
		{"{name: a, postgres: {host: a, hosts: [b]}}", "health.checks[a].postgres.hosts: can't be combined with host"},
		{"{name: a, postgres: {port: 1, hosts: [b]}}", "health.checks[a].postgres.hosts: can't be combined with port"},
		{"{name: a, postgres: {login: {query: SELECT 1}}}", "health.checks[a].postgres.user: missing for the login"},
		{"{name: a, postgres: {user: u, login: {expect: t}}}", "health.checks[a].postgres.login.query: missing"},
		{"{name: a, postgres: {user: u, login: {passwordSecret: pv}}}", "health.checks[a].postgres.login.passwordSecret: no secret in secrets.items has this name (did you mean `pw`?)"},
		{"{name: a, postgres: {tls: {mode: verify-ca}}}", "health.checks[a].postgres.tls.caFile: missing for mode verify-ca"},
		{"{name: a, postgres: {tls: {negotiation: direct}}}", "health.checks[a].postgres.tls.negotiation: direct needs TLS"},
		{"{name: a, postgres: {tls: {certificateFile: /x}}}", "health.checks[a].postgres.tls.keyFile: missing beside certificateFile"},
		{"{name: a, redis: {}}", "health.checks[a].redis.address: missing"},
		{"{name: a, redis: {address: 'x:1', username: u}}", "health.checks[a].redis.passwordSecret: missing beside username"},
		{"{name: a, redis: {address: 'x:1', cluster: true, sentinel: {primary: p}}}", "health.checks[a].redis.sentinel: can't be combined with cluster"},
		{"{name: a, redis: {address: 'x:1', cluster: 'yes'}}", "this is text where true or false belongs"},
		{"{name: a, redis: {address: 'x:1', sentinel: {}}}", "health.checks[a].redis.sentinel.primary: missing"},
		{"{name: a, http: {}}", "health.checks[a].http.url: missing"},
		{"{name: a, http: {url: 'http://x', match: '('}}", "health.checks[a].http.match: not a regular expression"},
		{"{name: a, http: {url: 'http://x', tls: {}}}", "health.checks[a].http.tls: the url is not https"},
		{"{name: a, http: {url: 'http://x', headers: {x-a: b}, secretHeaders: {X-A: pw}}}", "health.checks[a].http.secretHeaders.X-A: is in headers as well"},
		{"{name: a, http: {url: 'http://x', secretHeaders: {X-A: nope}}}", "health.checks[a].http.secretHeaders.X-A: no secret in secrets.items has this name"},
		{"{name: a, tls: {address: 'x:1', warnBefore: 1h, failBefore: 2h}}", "health.checks[a].tls.warnBefore: must be at least failBefore"},
		{"{name: a, disk: {path: /, warn: 1%, fail: 2%}}", "health.checks[a].disk.warn: must be at least fail"},
		{"{name: a, disk: {path: /, warn: lots}}", "health.checks[a].disk.warn: not a size above 0 or a share"},
		{"{name: a, disk: {path: /, warnInodes: 101%}}", "health.checks[a].disk.warnInodes: not a share"},
		{"{name: a, file: {path: /x, warnAge: 2h, failAge: 1h}}", "health.checks[a].file.warnAge: must be at most failAge"},
		{"{name: a, command: {argv: []}}", "health.checks[a].command.argv: missing: at least one is needed"},
		{"{name: a, clock: {warn: 2s, fail: 1s}}", "health.checks[a].clock.warn: must be at most fail"},
		{"{name: a, postgress: {}}", "health.checks[a].postgress: unknown field (did you mean `postgres`?)"},
	} {
		if got := problemsIn(t, secrets+"health: {checks: ["+c.check+"]}\n"); !strings.Contains(got, c.want) {
			t.Errorf("%s:\ngot  %s\nwant %s", c.check, got, c.want)
		}
	}
}

func TestWhatIsPastedIntoACheckIsNotRepeated(t *testing.T) {
	const canary = "hunter2-Canary"
	for _, check := range []string{
		"redis: {address: 'x:1', passwordSecret: CANARY}",
		"redis: {address: 'CANARY@x'}",
		"redis: {address: 'x:1', password: CANARY}",
		"redis: {address: 'x:1', primary: CANARY}",
		"postgres: {host: 'postgres://u:CANARY@db/x'}",
		"postgres: {tls: {mode: CANARY}}",
		"postgres: {user: u, login: {passwordSecret: 'CANARY!'}}",
		"http: {url: 'http://u:CANARY@x/'}",
		"http: {url: 'http://x', secretHeaders: {Authorization: 'Bearer CANARY'}}",
		"http: {url: 'http://x', match: '(CANARY'}",
		"file: {path: /x, warnAge: CANARY}",
		"disk: {path: /x, warn: CANARY}",
	} {
		fragment := "health: {checks: [{name: a, " + strings.ReplaceAll(check, "CANARY", canary) + "}]}\n"
		if got := problemsIn(t, fragment); strings.Contains(got, canary) {
			t.Errorf("%s is repeated:\n%s", check, got)
		}
	}
}
