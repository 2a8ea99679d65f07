// Package atomicfile replaces whole files: readers see the old content or the new, never a part, and never with the
// wrong mode.
package atomicfile

import (
	"io/fs"

	"github.com/google/renameio/v2"
)

// Write puts data at path with exactly the mode perm, whatever the umask and whatever mode a file that stood there had.
// It is written beside path, synced and renamed. When it fails, the old file is untouched and nothing is left behind.
func Write(path string, data []byte, perm fs.FileMode) error {
	file, err := renameio.NewPendingFile(path, renameio.WithStaticPermissions(perm))
	if err != nil {
		return err
	}
	defer file.Cleanup() // does nothing after the rename
	if _, err := file.Write(data); err != nil {
		return err
	}
	return file.CloseAtomicallyReplace()
}
