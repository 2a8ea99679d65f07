package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/scanner"
	"github.com/goccy/go-yaml/token"
)

const (
	// maxDepth bounds nesting. The deepest field of the format is 6 levels down; the rest is room for mistakes that
	// deserve a better message. The YAML parser recurses, and Go can't recover from an exhausted stack.
	maxDepth = 32
	// maxTokens bounds the words and marks of one layer, comments aside. One secret takes about 20 of them. The YAML
	// parser's time grows with the square of a mapping's length: this many take it a tenth of a second.
	maxTokens = 20_000
	// maxMarks bounds how often a layer is told that it uses what isn't used here; twenty make the point.
	maxMarks = 20
)

var (
	utf8BOM    = []byte("\xef\xbb\xbf")
	utf16BOMs  = [][]byte{[]byte("\xff\xfe"), []byte("\xfe\xff"), []byte("\x00\x00\xfe\xff")}
	errBadYAML = errors.New("not YAML")
)

// kind is what a node of a document is.
type kind string

const (
	kindNull    kind = "nothing"
	kindString  kind = "text"
	kindNumber  kind = "a number"
	kindBool    kind = "true or false"
	kindMapping kind = "a mapping"
	kindList    kind = "a list"
)

// node is one value of a document with its place: all that is left of YAML once it has been parsed.
type node struct {
	kind   kind
	origin Origin
	text   string  // of a scalar: text as it is meant, numbers and booleans as they are written
	fields []field // of a mapping, in the document's order; a name may come twice until decode refuses it
	items  []*node // of a list
}

// field is one entry of a mapping.
type field struct {
	name   string
	origin Origin // of the name
	value  *node
}

// get returns the value of the field of that name, or nil.
func (n *node) get(name string) *node {
	for _, f := range n.fields {
		if f.name == name {
			return f.value
		}
	}
	return nil
}

// document turns one layer's bytes into nodes. It returns nil for a layer without any content. Problems never quote
// the document, since a line of it may hold what somebody took for a good place for a password.
func document(l Layer) (*node, Problems) {
	r := &reader{layer: l.Name}
	text, ok := r.text(l.Data)
	if !ok {
		return nil, r.problems
	}
	r.lines = strings.Split(text, "\n")
	tokens := r.tokens(text)
	if len(r.problems) > 0 {
		return nil, r.problems
	}
	body, err := r.parse(tokens)
	if err != nil || body == nil {
		return nil, r.problems
	}
	return r.root(body), r.problems
}

// reader collects the problems of one layer while it is read.
type reader struct {
	layer    string
	lines    []string
	problems Problems
}

func (r *reader) add(o Origin, hint, format string, args ...any) {
	r.problems = append(r.problems, Problem{Origin: o, Message: fmt.Sprintf(format, args...), Hint: hint})
}

// text checks the encoding and normalises line ends, which the scanner would miscount.
func (r *reader) text(data []byte) (string, bool) {
	start := Origin{File: r.layer, Line: 1, Column: 1}
	if len(data) > maxLayerSize {
		r.add(start, "", "larger than %d bytes, the most a configuration may have", maxLayerSize)
		return "", false
	}
	for _, bom := range utf16BOMs {
		if bytes.HasPrefix(data, bom) {
			r.add(start, "save it as UTF-8", "the encoding is UTF-16 or UTF-32")
			return "", false
		}
	}
	data = bytes.TrimPrefix(data, utf8BOM)
	text := strings.ReplaceAll(string(data), "\r\n", "\n")

	place := start
	for i, c := range text {
		switch {
		case c == utf8.RuneError && !strings.HasPrefix(text[i:], "\uFFFD"): // not the character itself
			r.add(place, "save it as UTF-8", "the bytes here are not UTF-8")
			return "", false
		case c == 0:
			r.add(place, "", "NUL byte")
			return "", false
		case c == '\r':
			r.add(place, "end lines with a line feed", "carriage return without a line feed")
			return "", false
		case c < ' ' && c != '\n' && c != '\t', c == 0x7f, c >= 0x80 && c < 0xa0 && c != 0x85:
			r.add(place, "", "control character %U", c)
			return "", false
		case c == 0x85 || c == 0x2028 || c == 0x2029 || c == 0xfeff:
			// Line ends to YAML 1.1, text to YAML 1.2, and invisible to people.
			r.add(place, "", "invisible character %U", c)
			return "", false
		}
		if c == '\n' {
			place.Line, place.Column = place.Line+1, 1
		} else {
			place.Column++
		}
	}
	return text, true
}

// tokens scans the text and refuses, before the parser recurses over it, what is too much and what the format doesn't
// use. A scanner that panics is a problem of the document, not the end of the agent.
func (r *reader) tokens(text string) (all token.Tokens) {
	defer r.recovered("scanned")
	var s scanner.Scanner
	s.Init(text)
	d := depth{}
	var open, content bool // a document was opened; it has content
	for count := 0; ; {
		part, err := s.Scan()
		if err == io.EOF {
			return all
		}
		for _, t := range part {
			all.Add(t)
			switch t.Type {
			case token.CommentType:
				continue
			case token.InvalidType:
				r.syntax(t, t.Error)
				return all
			case token.AnchorType, token.AliasType, token.MergeKeyType:
				r.add(r.at(t), "write the value out", "anchors, aliases and merge keys are not used here")
			case token.TagType:
				r.add(r.at(t), "", "YAML tags are not used here")
			case token.MappingKeyType:
				r.add(r.at(t), "write it as name: value", "the form '? name' is not used here")
			case token.DirectiveType:
				r.add(r.at(t), "", "YAML directives are not used here")
				return all
			case token.DocumentHeaderType:
				if open || content {
					r.add(r.at(t), "put it into a file of its own in "+dropInDir, "a second document in the same file")
					return all
				}
				open = true
			case token.DocumentEndType:
			case token.StringType:
				content = true
				if !isBlock(t.Prev) && !sameWords(t.Value, t.Origin) {
					// The scanner drops tabs within unquoted text, for one.
					r.add(r.at(t), "quote it", "text that readers of YAML understand differently")
				}
			default:
				content = true
			}
			if len(r.problems) >= maxMarks {
				return all
			}
			if count++; count > maxTokens {
				r.add(r.at(t), "", "more than %d words and marks, the most a configuration may have", maxTokens)
				return all
			}
			if d.add(t); d.now() > maxDepth {
				r.add(r.at(t), "", "nested more than %d levels deep", maxDepth)
				return all
			}
		}
	}
}

// isBlock tells whether a token announces text in block style, | or >.
func isBlock(t *token.Token) bool {
	for t != nil && t.Type == token.CommentType { // | # comment
		t = t.Prev
	}
	return t != nil && (t.Type == token.LiteralType || t.Type == token.FoldedType)
}

// sameWords tells whether two texts differ in nothing but the space between their words.
func sameWords(a, b string) bool { return slices.Equal(strings.Fields(a), strings.Fields(b)) }

// parse builds the syntax tree and returns what is in the document, nil when nothing is.
func (r *reader) parse(tokens token.Tokens) (body ast.Node, err error) {
	err = errBadYAML
	defer r.recovered("parsed")
	file, parseErr := parser.Parse(tokens, 0, parser.AllowDuplicateMapKey()) // duplicates are reported here, all of them
	if parseErr != nil {
		var syntax *yaml.SyntaxError
		if !errors.As(parseErr, &syntax) {
			syntax = &yaml.SyntaxError{Message: "not YAML"} // another error's text might quote the document
		}
		r.syntax(syntax.Token, syntax.Message)
		return nil, errBadYAML
	}
	for _, doc := range file.Docs {
		if doc.Body == nil || doc.Body.Type() == ast.CommentType {
			continue
		}
		if body != nil {
			r.add(r.at(doc.Body.GetToken()), "put it into a file of its own in "+dropInDir, "a second document in the same file")
			return nil, errBadYAML
		}
		body = doc.Body
	}
	return body, nil
}

// syntax reports what the YAML library refuses, in the words that help most; its own error would quote the source.
func (r *reader) syntax(t *token.Token, message string) {
	hint := ""
	switch {
	case strings.Contains(message, "found character '\t'"), strings.Contains(message, "tab character"):
		message, hint = "a tab where YAML wants spaces", "indent with spaces"
	case strings.Contains(message, "double-quoted text"), strings.Contains(message, "single-quoted text"):
		hint = "close the quote"
	case strings.Contains(message, `"`): // nothing the library quotes is worth a risk
		message = "not YAML"
	}
	r.add(r.at(t), hint, "%s", message)
}

func (r *reader) recovered(what string) {
	if p := recover(); p != nil {
		// The panic's text comes from the library and may quote the document.
		r.add(Origin{File: r.layer, Line: 1, Column: 1}, "simplify it: plain mappings, lists and text are enough", "the document can't be %s", what)
	}
}

func (r *reader) root(body ast.Node) *node {
	defer r.recovered("read")
	return r.node(body)
}

// node converts a syntax tree. Aliases, tags and complex keys are gone by now; what is left of them is refused again.
func (r *reader) node(n ast.Node) *node {
	out := &node{kind: kindNull, origin: r.at(n.GetToken())}
	switch n := n.(type) {
	case *ast.NullNode:
	case *ast.StringNode:
		out.kind, out.text = kindString, n.Value
	case *ast.LiteralNode:
		out.kind, out.text = kindString, n.Value.Value
	case *ast.IntegerNode, *ast.FloatNode, *ast.InfinityNode, *ast.NanNode:
		out.kind, out.text = kindNumber, n.GetToken().Value
	case *ast.BoolNode:
		out.kind, out.text = kindBool, n.GetToken().Value
	case *ast.MappingNode:
		r.fields(out, n.Values, n.IsFlowStyle)
	case *ast.MappingValueNode:
		r.fields(out, []*ast.MappingValueNode{n}, false)
	case *ast.SequenceNode:
		out.kind = kindList
		for _, item := range n.Values {
			if item == nil {
				continue
			}
			out.items = append(out.items, r.node(item))
		}
	default:
		r.add(out.origin, "plain mappings, lists and text are enough", "this form of YAML is not used here")
	}
	return out
}

func (r *reader) fields(out *node, values []*ast.MappingValueNode, flow bool) {
	out.kind = kindMapping
	for i, v := range values {
		name, ok := v.Key.(*ast.StringNode)
		if !ok {
			r.add(r.at(v.Key.GetToken()), "quote it", "a field's name must be text")
			continue
		}
		f := field{name: name.Value, origin: r.at(name.GetToken()), value: r.node(v.Value)}
		if i == 0 && !flow {
			out.origin = f.origin // the library has a block mapping begin at its first colon
		}
		out.fields = append(out.fields, f)
	}
}
