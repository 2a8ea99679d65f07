package secret_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/flowviz/flowagent/agent/secret"
)

func TestPickFollowsAPath(t *testing.T) {
	const document = ` {
		"db": {"user": "app", "password": "p\u00e4ss \"w\"\n", "port": 5432, "tls": true, "empty": "", "ratio": 1.10, "big": 123456789012345678901234567890, "tiny": -1E-400, "none": null},
		"hosts": [{"name": "a"}, {"name": "b", "ports": [1, 2]}],
		"a.b": {"c\\d": "escaped"},
		"emoji": "\ud83d\ude00 \ufffd",
		"0": "zero",
		"html": {"x" : "<&>", "y" : [ 1.0 , 2 ]}
	}`
	for key, want := range map[string]string{
		"db.user":         "app",
		"db.password":     "päss \"w\"\n",
		"db.port":         "5432",
		"db.tls":          "true",
		"db.empty":        "",
		"db.ratio":        "1.10",
		"db.big":          "123456789012345678901234567890",
		"db.tiny":         "-1E-400",
		"hosts.1.name":    "b",
		"hosts.1.ports.0": "1",
		`a\.b.c\\d`:       "escaped",
		"emoji":           "😀 \ufffd",
		"0":               "zero",
		"html":            `{"x":"<&>","y":[1.0,2]}`,
		"hosts.0":         `{"name":"a"}`,
		"":                document,
	} {
		got, err := secret.Pick([]byte(document), key)
		if err != nil {
			t.Errorf("Pick(%q): %v", key, err)
			continue
		}
		if string(got.Reveal()) != want {
			t.Errorf("Pick(%q): got %q, want %q", key, got.Reveal(), want)
		}
	}
}

func TestPickTakesWhatIsNotJSONWhole(t *testing.T) {
	binary := []byte{0, 0xff, '{'}
	got, err := secret.Pick(binary, "")
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got.Reveal(), binary) {
		t.Errorf("got %q, want %q", got.Reveal(), binary)
	}
}

func TestPickIgnoresAByteOrderMark(t *testing.T) {
	got, err := secret.Pick([]byte("\ufeff{\"a\": \"b\"}"), "a")
	if err != nil {
		t.Fatal(err)
	}
	if string(got.Reveal()) != "b" {
		t.Errorf("got %q, want %q", got.Reveal(), "b")
	}
}

func TestPickSaysWhatIsMissingWithoutShowingValues(t *testing.T) {
	many := `{"m": {`
	for i := range 30 {
		many += fmt.Sprintf(`"k%02d": %q,`, i, canary)
	}
	many = strings.TrimSuffix(many, ",") + "}}"
	for _, c := range []struct {
		document, key string
		want          []string
		kind          error
	}{
		{`{"db": {"user": "` + canary + `", "port": 1}}`, "db.password.x", []string{`key "db.password.x"`, `"db" has no key "password"`, `it has "port", "user"`}, secret.ErrNotFound},
		{`{"user": "` + canary + `"}`, "password", []string{`the document has no key "password"`, `"user"`}, secret.ErrNotFound},
		{`{}`, "password", []string{`it has none`}, secret.ErrNotFound},
		{`{"db": null}`, "db", []string{`key "db"`, "null"}, secret.ErrNotFound},
		{`{"db": null}`, "db.password", []string{`"db" is null`}, secret.ErrNotFound},
		{`{"db": "` + canary + `"}`, "db.password", []string{`"db" is a string and has no key "password"`}, secret.ErrNotFound},
		{`{"db": 5}`, "db.password", []string{`"db" is a number`}, secret.ErrNotFound},
		{`{"db": ["` + canary + `"]}`, "db.1", []string{`"db" is an array of 1`, "no element 1"}, secret.ErrNotFound},
		{`{"db": ["` + canary + `"]}`, "db.first", []string{`"db" is an array of 1`, `"first" is not an index`}, secret.ErrNotFound},
		{`{"db": ["` + canary + `"]}`, "db.-1", []string{`"-1" is not an index`}, secret.ErrNotFound},
		{`{"db": ["` + canary + `"]}`, "db.99999999999999999999", []string{`is not an index`}, secret.ErrNotFound},
		{`{"a.b": {"c": "` + canary + `"}}`, `a\.b.d`, []string{`"a\\.b" has no key "d"`}, secret.ErrNotFound},
		{many, "m.x", []string{`"k00"`, `"k19" and 10 more`}, secret.ErrNotFound},
		{canary, "db", []string{"not JSON", "byte 1 of 12"}, secret.ErrUnavailable},
		{`{"db": "` + canary, "db", []string{"not JSON"}, secret.ErrUnavailable},
		{`{"db": "` + canary + `"} x`, "db", []string{"not JSON", "byte 24 of 24"}, secret.ErrUnavailable},
		{``, "db", []string{"not JSON"}, secret.ErrUnavailable},
		{"{\"db\": \"" + canary + "\xff\"}", "db", []string{"not UTF-8"}, secret.ErrUnavailable},
		{`{"db": "` + canary + `\ud83d"}`, "db", []string{"surrogate"}, secret.ErrUnavailable},
		{`{"db": "` + canary + `\ud83d\u0041"}`, "db", []string{"surrogate"}, secret.ErrUnavailable},
		{`{"db": "` + canary + `\ude00\ud83d"}`, "db", []string{"surrogate"}, secret.ErrUnavailable},
		{strings.Repeat("[", 1<<20), "0", []string{"not JSON"}, secret.ErrUnavailable},
	} {
		value, err := secret.Pick([]byte(c.document), c.key)
		if err == nil {
			t.Errorf("Pick(%.40q, %q): got %q, want an error", c.document, c.key, value.Reveal())
			continue
		}
		for _, want := range c.want {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("Pick(%.40q, %q): got %q, want it to say %q", c.document, c.key, err, want)
			}
		}
		mustBeOnly(t, err, c.kind)
		mustHide(t, "error of Pick", err.Error())
	}
}

func TestPickLeavesAnEscapedBackslashAlone(t *testing.T) {
	got, err := secret.Pick([]byte(`{"a": "\\ud83d"}`), "a")
	if err != nil {
		t.Fatal(err)
	}
	if want := `\ud83d`; string(got.Reveal()) != want {
		t.Errorf("got %q, want %q", got.Reveal(), want)
	}
}

func TestPickRefusesAMalformedPath(t *testing.T) {
	for _, key := range []string{".", "a.", ".a", "a..b", `a\`, `\`} {
		if value, err := secret.Pick([]byte(`{"a": {"": "x"}}`), key); err == nil {
			t.Errorf("Pick(%q): got %q, want an error", key, value.Reveal())
		}
	}
}

// mustBeOnly checks that an error wraps one of the three kinds and no other.
func mustBeOnly(t *testing.T, err, kind error) {
	t.Helper()
	for _, k := range []error{secret.ErrNotFound, secret.ErrDenied, secret.ErrUnavailable} {
		if got, want := errors.Is(err, k), k == kind; got != want {
			t.Errorf("%q: errors.Is(%v): got %v, want %v", err, k, got, want)
		}
	}
}

// FuzzPick holds Pick against a decoder that reads the whole document into Go values.
func FuzzPick(f *testing.F) {
	f.Add([]byte(`{"db": {"password": "x", "port": 5432}, "list": [1, {"a.b": null}]}`), "db.password")
	f.Add([]byte(`{"db": {"password": "x", "port": 5432}, "list": [1, {"a.b": null}]}`), `list.1.a\.b`)
	f.Add([]byte(`[[["\ud83d\ude00", 1e400, true]]]`), "0.0.1")
	f.Add([]byte(`{"a":1,"a":{"b":"\ud800"}}`), "a.b")
	f.Add([]byte("\ufeff\"x\""), "")
	f.Fuzz(func(t *testing.T, document []byte, key string) {
		value, err := secret.Pick(document, key)
		if err != nil && !value.IsZero() {
			t.Fatalf("an error and a value: %v", err)
		}
		if key == "" {
			if err != nil || !bytes.Equal(value.Reveal(), document) {
				t.Fatalf("the whole document: got %q, %v", value.Reveal(), err)
			}
			return
		}
		want, whole, found := reference(document, key)
		if err == nil && !found {
			t.Fatalf("got %q where nothing is", value.Reveal())
		}
		if err != nil {
			// Half a surrogate pair and what isn't UTF-8 are refused on purpose, the decoder replaces them.
			if found && !strings.Contains(err.Error(), "surrogate") && utf8.Valid(document) {
				t.Fatalf("got %v, want %q", err, want)
			}
			return
		}
		// Objects and arrays keep their own order and numbers, so only their form can be compared.
		if whole && !json.Valid(value.Reveal()) || !whole && string(value.Reveal()) != want {
			t.Fatalf("got %q, want %q", value.Reveal(), want)
		}
	})
}

// reference finds what a key leads to, the slow and simple way; whole tells that it is an object or array.
func reference(document []byte, key string) (text string, whole, found bool) {
	decoder := json.NewDecoder(bytes.NewReader(bytes.TrimPrefix(document, []byte("\ufeff"))))
	decoder.UseNumber()
	var at any
	if decoder.Decode(&at) != nil || decoder.More() {
		return "", false, false
	}
	var path []string
	part, escaped := []byte{}, false
	for _, c := range []byte(key) {
		switch {
		case escaped:
			part, escaped = append(part, c), false
		case c == '\\':
			escaped = true
		case c == '.':
			path, part = append(path, string(part)), []byte{}
		default:
			part = append(part, c)
		}
	}
	path = append(path, string(part))
	if escaped || slices.Contains(path, "") {
		return "", false, false
	}
	for _, name := range path {
		switch level := at.(type) {
		case map[string]any:
			next, found := level[name]
			if !found {
				return "", false, false
			}
			at = next
		case []any:
			i, err := strconv.ParseUint(name, 10, 31)
			if err != nil || i >= uint64(len(level)) {
				return "", false, false
			}
			at = level[i]
		default:
			return "", false, false
		}
	}
	switch v := at.(type) {
	case nil:
		return "", false, false
	case string:
		return v, false, true
	case json.Number:
		return v.String(), false, true
	case bool:
		return strconv.FormatBool(v), false, true
	default:
		encoded, err := json.Marshal(v)
		return string(encoded), true, err == nil
	}
}
