// Package lines shows what a command says line by line, with secrets masked, and remembers the end of it for an error.
//
// What enters are bytes in any portions, from several goroutines; what leaves are whole lines without anything that
// Packer knows to be sensitive.
package lines

import (
	"bytes"
	"strings"
	"sync"

	packersdk "github.com/hashicorp/packer-plugin-sdk/packer"
)

// kept is how many lines an error repeats: apt's own summary of what went wrong fits.
const kept = 20

// Log is where a command's output goes.
type Log struct {
	show func(line string)

	mu      sync.Mutex
	partial []byte
	tail    []string
}

// New takes who shows the lines.
func New(show func(line string)) *Log { return &Log{show: show} }

// Write never fails.
func (l *Log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.partial = append(l.partial, p...)
	for {
		end := bytes.IndexAny(l.partial, "\r\n") // progress bars end their lines with a carriage return
		if end < 0 {
			return len(p), nil
		}
		l.keep(string(l.partial[:end]), l.show)
		l.partial = l.partial[end+1:]
	}
}

// Flush shows a last line that no line end came for.
func (l *Log) Flush() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.keep(string(l.partial), l.show)
	l.partial = nil
}

// Remember keeps lines for the error without showing them.
func (l *Log) Remember(text string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for line := range strings.Lines(text) {
		l.keep(line, func(string) {})
	}
}

func (l *Log) keep(line string, show func(string)) {
	line = strings.TrimRight(packersdk.LogSecretFilter.FilterString(line), " \t\r\n")
	if line == "" {
		return
	}
	show(line)
	l.tail = append(l.tail, line)
	if len(l.tail) > kept {
		l.tail = l.tail[1:]
	}
}

// Empty tells whether there is nothing to quote.
func (l *Log) Empty() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.tail) == 0
}

// Quote is the end of the output, to be put behind the text of an error.
func (l *Log) Quote() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.tail) == 0 {
		return ", and said nothing"
	}
	return "; the end of what it said:\n  " + strings.Join(l.tail, "\n  ")
}
