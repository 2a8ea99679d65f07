// Package atomicfile writes whole files: readers see the old content or the new, never a part, and never with the wrong
// mode.
package atomicfile

import (
	"crypto/rand"
	"errors"
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

// WriteIn is [Write] with a slash-separated path below root, out of which no symbolic link leads. Its directory has to be
// there. A symbolic link that stands at path itself is replaced, not followed.
func WriteIn(root *os.Root, path string, data []byte, perm fs.FileMode) (err error) {
	dir := filepath.Dir(path)
	beside := filepath.Join(dir, "."+filepath.Base(path)+"."+rand.Text())
	f, err := root.OpenFile(beside, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = root.Remove(beside) // after the rename it is not there
		}
	}()
	if err = fill(f, data, perm); err != nil {
		return err
	}
	if err = root.Rename(beside, path); err != nil {
		return err
	}
	d, err := root.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
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
	if err = fill(f, data, perm); err != nil {
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

// fill writes a new file to the disk and closes it.
func fill(f *os.File, data []byte, perm fs.FileMode) error {
	_, err := f.Write(data)
	if err == nil {
		err = f.Chmod(perm)
	}
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}
