package secret_test

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	goccy "github.com/goccy/go-yaml"
	yaml "go.yaml.in/yaml/v4"

	"github.com/flowviz/flowagent/agent/secret"
)

// canary is what must never be seen, in any of the spellings that fmt knows.
const canary = "canary-5up3r"

var spellings = []string{
	canary,
	fmt.Sprintf("%x", canary), fmt.Sprintf("%X", canary), fmt.Sprintf("% x", canary),
	fmt.Sprint([]byte(canary)), strings.Trim(fmt.Sprintf("%#v", []byte(canary)), "[]byte{}"),
	strings.Trim(fmt.Sprintf("%o", []byte(canary)), "[]"), strings.Trim(fmt.Sprintf("%b", []byte(canary)), "[]"),
	"Y2FuYXJ5LTV1cDNy", // base64
}

func mustHide(t *testing.T, how, got string) {
	t.Helper()
	for _, s := range spellings {
		if strings.Contains(got, s) {
			t.Errorf("%s: got %q, which shows the secret as %q", how, got, s)
		}
	}
}

type exported struct {
	Name    string
	Secret  secret.Value
	Pointer *secret.Value
}

type unexported struct {
	name    string
	secret  secret.Value
	pointer *secret.Value
	list    []secret.Value
	byName  map[string]secret.Value
	any     any
}

type embedded struct{ secret.Value }

// holders are the ways in which code carries a secret around.
func holders() map[string]any {
	v := secret.NewValue([]byte(canary))
	p := &v
	return map[string]any{
		"value":              v,
		"pointer":            p,
		"pointer to pointer": &p,
		"exported fields":    exported{"db", v, p},
		"pointer to struct":  &exported{"db", v, p},
		"unexported fields":  unexported{"db", v, p, []secret.Value{v}, map[string]secret.Value{"db": v}, v},
		"embedded":           embedded{v},
		"slice":              []secret.Value{v, v},
		"array":              [1]secret.Value{v},
		"slice of pointers":  []*secret.Value{p},
		"map":                map[string]secret.Value{"db": v},
		"map of pointers":    map[string]*secret.Value{"db": p},
		"interface":          []any{v, p},
		"nested":             map[string]any{"deep": []any{exported{"db", v, p}, unexported{secret: v}}},
		"error":              fmt.Errorf("login with %v: %w", v, errors.New("refused")),
	}
}

func TestNoFormattingVerbShowsASecret(t *testing.T) {
	verbs := []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "% x", "%#x", "%d", "%b", "%o", "%O", "%c", "%U", "%e", "%g", "%t", "%T", "%p", "%10v", "%-10s", "%.3s", "%+q", "%w", "%!", "%z"}
	for name, holder := range holders() {
		for _, verb := range verbs {
			mustHide(t, name+" with "+verb, fmt.Sprintf(verb, holder))
		}
		mustHide(t, name+" with Sprint", fmt.Sprint(holder))
		mustHide(t, name+" with Sprintln", fmt.Sprintln(holder))
	}
}

func TestASecretPrintsAsRedacted(t *testing.T) {
	v := secret.NewValue([]byte(canary))
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
		if got, want := fmt.Sprintf(verb, v), "[redacted]"; got != want {
			t.Errorf("%s of a value: got %q, want %q", verb, got, want)
		}
		if got, want := fmt.Sprintf(verb, &v), "[redacted]"; got != want {
			t.Errorf("%s of a pointer: got %q, want %q", verb, got, want)
		}
	}
	if got, want := fmt.Sprintf("%+v", exported{Name: "db", Secret: v}), "{Name:db Secret:[redacted] Pointer:<nil>}"; got != want {
		t.Errorf("%%+v of a struct: got %q, want %q", got, want)
	}
}

func TestNoEncodingShowsASecret(t *testing.T) {
	for name, holder := range holders() {
		encoded, err := json.Marshal(holder)
		if err != nil {
			t.Errorf("JSON of %s: %v", name, err)
		}
		mustHide(t, name+" as JSON", string(encoded))
		encoded, err = goccy.Marshal(holder)
		if err != nil {
			t.Errorf("YAML of %s: %v", name, err)
		}
		mustHide(t, name+" as YAML", string(encoded))
	}
	v := secret.NewValue([]byte(canary))
	for how, holder := range map[string]any{"value": exported{Secret: v}, "pointer": exported{Pointer: &v}} {
		encoded, err := yaml.Marshal(holder)
		if err != nil {
			t.Errorf("YAML v4 of a %s: %v", how, err)
		}
		mustHide(t, how+" as YAML v4", string(encoded))
		encoded, err = xml.Marshal(holder)
		if err != nil {
			t.Errorf("XML of a %s: %v", how, err)
		}
		mustHide(t, how+" as XML", string(encoded))
	}
	keyed, err := json.Marshal(map[secret.Value]int{v: 1})
	if err != nil {
		t.Fatal(err)
	}
	if got, want := string(keyed), `{"[redacted]":1}`; got != want {
		t.Errorf("a secret as a map's key: got %s, want %s", got, want)
	}
}

func TestNoLogShowsASecret(t *testing.T) {
	for name, holder := range holders() {
		var text, lines bytes.Buffer
		for _, log := range []*slog.Logger{slog.New(slog.NewTextHandler(&text, nil)), slog.New(slog.NewJSONHandler(&lines, nil))} {
			log.Info("event", "holder", holder, slog.Any("any", holder), slog.Group("group", "holder", holder))
			log.With("holder", holder).WithGroup("g").Info(fmt.Sprint(holder), "again", holder)
		}
		mustHide(t, name+" in a text log", text.String())
		mustHide(t, name+" in a JSON log", lines.String())
		if text.Len() == 0 || lines.Len() == 0 {
			t.Errorf("%s: nothing was logged", name)
		}
	}
}

func TestAValueRevealsAndCompares(t *testing.T) {
	absent, empty := secret.Value{}, secret.NewValue(nil)
	a, same, other := secret.NewValue([]byte("a")), secret.NewValue([]byte("a")), secret.NewValue([]byte("b"))
	if got := string(a.Reveal()); got != "a" {
		t.Errorf("Reveal: got %q, want %q", got, "a")
	}
	if absent.Reveal() != nil || !absent.IsZero() || empty.IsZero() {
		t.Errorf("an absent secret is zero and an empty one is not: got %v, %v", absent.IsZero(), empty.IsZero())
	}
	for _, pair := range []struct {
		a, b secret.Value
		want bool
	}{{a, a, true}, {a, same, true}, {a, other, false}, {absent, empty, false}, {empty, absent, false}, {absent, absent, true}, {empty, empty, true}, {a, absent, false}} {
		if got := pair.a.Equal(pair.b); got != pair.want {
			t.Errorf("Equal(%q, %q): got %v, want %v", pair.a.Reveal(), pair.b.Reveal(), got, pair.want)
		}
	}
}
