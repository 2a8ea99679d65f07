// Package eventlog writes slog events in the form that whoever reads them can use: fields for the systemd journal,
// colored lines for a terminal, logfmt or JSON for everything else.
//
// What enters are events and a writer; what leaves is one entry or line an event, in every form with all its attributes.
// It drops none, keeps none, and adds nothing but the time and the level.
package eventlog

import (
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/coreos/go-systemd/v22/journal"
	"github.com/lmittmann/tint"
	"golang.org/x/term"
)

// Format is how events are written.
type Format string

const (
	// Auto is Journal where the writer leads to the journal, Terminal where it is one, and Text otherwise.
	Auto     Format = "auto"
	Journal  Format = "journal"
	Terminal Format = "terminal"
	Text     Format = "text"
	JSON     Format = "json"
)

// Formats are all of them.
var Formats = []Format{Auto, Journal, Terminal, Text, JSON}

// Parse finds the format of that name. Its error says which there are.
func Parse(name string) (Format, error) {
	if f := Format(name); slices.Contains(Formats, f) {
		return f, nil
	}
	names := make([]string, len(Formats))
	for i, f := range Formats {
		names[i] = string(f)
	}
	last := len(names) - 1
	return "", fmt.Errorf("%q is unknown: use %s or %s", name, strings.Join(names[:last], ", "), names[last])
}

// New makes a logger that writes to w. The journal is reached through its own socket; w is where an event goes that it
// doesn't take.
func New(w io.Writer, f Format) *slog.Logger {
	if f == Auto {
		f = choose(w)
	}
	switch f {
	case Journal:
		return slog.New(newJournalHandler(journal.Send, ownUnit(), w))
	case Terminal:
		return slog.New(tint.NewHandler(w, &tint.Options{
			TimeFormat:  time.TimeOnly,
			ReplaceAttr: redErrors,
			NoColor:     os.Getenv("NO_COLOR") != "" || os.Getenv("TERM") == "dumb", // https://no-color.org
		}))
	case JSON:
		return slog.New(slog.NewJSONHandler(w, nil))
	}
	return slog.New(slog.NewTextHandler(w, nil))
}

// LastWords says why a program ends, as a line on w; where that leads to the journal, as an entry of the program's unit,
// which a line of a program that ends at once is not always.
func LastWords(w io.Writer, text string) {
	if choose(w) == Journal && journal.Send(text, journal.PriErr, fieldsOf(ownUnit())) == nil {
		return
	}
	fmt.Fprintln(w, text)
}

func choose(w io.Writer) Format {
	file, ok := w.(*os.File)
	if !ok {
		return Text
	}
	if file == os.Stderr {
		// A variable that can't be read is not systemd's.
		if stream, err := journal.StderrIsJournalStream(); err == nil && stream {
			return Journal
		}
	}
	if term.IsTerminal(int(file.Fd())) {
		return Terminal
	}
	return Text
}

// redErrors shows the errors among the attributes in red (ANSI color 9), which is what eyes look for.
func redErrors(_ []string, a slog.Attr) slog.Attr {
	if err, isError := a.Value.Any().(error); isError && err != nil {
		return tint.Attr(9, a)
	}
	return a
}
