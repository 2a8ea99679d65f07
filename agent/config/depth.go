package config

import "github.com/goccy/go-yaml/token"

// depth follows how deep the parser would recurse; within a factor of two: a list may stand at the column of its name.
type depth struct {
	line  int
	block []int // columns at which the open block collections began
	flow  int
}

func (d *depth) add(t *token.Token) {
	switch t.Type {
	case token.SequenceStartType, token.MappingStartType:
		d.flow++
	case token.SequenceEndType, token.MappingEndType:
		d.flow = max(d.flow-1, 0)
	}
	if d.flow > 0 || t.Position == nil {
		return
	}
	column := t.Position.Column
	first := t.Position.Line != d.line
	d.line = t.Position.Line
	if !first && t.Type != token.SequenceEntryType && t.Type != token.MappingValueType {
		return
	}
	if first {
		for len(d.block) > 0 && d.block[len(d.block)-1] >= column {
			d.block = d.block[:len(d.block)-1]
		}
	}
	// "- - - a" nests on one line, and so does "a: b: c" until the parser refuses it.
	d.block = append(d.block, column)
}

func (d *depth) now() int { return len(d.block) + d.flow }
