package config

import (
	"bytes"
	"encoding/json"
	"regexp"
	"strings"
)

// yamlLine is one line of YAML; origin is empty where the line only opens what follows.
type yamlLine struct{ text, origin string }

// yamlLines writes a mapping or a list in block style.
func yamlLines(n *node) []yamlLine {
	var out []yamlLine
	add := func(prefix string, value *node, indent string) {
		if text, ok := inline(value); ok {
			out = append(out, yamlLine{prefix + " " + text, value.origin.String()})
			return
		}
		below := yamlLines(value)
		if prefix == "-" { // an item's first line stands beside the dash
			out = append(out, yamlLine{"- " + below[0].text, below[0].origin})
			below = below[1:]
		} else {
			out = append(out, yamlLine{text: prefix})
		}
		for _, line := range below {
			out = append(out, yamlLine{indent + line.text, line.origin})
		}
	}
	for _, f := range n.fields {
		add(quote(f.name)+":", f.value, "  ")
	}
	for _, item := range n.items {
		add("-", item, "  ")
	}
	return out
}

// inline writes what fits on the line of its name.
func inline(n *node) (string, bool) {
	switch {
	case n.kind == kindString:
		return quote(n.text), true
	case n.kind == kindNumber, n.kind == kindBool:
		return n.text, true
	case n.kind == kindList && len(n.items) == 0:
		return "[]", true
	case n.kind == kindMapping && len(n.fields) == 0:
		return "{}", true
	}
	return "", false
}

var (
	// plain is text that every reader of YAML takes for the same text without quotes: words, paths, URLs, durations,
	// sizes.
	plain = regexp.MustCompile(`^([A-Za-z_/]([A-Za-z0-9_./:@+=-]*[A-Za-z0-9_./@+=-])?|([0-9]+(\.[0-9]+)?(ns|ms|s|m|h))+|[0-9]+([kKMGT]i?)?B)$`)
	// keyword is text that some reader of YAML takes for something else.
	keyword = regexp.MustCompile(`^(?i)(true|false|yes|no|on|off|y|n|null)$`)
)

// quote writes text as a YAML scalar.
func quote(text string) string {
	if plain.MatchString(text) && !keyword.MatchString(text) {
		return text
	}
	var b strings.Builder
	e := json.NewEncoder(&b) // a JSON string is a YAML string
	e.SetEscapeHTML(false)
	if err := e.Encode(text); err != nil {
		panic("config: encode text: " + err.Error()) // encoding a string has no way to fail
	}
	return strings.TrimSuffix(b.String(), "\n")
}

// MarshalJSON keeps the document's order.
func (n *node) MarshalJSON() ([]byte, error) {
	var b bytes.Buffer
	switch n.kind {
	case kindMapping:
		b.WriteByte('{')
		for i, f := range n.fields {
			name, err := json.Marshal(f.name)
			if err != nil {
				return nil, err
			}
			value, err := f.value.MarshalJSON()
			if err != nil {
				return nil, err
			}
			if i > 0 {
				b.WriteByte(',')
			}
			b.Write(name)
			b.WriteByte(':')
			b.Write(value)
		}
		b.WriteByte('}')
	case kindList:
		b.WriteByte('[')
		for i, item := range n.items {
			value, err := item.MarshalJSON()
			if err != nil {
				return nil, err
			}
			if i > 0 {
				b.WriteByte(',')
			}
			b.Write(value)
		}
		b.WriteByte(']')
	case kindString:
		return json.Marshal(n.text)
	case kindNumber, kindBool:
		b.WriteString(n.text)
	default:
		b.WriteString("null")
	}
	return b.Bytes(), nil
}
