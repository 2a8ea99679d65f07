package config

import (
	"encoding"
	"fmt"
	"reflect"
	"regexp"
	"slices"
	"strings"
)

// decoder writes one layer after another into the same value. A later layer's fields replace an earlier one's,
// mappings merge by key, lists of named items by name, and an explicit null puts the default back.
type decoder struct {
	layer    Layer
	index    int // of the layer
	origins  map[string]Origin
	places   map[string]Origin // where each field was last mentioned, containers included
	refused  map[string]bool   // paths with a problem, which the checks of the whole leave alone
	problems []placed
	patterns map[string]*regexp.Regexp
}

// placed is a problem with the layer it belongs to, for sorting.
type placed struct {
	layer int
	Problem
}

// spot is one place in the document: as it is shown, and as the rules name it.
type spot struct{ path, rule string }

func (s spot) field(name string) spot {
	if s.path == "" {
		return spot{name, name}
	}
	return spot{s.path + "." + name, s.rule + "." + name}
}

func (s spot) item(key string) spot { return spot{s.path + "[" + key + "]", s.rule + "[]"} }

func (s spot) key(name string) spot { return spot{s.path + "." + name, s.rule + ".*"} }

// secretive tells whether a value at this place may be a secret that was pasted where a name belongs. Such a value is
// never repeated in a message.
func (s spot) secretive() bool {
	for _, section := range []string{"secrets", "registries", "workload.variables", "health.checks", "notify"} {
		if rest, found := strings.CutPrefix(s.rule, section); found && (rest == "" || rest[0] == '.' || rest[0] == '[') {
			return true
		}
	}
	return false
}

// named are the lists that merge by name, with the field that names an item.
var named = map[reflect.Type]string{
	reflect.TypeFor[[]Secret]():    "name",
	reflect.TypeFor[[]Registry]():  "host",
	reflect.TypeFor[[]Check]():     "name",
	reflect.TypeFor[[]DrainHook](): "name",
}

func (d *decoder) problem(at Origin, s spot, hint, format string, args ...any) {
	d.refused[s.path] = true
	d.remark(at, s, hint, format, args...)
}

// remark is a problem that leaves the field itself as it is, such as a stranger among its own fields.
func (d *decoder) remark(at Origin, s spot, hint, format string, args ...any) {
	d.problems = append(d.problems, placed{d.index, Problem{Origin: at, Path: s.path, Message: fmt.Sprintf(format, args...), Hint: hint}})
}

// decode sets v, whose default is def, to what n says.
func (d *decoder) decode(n *node, v, def reflect.Value, s spot) {
	d.places[s.path] = n.origin
	if n.kind == kindNull {
		d.reset(v, def, s)
		return
	}
	if v.Type() == reflect.TypeFor[OnChange]() {
		d.onChange(n, v, s)
		return
	}
	if scalar, ok := v.Addr().Interface().(encoding.TextUnmarshaler); ok {
		d.text(n, scalar, s)
		return
	}
	switch v.Kind() {
	case reflect.Pointer:
		if n.kind != kindMapping {
			d.wrongType(n, s, kindMapping)
			return
		}
		if v.IsNil() {
			v.Set(reflect.New(v.Type().Elem()))
		}
		d.origins[s.path] = n.origin // an empty mapping has a meaning here, so it has an origin
		d.fields(n, v.Elem(), reflect.Zero(v.Type().Elem()), s)
	case reflect.Struct:
		d.fields(n, v, def, s)
	case reflect.Map:
		d.entries(n, v, s)
	case reflect.Slice:
		if key, ok := named[v.Type()]; ok {
			d.namedItems(n, v, key, s)
		} else {
			d.list(n, v, s)
		}
	case reflect.String:
		d.string(n, v, s)
	case reflect.Int:
		d.int(n, v, s)
	case reflect.Bool:
		d.bool(n, v, s)
	default:
		panic("config: no decoder for " + v.Type().String()) // a field of the contract that no test covers
	}
}

// reset puts the default back, and forgets what earlier layers said about the field and all below it. No default holds
// a map, a list or an optional part, so nothing is shared.
func (d *decoder) reset(v, def reflect.Value, s spot) {
	for path := range d.origins {
		if within(path, s.path) {
			delete(d.origins, path)
		}
	}
	v.Set(def)
}

// within tells whether path is at or below top.
func within(path, top string) bool {
	rest, found := strings.CutPrefix(path, top)
	return found && (rest == "" || top == "" || rest[0] == '.' || rest[0] == '[')
}

func (d *decoder) wrongType(n *node, s spot, want kind) {
	hint := ""
	switch {
	case want == kindString && (n.kind == kindNumber || n.kind == kindBool):
		hint = "quote it"
	case want == kindList && n.kind == kindString:
		hint = "write it as [value], or with a dash before each item"
	case want == kindNumber && n.kind == kindString:
		hint = "write it in plain decimal digits, without quotes"
	case s.rule == "workload.variables" && n.kind == kindList:
		hint = "write each as NAME: value"
	}
	d.problem(n.origin, s, hint, "this is %s where %s belongs", n.kind, want)
}

// fields decodes a mapping into a struct. Names are the struct's yaml tags.
func (d *decoder) fields(n *node, v, def reflect.Value, s spot) {
	if n.kind != kindMapping {
		d.wrongType(n, s, kindMapping)
		return
	}
	t := v.Type()
	seen := map[string]Origin{}
	for _, f := range n.fields {
		i := fieldIndex(t, f.name)
		if i < 0 {
			d.unknown(f, t, s)
			continue
		}
		if d.twice(seen, f, s.field(f.name)) {
			continue
		}
		d.decode(f.value, v.Field(i), def.Field(i), s.field(f.name))
		if f.value.kind == kindMapping || f.value.kind == kindList {
			d.places[s.field(f.name).path] = f.origin // what is missing in it is looked for at its name
		}
	}
	switch t {
	case reflect.TypeFor[Source]():
		d.choice(n, v, s, "source")
	case reflect.TypeFor[Check]():
		d.choice(n, v, s, "kind")
	}
}

// twice refuses a field that was already there in the same mapping.
func (d *decoder) twice(seen map[string]Origin, f field, s spot) bool {
	first, found := seen[f.name]
	if found {
		d.problem(f.origin, s, "", "already set on line %d", first.Line)
		return true
	}
	seen[f.name] = f.origin
	return false
}

// choice holds a choice among optional parts, such as that in `from`: one per layer, and a later layer's in place of an
// earlier one's. Where the parts stand beside other fields, a layer need not choose.
func (d *decoder) choice(n *node, v reflect.Value, s spot, what string) {
	parts := choices(v.Type())
	optional := len(parts) < len(fieldNames(v.Type()))
	var chosen, strangers []string
	for _, f := range n.fields {
		switch {
		case fieldIndex(v.Type(), f.name) < 0:
			strangers = append(strangers, f.name)
		case !slices.Contains(parts, f.name):
		case f.value.kind != kindNull && !slices.Contains(chosen, f.name):
			chosen = append(chosen, f.name)
		}
	}
	switch {
	case len(chosen) == 0 && (optional || len(strangers) > 0): // a stranger was reported, and is likely what was meant
	case len(chosen) == 0:
		d.problem(n.origin, s, "use "+alternatives(parts), "no %s", what)
	case len(chosen) > 1:
		d.problem(n.origin, s, "keep one", "%d %ss where one belongs: %s", len(chosen), what, strings.Join(chosen, ", "))
	case len(chosen) == 1:
		for _, name := range parts {
			if other := v.Field(fieldIndex(v.Type(), name)); name != chosen[0] && !other.IsNil() {
				d.reset(other, reflect.Zero(other.Type()), s.field(name))
			}
		}
	}
}

// choices are the names of a struct's optional parts.
func choices(t reflect.Type) []string {
	return slices.DeleteFunc(fieldNames(t), func(name string) bool { return t.Field(fieldIndex(t, name)).Type.Kind() != reflect.Pointer })
}

// fieldNames are the names of a struct's fields in the document, in their order.
func fieldNames(t reflect.Type) []string {
	var names []string
	for _, f := range reflect.VisibleFields(t) {
		if name := f.Tag.Get("yaml"); name != "-" {
			names = append(names, name)
		}
	}
	return names
}

// fieldIndex is the index of the struct field with that name in the document, or -1.
func fieldIndex(t reflect.Type, name string) int {
	if name == "-" { // not for documents
		return -1
	}
	return slices.IndexFunc(reflect.VisibleFields(t), func(f reflect.StructField) bool { return f.Tag.Get("yaml") == name })
}
