// Package probe asks one thing once: whether a database accepts connections, a URL answers, a disk has room.
//
// What enters is where to ask; what leaves is a [Result]. A probe keeps no state between calls, never outlives its
// context, and never puts a secret into a result. When to ask, and what a result means for the node, is package health's.
package probe

import "context"

// Status is what a probe found. The zero value is Fail, so that a forgotten result never passes.
type Status int

const (
	Fail Status = iota
	Warn        // works, and somebody should look
	Pass
)

func (s Status) String() string {
	switch s {
	case Pass:
		return "pass"
	case Warn:
		return "warn"
	default:
		return "fail"
	}
}

// MarshalText is the word of application/health+json.
func (s Status) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// Result is one answer.
type Result struct {
	Status Status `json:"status"`
	// Output says what was found, in a short sentence for people; never a secret.
	Output string `json:"output"`
	// Value is the number behind it, where there is one (days left, bytes free), with its Unit as in
	// application/health+json (draft-inadarei-api-health-check-06, observedUnit).
	Value *float64 `json:"value,omitempty"`
	Unit  string   `json:"unit,omitempty"`
}

// Probe asks. It returns soon after ctx ends, leaves no goroutine, connection or process behind, and may be called
// again but not concurrently with itself.
type Probe interface {
	Probe(ctx context.Context) Result
}
