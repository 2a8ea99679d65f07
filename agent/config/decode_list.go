package config

import (
	"reflect"
	"slices"
	"strconv"

	"github.com/flowviz/flowagent/agent/config/internal/rule"
)

// entries decodes a mapping into a map of text. A key without a value is taken out.
func (d *decoder) entries(n *node, v reflect.Value, s spot) {
	if n.kind != kindMapping {
		d.wrongType(n, s, kindMapping)
		return
	}
	if v.IsNil() {
		v.Set(reflect.MakeMap(v.Type()))
	}
	if len(n.fields) == 0 {
		d.origins[s.path] = n.origin
	}
	seen := map[string]Origin{}
	for _, f := range n.fields {
		if keys := rule.Fields[s.rule]; keys.Pattern != "" && !d.matches(keys.Pattern, f.name) {
			d.remark(f.origin, s, "", "a key here must be %s", keys.Says)
			continue
		}
		at := s.key(f.name)
		if d.twice(seen, f, at) {
			continue
		}
		if f.value.kind == kindNull {
			v.SetMapIndex(reflect.ValueOf(f.name), reflect.Value{})
			delete(d.origins, at.path)
			continue
		}
		value := reflect.New(v.Type().Elem()).Elem()
		d.decode(f.value, value, reflect.Zero(value.Type()), at)
		v.SetMapIndex(reflect.ValueOf(f.name), value)
	}
}

// list decodes a plain list, which replaces an earlier layer's.
func (d *decoder) list(n *node, v reflect.Value, s spot) {
	if n.kind != kindList {
		d.wrongType(n, s, kindList)
		return
	}
	d.reset(v, reflect.Zero(v.Type()), s)
	d.origins[s.path] = n.origin
	out := reflect.MakeSlice(v.Type(), len(n.items), len(n.items))
	first := map[any]int{}
	for i, item := range n.items {
		at := s.item(strconv.Itoa(i))
		if item.kind == kindNull {
			d.problem(item.origin, at, "", "an empty item")
			continue
		}
		d.decode(item, out.Index(i), reflect.Zero(v.Type().Elem()), at)
		value := out.Index(i).Interface()
		if line, found := first[value]; found && rule.Fields[s.rule].Unique && !d.refused[at.path] {
			d.problem(item.origin, at, "", "already in the list, on line %d", line)
			continue
		}
		first[value] = item.origin.Line
	}
	v.Set(out)
}

// namedItems decodes a list whose items merge with those of the same name in earlier layers; new ones come last.
func (d *decoder) namedItems(n *node, v reflect.Value, key string, s spot) {
	if n.kind != kindList {
		d.wrongType(n, s, kindList)
		return
	}
	if len(n.items) == 0 {
		d.origins[s.path] = n.origin
	}
	seen := map[string]Origin{}
	for i, item := range n.items {
		at := s.item(strconv.Itoa(i))
		if item.kind != kindMapping {
			d.wrongType(item, at, kindMapping)
			continue
		}
		name := item.get(key)
		if name == nil || name.kind == kindNull || name.kind == kindString && name.text == "" {
			d.problem(item.origin, at.field(key), "", "missing, and nothing else tells items apart")
			d.unnamed(item, v.Type().Elem(), key, at)
			continue
		}
		if r := rule.Fields[at.field(key).rule]; name.kind != kindString || !d.matches(r.Pattern, name.text) {
			d.problem(name.origin, at.field(key), "", "must be %s", r.Says)
			d.unnamed(item, v.Type().Elem(), key, at)
			continue
		}
		at = s.item(name.text)
		if first, found := seen[name.text]; found {
			d.problem(name.origin, at, "", "already in this list, on line %d", first.Line)
			d.unnamed(item, v.Type().Elem(), key, s.item(strconv.Itoa(i)))
			continue
		}
		seen[name.text] = name.origin
		target := itemNamed(v, key, name.text)
		d.decode(item, target, reflect.Zero(target.Type()), at)
	}
}

// unnamed checks what else an item holds whose name was refused, and drops it: without a name of its own it can't be
// merged.
func (d *decoder) unnamed(item *node, t reflect.Type, key string, at spot) {
	rest := &node{kind: item.kind, origin: item.origin, fields: slices.DeleteFunc(slices.Clone(item.fields), func(f field) bool { return f.name == key })}
	d.decode(rest, reflect.New(t).Elem(), reflect.Zero(t), at)
	d.refused[at.path] = true
}

// itemNamed returns the item of that name, after adding it where it isn't there.
func itemNamed(v reflect.Value, key, name string) reflect.Value {
	for i := range v.Len() {
		if v.Index(i).Field(fieldIndex(v.Type().Elem(), key)).String() == name {
			return v.Index(i)
		}
	}
	v.Set(reflect.Append(v, reflect.Zero(v.Type().Elem())))
	return v.Index(v.Len() - 1)
}
