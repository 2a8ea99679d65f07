package secret

import (
	"errors"
	"fmt"
)

// What can be wrong with a secret, for callers that decide on it. Every error a source gives wraps exactly one.
var (
	// ErrNotFound: the source answered, and there is no such secret, version or key, or it was deleted.
	ErrNotFound = errors.New("not found")
	// ErrDenied: the source answered, and this node may not read the secret.
	ErrDenied = errors.New("access denied")
	// ErrUnavailable: the source gave no usable answer now: a timeout, throttling, a 5xx, the network, or a document
	// that is damaged. A value fetched earlier stays in use.
	ErrUnavailable = errors.New("unavailable")
)

// because makes an error of one kind. Only text that cannot hold a secret belongs in it.
func because(kind error, format string, args ...any) error {
	return fmt.Errorf("%w: %s", kind, fmt.Sprintf(format, args...))
}

// kindOf returns which of the three errors err wraps; one that wraps none counts as ErrUnavailable, because only a
// clear answer may withdraw a secret.
func kindOf(err error) error {
	for _, kind := range []error{ErrNotFound, ErrDenied} {
		if errors.Is(err, kind) {
			return kind
		}
	}
	return ErrUnavailable
}
