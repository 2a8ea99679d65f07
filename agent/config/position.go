package config

import (
	"slices"
	"strings"

	"github.com/goccy/go-yaml/token"
)

// at is the place where a token begins.
func (r *reader) at(t *token.Token) Origin {
	o := Origin{File: r.layer, Line: 1, Column: 1}
	if t == nil || t.Position == nil {
		return o
	}
	// The scanner starts some tokens before their first character.
	o.Line, o.Column = max(t.Position.Line, 1), max(t.Position.Column, 1)
	start := t.Value
	switch t.Type {
	case token.SingleQuoteType:
		start = "'"
	case token.DoubleQuoteType:
		start = `"`
	}
	if o.Line <= len(r.lines) {
		o.Column = settle(r.lines[o.Line-1], start, o.Column)
	}
	return o
}

// maxSettle bounds the lines on which settle looks for a better column, in bytes. A hostile line is a megabyte with
// thousands of tokens, and an honest one fits a screen.
const maxSettle = 4096

// settle corrects the column at which text begins: the scanner counts it too far right by the spaces at the line's end,
// and too far left by the tabs before it. The nearest place counts; where there is none, the column stays.
func settle(line, text string, column int) int {
	if len(line) > maxSettle || text == "" {
		return column
	}
	runes := []rune(line)
	if !strings.Contains(line, text) { // over several lines, of which this is the first
		text = strings.Fields(text + " .")[0]
	}
	want := []rune(text)
	begins := func(at int) bool {
		return at >= 0 && at+len(want) <= len(runes) && slices.Equal(runes[at:at+len(want)], want)
	}
	for d := 0; d <= max(column, len(runes)); d++ {
		switch at := column - 1; {
		case begins(at - d):
			return column - d
		case begins(at + d):
			return column + d
		}
	}
	return column
}
