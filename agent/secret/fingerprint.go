package secret

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"slices"

	"github.com/flowviz/flowagent/internal/atomicfile"
)

// Fingerprinter makes content versions of secrets for container labels. They change when a value does and tell nothing
// about it: labels are shown by `docker inspect`, and a bare hash of a short password can be guessed.
type Fingerprinter struct{ key []byte }

// fingerprintKeySize is the block of entropy that HMAC-SHA-256 can use, in bytes (RFC 2104, section 3).
const fingerprintKeySize = sha256.Size

// OpenFingerprinter reads the key at path, or makes one. The key survives reboots, so that a reboot alone changes no
// label and recreates no container; it opens nothing, and a copy of it is worthless without the label and a guess.
func OpenFingerprinter(path string) (*Fingerprinter, error) {
	key, err := os.ReadFile(path)
	if err == nil && len(key) == fingerprintKeySize {
		return &Fingerprinter{key: key}, nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("read the fingerprint key: %w", err)
	}
	key = make([]byte, fingerprintKeySize)
	if _, err := rand.Read(key); err != nil {
		return nil, fmt.Errorf("make the fingerprint key: %w", err)
	}
	if err := atomicfile.Write(path, key, 0o600); err != nil {
		return nil, fmt.Errorf("write the fingerprint key: %w: check that the disk is writable and not full", err)
	}
	return &Fingerprinter{key: key}, nil
}

// Sum is one version for all of the named values together, as 32 hexadecimal digits; their order doesn't matter. It is
// empty for no values.
func (f *Fingerprinter) Sum(values map[string]Value) string {
	if len(values) == 0 {
		return ""
	}
	mac := hmac.New(sha256.New, f.key)
	part := func(b []byte) { // length first, so that no two different sets run together
		_ = binary.Write(mac, binary.BigEndian, uint64(len(b))) // a hash never fails to write
		mac.Write(b)
	}
	for _, name := range slices.Sorted(maps.Keys(values)) {
		part([]byte(name))
		part(values[name].Reveal())
	}
	return hex.EncodeToString(mac.Sum(nil)[:16])
}
