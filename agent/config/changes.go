package config

import (
	"maps"
	"reflect"
	"slices"
	"strings"
)

// Changes are the paths of what differs between two configurations, in the order of the document: a field's own path
// where it holds one value, an item's where a list's items have names (secrets.items[db_password]), and that of any
// other list or map as a whole.
func Changes(before, after Config) []string {
	var paths []string
	var walk func(a, b reflect.Value, s spot)
	walk = func(a, b reflect.Value, s spot) {
		switch {
		case reflect.DeepEqual(a.Interface(), b.Interface()):
		case a.Kind() == reflect.Struct:
			for _, name := range fieldNames(a.Type()) {
				i := fieldIndex(a.Type(), name)
				walk(a.Field(i), b.Field(i), s.field(name))
			}
		case named[a.Type()] != "":
			paths = append(paths, itemChanges(a, b, s)...)
		default:
			paths = append(paths, s.path)
		}
	}
	walk(reflect.ValueOf(before), reflect.ValueOf(after), spot{})
	return paths
}

// itemChanges compares two lists by their items' names.
func itemChanges(a, b reflect.Value, s spot) []string {
	items := func(list reflect.Value) map[string]any {
		byPath := map[string]any{}
		for i := range list.Len() {
			byPath[itemSpot(list, i, s).path] = list.Index(i).Interface()
		}
		return byPath
	}
	before, after := items(a), items(b)
	var paths []string
	for path := range before {
		if !reflect.DeepEqual(before[path], after[path]) {
			paths = append(paths, path)
		}
	}
	for path := range after {
		if _, known := before[path]; !known {
			paths = append(paths, path)
		}
	}
	if len(paths) == 0 { // they only changed places
		return []string{s.path}
	}
	slices.Sort(paths)
	return paths
}

// Secrets are the names of the secrets that the check uses, sorted, each once.
func (c Check) Secrets() []string {
	used := map[string]bool{}
	visit(reflect.ValueOf(c), spot{rule: "health.checks[]"}, func(v reflect.Value, s spot) {
		switch {
		case strings.HasSuffix(s.rule, ".passwordSecret") && v.String() != "":
			used[v.String()] = true
		case strings.HasSuffix(s.rule, ".secretHeaders"):
			for _, header := range v.MapKeys() {
				used[v.MapIndex(header).String()] = true
			}
		}
	})
	return slices.Sorted(maps.Keys(used))
}
