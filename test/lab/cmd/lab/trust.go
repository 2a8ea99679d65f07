package main

import (
	"os"
	"path/filepath"
	"slices"

	"github.com/flowviz/flowagent/test/lab"
)

// makeAuthority makes the lab's own certificate authority and returns a bundle of it and the system's.
func makeAuthority() (bundle string, err error) {
	authority, err := lab.NewAuthority()
	if err != nil {
		return "", err
	}
	if err := authority.Save(runDir); err != nil {
		return "", err
	}
	bundle = filepath.Join(runDir, "bundle.pem")
	return bundle, os.WriteFile(bundle, slices.Concat(systemBundle(), []byte("\n"), authority.PEM), 0o644)
}

// systemBundle returns the authorities that this machine trusts. A lab reaches nobody of theirs, but programs that read
// the bundle expect a real one.
func systemBundle() []byte {
	for _, file := range []string{os.Getenv("SSL_CERT_FILE"), "/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt"} {
		if content, err := os.ReadFile(file); err == nil {
			return content
		}
	}
	return nil
}
