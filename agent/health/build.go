package health

import (
	"fmt"
	"maps"
	"net"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/flowviz/flowagent/agent/config"
	"github.com/flowviz/flowagent/agent/health/probe"
	"github.com/flowviz/flowagent/agent/secret"
)

// Deps are what probes are made with.
type Deps struct {
	// Secret returns the value that a secret has now, false for none. It is asked for each probe, since secrets rotate.
	Secret func(name string) (secret.Value, bool)
	// Engine is asked about containers of the Compose project Project.
	Engine  probe.ContainerEngine
	Project string
}

// Checks makes a check of each that is configured.
func Checks(configured []config.Check, deps Deps) ([]Check, error) {
	checks := make([]Check, len(configured))
	for i, c := range configured {
		p, err := Build(c, deps)
		if err != nil {
			return nil, err
		}
		checks[i] = Check{
			Name: c.Name, Kind: kindOf(c), Probe: p, Scope: c.Scope, Gate: c.Gate,
			Interval: time.Duration(c.Interval), Timeout: time.Duration(c.Timeout), Rise: c.Rise, Fall: c.Fall,
		}
	}
	return checks, nil
}

// Build makes the probe of one check. A configuration that package config accepted never makes it fail.
func Build(c config.Check, deps Deps) (probe.Probe, error) {
	switch {
	case c.Postgres != nil:
		return buildPostgres(*c.Postgres, deps)
	case c.Redis != nil:
		return buildRedis(*c.Redis, deps), nil
	case c.HTTP != nil:
		return buildHTTP(c.Name, *c.HTTP, deps)
	case c.TCP != nil:
		return &probe.TCP{Address: c.TCP.Address, TLS: clientTLS(c.TCP.TLS), Send: c.TCP.Send, Expect: c.TCP.Expect}, nil
	case c.TLS != nil:
		t := c.TLS
		return &probe.TLS{
			Address:    t.Address,
			TLS:        &probe.ClientTLS{CAFile: t.CAFile, ServerName: t.ServerName, CertificateFile: t.CertificateFile, KeyFile: t.KeyFile},
			WarnBefore: time.Duration(t.WarnBefore), FailBefore: time.Duration(t.FailBefore),
		}, nil
	case c.Container != nil:
		return &probe.Container{
			Engine: deps.Engine, Project: deps.Project, Service: c.Container.Service,
			Replicas: c.Container.Replicas, MaxRestarts: c.Container.MaxRestarts,
		}, nil
	case c.Disk != nil:
		return &probe.Disk{
			Path: c.Disk.Path, Warn: room(c.Disk.Warn), Fail: room(c.Disk.Fail),
			WarnInodes: float64(c.Disk.WarnInodes), FailInodes: float64(c.Disk.FailInodes),
		}, nil
	case c.File != nil:
		return &probe.File{
			Path: c.File.Path, WarnAge: time.Duration(c.File.WarnAge), FailAge: time.Duration(c.File.FailAge), MinSize: int64(c.File.MinSize),
		}, nil
	case c.Command != nil:
		p := &probe.Command{Argv: c.Command.Argv, Dir: c.Command.Dir}
		for _, name := range slices.Sorted(maps.Keys(c.Command.Environment)) {
			p.Env = append(p.Env, name+"="+c.Command.Environment[name])
		}
		return p, nil
	case c.Systemd != nil:
		return &probe.Systemd{Unit: c.Systemd.Unit}, nil
	case c.Clock != nil:
		return &probe.Clock{Server: c.Clock.Server, Warn: time.Duration(c.Clock.Warn), Fail: time.Duration(c.Clock.Fail)}, nil
	}
	return nil, fmt.Errorf("check %q has nothing to ask: give it a kind, such as http", c.Name)
}

// kindOf is the configuration's word for what a check asks.
func kindOf(c config.Check) string {
	v := reflect.ValueOf(c)
	for i := range v.NumField() {
		if field := v.Field(i); field.Kind() == reflect.Pointer && !field.IsNil() {
			return v.Type().Field(i).Tag.Get("yaml")
		}
	}
	return ""
}

func buildPostgres(c config.PostgresCheck, deps Deps) (probe.Probe, error) {
	p := &probe.Postgres{
		User: c.User, Database: c.Database,
		TLS: probe.PostgresTLS{
			Mode: string(c.TLS.Mode), Negotiation: string(c.TLS.Negotiation), RootFile: c.TLS.CAFile,
			CertFile: c.TLS.CertificateFile, KeyFile: c.TLS.KeyFile,
		},
	}
	if c.TLS.Mode == "verify-full" && c.TLS.CAFile == "" {
		p.TLS.RootFile = "system"
	}
	if len(c.Hosts) == 0 {
		p.Hosts = []probe.PostgresHost{{Name: c.Host, Port: strconv.Itoa(c.Port)}}
	}
	for _, text := range c.Hosts {
		host, err := postgresHost(text)
		if err != nil {
			return nil, err
		}
		p.Hosts = append(p.Hosts, host)
	}
	if c.Login != nil {
		p.Login = &probe.PostgresLogin{Password: password(deps, c.Login.PasswordSecret), Query: c.Login.Query, Expect: c.Login.Expect}
	}
	return p, nil
}

// postgresHost reads host, host:port, [IPv6]:port or a socket's directory.
func postgresHost(text string) (probe.PostgresHost, error) {
	if strings.HasPrefix(text, "/") || strings.HasPrefix(text, "@") || !strings.Contains(text, ":") {
		return probe.PostgresHost{Name: text}, nil
	}
	if inner, found := strings.CutPrefix(text, "["); found && strings.HasSuffix(inner, "]") {
		return probe.PostgresHost{Name: strings.TrimSuffix(inner, "]")}, nil
	}
	host, port, err := net.SplitHostPort(text)
	if err != nil {
		return probe.PostgresHost{}, fmt.Errorf("%q is neither a host nor host:port: %w", text, err)
	}
	return probe.PostgresHost{Name: host, Port: port}, nil
}

func buildRedis(c config.RedisCheck, deps Deps) probe.Probe {
	p := &probe.Redis{
		Addresses: c.Addresses, User: c.Username, Password: password(deps, c.PasswordSecret),
		TLS: clientTLS(c.TLS), Primary: c.Primary, Cluster: c.Cluster,
	}
	if c.Address != "" {
		p.Addresses = []string{c.Address}
	}
	if s := c.Sentinel; s != nil {
		p.Sentinel = &probe.RedisSentinel{Primary: s.Primary, User: s.Username, Password: password(deps, s.PasswordSecret)}
	}
	return p
}

func buildHTTP(name string, c config.HTTPCheck, deps Deps) (probe.Probe, error) {
	p := &probe.HTTP{URL: string(c.URL), Statuses: c.Statuses, Headers: c.Headers, TLS: clientTLS(c.TLS)}
	if c.Match != "" {
		match, err := regexp.Compile(c.Match)
		if err != nil {
			return nil, fmt.Errorf("match of check %q is not a regular expression: %w", name, err)
		}
		p.Match = match
	}
	for header, secretName := range c.SecretHeaders {
		if p.SecretHeaders == nil {
			p.SecretHeaders = map[string]func() secret.Value{}
		}
		p.SecretHeaders[header] = password(deps, secretName)
	}
	return p, nil
}

// password is where a probe gets a secret from, nil for none.
func password(deps Deps, name string) func() secret.Value {
	if name == "" {
		return nil
	}
	return func() secret.Value {
		value, _ := deps.Secret(name) // without one the server refuses, which is what the check is to say
		return value
	}
}

func clientTLS(c *config.ClientTLS) *probe.ClientTLS {
	if c == nil {
		return nil
	}
	return &probe.ClientTLS{CAFile: c.CAFile, ServerName: c.ServerName, CertificateFile: c.CertificateFile, KeyFile: c.KeyFile}
}

func room(r config.Room) probe.Room {
	return probe.Room{Bytes: uint64(r.Size), Percent: float64(r.Share)}
}
