package workload

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/flowviz/flowagent/agent/secret"
)

// Leak is a place in the Compose files that gives a secret away: what stands there ends up in `docker inspect`, in the
// environment of processes or on disk. It never holds the value.
type Leak struct {
	// Service whose place it is; empty for a top-level one, such as a volume's options.
	Service string
	// Path below the service, such as environment.DATABASE_URL.
	Path string
	// Secret whose value stands there; empty in a warning, where the name or the form gives rise to suspicion.
	Secret string
	// Why and what to do, in one sentence that follows the place.
	Advice string
}

// String is the whole message for a person.
func (l Leak) String() string {
	place := l.Path
	if l.Service != "" {
		place = fmt.Sprintf("service %q, %s", l.Service, l.Path)
	}
	return place + ": " + l.Advice
}

var (
	suspiciousName = regexp.MustCompile(`(?i)(^|[_.-])(PASSWORD|PASSWD|PASSPHRASE|TOKEN|SECRET|KEY|CREDENTIALS?)$`)
	urlWithLogin   = regexp.MustCompile(`[a-zA-Z][a-zA-Z0-9+.-]*://[^\s/@]+@`)
)

// Leaks looks for secrets in everything the active services are given: environment and env_file, command, entrypoint,
// labels, health check, build arguments, logging and driver options, configs. values are the known secrets by name;
// those that the Compose files define themselves are known anyway.
//
// leaks are certain: a place is the value of a secret, or contains it as it is, URL-escaped or in base64. Values of less
// than 8 bytes are only found where they are the whole entry, those of less than 4 not at all. warnings are literal
// values under names such as *_PASSWORD, and passwords in URLs. Both are sorted: services by name, then volumes, networks
// and configs.
func (p *Project) Leaks(values map[string]secret.Value) (leaks, warnings []Leak) {
	needles := make(map[string]needle)
	for name, value := range values {
		if n, ok := newNeedle(value); ok {
			needles[name] = n
		}
	}
	for _, use := range p.uses {
		if use.Item != "" {
			continue
		}
		// A local secret that can't be read is the store's error, not a leak.
		if value, err := use.Value(); err == nil {
			if n, ok := newNeedle(value); ok {
				needles[use.Name] = n
			}
		}
	}
	names := slices.Sorted(maps.Keys(needles))
	p.walk(func(service, path, text string) {
		for _, name := range names {
			if needles[name].in(text) {
				leaks = append(leaks, Leak{service, path, name, fmt.Sprintf(
					"holds the value of the secret %q, which anyone who can run `docker inspect` would see: give the service the secret under secrets: and let it read %s/%s", name, secretsMount, name)})
				return
			}
		}
		if advice := suspicion(path, text); advice != "" {
			warnings = append(warnings, Leak{Service: service, Path: path, Advice: advice})
		}
	})
	return leaks, warnings
}

func suspicion(path, text string) string {
	section, name, _ := strings.Cut(path, ".")
	if text == "" || (section != "environment" && section != "build") {
		return ""
	}
	if suspiciousName.MatchString(name) && !strings.HasPrefix(text, "/") {
		return "is a literal value under a secret's name: if it is one, make it a Compose secret and name its file in " + lastName(name) + "_FILE"
	}
	if login := urlWithLogin.FindString(text); login != "" {
		if u, err := url.Parse(login); err == nil && u.User != nil {
			if password, set := u.User.Password(); set && password != "" {
				return "is a URL with a password in it: make the password a Compose secret"
			}
		}
	}
	return ""
}

func lastName(path string) string { return path[strings.LastIndex(path, ".")+1:] }

// walk visits every text of the active project that the engine or the disk gets to see, in a fixed order.
func (p *Project) walk(visit func(service, path, text string)) {
	for _, name := range p.Services() {
		service := p.model.Services[name]
		service.Secrets = nil // names and targets
		service.DependsOn = nil
		walkTree("", plainTree(service), func(path, text string) { visit(name, path, text) })
	}
	visitTop := func(path, text string) { visit("", path, text) }
	walkTree("volumes", plainTree(p.model.Volumes), visitTop)
	walkTree("networks", plainTree(p.model.Networks), visitTop)
	for _, name := range slices.Sorted(maps.Keys(p.model.Configs)) {
		visit("", "configs."+name+".content", p.model.Configs[name].Content)
	}
}

// plainTree is v as encoding/json sees it: the fields by their Compose names.
func plainTree(v any) any {
	text, err := json.Marshal(v)
	if err != nil {
		panic(err) // compose-go's model always has a JSON form: compose computes its hashes from it
	}
	var tree any
	if err := json.Unmarshal(text, &tree); err != nil {
		panic(err)
	}
	return tree
}

func walkTree(path string, node any, visit func(path, text string)) {
	switch node := node.(type) {
	case string:
		visit(path, node)
	case []any:
		for i, item := range node {
			walkTree(path+"["+strconv.Itoa(i)+"]", item, visit)
		}
	case map[string]any:
		for _, key := range slices.Sorted(maps.Keys(node)) {
			below := key
			if path != "" {
				below = path + "." + key
			}
			walkTree(below, node[key], visit)
		}
	}
}
