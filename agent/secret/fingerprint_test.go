package secret

import (
	"crypto/sha256"
	"encoding/hex"
	"os"
	"path/filepath"
	"testing"
)

func openFingerprinter(t *testing.T, path string) *Fingerprinter {
	t.Helper()
	f, err := OpenFingerprinter(path)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func TestFingerprinter_StaysTheSameOverRestartsAndChangesWithTheValue(t *testing.T) {
	path := filepath.Join(t.TempDir(), "key")
	first := openFingerprinter(t, path).Sum(map[string]Value{"a": NewValue([]byte("1")), "b": NewValue([]byte("2"))})
	again := openFingerprinter(t, path).Sum(map[string]Value{"b": NewValue([]byte("2")), "a": NewValue([]byte("1"))})
	if first != again {
		t.Errorf("same values after a restart: got %s, want %s", again, first)
	}
	for _, other := range []map[string]Value{
		{"a": NewValue([]byte("1")), "b": NewValue([]byte("3"))},
		{"a": NewValue([]byte("1"))},
		{"a": NewValue([]byte("1b")), "": NewValue([]byte("2"))},
	} {
		if got := openFingerprinter(t, path).Sum(other); got == first {
			t.Errorf("%d other values have the same fingerprint %s", len(other), got)
		}
	}
}

func TestFingerprinter_CannotBeGuessedFromTheValueAlone(t *testing.T) {
	values := map[string]Value{"pin": NewValue([]byte("1234"))}
	one := openFingerprinter(t, filepath.Join(t.TempDir(), "key")).Sum(values)
	two := openFingerprinter(t, filepath.Join(t.TempDir(), "key")).Sum(values)
	plain := sha256.Sum256([]byte("1234"))
	if one == two || one == hex.EncodeToString(plain[:16]) {
		t.Errorf("two nodes gave %s and %s: want different ones, and no bare hash", one, two)
	}
}

func TestFingerprinter_ReplacesACutKeyAndKeepsItPrivate(t *testing.T) {
	path := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(path, []byte("short"), 0o644); err != nil {
		t.Fatal(err)
	}
	openFingerprinter(t, path)
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode().Perm() != 0o600 || info.Size() != fingerprintKeySize {
		t.Errorf("key file: got mode %v and %d bytes, want 0600 and %d", info.Mode().Perm(), info.Size(), fingerprintKeySize)
	}
}
