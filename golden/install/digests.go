package install

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/flowviz/flowagent/internal/atomicfile"
)

// digestsPath is read by `sha256sum --check` as well.
const digestsPath = "usr/lib/flowagent/installed.sha256"

// digests are the SHA-256 of what was written last, by absolute path.
type digests map[string]string

// readDigests returns an empty list where nothing was ever installed. A line that can't be understood is an error, because
// without it a person's file couldn't be told from ours.
func readDigests(root *os.Root) (digests, error) {
	d := digests{}
	text, err := root.ReadFile(digestsPath)
	if errors.Is(err, fs.ErrNotExist) {
		return d, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read what was installed before: %w%s", err, hint(err))
	}
	for line := range strings.Lines(string(text)) {
		digest, name, ok := strings.Cut(strings.TrimSuffix(line, "\n"), "  ")
		if sum, err := hex.DecodeString(digest); !ok || err != nil || len(sum) != 32 || !path.IsAbs(name) {
			return nil, fmt.Errorf("/%s has a line that sha256sum didn't write, %q: remove the file, after which changed files below /etc are kept", digestsPath, line)
		}
		d[name] = digest
	}
	return d, nil
}

func (d digests) write(root *os.Root) error {
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(d)) {
		fmt.Fprintf(&b, "%s  %s\n", d[name], name)
	}
	if old, err := root.ReadFile(digestsPath); err == nil && string(old) == b.String() {
		return nil
	}
	if err := root.MkdirAll(path.Dir(digestsPath), 0o755); err != nil {
		return err
	}
	if err := atomicfile.WriteIn(root, digestsPath, []byte(b.String()), 0o644); err != nil {
		return fmt.Errorf("note what was installed: %w%s", err, hint(err))
	}
	return nil
}
