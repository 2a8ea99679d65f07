package probe

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// authority signs certificates of any age. The lab's own are valid for a day, for servers only.
type authority struct {
	file        string // PEM of the certificate
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
	dir         string
}

// issued is a certificate to make; zero values stand for 127.0.0.1 and a year.
type issued struct {
	name  string
	from  time.Time
	until time.Time
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{dir: t.TempDir()}
	a.certificate, a.key, a.file = a.sign(t, "authority", time.Now().Add(-time.Hour), time.Now().AddDate(10, 0, 0))
	return a
}

// below makes an intermediate authority that is valid until then.
func (a *authority) below(t *testing.T, until time.Time) *authority {
	t.Helper()
	lower := &authority{dir: t.TempDir()}
	var file string
	lower.certificate, lower.key, file = a.sign(t, "intermediate", time.Now().Add(-time.Hour), until)
	lower.file = file
	return lower
}

// sign makes a certificate signed by a, or by itself while a has none.
func (a *authority) sign(t *testing.T, name string, from, until time.Time) (*x509.Certificate, *ecdsa.PrivateKey, string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: name}, NotBefore: from, NotAfter: until,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, BasicConstraintsValid: true,
	}
	switch ip := net.ParseIP(name); {
	case name == "authority" || name == "intermediate":
		template.IsCA = true
	case ip != nil:
		template.IPAddresses = []net.IP{ip}
	default:
		template.DNSNames = []string{name}
	}
	parent, signer := a.certificate, a.key
	if parent == nil {
		parent, signer = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	if err != nil {
		t.Fatal(err)
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(a.dir, serial.String()+".pem")
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	return certificate, key, file
}

// issue returns the files of a certificate and its key.
func (a *authority) issue(t *testing.T, what issued) (certificateFile, keyFile string) {
	t.Helper()
	if what.name == "" {
		what.name = "127.0.0.1"
	}
	if what.from.IsZero() {
		what.from = time.Now().Add(-time.Hour)
	}
	if what.until.IsZero() {
		what.until = time.Now().AddDate(1, 0, 0)
	}
	_, key, file := a.sign(t, what.name, what.from, what.until)
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	keyFile = file + ".key"
	if err := os.WriteFile(keyFile, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	return file, keyFile
}

// serveTLS completes handshakes with that certificate, and with what comes after it in the chain.
func (a *authority) serveTLS(t *testing.T, what issued, chain ...*authority) string {
	t.Helper()
	certificate, err := tls.LoadX509KeyPair(a.issue(t, what))
	if err != nil {
		t.Fatal(err)
	}
	for _, above := range chain {
		certificate.Certificate = append(certificate.Certificate, above.certificate.Raw)
	}
	listener := tls.NewListener(listen(t), &tls.Config{Certificates: []tls.Certificate{certificate}})
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				_, _ = io.Copy(io.Discard, conn)
				_ = conn.Close()
			}()
		}
	}()
	return listener.Addr().String()
}

func TestTLS_TheDaysLeftDecide(t *testing.T) {
	a := newAuthority(t)
	in := func(days int) time.Time { return time.Now().Add(time.Duration(days)*day + time.Hour) }
	tests := map[string]struct {
		probe  TLS
		cert   issued
		status Status
		output string
	}{
		"many":                      {cert: issued{until: in(90)}, status: Pass, output: "the certificate is valid for 90 days, until "},
		"fewer than two weeks":      {cert: issued{until: in(13)}, status: Warn, output: "valid for 13 days, until "},
		"fewer than asked for":      {probe: TLS{WarnBefore: 100 * day}, cert: issued{until: in(90)}, status: Warn, output: "; renew it"},
		"fewer than may be":         {probe: TLS{FailBefore: 3 * day}, cert: issued{until: in(2)}, status: Fail, output: "valid for 2 days, until "},
		"one":                       {cert: issued{until: in(1)}, status: Warn, output: "valid for 1 day, until "},
		"none":                      {cert: issued{until: time.Now().Add(-time.Minute)}, status: Fail, output: "the certificate of CN=127.0.0.1 expired at "},
		"not valid yet":             {cert: issued{from: in(1), until: in(2)}, status: Fail, output: "is this machine's clock right?"},
		"another name":              {cert: issued{name: "www.example.com"}, status: Fail, output: "the certificate is for www.example.com, not for 127.0.0.1"},
		"the name that is expected": {probe: TLS{TLS: &ClientTLS{ServerName: "www.example.com"}}, cert: issued{name: "www.example.com"}, status: Pass, output: "valid for"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			p := test.probe
			p.Address = a.serveTLS(t, test.cert)
			if p.TLS == nil {
				p.TLS = &ClientTLS{}
			}
			p.TLS.CAFile = a.file
			expect(t, p.Probe(t.Context()), test.status, test.output)
		})
	}
}

func TestTLS_AChainEndsWithItsFirstCertificate(t *testing.T) {
	root := newAuthority(t)
	lower := root.below(t, time.Now().Add(5*day+time.Hour))
	p := &TLS{Address: lower.serveTLS(t, issued{}, lower), TLS: &ClientTLS{CAFile: root.file}}
	got := p.Probe(t.Context())
	expect(t, got, Warn, "the chain is valid for 5 days, until ")
	expect(t, got, Warn, "when CN=intermediate ends; renew it")
	if got.Value == nil || *got.Value < 5 || *got.Value > 5.1 || got.Unit != "d" {
		t.Errorf("got value %v %s, want 5 days and an hour", got.Value, got.Unit)
	}
	// A server that doesn't send what is between it and the authority is a common fault that browsers hide.
	p.Address = lower.serveTLS(t, issued{})
	expect(t, p.Probe(t.Context()), Fail, "signed by an authority that is not trusted here")
}

func TestTLS_WhatIsNotTLSFails(t *testing.T) {
	p := &TLS{Address: say(t, "HTTP/1.1 400 Bad Request\r\n\r\n")}
	expect(t, p.Probe(t.Context()), Fail, "TLS: the server does not speak TLS there")
	p.Address = say(t, "")
	expect(t, p.Probe(t.Context()), Fail, "TLS: the server closed the connection")
	p.TLS = &ClientTLS{CAFile: "/nonexistent/ca.pem"}
	expect(t, p.Probe(t.Context()), Fail, "read the authorities to trust: open /nonexistent/ca.pem")
	p.TLS = &ClientTLS{CertificateFile: "/nonexistent/own.pem"}
	expect(t, p.Probe(t.Context()), Fail, "read the client's certificate")
}
