package config

import (
	"maps"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/flowviz/flowagent/agent/config/internal/rule"
)

// minInterval is the shortest time between two probes: ten a second tell all that a load balancer, which asks every few
// seconds, can make use of.
const minInterval = Duration(100 * time.Millisecond)

// reservedCheck is the name under which /readyz shows the agent's own state.
const reservedCheck = "agent"

// health holds one check against the rules that go beyond a field.
func (c *checker) health(check Check, items []Secret) {
	path := "health.checks[" + check.Name + "]"
	v := reflect.ValueOf(check)
	kinds := choices(v.Type())
	if !slices.ContainsFunc(kinds, func(name string) bool { return !v.Field(fieldIndex(v.Type(), name)).IsNil() }) {
		c.missing(path, "use "+alternatives(kinds), "nothing to ask")
	}
	if check.Name == reservedCheck {
		c.refuse(path+".name", "", "is the name of the agent's own state in /readyz")
	}
	if check.Interval != 0 && check.Interval < minInterval {
		c.refuse(path+".interval", "", "must be at least %s", minInterval)
	}
	visit(v, spot{path, "health.checks[]"}, func(v reflect.Value, s spot) {
		if _, set := c.origins[s.path]; set && v.Type() == reflect.TypeFor[Duration]() && v.IsZero() && rule.Fields[s.rule].Default != "" {
			c.refuse(s.path, "", "must be longer than 0")
		}
		if strings.HasSuffix(s.rule, ".passwordSecret") && v.String() != "" {
			c.secretNamed(s.path, v.String(), items)
		}
	})

	switch {
	case check.Postgres != nil:
		c.postgres(path+".postgres", *check.Postgres)
	case check.Redis != nil:
		c.redis(path+".redis", *check.Redis)
	case check.HTTP != nil:
		c.http(path+".http", *check.HTTP, items)
	case check.TCP != nil:
		c.clientTLS(path+".tcp.tls", check.TCP.TLS)
	case check.TLS != nil:
		c.pair(path+".tls", check.TLS.CertificateFile, check.TLS.KeyFile)
	}
	c.ordered(path, check)
}

func (c *checker) secretNamed(path, name string, items []Secret) {
	if !slices.ContainsFunc(items, func(s Secret) bool { return s.Name == name }) {
		c.unknownSecret(path, name, items)
	}
}

func (c *checker) postgres(path string, p PostgresCheck) {
	c.notBoth(path, "host", p.Host != "", "hosts", len(p.Hosts) > 0)
	c.notBoth(path, "port", p.Port != 0, "hosts", len(p.Hosts) > 0)
	c.pair(path+".tls", p.TLS.CertificateFile, p.TLS.KeyFile)
	if p.TLS.Mode == "verify-ca" && p.TLS.CAFile == "" {
		c.missing(path+".tls.caFile", "name the authority's PEM file, or use verify-full for the system's authorities", "missing for mode verify-ca")
	}
	if weak := []PostgresTLSMode{"", "prefer", "disable", "allow"}; p.TLS.Negotiation == "direct" && slices.Contains(weak, p.TLS.Mode) {
		c.refuse(path+".tls.negotiation", "set mode to require or stricter", "direct needs TLS")
	}
	if p.Login == nil {
		return
	}
	if p.User == "" {
		c.missing(path+".user", "", "missing for the login")
	}
	if p.Login.Expect != "" && p.Login.Query == "" {
		c.missing(path+".login.query", "", "missing: nothing gives the value that expect is for")
	}
}

func (c *checker) redis(path string, r RedisCheck) {
	c.notBoth(path, "address", r.Address != "", "addresses", len(r.Addresses) > 0)
	if r.Address == "" && len(r.Addresses) == 0 {
		c.missing(path+".address", "write it like cache.internal:6379", "missing")
	}
	c.notBoth(path, "cluster", r.Cluster, "sentinel", r.Sentinel != nil)
	if r.Username != "" && r.PasswordSecret == "" {
		c.missing(path+".passwordSecret", "name the secret in secrets.items that holds the password", "missing beside username")
	}
	if s := r.Sentinel; s != nil && s.Username != "" && s.PasswordSecret == "" {
		c.missing(path+".sentinel.passwordSecret", "name the secret in secrets.items that holds the password", "missing beside username")
	}
	c.clientTLS(path+".tls", r.TLS)
}

func (c *checker) http(path string, h HTTPCheck, items []Secret) {
	if _, err := regexp.Compile(h.Match); err != nil { // its text would repeat the expression
		c.refuse(path+".match", "see https://github.com/google/re2/wiki/Syntax", "not a regular expression")
	}
	for _, header := range slices.Sorted(maps.Keys(h.SecretHeaders)) {
		c.secretNamed(path+".secretHeaders."+header, h.SecretHeaders[header], items)
		for other := range h.Headers {
			if strings.EqualFold(other, header) {
				c.refuse(path+".secretHeaders."+header, "keep one", "is in headers as well")
			}
		}
	}
	if h.TLS != nil && strings.HasPrefix(strings.ToLower(string(h.URL)), "http:") {
		c.refuse(path+".tls", "write the url with https, or remove tls", "the url is not https")
	}
	c.clientTLS(path+".tls", h.TLS)
}

func (c *checker) clientTLS(path string, t *ClientTLS) {
	if t != nil {
		c.pair(path, t.CertificateFile, t.KeyFile)
	}
}

// pair holds a client's certificate and key together.
func (c *checker) pair(path, certificate, key string) {
	switch {
	case certificate != "" && key == "":
		c.missing(path+".keyFile", "", "missing beside certificateFile")
	case certificate == "" && key != "":
		c.missing(path+".certificateFile", "", "missing beside keyFile")
	}
}

// ordered refuses a warning that could only come after the failure that it is to warn of. Where one of the two is left
// to the default, the other is taken as it is.
func (c *checker) ordered(path string, check Check) {
	refuse := func(field, side, other string) {
		c.refuse(path+field, "", "must be %s %s: it is to come first", side, other)
	}
	if t := check.TLS; t != nil && t.WarnBefore != 0 && t.FailBefore > t.WarnBefore {
		refuse(".tls.warnBefore", "at least", "failBefore")
	}
	if f := check.File; f != nil && f.FailAge != 0 && f.WarnAge > f.FailAge {
		refuse(".file.warnAge", "at most", "failAge")
	}
	if k := check.Clock; k != nil && k.Fail != 0 && k.Warn > k.Fail {
		refuse(".clock.warn", "at most", "fail")
	}
	if d := check.Disk; d != nil {
		if d.Fail.Size > d.Warn.Size && d.Warn.Size != 0 || d.Fail.Share > d.Warn.Share && d.Warn.Share != 0 {
			refuse(".disk.warn", "at least", "fail")
		}
		if d.FailInodes > d.WarnInodes && d.WarnInodes != 0 {
			refuse(".disk.warnInodes", "at least", "failInodes")
		}
	}
}
