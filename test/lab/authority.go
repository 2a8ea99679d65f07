package lab

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"
)

// Authority is a certificate authority of one test or lab; nothing outside trusts it.
type Authority struct {
	Pool *x509.CertPool // holds the authority's certificate only
	PEM  []byte         // the certificate, for programs

	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
}

// certificateLife is longer than any lab lives and short enough that a forgotten one is worthless.
const certificateLife = 24 * time.Hour

// NewAuthority makes an authority that is valid for a day.
func NewAuthority() (*Authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template, err := certificateTemplate("flowagent lab authority")
	if err != nil {
		return nil, err
	}
	template.IsCA = true
	template.BasicConstraintsValid = true
	template.KeyUsage = x509.KeyUsageCertSign
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	return newAuthority(der, key)
}

func newAuthority(der []byte, key *ecdsa.PrivateKey) (*Authority, error) {
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	a := &Authority{
		Pool:        x509.NewCertPool(),
		PEM:         pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		certificate: certificate,
		key:         key,
	}
	a.Pool.AddCert(certificate)
	return a, nil
}

func certificateTemplate(name string) (*x509.Certificate, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127)) // RFC 5280 section 4.1.2.2: at most 20 octets
	if err != nil {
		return nil, err
	}
	now := time.Now()
	return &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{CommonName: name},
		NotBefore:    now.Add(-time.Hour), // a container's clock may lag
		NotAfter:     now.Add(certificateLife),
	}, nil
}

// Issue writes a server certificate for hosts, each a name or an IP address and at least one, and its key into dir as cert.pem
// and key.pem.
func (a *Authority) Issue(dir string, hosts ...string) (certFile, keyFile string, err error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return "", "", err
	}
	template, err := certificateTemplate(hosts[0])
	if err != nil {
		return "", "", err
	}
	template.KeyUsage = x509.KeyUsageDigitalSignature
	template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	for _, host := range hosts {
		if ip := net.ParseIP(host); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, host)
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.certificate, key.Public(), a.key)
	if err != nil {
		return "", "", err
	}
	certFile, keyFile = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	certPEM := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	return certFile, keyFile, errors.Join(os.WriteFile(certFile, certPEM, 0o644), writeKey(keyFile, key))
}

// Save writes the authority into dir as ca.pem and ca-key.pem, from where [LoadAuthority] reads it.
func (a *Authority) Save(dir string) error {
	return errors.Join(os.WriteFile(filepath.Join(dir, "ca.pem"), a.PEM, 0o644), writeKey(filepath.Join(dir, "ca-key.pem"), a.key))
}

// LoadAuthority reads what [Authority.Save] wrote.
func LoadAuthority(dir string) (*Authority, error) {
	der, err := readPEM(filepath.Join(dir, "ca.pem"))
	if err != nil {
		return nil, err
	}
	keyDER, err := readPEM(filepath.Join(dir, "ca-key.pem"))
	if err != nil {
		return nil, err
	}
	parsed, err := x509.ParsePKCS8PrivateKey(keyDER)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", filepath.Join(dir, "ca-key.pem"), err)
	}
	key, ok := parsed.(*ecdsa.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("read %s: not an ECDSA key", filepath.Join(dir, "ca-key.pem"))
	}
	return newAuthority(der, key)
}

func writeKey(file string, key *ecdsa.PrivateKey) error {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	return os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600)
}

func readPEM(file string) ([]byte, error) {
	content, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(content)
	if block == nil {
		return nil, fmt.Errorf("read %s: no PEM block in it", file)
	}
	return block.Bytes, nil
}
