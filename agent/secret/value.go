package secret

import (
	"crypto/subtle"
	"fmt"
	"io"
	"log/slog"
)

const redacted = "[redacted]"

// Value holds a secret and prints as [redacted] under every verb, in JSON, YAML and slog, by value and by pointer.
// The zero value is an absent secret. A Value is never changed after it was made.
type Value struct {
	// Two pointers, because inside a struct's unexported field fmt may not call Format. It prints one pointer there as
	// an address, but follows it to a slice when the verb doesn't fit (%s of such a struct); two it never follows.
	hidden **[]byte
}

// NewValue takes ownership of b.
func NewValue(b []byte) Value {
	p := &b
	return Value{hidden: &p}
}

// Reveal returns the secret itself. Callers write it to its destination and nowhere else, and don't change it.
func (v Value) Reveal() []byte {
	if v.hidden == nil {
		return nil
	}
	return **v.hidden
}

// IsZero tells whether there is no secret at all; an empty secret is one.
func (v Value) IsZero() bool { return v.hidden == nil }

// Equal compares in constant time for values of equal length.
func (v Value) Equal(other Value) bool {
	return v.IsZero() == other.IsZero() && subtle.ConstantTimeCompare(v.Reveal(), other.Reveal()) == 1
}

// Format prints [redacted] whatever the verb.
func (Value) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, redacted) }

// String returns [redacted].
func (Value) String() string { return redacted }

// GoString returns [redacted].
func (Value) GoString() string { return redacted }

// MarshalText serves encoding/json, YAML and XML.
func (Value) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// LogValue serves log/slog.
func (Value) LogValue() slog.Value { return slog.StringValue(redacted) }
