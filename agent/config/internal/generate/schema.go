package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strconv"

	"github.com/invopop/jsonschema"

	"github.com/flowviz/flowagent/agent/config"
	"github.com/flowviz/flowagent/agent/config/internal/rule"
)

// enum is a string type with a fixed set of values.
type enum interface{ Values() []string }

// schemaOf reflects the configuration's types into a JSON Schema of one layer. Every field but a list item's name may
// be null, which puts the default back.
func schemaOf(c comments) ([]byte, error) {
	r := &jsonschema.Reflector{
		Anonymous:                  true,
		ExpandedStruct:             true,
		DoNotReference:             true, // rules go by place, and a shared definition has several
		FieldNameTag:               "yaml",
		RequiredFromJSONSchemaTags: true, // that is, nothing: another layer may hold it
		Mapper:                     scalar,
		LookupComment: func(t reflect.Type, field string) string {
			if field == "" {
				return c[t.Name()]
			}
			return c[t.Name()+"."+field]
		},
	}
	s := r.ReflectFromType(reflect.TypeFor[config.Config]())
	s.Title = "flowagent configuration"
	s.Description = c["Config"]
	if err := apply(s, ""); err != nil {
		return nil, err
	}
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	if err := e.Encode(s); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

// scalar describes the types that are one word in a document.
func scalar(t reflect.Type) *jsonschema.Schema {
	text := func(pattern string, examples ...any) *jsonschema.Schema {
		return &jsonschema.Schema{Type: "string", Pattern: pattern, Examples: examples}
	}
	switch reflect.New(t).Interface().(type) {
	case *config.Duration:
		return text(rule.Duration, "30s", "5m", "1h30m")
	case *config.ByteSize:
		return &jsonschema.Schema{AnyOf: []*jsonschema.Schema{text(rule.ByteSize, "500MB", "10GiB"), {Enum: []any{0}}}}
	case *config.Percent:
		return text(rule.Percent, "5%")
	case *config.Room:
		return text(rule.Room, "10GiB", "10%")
	case *config.ListenAddress:
		return text(rule.ListenAddress, ":9180", "127.0.0.1:9180")
	case *config.URL:
		return text(rule.URL)
	case *config.EngineAddress:
		return text(rule.EngineAddress)
	case *config.OnChange:
		signal := rule.Fields["secrets.items[].onChange.signal"]
		object := &jsonschema.Schema{Type: "object", Properties: jsonschema.NewProperties(), Required: []string{"signal"}, AdditionalProperties: jsonschema.FalseSchema}
		object.Properties.Set("signal", text(signal.Pattern, "SIGHUP"))
		return &jsonschema.Schema{AnyOf: []*jsonschema.Schema{{Enum: []any{"none", "restart"}}, object}}
	}
	if e, ok := reflect.Zero(t).Interface().(enum); ok {
		s := &jsonschema.Schema{}
		for _, value := range e.Values() {
			s.Enum = append(s.Enum, value)
		}
		return s
	}
	return nil
}

// apply adds the rules to a schema and to everything below it.
func apply(s *jsonschema.Schema, path string) error {
	r := rule.Fields[path]
	switch s.Type {
	case "string":
		if r.Pattern != "" {
			s.Pattern = r.Pattern
			if !r.Required && !isItem(path) {
				s.Pattern = "^$|" + r.Pattern // empty is as good as left out
			}
		} else if isItem(path) {
			one := uint64(1)
			s.MinLength = &one
		}
	case "integer":
		s.Minimum, s.Maximum = json.Number(strconv.Itoa(r.Minimum)), json.Number(strconv.Itoa(r.Maximum))
	case "array":
		s.UniqueItems = r.Unique
		if err := below(s.Items, path+"[]"); err != nil {
			return err
		}
	case "object":
		if s.Properties == nil || s.Properties.Len() == 0 { // a map
			s.PropertyNames = &jsonschema.Schema{Pattern: r.Pattern}
			s.PatternProperties = nil
			s.AdditionalProperties = &jsonschema.Schema{Extras: map[string]any{"type": []string{"string", "null"}}}
			break
		}
		for pair := s.Properties.Oldest(); pair != nil; pair = pair.Next() {
			child := pair.Key
			if path != "" {
				child = path + "." + pair.Key
			}
			if err := below(pair.Value, child); err != nil {
				return err
			}
		}
	}
	switch path {
	case "apiVersion":
		s.Type, s.Enum = "", []any{config.APIVersion}
	case "kind":
		s.Type, s.Enum = "", []any{config.Kind}
	case "secrets.items[]":
		s.Required = []string{"name"}
	case "registries[]":
		s.Required = []string{"host"}
	case "secrets.items[].from":
		s.OneOf = choiceOf(reflect.TypeFor[config.Source]())
	case "health.checks[]":
		s.Required = []string{"name"}
		parts := choiceOf(reflect.TypeFor[config.Check]())
		none := &jsonschema.Schema{Not: &jsonschema.Schema{AnyOf: parts}} // an earlier layer chose
		s.OneOf = append(slices.Clone(parts), none)
	}
	return nil
}

// choiceOf has a schema for each optional part of a struct, which says that it is there.
func choiceOf(t reflect.Type) (parts []*jsonschema.Schema) {
	for _, f := range reflect.VisibleFields(t) {
		if f.Type.Kind() != reflect.Pointer {
			continue
		}
		name := f.Tag.Get("yaml")
		part := &jsonschema.Schema{Required: []string{name}, Properties: jsonschema.NewProperties()}
		part.Properties.Set(name, &jsonschema.Schema{Type: "object"})
		parts = append(parts, part)
	}
	return parts
}

// below applies the rules to a part and lets it be null where the reader takes null for "the default".
func below(s *jsonschema.Schema, path string) error {
	if err := apply(s, path); err != nil {
		return err
	}
	if isItem(path) || path == "secrets.items[].name" || path == "registries[].host" || path == "health.checks[].name" {
		return nil
	}
	switch {
	case s.Type != "":
		s.Extras = map[string]any{"type": []string{s.Type, "null"}}
		s.Type = ""
	case len(s.Enum) > 0:
		s.Enum = append(s.Enum, nil)
	case len(s.AnyOf) > 0:
		s.AnyOf = append(s.AnyOf, &jsonschema.Schema{Type: "null"})
	default:
		return fmt.Errorf("schema of %s has no type: teach scalar() about it", path)
	}
	if len(s.OneOf) > 0 {
		s.OneOf = append(s.OneOf, &jsonschema.Schema{Type: "null"})
	}
	return nil
}

func isItem(path string) bool { return len(path) > 2 && path[len(path)-2:] == "[]" }
