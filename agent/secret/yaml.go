package secret

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"regexp"

	"go.yaml.in/yaml/v4"
)

const (
	// yamlDepth is how deep a document of secrets may nest; one written by people stays under ten.
	yamlDepth = 100
	// yamlNodes and yamlOutput bound what aliases can blow a small document up to: more nodes than a document of
	// documentLimit bytes can spell out, and four times its bytes.
	yamlNodes  = documentLimit
	yamlOutput = 4 * documentLimit
)

// yamlToJSON rewrites one YAML document as JSON for Pick. Numbers and booleans keep the text they were written in: one
// that JSON has no spelling for (0123, 0x1F, 1_000, True) becomes a string of the same text. Errors tell a line, never what stands there.
func yamlToJSON(document []byte) ([]byte, error) {
	if json.Valid(document) {
		return document, nil
	}
	decoder := yaml.NewDecoder(bytes.NewReader(document))
	var root, another yaml.Node
	if err := decoder.Decode(&root); errors.Is(err, io.EOF) {
		return nil, because(ErrUnavailable, "the decrypted document is empty")
	} else if err != nil {
		return nil, yamlDamage(err)
	}
	if err := decoder.Decode(&another); err == nil {
		return nil, because(ErrUnavailable, "the decrypted file holds more than one YAML document: keep one")
	} else if !errors.Is(err, io.EOF) {
		return nil, yamlDamage(err)
	}
	w := yamlWriter{}
	if err := w.node(&root, 0); err != nil {
		return nil, err
	}
	return w.out.Bytes(), nil
}

var lineNumber = regexp.MustCompile(`line (\d+)`)

// yamlDamage keeps the position of a parser's error and drops its text, which may quote the document.
func yamlDamage(err error) error {
	if lines := lineNumber.FindAllStringSubmatch(err.Error(), -1); len(lines) > 0 {
		return because(ErrUnavailable, "the decrypted document is neither YAML nor JSON: it is damaged at line %s; correct it and encrypt it again", lines[len(lines)-1][1])
	}
	return because(ErrUnavailable, "the decrypted document is neither YAML nor JSON; correct it and encrypt it again")
}

// yamlWriter writes nodes as JSON within its bounds.
type yamlWriter struct {
	out   bytes.Buffer
	nodes int
}

func (w *yamlWriter) node(n *yaml.Node, depth int) error {
	if w.nodes++; w.nodes > yamlNodes || w.out.Len() > yamlOutput || depth > yamlDepth {
		return because(ErrUnavailable, "the decrypted document nests or repeats itself beyond all use (line %d): write it without aliases", n.Line)
	}
	switch n.Kind {
	case yaml.DocumentNode:
		return w.node(n.Content[0], depth)
	case yaml.AliasNode:
		return w.node(n.Alias, depth+1)
	case yaml.MappingNode:
		members, err := w.members(n, depth)
		if err != nil {
			return err
		}
		w.out.WriteByte('{')
		for i, m := range members {
			if i > 0 {
				w.out.WriteByte(',')
			}
			w.quote(m.name)
			w.out.WriteByte(':')
			if err := w.node(m.value, depth+1); err != nil {
				return err
			}
		}
		w.out.WriteByte('}')
	case yaml.SequenceNode:
		w.out.WriteByte('[')
		for i, element := range n.Content {
			if i > 0 {
				w.out.WriteByte(',')
			}
			if err := w.node(element, depth+1); err != nil {
				return err
			}
		}
		w.out.WriteByte(']')
	default:
		w.scalar(n)
	}
	return nil
}

type yamlMember struct {
	name  string
	value *yaml.Node
}

// members lists a mapping's own keys, then those that merge keys (<<) add to it.
func (w *yamlWriter) members(n *yaml.Node, depth int) ([]yamlMember, error) {
	if w.nodes++; w.nodes > yamlNodes || depth > yamlDepth {
		return nil, because(ErrUnavailable, "the decrypted document nests or repeats itself beyond all use (line %d): write it without aliases", n.Line)
	}
	var (
		members []yamlMember
		merged  []*yaml.Node
		seen    = make(map[string]bool)
	)
	for i := 0; i+1 < len(n.Content); i += 2 {
		name, value := resolve(n.Content[i]), n.Content[i+1]
		switch {
		case name.ShortTag() == "!!merge":
			merged = append(merged, mergeSources(value)...)
		case name.Kind != yaml.ScalarNode:
			return nil, because(ErrUnavailable, "the decrypted document has a key at line %d that is not plain text", name.Line)
		case seen[name.Value]:
			return nil, because(ErrUnavailable, "the decrypted document has the key %q twice in one place (line %d): keep one", name.Value, name.Line)
		default:
			seen[name.Value] = true
			members = append(members, yamlMember{name.Value, value})
		}
	}
	for _, source := range merged {
		if source.Kind != yaml.MappingNode {
			return nil, because(ErrUnavailable, "the decrypted document merges (<<) something at line %d that is not a mapping", source.Line)
		}
		added, err := w.members(source, depth+1)
		if err != nil {
			return nil, err
		}
		for _, m := range added {
			if !seen[m.name] {
				seen[m.name] = true
				members = append(members, m)
			}
		}
	}
	return members, nil
}

// mergeSources lists what a merge key names: one mapping or a sequence of them.
func mergeSources(n *yaml.Node) []*yaml.Node {
	n = resolve(n)
	if n.Kind != yaml.SequenceNode {
		return []*yaml.Node{n}
	}
	sources := make([]*yaml.Node, 0, len(n.Content))
	for _, element := range n.Content {
		sources = append(sources, resolve(element))
	}
	return sources
}

func resolve(n *yaml.Node) *yaml.Node {
	if n.Kind == yaml.AliasNode {
		return n.Alias
	}
	return n
}

func (w *yamlWriter) scalar(n *yaml.Node) {
	switch n.ShortTag() {
	case "!!null":
		w.out.WriteString("null")
	case "!!int", "!!float", "!!bool":
		if json.Valid([]byte(n.Value)) {
			w.out.WriteString(n.Value)
			return
		}
		fallthrough
	default:
		w.quote(n.Value)
	}
}

// quote writes text as a JSON string without the escapes for HTML, so that a part taken as JSON reads as it was written.
func (w *yamlWriter) quote(text string) {
	encoder := json.NewEncoder(&w.out)
	encoder.SetEscapeHTML(false)
	_ = encoder.Encode(text)        // a buffer takes everything and a string always encodes
	w.out.Truncate(w.out.Len() - 1) // the encoder ends with a newline
}
