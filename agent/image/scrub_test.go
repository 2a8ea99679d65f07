package image

import (
	"encoding/base64"
	"net/url"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/flowviz/flowagent/agent/secret"
)

func TestWhatAnEngineQuotesIsScrubbed(t *testing.T) {
	const password = `pa"ss/w+rd==`
	auth := Auth{Username: "AWS", Password: secret.NewValue([]byte(password)), origin: ecrToken}
	header, err := auth.header("r.example")
	if err != nil {
		t.Fatal(err)
	}
	basicLogin := base64.StdEncoding.EncodeToString([]byte("AWS:" + password))
	for name, text := range map[string]string{
		"plain":           "login AWS " + password + " failed",
		"URL":             "get https://AWS:" + url.QueryEscape(password) + "@r.example/v2/",
		"JSON":            `body {"password":"pa\"ss/w+rd=="}`,
		"basic":           "Authorization: Basic " + basicLogin,
		"basic alone":     "sent " + basicLogin,
		"engine's header": "X-Registry-Auth: " + header,
		"header alone":    "bad header " + header,
		"bearer":          `www-authenticate Bearer eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJjYW5hcnkifQ.c2lnbmF0dXJl`,
		"query":           `Get "https://layers.s3.amazonaws.com/x?X-Amz-Signature=c2lnbmF0dXJl&X-Amz-Security-Token=eyJzdWIi": EOF`,
		"userinfo":        "dial https://puller:c2lnbmF0dXJl@r.example/v2/: refused",
	} {
		got := scrub(text, "r.example", auth)
		for _, secret := range []string{password, url.QueryEscape(password), `pa\"ss`, basicLogin, header, "c2lnbmF0dXJl", "eyJzdWIi"} {
			if strings.Contains(got, secret) {
				t.Errorf("%s: got %q, want it without %q", name, got, secret)
			}
		}
	}
	for _, text := range []string{
		"no basic auth credentials",
		"manifest unknown: manifest unknown",
		`Get "https://r.example/v2/x/manifests/1": EOF`,
		"unauthorized: authentication required",
	} {
		if got := scrub(text, "r.example", auth); got != text {
			t.Errorf("got %q, want %q unchanged", got, text)
		}
	}
}

func TestForeignTextFitsOnOneLine(t *testing.T) {
	if got, want := tidy("Error response from daemon: a\r\n\x1b[2Jb\tc\u202e"), "a [2Jb c"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	got := tidy(strings.Repeat("é", 10_000))
	if n := utf8.RuneCountInString(got); n != longestQuote+1 || !utf8.ValidString(got) {
		t.Errorf("a long page: got %d characters, want %d", n, longestQuote+1)
	}
}
