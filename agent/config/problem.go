package config

import (
	"fmt"
	"strings"
)

// originDefault is the File of what no layer set.
const originDefault = "default"

// Origin is the place a value came from.
type Origin struct {
	// File is the layer's name: a path, a word such as user-data, or "default" for what is built in.
	File string `json:"file"`
	// Line and Column count from 1, columns in characters; both are 0 where there is no place within the file.
	Line   int `json:"line,omitempty"`
	Column int `json:"column,omitempty"`
}

// String returns file:line:column, the form that editors and terminals turn into a link.
func (o Origin) String() string {
	if o.Line == 0 {
		return o.File
	}
	return fmt.Sprintf("%s:%d:%d", o.File, o.Line, o.Column)
}

// Problem is one thing that is wrong with a configuration. No part of it repeats a value that may be a secret.
type Problem struct {
	Origin Origin `json:"origin"`
	// Path of the field, such as workload.pull.parallel or secrets.items[db_password].from; empty for the document.
	Path string `json:"path,omitempty"`
	// Message says what is wrong.
	Message string `json:"message"`
	// Hint says what to do about it; may be empty.
	Hint string `json:"hint,omitempty"`
}

// Error returns file:line:column: path: message (hint).
func (p Problem) Error() string {
	var b strings.Builder
	b.WriteString(p.Origin.String())
	b.WriteString(": ")
	if p.Path != "" {
		b.WriteString(p.Path)
		b.WriteString(": ")
	}
	b.WriteString(p.Message)
	if p.Hint != "" {
		fmt.Fprintf(&b, " (%s)", p.Hint)
	}
	return b.String()
}

// Problems is everything that is wrong with a configuration, in the order of the layers and of their lines.
type Problems []Problem

// Error has one line a problem.
func (ps Problems) Error() string {
	lines := make([]string, len(ps))
	for i, p := range ps {
		lines[i] = p.Error()
	}
	return strings.Join(lines, "\n")
}
