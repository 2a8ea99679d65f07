package probe

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
)

// PostgresTLS says how the connection is encrypted. Its zero value is libpq's default: TLS if the server has it, with
// nothing verified. Unix sockets are never encrypted, whatever it says.
type PostgresTLS struct {
	// Mode is libpq's sslmode: disable, allow, prefer, require, verify-ca or verify-full; "" is prefer, or
	// verify-full where the system's authorities are trusted.
	Mode string
	// Negotiation is libpq's sslnegotiation: "postgres" asks the server for TLS first, "direct" begins with the
	// handshake, which saves a round trip and needs PostgreSQL 17 and at least the mode require; "" is postgres.
	Negotiation string
	// RootFile holds the authorities to trust, in PEM, or is "system" for those of this machine, which needs the mode
	// verify-full. As in libpq, a server's chain is verified in every mode as soon as the file exists, and the modes
	// verify-ca and verify-full fail without it.
	RootFile string
	// CertFile and KeyFile are the client's own certificate and key, in PEM; "" for none, and as in libpq a CertFile
	// that doesn't exist counts as none.
	CertFile, KeyFile string
	// MinVersion and MaxVersion are limits for TLS's version (tls.VersionTLS12); 0 is 1.2 and no limit.
	MinVersion, MaxVersion uint16
	// HideName keeps the host's name out of the handshake, which it enters in the clear; libpq's sslsni=0.
	HideName bool
}

// The values of sslmode; libpq has no other.
const (
	tlsDisable    = "disable"
	tlsAllow      = "allow"
	tlsPrefer     = "prefer"
	tlsRequire    = "require"
	tlsVerifyCA   = "verify-ca"
	tlsVerifyFull = "verify-full"
)

const (
	// systemRoots is libpq's sslrootcert=system.
	systemRoots = "system"
	// postgresALPN is the protocol's registered name, by which a server knows direct negotiation from an attack that
	// sends it another protocol's bytes (PG_ALPN_PROTOCOL).
	postgresALPN = "postgresql"
)

func (t PostgresTLS) mode() string {
	switch {
	case t.Mode != "":
		return t.Mode
	case t.RootFile == systemRoots:
		return tlsVerifyFull
	}
	return tlsPrefer
}

func (t PostgresTLS) direct() bool { return t.Negotiation == "direct" }

// validate refuses what libpq refuses before it tries anything (connectOptions2).
func (t PostgresTLS) validate() error {
	modes := []string{tlsDisable, tlsAllow, tlsPrefer, tlsRequire, tlsVerifyCA, tlsVerifyFull}
	strength := slices.Index(modes, t.mode())
	switch {
	case strength < 0:
		return fmt.Errorf("TLS mode %q is unknown: use one of %s", t.Mode, strings.Join(modes, ", "))
	case t.RootFile == systemRoots && t.mode() != tlsVerifyFull:
		return fmt.Errorf("TLS mode %q is too weak for the system's authorities: use %s", t.mode(), tlsVerifyFull)
	case t.Negotiation != "" && t.Negotiation != "postgres" && t.Negotiation != "direct":
		return fmt.Errorf("TLS negotiation %q is unknown: use postgres or direct", t.Negotiation)
	case t.direct() && strength < slices.Index(modes, tlsRequire):
		return fmt.Errorf("TLS mode %q is too weak for direct negotiation: use %s or stronger", t.mode(), tlsRequire)
	case t.MinVersion != 0 && t.MaxVersion != 0 && t.MinVersion > t.MaxVersion:
		return errors.New("the lowest version of TLS is above the highest")
	}
	return nil
}

// tries lists the ways to connect, true for encrypted, in the order in which they are tried.
func (t PostgresTLS) tries(local bool) []bool {
	switch mode := t.mode(); {
	case local || mode == tlsDisable:
		return []bool{false}
	case mode == tlsAllow:
		return []bool{false, true}
	case mode == tlsPrefer:
		return []bool{true, false}
	}
	return []bool{true}
}

// required tells whether a server without TLS is refused.
func (t PostgresTLS) required() bool {
	mode := t.mode()
	return mode == tlsRequire || mode == tlsVerifyCA || mode == tlsVerifyFull
}

// config prepares the handshake with the host of that name. It reads the files each time, since certificates are
// renewed under a running agent.
func (t PostgresTLS) config(name string) (*tls.Config, error) {
	config := &tls.Config{
		// libpq's modes don't fit into crypto/tls's own verification: verify below does it.
		InsecureSkipVerify: true,
		NextProtos:         []string{postgresALPN},
		MinVersion:         t.MinVersion,
		MaxVersion:         t.MaxVersion,
	}
	if !t.HideName {
		config.ServerName = name // left out by crypto/tls where it is an IP address, as RFC 6066 asks
	}
	roots, err := t.roots()
	if err != nil {
		return nil, err
	}
	if roots != nil {
		config.VerifyConnection = func(state tls.ConnectionState) error {
			return t.verify(state.PeerCertificates, roots, name)
		}
	}
	if t.CertFile != "" {
		_, err := os.Stat(t.CertFile)
		if errors.Is(err, os.ErrNotExist) {
			return config, nil
		}
		pair, err := tls.LoadX509KeyPair(t.CertFile, t.KeyFile)
		if err != nil {
			return nil, fmt.Errorf("read the client's certificate: %w", err)
		}
		// Offered even to a server that names other authorities, as OpenSSL does: the server's refusal is an answer too.
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &pair, nil }
	}
	return config, nil
}

// roots returns whom to trust, or nil where nothing is verified.
func (t PostgresTLS) roots() (*x509.CertPool, error) {
	if t.RootFile == systemRoots {
		return x509.SystemCertPool()
	}
	verifies := t.mode() == tlsVerifyCA || t.mode() == tlsVerifyFull
	if t.RootFile == "" {
		if verifies {
			return nil, fmt.Errorf("TLS mode %s needs a file with the authorities to trust", t.mode())
		}
		return nil, nil
	}
	if _, err := os.Stat(t.RootFile); err != nil && !verifies {
		return nil, nil
	}
	content, err := os.ReadFile(t.RootFile)
	if err != nil {
		return nil, fmt.Errorf("read the authorities to trust: %w", err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(content) {
		return nil, fmt.Errorf("read the authorities to trust: %s holds no certificate", t.RootFile)
	}
	return roots, nil
}

// verify checks the server's chain, and in the mode verify-full its name.
func (t PostgresTLS) verify(chain []*x509.Certificate, roots *x509.CertPool, name string) error {
	options := x509.VerifyOptions{Roots: roots, Intermediates: x509.NewCertPool()}
	for _, certificate := range chain[1:] {
		options.Intermediates.AddCert(certificate)
	}
	if _, err := chain[0].Verify(options); err != nil {
		return err
	}
	if t.mode() != tlsVerifyFull {
		return nil
	}
	if name == "" {
		return errors.New("TLS mode verify-full needs the server's name, not only its address")
	}
	return verifyName(chain[0], name)
}

// verifyName also accepts a common name, which crypto/x509 no longer does, where the certificate has no alternative
// name of the host's kind: the certificates that PostgreSQL's manual shows how to make (section "Creating
// Certificates") have no other name. The rules are those of pq_verify_peer_name_matches_certificate.
func verifyName(certificate *x509.Certificate, name string) error {
	var named bool
	if address, err := netip.ParseAddr(name); err == nil {
		named = len(certificate.IPAddresses) > 0
		for _, ip := range certificate.IPAddresses {
			if found, ok := netip.AddrFromSlice(ip); ok && found.Unmap() == address.Unmap() {
				return nil
			}
		}
	} else {
		named = len(certificate.DNSNames) > 0
	}
	names := certificate.DNSNames
	if !named {
		names = append(slices.Clone(names), certificate.Subject.CommonName)
	}
	if slices.ContainsFunc(names, func(pattern string) bool { return matchesName(pattern, name) }) {
		return nil
	}
	return fmt.Errorf("the server's certificate is for %s, not for %q", fromServer(strings.Join(append(names, addressTexts(certificate)...), ", ")), name)
}

func addressTexts(certificate *x509.Certificate) []string {
	var texts []string
	for _, ip := range certificate.IPAddresses {
		texts = append(texts, ip.String())
	}
	return texts
}

// matchesName compares without case; a leading "*." stands for one label.
func matchesName(pattern, name string) bool {
	if strings.EqualFold(pattern, name) {
		return true
	}
	rest, wild := strings.CutPrefix(pattern, "*.")
	label, after, ok := strings.Cut(name, ".")
	return wild && ok && rest != "" && label != "" && strings.EqualFold(rest, after)
}
