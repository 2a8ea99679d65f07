package secret

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"sync"

	"filippo.io/age"
	"filippo.io/age/armor"

	"github.com/flowviz/flowagent/agent/config"
)

// defaultAgeIdentity is read when the configuration names no identity.
const defaultAgeIdentity = "/etc/flowagent/age.key"

// ageLocator is a file encrypted with age.
type ageLocator struct{ path string }

func (l ageLocator) String() string { return "age:" + l.path }

// ageFiles decrypts files in memory; neither they nor the identity are kept after a fetch.
type ageFiles struct {
	identity             config.AgeIdentity
	credentialsDirectory string
	wanted               []ageLocator
}

func (s *ageFiles) fetch(context.Context) map[locator]answer {
	answers := make(map[locator]answer, len(s.wanted))
	identities, err := s.identities()
	for _, l := range s.wanted {
		if err != nil {
			answers[l] = answer{err: err}
			continue
		}
		document, err := decryptFile(l.path, identities)
		if err != nil {
			answers[l] = answer{err: err}
			continue
		}
		answers[l] = answer{
			document: NewValue(document),
			json:     sync.OnceValues(func() ([]byte, error) { return yamlToJSON(document) }),
		}
	}
	return answers
}

// identities reads the private keys anew for each fetch, so that a replaced key file works without a restart.
func (s *ageFiles) identities() ([]age.Identity, error) {
	if name := s.identity.IdentityCredential; name != "" {
		content, err := readCredential(s.credentialsDirectory, name)
		if err != nil {
			return nil, because(kindOf(err), "age identity from the systemd credential %s: %v", name, err)
		}
		return parseIdentities(content, "the systemd credential "+name)
	}
	path := s.identity.IdentityFile
	if path == "" {
		path = defaultAgeIdentity
	}
	content, info, err := readRegular(path)
	if err != nil {
		return nil, because(kindOf(err), "age identity: %v", err)
	}
	if err := checkPrivate(path, info); err != nil {
		return nil, err
	}
	return parseIdentities(content, path)
}

// checkPrivate refuses a key that others than its owner can read, as ssh does: it is then no longer a secret.
func checkPrivate(path string, info fs.FileInfo) error {
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		return because(ErrDenied, "the age identity %s has mode %#o, so others than its owner can use it: run chmod 600 %s", path, mode, path)
	}
	return nil
}

// parseIdentities drops the library's error, which tells about the bytes of the key.
func parseIdentities(content []byte, where string) ([]age.Identity, error) {
	// Identities that came through an editor on Windows end in \r\n, which the library takes for a part of the key.
	identities, err := age.ParseIdentities(bytes.NewReader(bytes.ReplaceAll(content, []byte("\r\n"), []byte("\n"))))
	if err != nil {
		return nil, because(ErrDenied, "%s holds no usable age identity: each line must be a key that begins with AGE-SECRET-KEY-, as age-keygen writes it, or a # comment", where)
	}
	return identities, nil
}

// decryptFile opens a binary or armored file; the two are told apart by the armor's first line.
func decryptFile(path string, identities []age.Identity) ([]byte, error) {
	content, _, err := readRegular(path)
	if err != nil {
		return nil, err
	}
	var encrypted io.Reader = bytes.NewReader(content)
	if bytes.HasPrefix(bytes.TrimSpace(content), []byte(armor.Header)) {
		encrypted = armor.NewReader(encrypted)
	}
	plain, err := age.Decrypt(encrypted, identities...)
	var noMatch *age.NoIdentityMatchError
	if errors.As(err, &noMatch) {
		return nil, because(ErrDenied, "%s is not encrypted for this node's identity: encrypt it for the recipient that age-keygen -y prints", path)
	}
	if err != nil {
		return nil, because(ErrUnavailable, "%s is not a whole age file: copy it again", path)
	}
	// The ciphertext is longer than what it holds, so documentLimit bounds this as well.
	document, err := io.ReadAll(plain)
	if err != nil {
		return nil, because(ErrUnavailable, "%s is cut off or was changed after its encryption: copy it again", path)
	}
	return document, nil
}
