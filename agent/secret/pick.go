package secret

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// namesShown is how many neighbouring keys an error names: enough for any secret written by hand, short enough for a line.
const namesShown = 20

// Pick takes one value out of a JSON document. The key is a path of object keys and array indexes with dots between
// them, such as db.password or hosts.0.name; a backslash takes the next character literally, so a\.b is the one key
// "a.b". An empty path is the whole document, which then need not be JSON.
//
// A string is returned unquoted, a number or boolean as its literal text (no digit is ever lost), an object or array as
// compact JSON. A missing key and null are ErrNotFound, a document that is not JSON is ErrUnavailable; errors name keys
// and positions, never values.
func Pick(document []byte, key string) (Value, error) {
	if key == "" {
		return NewValue(document), nil
	}
	path, err := parsePath(key)
	if err != nil {
		return Value{}, err
	}
	at, err := parseJSON(document)
	if err != nil {
		return Value{}, err
	}
	for i, step := range path {
		if at, err = step.into(at, where(path[:i])); err != nil {
			return Value{}, fmt.Errorf("key %q: %w", key, err)
		}
	}
	value, err := literal(at)
	if err != nil {
		return Value{}, fmt.Errorf("key %q: %w", key, err)
	}
	return NewValue(value), nil
}

// step is one part of a path.
type step struct {
	name string // unescaped
	end  string // the path as written, up to and with this step
}

// parsePath reads a key path. It refuses empty steps, since "a..b" is more likely a slip than a key without a name.
func parsePath(key string) ([]step, error) {
	var (
		path []step
		name strings.Builder
	)
	for i := 0; i <= len(key); i++ {
		switch {
		case i == len(key) || key[i] == '.':
			if name.Len() == 0 {
				return nil, fmt.Errorf("key path %q has an empty part: write it like db.password, with a backslash before a dot that belongs to a key", key)
			}
			path = append(path, step{name: name.String(), end: key[:i]})
			name.Reset()
		case key[i] == '\\':
			if i++; i == len(key) {
				return nil, fmt.Errorf("key path %q ends in a backslash: write a literal one twice", key)
			}
			name.WriteByte(key[i])
		default:
			name.WriteByte(key[i])
		}
	}
	return path, nil
}

// where names the level that a path has reached.
func where(reached []step) string {
	if len(reached) == 0 {
		return "the document"
	}
	return strconv.Quote(reached[len(reached)-1].end)
}

// parseJSON checks the whole document before any of it is used. The decoder's own errors quote what they met, so only
// the position is passed on.
func parseJSON(document []byte) (json.RawMessage, error) {
	// Some editors put a byte order mark before UTF-8 text; RFC 8259, section 8.1, lets a parser ignore it.
	text := bytes.TrimPrefix(document, []byte("\ufeff"))
	if !utf8.Valid(text) {
		return nil, because(ErrUnavailable, "the document is not JSON: it is not UTF-8 text; leave key out for the whole value")
	}
	var raw json.RawMessage
	if err := json.Unmarshal(text, &raw); err != nil {
		var syntax *json.SyntaxError
		if errors.As(err, &syntax) {
			return nil, because(ErrUnavailable, "the document is not JSON: it is damaged at byte %d of %d; correct it, or leave key out for the whole value", syntax.Offset, len(text))
		}
		return nil, because(ErrUnavailable, "the document is not JSON; correct it, or leave key out for the whole value")
	}
	return raw, nil
}

// into follows one step from a value known to be JSON; level is that value's name for errors.
func (s step) into(at json.RawMessage, level string) (json.RawMessage, error) {
	switch kindOfJSON(at) {
	case "an object":
		var members map[string]json.RawMessage
		if err := json.Unmarshal(at, &members); err != nil {
			return nil, because(ErrUnavailable, "%s is not readable as an object", level)
		}
		member, found := members[s.name]
		if !found {
			return nil, because(ErrNotFound, "%s has no key %q, it has %s", level, s.name, listNames(members))
		}
		return member, nil
	case "an array":
		var elements []json.RawMessage
		if err := json.Unmarshal(at, &elements); err != nil {
			return nil, because(ErrUnavailable, "%s is not readable as an array", level)
		}
		index, err := strconv.ParseUint(s.name, 10, 31)
		if err != nil {
			return nil, because(ErrNotFound, "%s is an array of %d: %q is not an index, write a number from 0", level, len(elements), s.name)
		}
		if index >= uint64(len(elements)) {
			return nil, because(ErrNotFound, "%s is an array of %d: it has no element %d, the first is 0", level, len(elements), index)
		}
		return elements[index], nil
	default:
		return nil, because(ErrNotFound, "%s is %s and has no key %q", level, kindOfJSON(at), s.name)
	}
}

func kindOfJSON(raw json.RawMessage) string {
	switch raw[0] {
	case '{':
		return "an object"
	case '[':
		return "an array"
	case '"':
		return "a string"
	case 't', 'f':
		return "a boolean"
	case 'n':
		return "null"
	default:
		return "a number"
	}
}

func listNames(members map[string]json.RawMessage) string {
	if len(members) == 0 {
		return "none"
	}
	names := slices.Sorted(maps.Keys(members))
	rest := ""
	if len(names) > namesShown {
		rest = fmt.Sprintf(" and %d more", len(names)-namesShown)
		names = names[:namesShown]
	}
	for i := range names {
		names[i] = strconv.Quote(names[i])
	}
	return strings.Join(names, ", ") + rest
}

// literal turns the JSON value a path leads to into the bytes of a secret.
func literal(raw json.RawMessage) ([]byte, error) {
	switch kindOfJSON(raw) {
	case "null":
		return nil, because(ErrNotFound, "it is null: give it a value at its source")
	case "a string":
		if hasLoneSurrogate(raw) {
			return nil, because(ErrUnavailable, "its string holds half of a surrogate pair, which is no character: correct it at its source")
		}
		var text string
		if err := json.Unmarshal(raw, &text); err != nil {
			return nil, because(ErrUnavailable, "its string is not readable")
		}
		return []byte(text), nil
	case "an object", "an array":
		var compact bytes.Buffer
		if err := json.Compact(&compact, raw); err != nil {
			return nil, because(ErrUnavailable, "it is not readable as JSON")
		}
		return compact.Bytes(), nil
	default:
		return bytes.Clone(raw), nil
	}
}

// hasLoneSurrogate finds \uD800–\uDFFF escapes without their other half in a valid JSON string. encoding/json would
// replace them silently, and a secret must never be changed silently.
func hasLoneSurrogate(quoted []byte) bool {
	for i := 0; i < len(quoted); i++ {
		if quoted[i] != '\\' {
			continue
		}
		i++ // the character after the backslash belongs to it
		first, isUnicode := unicodeEscape(quoted[i-1:])
		if !isUnicode {
			continue
		}
		i += 4
		if !utf16.IsSurrogate(first) {
			continue
		}
		second, isUnicode := unicodeEscape(quoted[i+1:])
		if !isUnicode || utf16.DecodeRune(first, second) == utf8.RuneError {
			return true
		}
		i += 6
	}
	return false
}

// unicodeEscape reads an escape like \u0041 at the start of text.
func unicodeEscape(text []byte) (rune, bool) {
	if len(text) < 6 || text[0] != '\\' || text[1] != 'u' {
		return 0, false
	}
	code, err := strconv.ParseUint(string(text[2:6]), 16, 16)
	return rune(code), err == nil
}
