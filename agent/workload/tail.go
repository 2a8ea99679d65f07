package workload

import (
	"slices"
	"strings"
	"unicode"
)

const (
	// maxTail bounds what is kept of a program's output; the reason of a failure is at its end.
	maxTail = 64 << 10
	// maxLine bounds one line that is shown; some applications log whole documents.
	maxLine = 400
)

// tail is an io.Writer that keeps the last bytes.
type tail struct{ buf []byte }

func (t *tail) Write(p []byte) (int, error) {
	t.buf = append(t.buf, p...)
	if len(t.buf) > 2*maxTail { // moved now and then, not with each write
		t.buf = slices.Delete(t.buf, 0, len(t.buf)-maxTail)
	}
	return len(p), nil
}

// lines are the last n lines that aren't empty, without control characters.
func (t *tail) lines(n int) []string {
	var lines []string
	for line := range strings.Lines(string(t.buf)) {
		if line = printable(line); line != "" {
			lines = append(lines, line)
		}
	}
	return lines[max(0, len(lines)-n):]
}

// printable is a line as it can be shown: terminal escapes and other control characters would let a container write
// over the operator's screen.
func printable(line string) string {
	line = strings.Map(func(r rune) rune {
		if r == '\t' {
			return ' '
		}
		if unicode.IsControl(r) || r == unicode.ReplacementChar {
			return -1
		}
		return r
	}, line)
	return strings.TrimSpace(line)
}

// shorten cuts a line after maxLine bytes, and not within a character.
func shorten(line string) string {
	if len(line) <= maxLine {
		return line
	}
	return strings.ToValidUTF8(line[:maxLine], "") + "…"
}
