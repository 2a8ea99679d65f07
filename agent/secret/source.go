package secret

import (
	"context"
	"strings"
	"sync"
	"time"
)

const (
	// callTimeout bounds one call to a service, its retries included: ten times what a slow region takes, and short
	// enough for several tries within a boot.
	callTimeout = 10 * time.Second
	// sourceTimeout bounds everything one source does in a refresh: two calls in a row that run into their own limit.
	// Sources are asked at the same time, so it also bounds a refresh.
	sourceTimeout = 2 * callTimeout
	// documentLimit is the longest document that is read from anywhere, in bytes. systemd allows 1 MiB for all of a
	// unit's credentials, Vault 1 MiB for an entry, Secrets Manager 64 KiB for a secret.
	documentLimit = 1 << 20
)

// A locator names one document of one source, without a key path inside it. Locators are comparable values, so items
// that differ only in the key share one fetch.
type locator interface {
	// String names the document for people; nothing in it is secret.
	String() string
}

// answer is what a source says about one document: the document or an error that wraps one of the three kinds.
type answer struct {
	document Value
	// json gives the form of the document that keys are picked from; nil when the document itself is JSON.
	json func() ([]byte, error)
	// version is the source's own name for this version, empty where it has none. Never derived from the value.
	version string
	err     error
}

// pick takes the part of the document that one item wants.
func (a answer) pick(key string) (Value, error) {
	if a.err != nil {
		return Value{}, a.err
	}
	if key == "" || a.json == nil {
		return Pick(a.document.Reveal(), key)
	}
	converted, err := a.json()
	if err != nil {
		return Value{}, err
	}
	return Pick(converted, key)
}

// source is one kind of place that secrets are kept in. It was told at its making what to fetch.
type source interface {
	// fetch asks for every document at once. The result has an entry for each of the source's locators; it comes no
	// later than ctx ends. The keeper never runs two fetches of a source at a time.
	fetch(ctx context.Context) map[locator]answer
}

// answerSheet collects answers from calls that run at the same time.
type answerSheet struct {
	mu      sync.Mutex
	answers map[locator]answer
}

func newAnswerSheet() *answerSheet { return &answerSheet{answers: make(map[locator]answer)} }

func (s *answerSheet) put(l locator, a answer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answers[l] = a
}

// printable shortens text from a server to one line that can stand in an error.
func printable(text string) string {
	// Longer than any message of AWS or Vault that helps, shorter than an HTML page of a proxy.
	const limit = 300
	text = strings.Join(strings.FieldsFunc(text, func(r rune) bool { return r < ' ' || r == 0x7f }), " ")
	if len(text) > limit {
		text = strings.ToValidUTF8(text[:limit], "") + "…"
	}
	return text
}
