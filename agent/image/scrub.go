package image

import (
	"encoding/base64"
	"encoding/json"
	"net/url"
	"regexp"
	"strings"
	"unicode"
)

const hidden = "[redacted]"

// longestQuote bounds what is quoted of an engine's error: a registry's whole error page may be in it.
const longestQuote = 400

// Credentials that the node didn't give out itself and an engine may quote all the same: bearer tokens of a registry's
// token service, signatures in the query of a pre-signed layer URL, user and password in a URL.
var foreignCredentials = []struct {
	pattern *regexp.Regexp
	replace string
}{
	// 12 characters keep "basic auth credentials" readable and cover every token.
	{regexp.MustCompile(`(?i)\b(bearer|basic)[ :=]+["']?[A-Za-z0-9+/=._~-]{12,}`), "$1 " + hidden},
	{regexp.MustCompile(`(?i)\b(authorization|x-registry-auth)\b["']?[ :=]+["'\[]*[^\s"',\]]+`), "$1: " + hidden},
	{regexp.MustCompile(`(https?://[^\s"'?<>]*)\?[^\s"'<>]*`), "$1?" + hidden},
	{regexp.MustCompile(`(https?://)[^/\s"'@]*@`), "$1" + hidden + "@"},
}

// scrub removes what logs in to host, and foreign credentials, from text that comes from an engine, then tidies it.
func scrub(text, host string, auth Auth) string {
	for _, form := range forms(host, auth) {
		text = strings.ReplaceAll(text, form, hidden)
	}
	for _, f := range foreignCredentials {
		text = f.pattern.ReplaceAllString(text, f.replace)
	}
	return tidy(text)
}

// forms are the ways in which a credential may be written, longest first: what contains another must go before it.
func forms(host string, auth Auth) []string {
	password := string(auth.Password.Reveal())
	if password == "" {
		return nil
	}
	var all []string
	if header, err := auth.header(host); err == nil {
		all = append(all, header)
	}
	pair := []byte(auth.Username + ":" + password)
	for _, encoding := range []*base64.Encoding{base64.StdEncoding, base64.URLEncoding, base64.RawStdEncoding, base64.RawURLEncoding} {
		all = append(all, encoding.EncodeToString(pair), encoding.EncodeToString([]byte(password)))
	}
	all = append(all, url.QueryEscape(password), url.PathEscape(password))
	if quoted, err := json.Marshal(password); err == nil {
		all = append(all, string(quoted[1:len(quoted)-1]))
	}
	return append(all, password)
}

// tidy makes foreign text fit for one line of a log or terminal: no control characters, no endless pages.
func tidy(text string) string {
	text = strings.TrimPrefix(text, "Error response from daemon: ")
	text = strings.Join(strings.FieldsFunc(text, func(r rune) bool {
		return unicode.IsSpace(r) || !unicode.IsPrint(r)
	}), " ")
	if runes := []rune(text); len(runes) > longestQuote {
		text = string(runes[:longestQuote]) + "…"
	}
	return text
}
