package seal

import (
	"bytes"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// mountsBelow are the mount points below a directory, as paths from it. A bind mount is one, too, which the number of the
// device would not tell.
func mountsBelow(root string) (map[string]bool, error) {
	table, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	below := map[string]bool{}
	for line := range bytes.Lines(table) {
		fields := strings.Fields(string(line))
		if len(fields) < 5 { // proc(5): the fifth is the mount point
			continue
		}
		rel, err := filepath.Rel(root, unescape(fields[4]))
		if err == nil && rel != "." && filepath.IsLocal(rel) {
			below[rel] = true
		}
	}
	return below, nil
}

// unescape reads \040 and the like, which the kernel writes for blanks in paths.
func unescape(path string) string {
	var b strings.Builder
	for i := 0; i < len(path); i++ {
		if path[i] == '\\' && i+4 <= len(path) {
			if code, err := strconv.ParseUint(path[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(code))
				i += 3
				continue
			}
		}
		b.WriteByte(path[i])
	}
	return b.String()
}
