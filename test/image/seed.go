package main

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"filippo.io/age"
	"golang.org/x/crypto/ssh"
)

// seed makes the CD of a NoCloud seed from its files.
func (p *proof) seed(ctx context.Context, m *machine, files map[string]string) (string, error) {
	dir := filepath.Join(m.dir, "seed")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			return "", err
		}
	}
	path := dir + ".iso"
	_, err := p.run(ctx, m.name+"/xorriso", nil, "xorriso", "-as", "mkisofs", "-quiet", "-volid", "cidata", "-joliet", "-rock", "-output", path, dir)
	return path, err
}

// login is a key for SSH.
type login struct {
	name       string // of the user, whom the distribution's cloud-init makes
	signer     ssh.Signer
	authorized string // the line for authorized_keys
	private    string // as OpenSSH writes it
}

func (p *proof) newLogin() (login, error) {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return login{}, err
	}
	signer, err := ssh.NewSignerFromKey(key)
	if err != nil {
		return login{}, err
	}
	block, err := ssh.MarshalPrivateKey(key, "")
	if err != nil {
		return login{}, err
	}
	name, _, _ := strings.Cut(p.distribution, "-")
	return login{name, signer, strings.TrimSpace(string(ssh.MarshalAuthorizedKey(signer.PublicKey()))), string(pem.EncodeToMemory(block))}, nil
}

// clone is a node on the golden disk, with what only it has.
type clone struct {
	*machine // nil until it was made
	name     string
	marker   needle   // in a file of the seed and in the journal: what a search has to find
	secrets  []needle // what a search must not find

	identity identity // once it has booted
}

// newClone makes a machine from the golden disk. Its passwords come encrypted with the seed; the key to them is a systemd
// credential, which the firmware hands to the system and which is never on a disk.
func (p *proof) newClone(ctx context.Context, c *clone) error {
	user, err := p.newLogin()
	if err != nil {
		return err
	}
	key, err := age.GenerateX25519Identity()
	if err != nil {
		return err
	}
	database, databaseNeedle := canary("the database's password")
	cache, cacheNeedle := canary("the cache's password")
	marker, markerNeedle := canary("the marker")
	c.marker, c.secrets = markerNeedle, []needle{databaseNeedle, cacheNeedle, newNeedle("the key to the secrets", key.String())}

	var encrypted bytes.Buffer
	w, err := age.Encrypt(&encrypted, key.Recipient())
	if err != nil {
		return err
	}
	if _, err := fmt.Fprintf(w, "db: {password: %s}\ncache: {password: %s}\n", database, cache); err != nil {
		return err
	}
	if err := w.Close(); err != nil {
		return err
	}
	c.machine, err = p.newMachine(ctx, c.name, user, hardware{
		backing: p.golden,
		files: map[string]string{
			"meta-data": "instance-id: " + c.name + "\nlocal-hostname: " + c.name + "\n",
			"user-data": "#cloud-config\n" +
				"ssh_authorized_keys: ['" + user.authorized + "']\n" +
				"write_files:\n" +
				"  - {path: /etc/flowagent/secrets.age, permissions: '0600', encoding: b64, content: " + base64.StdEncoding.EncodeToString(encrypted.Bytes()) + "}\n" +
				"  - {path: /var/lib/proof-marker, content: " + marker + "}\n",
		},
		credentials: map[string]string{"age-identity": key.String()},
	})
	return err
}
