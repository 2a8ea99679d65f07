// Package atomicfile writes whole files: readers see the old content or the new, never a part, and never with the wrong
// mode.
package atomicfile

import (
	"io/fs"
	"os"
	"path/filepath"

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

// Create writes a file that appears under its name whole or not at all, and never in place of another: then the
// error is fs.ErrExist.
func Create(path string, data []byte, perm fs.FileMode) (err error) {
	dir := filepath.Dir(path)
	f, err := os.CreateTemp(dir, "."+filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	defer func() {
		// The link below is the file from then on; this name goes in any case.
		if removeErr := os.Remove(f.Name()); err == nil {
			err = removeErr
		}
	}()
	_, err = f.Write(data)
	if err == nil {
		err = f.Chmod(perm)
	}
	if err == nil {
		err = f.Sync()
	}
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		return err
	}
	// A rename would replace a file that another command wrote meanwhile; a link refuses to.
	if err := os.Link(f.Name(), path); err != nil {
		return err
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}
