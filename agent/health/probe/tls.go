package probe

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"time"
)

// ClientTLS is how a probe speaks TLS (1.2 or later). The zero value trusts the system's authorities and expects the
// name that it connected to. The certificate is always checked; there is no way to turn that off.
type ClientTLS struct {
	// CAFile is a PEM file of the authorities to trust instead of the system's; empty for those. It is read for every
	// probe, so that a new authority needs no restart.
	CAFile string
	// ServerName is the name that the certificate must carry, where it is not the address's host.
	ServerName string
	// CertificateFile and KeyFile are PEM files of the client's own certificate, for servers that ask for one; both or
	// none. Read for every probe.
	CertificateFile, KeyFile string
}

// config is for a server reached as host, which is empty for a Unix socket.
func (c *ClientTLS) config(host string) (*tls.Config, error) {
	settings := &tls.Config{ServerName: host, MinVersion: tls.VersionTLS12}
	if c.ServerName != "" {
		settings.ServerName = c.ServerName
	}
	if settings.ServerName == "" {
		return nil, errors.New("TLS on a Unix socket needs a server name to expect")
	}
	if c.CAFile != "" {
		content, err := os.ReadFile(c.CAFile)
		if err != nil {
			return nil, fmt.Errorf("read the authorities to trust: %w", err)
		}
		settings.RootCAs = x509.NewCertPool()
		if !settings.RootCAs.AppendCertsFromPEM(content) {
			return nil, fmt.Errorf("%s holds no PEM certificate", c.CAFile)
		}
	}
	if c.CertificateFile != "" || c.KeyFile != "" {
		own, err := tls.LoadX509KeyPair(c.CertificateFile, c.KeyFile)
		if err != nil {
			return nil, fmt.Errorf("read the client's certificate: %w", err)
		}
		settings.Certificates = []tls.Certificate{own}
	}
	return settings, nil
}

// handshakeError says why TLS was not agreed on.
type handshakeError struct{ err error }

func (e *handshakeError) Unwrap() error { return e.err }

func (e *handshakeError) Error() string {
	reason := e.err.Error()
	var (
		notTLS    tls.RecordHeaderError
		authority x509.UnknownAuthorityError
		name      x509.HostnameError
		invalid   x509.CertificateInvalidError
	)
	switch {
	case errors.As(e.err, &notTLS):
		reason = "the server does not speak TLS there"
	case errors.As(e.err, &authority):
		reason = "the certificate is signed by an authority that is not trusted here: name its PEM file, if it is yours"
	case errors.As(e.err, &name):
		reason = fmt.Sprintf("the certificate is for %s, not for %s", names(name.Certificate), excerpt(name.Host, nameLimit))
	case errors.As(e.err, &invalid) && invalid.Reason == x509.Expired:
		reason = validity(invalid.Cert, time.Now())
	case errors.Is(e.err, errClosed):
		reason = "the server closed the connection: it may not speak TLS there, or want a client's certificate"
	}
	return "TLS: " + reason
}

// validity tells when a certificate that isn't valid at now is.
func validity(certificate *x509.Certificate, now time.Time) string {
	subject := excerpt(certificate.Subject.String(), nameLimit)
	if now.Before(certificate.NotBefore) {
		return fmt.Sprintf("the certificate of %s is not valid before %s; is this machine's clock right?",
			subject, certificate.NotBefore.UTC().Format(time.RFC3339))
	}
	return fmt.Sprintf("the certificate of %s expired at %s", subject, certificate.NotAfter.UTC().Format(time.RFC3339))
}

// nameLimit bounds the names from a certificate in a result: a DNS name has at most 253 characters (RFC 1035).
const nameLimit = 253

// names lists a few of the names that a certificate carries.
func names(certificate *x509.Certificate) string {
	list := certificate.DNSNames
	for _, address := range certificate.IPAddresses {
		list = append(list, address.String())
	}
	switch {
	case len(list) == 0:
		return "no name at all"
	case len(list) == 1:
		return excerpt(list[0], nameLimit)
	}
	return fmt.Sprintf("%s and %d more", excerpt(list[0], nameLimit), len(list)-1)
}

// TLS watches a server's certificate: that its chain leads to a trusted authority, that it carries the right name, and
// how many days are left. Revocation is not checked.
type TLS struct {
	// Address is host:port. The server must speak TLS from the first byte on.
	Address string
	// TLS says whom to trust; nil is the zero value.
	TLS *ClientTLS
	// WarnBefore is how long before the end it warns. 0 stands for [DefaultWarnBefore].
	WarnBefore time.Duration
	// FailBefore is how long before the end it fails. 0: once the certificate isn't valid any more.
	FailBefore time.Duration
}

// DefaultWarnBefore is two weeks: certificates of 90 days are renewed with 30 days left by the usual tools (certbot,
// cert-manager), those of 45 days with 15, so that fewer left means that renewal doesn't work.
const DefaultWarnBefore = 14 * 24 * time.Hour

const day = 24 * time.Hour

// Probe counts the days to the first end within the chain, intermediate certificates included; where there are several
// chains, within the one that lasts longest. The days are the result's value.
func (p *TLS) Probe(ctx context.Context) Result {
	secure := p.TLS
	if secure == nil {
		secure = &ClientTLS{}
	}
	conn, err := dial(ctx, p.Address, secure)
	if err != nil {
		return failure(err)
	}
	defer conn.Close()
	session, ok := conn.Conn.(*tls.Conn)
	if !ok { // dial makes one wherever secure is not nil
		return failed("TLS: no session")
	}
	return p.judge(session.ConnectionState().VerifiedChains, time.Now())
}

func (p *TLS) judge(chains [][]*x509.Certificate, now time.Time) Result {
	var last *x509.Certificate // ends first in its chain, and last of all chains
	for _, chain := range chains {
		var first *x509.Certificate
		for _, certificate := range chain {
			if first == nil || certificate.NotAfter.Before(first.NotAfter) {
				first = certificate
			}
		}
		if first != nil && (last == nil || first.NotAfter.After(last.NotAfter)) {
			last = first
		}
	}
	if last == nil {
		return failed("the server showed no certificate")
	}
	left := last.NotAfter.Sub(now)
	warnBefore := p.WarnBefore
	if warnBefore == 0 {
		warnBefore = DefaultWarnBefore
	}
	result := passed("the certificate is valid for %s, until %s", days(left), last.NotAfter.UTC().Format(time.DateOnly))
	if last != chains[0][0] {
		result.Output = fmt.Sprintf("the chain is valid for %s, until %s, when %s ends", days(left),
			last.NotAfter.UTC().Format(time.DateOnly), excerpt(last.Subject.String(), nameLimit))
	}
	switch {
	case left < p.FailBefore || left <= 0:
		result.Status = Fail
	case left < warnBefore:
		result.Status = Warn
	}
	if result.Status != Pass {
		result.Output += "; renew it"
	}
	return result.measured(float64(left/time.Minute)/float64(day/time.Minute), "d")
}

// days writes a length of time as people count it.
func days(d time.Duration) string {
	switch n := int(d / day); {
	case n == 1:
		return "1 day"
	case n > 1:
		return fmt.Sprintf("%d days", n)
	}
	return d.Truncate(time.Minute).String()
}
