package config

import (
	"reflect"
	"regexp"

	"github.com/flowviz/flowagent/agent/config/internal/rule"
	"github.com/flowviz/flowagent/internal/suggest"
)

// plainName is what may be a field's name; anything else is not repeated, since it may be a value gone astray.
var plainName = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9_-]{0,39}$`)

// unknown refuses a field that the format doesn't have, with the best guess at what was meant.
func (d *decoder) unknown(f field, t reflect.Type, s spot) {
	at := s.field(f.name)
	hint, held := rule.Holders[s.rule][suggest.Fold(f.name)]
	switch {
	case held:
		d.problem(f.origin, at, hint, "unknown field")
	case !plainName.MatchString(f.name) || s.secretive() && f.value.kind == kindNull:
		d.remark(f.origin, s, "its fields are "+alternatives(fieldNames(t)), "a field that doesn't exist here")
	case suggest.Closest(f.name, fieldNames(t)) != "":
		d.problem(f.origin, at, didYouMean(f.name, fieldNames(t)), "unknown field")
	case elsewhere(f.name) != "":
		d.problem(f.origin, at, "it belongs to "+elsewhere(f.name), "unknown field")
	default:
		d.problem(f.origin, at, "its neighbours are "+alternatives(fieldNames(t)), "unknown field")
	}
}

// elsewhere finds the only section that has a field of this name, or "".
func elsewhere(name string) string {
	var found []string
	var walk func(t reflect.Type, s spot)
	walk = func(t reflect.Type, s spot) {
		for t.Kind() == reflect.Pointer || t.Kind() == reflect.Slice {
			if t.Kind() == reflect.Slice {
				s.rule += "[]"
			}
			t = t.Elem()
		}
		if t.Kind() != reflect.Struct {
			return
		}
		for _, f := range reflect.VisibleFields(t) {
			child := f.Tag.Get("yaml")
			if child == name && s.rule != "" {
				found = append(found, s.rule)
			}
			walk(f.Type, s.field(child))
		}
	}
	walk(reflect.TypeFor[Config](), spot{})
	if len(found) != 1 {
		return ""
	}
	return found[0]
}
