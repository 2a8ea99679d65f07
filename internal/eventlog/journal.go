package eventlog

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"strings"
	"sync"
	"unicode"

	"github.com/coreos/go-systemd/v22/journal"
)

// identifier is what journalctl shows before each message, and takes after -t.
const identifier = "flowagent"

// fieldPrefix keeps an attribute from taking a name that means something to the journal: UNIT, USER_UNIT, ERRNO.
const fieldPrefix = "FLOWAGENT_"

// journalHandler sends each event to the journal: the message with its attributes as a person reads it, and every
// attribute once more as a field, so that `journalctl FLOWAGENT_CHECK=database` finds it.
type journalHandler struct {
	send   func(message string, priority journal.Priority, fields map[string]string) error
	backup slog.Handler // takes what the journal doesn't

	shared *sharedText
	text   slog.Handler      // writes the attributes of an event to shared
	prefix string            // of the groups that are open
	fields map[string]string // of every entry
}

// sharedText is where the handlers that came from one another write attributes, one event at a time.
type sharedText struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func newJournalHandler(send func(string, journal.Priority, map[string]string) error, unit string, backup io.Writer) *journalHandler {
	h := &journalHandler{
		send: send, backup: slog.NewTextHandler(backup, nil), shared: &sharedText{}, prefix: fieldPrefix, fields: fieldsOf(unit),
	}
	h.text = slog.NewTextHandler(&h.shared.b, &slog.HandlerOptions{ReplaceAttr: func(groups []string, a slog.Attr) slog.Attr {
		if len(groups) == 0 && (a.Key == slog.TimeKey || a.Key == slog.LevelKey || a.Key == slog.MessageKey) {
			return slog.Attr{} // the journal has them in fields of its own
		}
		return a
	}})
	return h
}

// Enabled implements [slog.Handler]: the same events as in every other form.
func (h *journalHandler) Enabled(_ context.Context, level slog.Level) bool {
	return level >= slog.LevelInfo
}

// Handle implements [slog.Handler].
func (h *journalHandler) Handle(ctx context.Context, r slog.Record) error {
	message := r.Message
	h.shared.mu.Lock()
	h.shared.b.Reset()
	err := h.text.Handle(ctx, r)
	if attributes := strings.TrimSpace(h.shared.b.String()); attributes != "" {
		message += " " + attributes
	}
	h.shared.mu.Unlock()
	if err != nil {
		return err
	}
	fields := map[string]string{fieldPrefix + "EVENT": r.Message}
	for name, value := range h.fields {
		fields[name] = value
	}
	r.Attrs(func(a slog.Attr) bool {
		addField(fields, h.prefix, a)
		return true
	})
	if h.send(message, priority(r.Level), fields) != nil {
		return h.backup.Handle(ctx, r)
	}
	return nil
}

// WithAttrs implements [slog.Handler].
func (h *journalHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	with := *h
	with.text, with.backup = h.text.WithAttrs(attrs), h.backup.WithAttrs(attrs)
	with.fields = make(map[string]string, len(h.fields)+len(attrs))
	for name, value := range h.fields {
		with.fields[name] = value
	}
	for _, a := range attrs {
		addField(with.fields, h.prefix, a)
	}
	return &with
}

// WithGroup implements [slog.Handler].
func (h *journalHandler) WithGroup(name string) slog.Handler {
	if name == "" {
		return h
	}
	with := *h
	with.text, with.backup = h.text.WithGroup(name), h.backup.WithGroup(name)
	with.prefix += fieldName(name) + "_"
	return &with
}

// fieldsOf are those of every entry of a program that is part of a unit; "" for none.
func fieldsOf(unit string) map[string]string {
	fields := map[string]string{"SYSLOG_IDENTIFIER": identifier}
	if unit != "" {
		fields[unitField] = unit
	}
	return fields
}

func addField(fields map[string]string, prefix string, a slog.Attr) {
	value := a.Value.Resolve()
	if value.Kind() == slog.KindGroup {
		if a.Key != "" { // one without a name is inlined
			prefix += fieldName(a.Key) + "_"
		}
		for _, member := range value.Group() {
			addField(fields, prefix, member)
		}
		return
	}
	if a.Key != "" {
		fields[prefix+fieldName(a.Key)] = value.String()
	}
}

// fieldName is a key as the journal takes it: upper-case letters, digits and underscores (systemd.journal-fields(7)).
// startedAt becomes STARTED_AT.
func fieldName(key string) string {
	var b strings.Builder
	lower := false
	for _, c := range key {
		if lower && unicode.IsUpper(c) {
			b.WriteByte('_')
		}
		lower = unicode.IsLower(c)
		switch c = unicode.ToUpper(c); {
		case c >= 'A' && c <= 'Z', c >= '0' && c <= '9':
			b.WriteRune(c)
		default:
			b.WriteByte('_')
		}
	}
	return b.String()
}

func priority(l slog.Level) journal.Priority {
	switch {
	case l >= slog.LevelError:
		return journal.PriErr
	case l >= slog.LevelWarn:
		return journal.PriWarning
	case l >= slog.LevelInfo:
		return journal.PriInfo
	}
	return journal.PriDebug
}
