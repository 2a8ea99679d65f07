package config

import (
	"cmp"
	"encoding"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/flowviz/flowagent/agent/config/internal/rule"
	"github.com/flowviz/flowagent/internal/suggest"
)

// minRefresh is the shortest interval between two fetches of all secrets. Below it a fleet reaches Secrets Manager's
// 100 batch calls a second per region with a thousand nodes.
const minRefresh = Duration(10 * time.Second)

// minPoll is the shortest time between two looks at one path of instance metadata, whose network limits are shared with
// DNS; nothing there changes faster.
const minPoll = Duration(time.Second)

// minLaunch is less than any launch needs whose images are pulled, and more than one that is prepared does.
const minLaunch = Duration(time.Minute)

// fill sets the defaults of parts that a document may hold any number of, and that config.Default can't know.
func (d *decoder) fill(v reflect.Value, s spot) {
	visit(v, s, func(v reflect.Value, s spot) {
		if v.Kind() != reflect.Struct {
			return
		}
		for _, name := range fieldNames(v.Type()) {
			r := rule.Fields[s.field(name).rule]
			field := v.Field(fieldIndex(v.Type(), name))
			if r.Default == "" || !field.IsZero() || r.Unless != "" && !v.Field(fieldIndex(v.Type(), r.Unless)).IsZero() {
				continue
			}
			setDefault(field, r.Default)
			delete(d.origins, s.field(name).path)
		}
	})
}

// setDefault sets a scalar to a rule's default.
func setDefault(field reflect.Value, text string) {
	var err error
	switch value := field.Addr().Interface().(type) {
	case encoding.TextUnmarshaler:
		err = value.UnmarshalText([]byte(text))
	case *int:
		*value, err = strconv.Atoi(text)
	default:
		field.SetString(text)
	}
	if err != nil {
		panic("config: the default " + text + " is no value: " + err.Error()) // a rule that no test covers
	}
}

// visit calls f for a value and then for everything below it that a document can name.
func visit(v reflect.Value, s spot, f func(reflect.Value, spot)) {
	switch v.Kind() {
	case reflect.Pointer:
		if !v.IsNil() {
			visit(v.Elem(), s, f)
		}
		return
	case reflect.Struct:
		f(v, s)
		for _, name := range fieldNames(v.Type()) {
			visit(v.Field(fieldIndex(v.Type(), name)), s.field(name), f)
		}
		return
	case reflect.Slice:
		f(v, s)
		for i := range v.Len() {
			visit(v.Index(i), itemSpot(v, i, s), f)
		}
		return
	}
	f(v, s)
}

// itemSpot is the place of a list's item: by its name where it has one, else by its index.
func itemSpot(list reflect.Value, i int, s spot) spot {
	if key, ok := named[list.Type()]; ok {
		item := list.Index(i)
		return s.item(item.Field(fieldIndex(item.Type(), key)).String())
	}
	return s.item(strconv.Itoa(i))
}

// checker holds the merged configuration against the rules that no single layer can break.
type checker struct {
	*decoder
	layers []Layer
}

// refuse reports a problem at the field's place, or, where it was never mentioned, at what it belongs to. A field that
// was already refused, or is in something that was, is left alone: what is wrong now is a consequence.
func (c *checker) refuse(path, hint, format string, args ...any) {
	for at := path; ; at = parent(at) {
		if c.refused[at] {
			return
		}
		if at == "" {
			break
		}
	}
	place := path
	for place != "" && c.places[place] == (Origin{}) {
		place = parent(place)
	}
	origin := c.places[place]
	layer := slices.IndexFunc(c.layers, func(l Layer) bool { return l.Name == origin.File })
	c.problems = append(c.problems, placed{layer, Problem{Origin: origin, Path: path, Message: fmt.Sprintf(format, args...), Hint: hint}})
}

// missing is refuse for what isn't there. Where something in it was refused, that is why.
func (c *checker) missing(path, hint, format string, args ...any) {
	for refused := range c.refused {
		if within(refused, path) {
			return
		}
	}
	c.refuse(path, hint, format, args...)
}

// parent is the path one level up; that of an item is its list.
func parent(path string) string {
	if strings.HasSuffix(path, "]") {
		return path[:strings.IndexByte(path, '[')] // no list is in another, and an IPv6 host has brackets of its own
	}
	bracket := strings.LastIndexByte(path, ']') // names of items may hold dots
	if dot := strings.LastIndexByte(path, '.'); dot > bracket {
		return path[:dot]
	}
	if bracket >= 0 {
		return path[:bracket+1]
	}
	return ""
}

func (c *checker) check(cfg *Config) {
	c.required(cfg)
	c.secrets(cfg.Secrets)
	for _, r := range cfg.Registries {
		c.registry(r, cfg.Secrets.Items)
	}
	c.workload(cfg.Workload)
	for _, check := range cfg.Health.Checks {
		c.health(check, cfg.Secrets.Items)
	}
	if w := cfg.CloudWatch; w != nil && strings.HasPrefix(w.Namespace, "AWS/") {
		c.refuse("cloudWatch.namespace", "use one of your own, such as FlowViz", "names that begin with AWS/ are Amazon's")
	}
	if w := cfg.Notify.Webhook; w != nil {
		c.webhook(*w, cfg.Secrets.Items)
	}
	if cfg.Lifecycle.Interval < minPoll {
		c.refuse("lifecycle.interval", "", "must be at least %s", minPoll)
	}
	if cfg.Lifecycle.LaunchTimeout < minLaunch {
		c.refuse("lifecycle.launchTimeout", "", "must be at least %s", minLaunch)
	}
	if cfg.Drain.IdleAfter == 0 {
		c.refuse("drain.idleAfter", "", "must be longer than 0")
	}
	if cfg.Drain.Budget == 0 {
		c.refuse("drain.budget", "", "must be longer than 0")
	} else if cfg.Drain.DeregisterDelay >= cfg.Drain.Budget {
		c.refuse("drain.deregisterDelay", "", "leaves nothing of drain.budget, which is %s", cfg.Drain.Budget)
	}
}

func (c *checker) required(cfg *Config) {
	visit(reflect.ValueOf(cfg).Elem(), spot{}, func(v reflect.Value, s spot) {
		switch {
		case !rule.Fields[s.rule].Required:
		case v.Kind() == reflect.Slice && v.Len() == 0:
			c.missing(s.path, "", "missing: at least one is needed")
		case v.Type() == reflect.TypeFor[Source]() && v.IsZero():
			c.missing(s.path, "say where it is kept: "+alternatives(fieldNames(v.Type())), "missing")
		case v.IsZero():
			c.missing(s.path, "", "missing")
		}
	})
}

func (c *checker) secrets(s Secrets) {
	if s.Refresh != 0 && s.Refresh < minRefresh {
		c.refuse("secrets.refresh", "0s turns refreshing off", "must be at least %s", minRefresh)
	}
	c.notBoth("secrets.age", "identityFile", s.Age.IdentityFile != "", "identityCredential", s.Age.IdentityCredential != "")

	usesVault := slices.ContainsFunc(s.Items, func(item Secret) bool { return item.From.Vault != nil })
	if usesVault || s.Vault != (Vault{}) {
		c.vault(s.Vault)
	}
	for _, item := range s.Items {
		if sm := item.From.SecretsManager; sm != nil {
			c.notBoth("secrets.items["+item.Name+"].from.secretsManager", "stage", sm.Stage != "", "versionId", sm.VersionID != "")
		}
	}
}

func (c *checker) vault(v Vault) {
	if v.Address == "" {
		c.missing("secrets.vault.address", "write it like https://vault.factory.local:8200", "missing: secrets come from Vault")
	}
	c.notBoth("secrets.vault", "tokenFile", v.TokenFile != "", "appRole", v.AppRole != nil)
	if v.TokenFile == "" && v.AppRole == nil {
		c.missing("secrets.vault", "set tokenFile or appRole", "no way to log in")
	}
	if role := v.AppRole; role != nil {
		c.notBoth("secrets.vault.appRole", "secretIdFile", role.SecretIDFile != "", "secretIdCredential", role.SecretIDCredential != "")
		if role.SecretIDFile == "" && role.SecretIDCredential == "" {
			c.missing("secrets.vault.appRole", "set secretIdFile or secretIdCredential", "no secret id to log in with")
		}
	}
}

// notBoth refuses two fields of which only one can hold. They may come from different layers.
func (c *checker) notBoth(section, a string, hasA bool, b string, hasB bool) {
	if !hasA || !hasB {
		return
	}
	// Report at the one that came last: that is the line that changed things.
	if compareOrigins(c.layers, c.places[section+"."+a], c.places[section+"."+b]) > 0 {
		a, b = b, a
	}
	c.refuse(section+"."+b, "keep one; null takes back what an earlier file set", "can't be combined with %s", a)
}

// ecrHost is what AWS calls a private registry: <account>.dkr.ecr[-fips].<region>.amazonaws.com, also .cn and those of the
// isolated partitions, and the dual-stack <account>.dkr-ecr[-fips].<region>.on.aws. Source: AWS General Reference, "Amazon ECR
// endpoints and quotas".
var ecrHost = regexp.MustCompile(`^([0-9]{12})\.dkr[.-]ecr(?:-fips)?\.([a-z0-9-]+)\.`)

// ECRHost reads the account and the region from the host name of a private ECR registry; false for any other host.
func ECRHost(host string) (account, region string, found bool) {
	match := ecrHost.FindStringSubmatch(host)
	if match == nil {
		return "", "", false
	}
	return match[1], match[2], true
}

// hubAliases are Docker Hub's other names; image references never carry them.
var hubAliases = []string{"index.docker.io", "registry-1.docker.io", "hub.docker.com", "registry.hub.docker.com"}

func (c *checker) registry(r Registry, items []Secret) {
	path := "registries[" + r.Host + "]"
	if _, port, err := net.SplitHostPort(r.Host); err == nil {
		if _, err := strconv.ParseUint(port, 10, 16); err != nil {
			c.refuse(path+".host", "", "the port must be between 0 and 65535")
		}
	}
	if slices.Contains(hubAliases, r.Host) {
		c.refuse(path+".host", "write docker.io", "image references call Docker Hub docker.io")
	}
	switch {
	case r.ECR != nil && (r.Username != "" || r.PasswordSecret != ""):
		field := ".username"
		if r.Username == "" {
			field = ".passwordSecret"
		}
		c.refuse(path+field, "keep one; null takes back what an earlier file set", "can't be combined with ecr, which logs in by itself")
	case r.ECR != nil && r.ECR.Region == "" && !ecrHost.MatchString(r.Host):
		c.missing(path+".ecr.region", "", "missing, and the host name is not that of an ECR registry, which would tell it")
	case r.Username != "" && r.PasswordSecret == "":
		c.missing(path+".passwordSecret", "name the secret in secrets.items that holds the password", "missing beside username")
	case r.Username == "" && r.PasswordSecret != "":
		c.missing(path+".username", "", "missing beside passwordSecret")
	}
	if r.PasswordSecret != "" {
		c.secretNamed(path+".passwordSecret", r.PasswordSecret, items)
	}
}

// unknownSecret doesn't repeat the name: it may be the password itself.
func (c *checker) unknownSecret(path, name string, items []Secret) {
	for refused := range c.refused {
		if within(refused, "secrets.items") && strings.HasSuffix(refused, "].name") {
			return // it may name the item whose name was refused
		}
	}
	names := make([]string, len(items))
	for i, item := range items {
		names[i] = item.Name
	}
	hint := "add the secret to secrets.items"
	if meant := suggest.Closest(name, names); meant != "" {
		hint = "did you mean `" + meant + "`?"
	}
	c.refuse(path, hint, "no secret in secrets.items has this name")
}

func (c *checker) workload(w Workload) {
	if w.Ready.Timeout == 0 {
		c.refuse("workload.ready.timeout", "", "must be longer than 0")
	} else if w.Ready.StableFor >= w.Ready.Timeout {
		c.refuse("workload.ready.stableFor", "", "must be shorter than workload.ready.timeout, which is %s", w.Ready.Timeout)
	}
	for _, limit := range []struct {
		name  string
		value Duration
	}{{"beginTimeout", w.Pull.BeginTimeout}, {"idleTimeout", w.Pull.IdleTimeout}, {"totalTimeout", w.Pull.TotalTimeout}} {
		if limit.value == 0 {
			c.refuse("workload.pull."+limit.name, "", "must be longer than 0")
		}
	}
}

// webhook holds a webhook's URL against what may go over a network in the clear: an event may, within a private network; a
// token may not.
func (c *checker) webhook(w Webhook, items []Secret) {
	for field, name := range map[string]string{"tokenSecret": w.TokenSecret, "signingSecret": w.SigningSecret} {
		if name != "" {
			c.secretNamed("notify.webhook."+field, name, items)
		}
	}
	u, err := url.Parse(string(w.URL))
	if err != nil || u.Scheme != "http" {
		return
	}
	address, err := netip.ParseAddr(u.Hostname())
	address = address.Unmap()
	local := u.Hostname() == "localhost" || err == nil && address.IsLoopback()
	switch {
	case !local && (err != nil || !address.IsPrivate()):
		c.refuse("notify.webhook.url", "where an authority of your own signed the certificate, name it with caFile", "must be https, or http with a loopback or private IP address")
	case !local && w.TokenSecret != "":
		c.refuse("notify.webhook.tokenSecret", "write the url with https, or use signingSecret", "the token would be readable on the way")
	}
	if w.CAFile != "" {
		c.refuse("notify.webhook.caFile", "write the url with https, or remove caFile", "the url is not https")
	}
}

// compareOrigins orders places by layer, line and column; what is in no layer comes first.
func compareOrigins(layers []Layer, a, b Origin) int {
	layer := func(o Origin) int { return slices.IndexFunc(layers, func(l Layer) bool { return l.Name == o.File }) }
	return cmp.Or(cmp.Compare(layer(a), layer(b)), cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
}
