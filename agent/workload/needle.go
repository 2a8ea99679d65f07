package workload

import (
	"bytes"
	"encoding/base64"
	"net/url"
	"slices"
	"strings"

	"github.com/flowviz/flowagent/agent/secret"
)

const (
	// minWhole is the shortest secret that counts where it is a whole entry. Shorter ones (1, on, yes) are everywhere.
	minWhole = 4
	// minPart is the shortest secret that is looked for inside a longer text, where four letters are found by chance.
	minPart = 8
)

const scrubbed = "[redacted]"

// needle is one secret in the forms in which it turns up in text.
type needle struct {
	whole string   // without the line break that ends most files
	parts []string // what to look for inside a text, the longest first; none for a short secret
}

// newNeedle prepares to look for a secret. ok is false for one too short to be told from chance.
func newNeedle(value secret.Value) (n needle, ok bool) {
	raw := string(bytes.TrimRight(value.Reveal(), "\r\n"))
	if len(raw) < minWhole {
		return needle{}, false
	}
	n.whole = raw
	if len(raw) < minPart {
		return n, true
	}
	n.parts = append(n.parts, raw, url.QueryEscape(raw), url.PathEscape(raw))
	n.parts = append(n.parts, base64Forms(raw)...)
	// A log shows a key or a certificate one line at a time.
	if strings.Contains(raw, "\n") {
		for line := range strings.Lines(raw) {
			line = strings.TrimSpace(line)
			if len(line) >= 2*minPart && !strings.HasPrefix(line, "-----") {
				n.parts = append(n.parts, line)
			}
		}
	}
	slices.SortFunc(n.parts, func(a, b string) int { return len(b) - len(a) })
	n.parts = slices.Compact(n.parts)
	return n, true
}

// base64Forms are what is sure to stand in the base64 text of anything that contains raw: the characters that raw
// alone decides, for each of the three places where it can begin within a group of three bytes.
func base64Forms(raw string) []string {
	var forms []string
	for offset := range 3 {
		padded := strings.Repeat("\x00", offset) + raw
		first := (offset*8 + 5) / 6 // characters that the bytes before have a part in
		last := len(padded) * 8 / 6 // characters before those that the bytes after have a part in
		for _, encoding := range []*base64.Encoding{base64.RawStdEncoding, base64.RawURLEncoding} {
			forms = append(forms, encoding.EncodeToString([]byte(padded))[first:last])
		}
	}
	return forms
}

// in tells whether text is the secret or holds it.
func (n needle) in(text string) bool {
	if strings.TrimRight(text, "\r\n") == n.whole {
		return true
	}
	if len(n.parts) == 0 {
		return false
	}
	for _, part := range n.parts {
		if strings.Contains(text, part) {
			return true
		}
	}
	// Escapes may be written in lower case, or for characters that needn't be escaped.
	if strings.Contains(text, "%") {
		for _, unescape := range []func(string) (string, error){url.PathUnescape, url.QueryUnescape} {
			if plain, err := unescape(text); err == nil && strings.Contains(plain, n.whole) {
				return true
			}
		}
	}
	return false
}

// scrubber takes known secrets out of text that is shown.
type scrubber []needle

func newScrubber(values []secret.Value) scrubber {
	var s scrubber
	for _, value := range values {
		if n, ok := newNeedle(value); ok {
			s = append(s, n)
		}
	}
	return s
}

func (s scrubber) scrub(text string) string {
	for _, n := range s {
		for _, part := range n.parts {
			text = strings.ReplaceAll(text, part, scrubbed)
		}
		// A short secret is taken out, too: a word too few is better than a PIN in a log.
		if len(n.parts) == 0 {
			text = strings.ReplaceAll(text, n.whole, scrubbed)
		}
	}
	return text
}
