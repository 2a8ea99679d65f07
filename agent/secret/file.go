package secret

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// fileLocator is a plain file on this machine.
type fileLocator struct{ path string }

func (l fileLocator) String() string { return "file:" + l.path }

// files reads plain files. Their bytes are the secret exactly, a final newline included, as with Kubernetes and Docker
// secrets: many passwords were hashed with the newline that `echo` wrote, and only their owner knows.
type files struct{ wanted []fileLocator }

func (s *files) fetch(context.Context) map[locator]answer {
	answers := make(map[locator]answer, len(s.wanted))
	for _, l := range s.wanted {
		content, _, err := readRegular(l.path)
		answers[l] = answer{document: valueOf(content, err), err: err}
	}
	return answers
}

// credentialLocator is a systemd credential of the agent's own unit.
type credentialLocator struct{ name string }

func (l credentialLocator) String() string { return "credential:" + l.name }

// credentials reads what systemd handed to the unit (systemd.exec(5), LoadCredential=), byte for byte.
type credentials struct {
	directory string // $CREDENTIALS_DIRECTORY, empty when systemd passed none
	wanted    []credentialLocator
}

func (s *credentials) fetch(context.Context) map[locator]answer {
	answers := make(map[locator]answer, len(s.wanted))
	for _, l := range s.wanted {
		content, err := readCredential(s.directory, l.name)
		answers[l] = answer{document: valueOf(content, err), err: err}
	}
	return answers
}

// readCredential reads one credential; a missing one says how to pass it.
func readCredential(directory, name string) ([]byte, error) {
	if directory == "" {
		return nil, because(ErrNotFound, "systemd passed no credentials to this process: add LoadCredential=%s:/path to the unit, or run flowagent as the unit", name)
	}
	content, _, err := readRegular(filepath.Join(directory, name))
	if errors.Is(err, ErrNotFound) {
		return nil, because(ErrNotFound, "systemd passed no credential of this name: add LoadCredential=%s:/path or LoadCredentialEncrypted=%s to the unit and restart it", name, name)
	}
	return content, err
}

// checkCredentialName accepts what systemd accepts: a file name (systemd.exec(5), LoadCredential=).
func checkCredentialName(name string) error {
	if name == "" || name == "." || name == ".." || filepath.Base(name) != name {
		return fmt.Errorf("%q is not the name of a systemd credential: it is a file name without slashes", name)
	}
	return nil
}

func valueOf(content []byte, err error) Value {
	if err != nil {
		return Value{}
	}
	return NewValue(content)
}

// readRegular reads a whole regular file, through symbolic links, up to documentLimit. It never waits: a pipe or a
// device is refused without being read.
func readRegular(path string) ([]byte, fs.FileInfo, error) {
	// O_NONBLOCK, since opening a pipe otherwise waits for its writer.
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, nil, fileError(path, err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, nil, fileError(path, err)
	}
	if !info.Mode().IsRegular() {
		return nil, nil, because(ErrNotFound, "%s is not a regular file: name the file itself", path)
	}
	content, err := io.ReadAll(io.LimitReader(f, documentLimit+1))
	if err != nil {
		return nil, nil, fileError(path, err)
	}
	if len(content) > documentLimit {
		return nil, nil, because(ErrUnavailable, "%s is larger than %d bytes, which no secret is: name another file", path, documentLimit)
	}
	return content, info, nil
}

// fileError sorts what the kernel says about a file.
func fileError(path string, err error) error {
	// The path is already in the message; PathError would repeat it.
	var pathErr *fs.PathError
	if errors.As(err, &pathErr) {
		err = pathErr.Err
	}
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ENOTDIR), errors.Is(err, syscall.ELOOP), errors.Is(err, syscall.ENAMETOOLONG):
		return because(ErrNotFound, "%s: %v: create it or correct the path", path, err)
	case errors.Is(err, fs.ErrPermission):
		return because(ErrDenied, "%s: %v: let the user that runs flowagent read it", path, err)
	default:
		return because(ErrUnavailable, "%s: %v", path, err)
	}
}
