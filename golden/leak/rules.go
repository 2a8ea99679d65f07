package leak

import (
	"regexp"
	"slices"
	"strings"
	"sync"
)

// rules are those of services that publish how their keys look, so that they can be found. Each asks for enough of a
// credential's own form that a program which merely knows the prefix isn't taken for one.
//
// They are compiled by the first search: the agent, which never makes one, has no use for them.
var rules = sync.OnceValue(func() []rule {
	// configuration is where people and programs put settings, rather than packages their documentation.
	configuration := regexp.MustCompile(`^(?:etc|root|home|opt|srv|usr/local|var/lib/cloud|var/www)/`)
	// code is where programs keep theirs, whose documentation and tests have logins for nothing.
	code := regexp.MustCompile(`(?:^|/)(?:site-packages|dist-packages|node_modules|vendor|gems|\.cache|go/pkg/mod)/|(?:^|/)python[0-9.]+/|\.(?:py|pyc|js|go|rb|java|rst|md)$`)
	// cloudInit is where user data is kept that cloud-init was given.
	cloudInit := regexp.MustCompile(`^(?:etc/cloud|var/lib/cloud)/|user-data`)
	return []rule{
		{
			// RFC 7468, OpenSSH, PGP. Lines may be escaped, as in JSON; the first one of any key has 40 characters at least.
			name: "private key", anchors: []string{"PRIVATE KEY"}, before: 40,
			pattern: regexp.MustCompile(`-----BEGIN (?:[A-Z0-9]{1,12} ){0,3}PRIVATE KEY(?: BLOCK)?-----(?:\\[nr]|[\s"',+]|[A-Za-z-]{1,20}: [^\r\n\\]{0,120})*[A-Za-z0-9+/]{40}`),
		},
		{
			name: "PuTTY private key", anchors: []string{"PuTTY-User-Key-File-"},
			pattern: regexp.MustCompile(`^PuTTY-User-Key-File-\d: [^\r\n]{1,80}\r?\nEncryption: `),
		},
		{
			name: "age identity", anchors: []string{"AGE-SECRET-KEY-"},
			pattern: regexp.MustCompile(`^AGE-SECRET-KEY-(?:PQ-)?1[02-9AC-HJ-NP-Z]{50}`), // bech32 of 32 bytes has 58 with its checksum
		},
		{
			name: "AWS access key id", anchors: []string{"AKIA", "ASIA"}, before: 1,
			pattern: regexp.MustCompile(`^[^A-Za-z0-9/+_-]?(?:AKIA|ASIA)[A-Z2-7]{16}(?:[^A-Za-z0-9/+=_-]|$)`),
		},
		{
			name:    "AWS secret access key",
			anchors: []string{"aws_secret_access_key", "AWS_SECRET_ACCESS_KEY", "SecretAccessKey", "secretAccessKey", "secret_access_key"},
			pattern: regexp.MustCompile(`^[A-Za-z_]{15,24}["']?\s{0,4}[:=]\s{0,4}["']?[A-Za-z0-9/+]{40}(?:[^A-Za-z0-9/+]|$)`),
		},
		{
			name: "GitHub token", anchors: []string{"ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_"},
			pattern: regexp.MustCompile(`^(?:gh[pousr]_[A-Za-z0-9]{36}|github_pat_[A-Za-z0-9_]{82})`),
		},
		{
			name: "GitLab token", anchors: []string{"glpat-", "gldt-", "glrt-"},
			pattern: regexp.MustCompile(`^gl(?:pat|dt|rt)-[A-Za-z0-9_-]{20}`),
		},
		{
			name: "Slack token", anchors: []string{"xoxb-", "xoxp-", "xoxa-", "xoxr-", "xoxs-", "xapp-"},
			pattern: regexp.MustCompile(`^(?:xox[abprs]-\d{8,14}-|xapp-\d-[A-Z0-9]{8,14}-\d{8,14}-)[A-Za-z0-9-]{16}`),
		},
		{
			name: "Slack webhook", anchors: []string{"hooks.slack.com/services/"},
			pattern: regexp.MustCompile(`^hooks\.slack\.com/services/T[A-Z0-9]{8,12}/B[A-Z0-9]{8,12}/[A-Za-z0-9]{20}`),
		},
		{
			name: "Vault token", anchors: []string{"hvs.", "hvb."}, before: 1,
			pattern: regexp.MustCompile(`^[^A-Za-z0-9_.]?hv[sb]\.[A-Za-z0-9_-]{24}`),
		},
		{
			name: "npm token", anchors: []string{"npm_"},
			pattern: regexp.MustCompile(`^npm_[A-Za-z0-9]{36}(?:[^A-Za-z0-9_]|$)`),
		},
		{
			name: "PyPI token", anchors: []string{"pypi-AgEIcHlwaS5vcmc"},
			pattern: regexp.MustCompile(`^pypi-AgEIcHlwaS5vcmc[A-Za-z0-9_-]{50}`),
		},
		{
			name: "Docker Hub token", anchors: []string{"dckr_pat_", "dckr_oat_"},
			pattern: regexp.MustCompile(`^dckr_[po]at_[A-Za-z0-9_-]{27}`),
		},
		{
			// A Go program that knows the two prefixes has its other words right behind them.
			name: "Stripe key", anchors: []string{"sk_live_", "rk_live_"}, before: 1,
			pattern: regexp.MustCompile(`^[^A-Za-z0-9_]?[sr]k_live_[A-Za-z0-9]{24,250}(?:[^A-Za-z0-9_]|$)`),
		},
		{
			name: "Google API key", anchors: []string{"AIza"},
			pattern: regexp.MustCompile(`^AIza[0-9A-Za-z_-]{35}(?:[^0-9A-Za-z_-]|$)`),
		},
		{
			name: "JSON web token", anchors: []string{"eyJhbGciOi", "eyJ0eXAiOi"}, paths: configuration, notIn: code,
			pattern: regexp.MustCompile(`^eyJ[A-Za-z0-9_-]{15,900}\.eyJ[A-Za-z0-9_-]{15,900}\.[A-Za-z0-9_-]{20}`),
		},
		{
			name: "password in a URL", anchors: []string{"://"}, before: 1, paths: configuration, notIn: code,
			pattern:     regexp.MustCompile(`^[a-z]://[^\s:/@"'<>{}$]{1,64}:([!#&(-.0-9;=?A-Z\\\]^_a-z|~]{3,128})@[A-Za-z0-9\[]`),
			placeholder: regexp.MustCompile(`^(?i:your[a-z_-]*|my[a-z_-]*|user|pass|passwd|pwd|password|passphrase|secret|token|foo|bar|[x.]+)$`),
		},
		{
			name:    "password in cloud-init's data",
			anchors: []string{"password", "passwd"}, before: 20, paths: cloudInit,
			pattern: regexp.MustCompile(`(?:^|\n)\s*-?\s*(?:password|passwd|plain_text_passwd|hashed_passwd)\s*:\s*["']?[^\s"'{#&]{3}`),
		},
	}
})

// loginFile is a file by whose path it is known what it holds.
type loginFile struct {
	name    string
	marks   []string // a path of such a file has one of them, which most paths don't: the pattern takes a hundred times as long
	path    *regexp.Regexp
	content *regexp.Regexp // what it has when there is a login in it
}

var logins = sync.OnceValue(func() []loginFile {
	return []loginFile{
		{"registry login", []string{".docker", "containers/auth.json"}, regexp.MustCompile(`(?:^|/)(?:\.docker/config\.json|\.dockercfg|containers/auth\.json)$`), regexp.MustCompile(`"(?:auth|identitytoken|registrytoken|password)"\s*:\s*"[^"]+"`)},
		{"AWS login", []string{".aws/"}, regexp.MustCompile(`(?:^|/)\.aws/(?:credentials|config|sso/cache/.*|cli/cache/.*)$`), regexp.MustCompile(`(?i)secret_?access_?key|session_?token|accessToken|refreshToken`)},
		{"netrc login", []string{"netrc", "apt/auth.conf"}, regexp.MustCompile(`(?:^|/)[._]netrc$|^etc/apt/auth\.conf(?:\.d/.*)?$`), regexp.MustCompile(`(?m)\bpassword\s+\S`)},
		{"git login", []string{"git-credentials", "git/credentials"}, regexp.MustCompile(`(?:^|/)\.git-credentials$|(?:^|/)git/credentials$`), regexp.MustCompile(`://[^/\s]+:[^/\s]+@`)},
		{"PostgreSQL login", []string{".pgpass"}, regexp.MustCompile(`(?:^|/)\.pgpass$`), regexp.MustCompile(`(?m)^[^#\s][^\n]*(?::[^\n:]*){3}:[^\n]+$`)},
		{"MySQL login", []string{".my.cnf"}, regexp.MustCompile(`(?:^|/)\.my\.cnf$`), regexp.MustCompile(`(?im)^\s*password\s*=\s*\S`)},
		{"Vault login", []string{".vault-token"}, regexp.MustCompile(`(?:^|/)\.vault-token$`), regexp.MustCompile(`\S`)},
		{"Kubernetes login", []string{".kube/", "etc/kubernetes/"}, regexp.MustCompile(`(?:^|/)\.kube/config$|^etc/kubernetes/.*\.conf$`), regexp.MustCompile(`(?m)^\s*-?\s*(?:client-key-data|token|password):\s*\S`)},
		{"npm login", []string{".npmrc"}, regexp.MustCompile(`(?:^|/)\.npmrc$`), regexp.MustCompile(`(?m)_(?:authToken|auth|password)\s*=\s*[^$\s]`)},
		{"PyPI login", []string{".pypirc"}, regexp.MustCompile(`(?:^|/)\.pypirc$`), regexp.MustCompile(`(?im)^\s*password\s*[:=]\s*\S`)},
		{"Google Cloud login", []string{"gcloud/"}, regexp.MustCompile(`(?:^|/)\.config/gcloud/(?:credentials\.db|access_tokens\.db|application_default_credentials\.json|legacy_credentials/.*)$`), regexp.MustCompile(`(?s).`)},
		{"Azure login", []string{".azure/"}, regexp.MustCompile(`(?:^|/)\.azure/(?:msal_token_cache.*|accessTokens\.json|service_principal_entries.*)$`), regexp.MustCompile(`(?s).`)},
		{"network password", []string{"NetworkManager/", "wpa_supplicant/"}, regexp.MustCompile(`^etc/(?:NetworkManager/system-connections/.*|wpa_supplicant/.*\.conf)$`), regexp.MustCompile(`(?m)^\s*(?:psk|password|wep-key\d)\s*=\s*\S`)},
		{"WireGuard key", []string{"wireguard/"}, regexp.MustCompile(`^etc/wireguard/.*\.conf$`), regexp.MustCompile(`(?m)^\s*(?:PrivateKey|PresharedKey)\s*=\s*\S`)},
	}
})

func (l *loginFile) isAt(name string) bool {
	return slices.ContainsFunc(l.marks, func(mark string) bool { return strings.Contains(name, mark) }) && l.path.MatchString(name)
}
