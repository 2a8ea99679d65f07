package config

import (
	"bytes"
	"encoding"
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/flowviz/flowagent/agent/config/internal/rule"
)

// YAML writes the merged configuration as a document that [Parse] reads back to the same, with a comment on every
// line that holds a value: where it came from. Fields that hold nothing are left out.
func (l *Loaded) YAML() []byte {
	lines := yamlLines(l.document())
	width := 0
	for _, line := range lines {
		// A comment far to the right of most values helps nobody: longer lines stick out.
		if n := utf8.RuneCountInString(line.text); n <= 60 {
			width = max(width, n)
		}
	}
	var b bytes.Buffer
	for _, line := range lines {
		b.WriteString(line.text)
		if line.origin != "" {
			fmt.Fprintf(&b, "%*s  # %s", max(0, width-utf8.RuneCountInString(line.text)), "", line.origin)
		}
		b.WriteByte('\n')
	}
	return b.Bytes()
}

// MarshalJSON returns {"config": …, "origins": {path: {file, line, column}}, "layers": […]}.
func (l *Loaded) MarshalJSON() ([]byte, error) {
	return json.Marshal(struct {
		Config  *node             `json:"config"`
		Origins map[string]Origin `json:"origins"`
		Layers  []string          `json:"layers"`
	}{l.document(), l.Origins, l.Layers})
}

func (l *Loaded) document() *node {
	return view{l.Origins, map[string]Origin{}}.node(reflect.ValueOf(l.Config), spot{})
}

// view turns typed values back into a document.
type view struct {
	origins map[string]Origin // what is known of where values came from
	shown   map[string]Origin // filled with the origin of each value in the document
}

// node returns what a document would say for v, nil for nothing.
func (w view) node(v reflect.Value, s spot) *node {
	switch value := v.Interface().(type) {
	case OnChange:
		return w.onChange(value, s)
	case encoding.TextMarshaler:
		text, err := value.MarshalText()
		if err != nil || len(text) == 0 {
			return nil
		}
		return w.leaf(&node{kind: kindString, text: string(text)}, s)
	}
	switch v.Kind() {
	case reflect.String:
		if v.Len() == 0 {
			return nil
		}
		return w.leaf(&node{kind: kindString, text: v.String()}, s)
	case reflect.Bool:
		return w.leaf(&node{kind: kindBool, text: strconv.FormatBool(v.Bool())}, s)
	case reflect.Int:
		if v.Int() == 0 && rule.Fields[s.rule].Minimum > 0 { // it holds nothing
			return nil
		}
		return w.leaf(&node{kind: kindNumber, text: strconv.FormatInt(v.Int(), 10)}, s)
	case reflect.Pointer:
		if v.IsNil() {
			return nil
		}
		if n := w.node(v.Elem(), s); n != nil {
			return n
		}
		return w.leaf(&node{kind: kindMapping}, s) // that it is there is what it says
	case reflect.Map:
		n := &node{kind: kindMapping}
		for _, key := range slices.SortedFunc(slices.Values(v.MapKeys()), func(a, b reflect.Value) int { return strings.Compare(a.String(), b.String()) }) {
			at := s.key(key.String())
			// An empty variable is not the same as none.
			value := w.leaf(&node{kind: kindString, text: v.MapIndex(key).String()}, at)
			n.fields = append(n.fields, field{name: key.String(), value: value})
		}
		return w.container(n, s)
	case reflect.Slice:
		n := &node{kind: kindList}
		for i := range v.Len() {
			if item := w.node(v.Index(i), itemSpot(v, i, s)); item != nil {
				n.items = append(n.items, item)
			}
		}
		return w.container(n, s)
	}
	n := &node{kind: kindMapping}
	for _, name := range fieldNames(v.Type()) {
		if value := w.node(v.Field(fieldIndex(v.Type(), name)), s.field(name)); value != nil {
			n.fields = append(n.fields, field{name: name, value: value})
		}
	}
	if len(n.fields) == 0 {
		return nil
	}
	return n
}

func (w view) leaf(n *node, s spot) *node {
	n.origin = Origin{File: originDefault}
	if origin, found := w.origins[s.path]; found {
		n.origin = origin
	}
	w.shown[s.path] = n.origin
	return n
}

// container leaves out what is empty by default and shows what was emptied on purpose.
func (w view) container(n *node, s spot) *node {
	if len(n.fields)+len(n.items) > 0 {
		return n
	}
	if _, set := w.origins[s.path]; !set {
		return nil
	}
	return w.leaf(n, s)
}

func (w view) onChange(c OnChange, s spot) *node {
	switch {
	case c.Signal != "":
		signal := w.leaf(&node{kind: kindString, text: c.Signal}, s)
		return &node{kind: kindMapping, fields: []field{{name: "signal", value: signal}}}
	case c.Restart:
		return w.leaf(&node{kind: kindString, text: "restart"}, s)
	}
	return w.leaf(&node{kind: kindString, text: "none"}, s)
}
