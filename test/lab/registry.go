package lab

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/crypto/bcrypt"
)

// RegistryServer is a running image registry that asks for a password and speaks TLS only.
type RegistryServer struct {
	*Process
	Host     string         // as it stands in image references: 127.0.0.1:port, or a bare name for one on port 443
	Username string         //
	Password string         //
	CAFile   string         // PEM of the authority that signed its certificate
	CAPool   *x509.CertPool // the same
}

// StartRegistry starts an empty registry with an authority and a password of its own on a free port of 127.0.0.1, which
// engines use without knowing the authority: Docker skips verification for 127.0.0.0/8. Its certificate is for the other
// hosts, too, as which somebody may reach the loopback. dir holds its files, images included, and outlives it. ctx bounds
// the start only.
func StartRegistry(ctx context.Context, dir string, others ...string) (*RegistryServer, error) {
	authority, err := NewAuthority()
	if err != nil {
		return nil, err
	}
	return startRegistry(ctx, dir, authority, registrySpec{
		name: "127.0.0.1", others: others, address: "127.0.0.1:0", username: "puller", password: rand.Text(),
	})
}

// StartRegistryAt starts an empty registry on port 443 of the address that host has inside a lab, with a certificate
// that the lab's engine and command trust. The user of an ECR name is AWS and its password what moto's ECR token
// decodes to, account-auth-token; other names get a random password. dir holds its files, images included, and outlives
// it. ctx bounds the start only.
func StartRegistryAt(ctx context.Context, dir, host string) (*RegistryServer, error) {
	labDir := os.Getenv(DirectoryVariable)
	if labDir == "" {
		return nil, missing("a registry named "+host, "run this inside `lab run`")
	}
	address, ok := Names[host]
	if !ok {
		return nil, fmt.Errorf("no address for %s in a lab: use one of %s", host, strings.Join(nameList(), ", "))
	}
	authority, err := LoadAuthority(labDir)
	if err != nil {
		return nil, err
	}
	spec := registrySpec{name: host, address: net.JoinHostPort(address, "443"), username: "puller", password: rand.Text()}
	if account, rest, _ := strings.Cut(host, "."); strings.HasPrefix(rest, "dkr.ecr.") {
		spec.username, spec.password = "AWS", account+"-auth-token"
	}
	return startRegistry(ctx, dir, authority, spec)
}

type registrySpec struct {
	name     string   // in the certificate
	others   []string // there as well
	address  string   // to listen on; port 0 lets the kernel choose
	username string
	password string
}

func startRegistry(ctx context.Context, dir string, authority *Authority, spec registrySpec) (*RegistryServer, error) {
	path, err := systemProgram("docker-registry")
	if err != nil {
		return nil, err
	}
	configFile, err := writeRegistryFiles(dir, authority, spec)
	if err != nil {
		return nil, fmt.Errorf("prepare registry %s: %w", spec.name, err)
	}
	cmd := exec.Command(path, "serve", configFile)
	cmd.Env = registryEnvironment()
	p, err := start("docker-registry "+spec.name, cmd)
	if err != nil {
		return nil, err
	}
	r := &RegistryServer{
		Process: p, Host: spec.name, Username: spec.username, Password: spec.password,
		CAFile: filepath.Join(dir, "ca.pem"), CAPool: authority.Pool,
	}
	if err := r.awaitReady(ctx, spec); err != nil {
		p.Stop()
		return nil, err
	}
	return r, nil
}

// registryEnvironment leaves out REGISTRY_…: the registry would let such variables override its configuration.
func registryEnvironment() []string {
	var kept []string
	for _, entry := range os.Environ() {
		if !strings.HasPrefix(entry, "REGISTRY_") {
			kept = append(kept, entry)
		}
	}
	return kept
}

func writeRegistryFiles(dir string, authority *Authority, spec registrySpec) (configFile string, err error) {
	certFile, keyFile, err := authority.Issue(dir, append([]string{spec.name}, spec.others...)...)
	if err != nil {
		return "", err
	}
	// The lowest cost: this guards nothing, and every request of every pull pays for it.
	hash, err := bcrypt.GenerateFromPassword([]byte(spec.password), bcrypt.MinCost)
	if err != nil {
		return "", err
	}
	htpasswd := filepath.Join(dir, "htpasswd")
	type object = map[string]any
	// The configuration is YAML, of which JSON is a part.
	config, err := json.Marshal(object{
		"version": "0.1",
		"log":     object{"level": "warn", "accesslog": object{"disabled": true}},
		"storage": object{
			"filesystem":  object{"rootdirectory": filepath.Join(dir, "storage")},
			"delete":      object{"enabled": true},
			"maintenance": object{"uploadpurging": object{"enabled": false}},
		},
		"auth": object{"htpasswd": object{"realm": "flowagent lab", "path": htpasswd}},
		"http": object{
			"addr":   spec.address,
			"secret": rand.Text(),
			"tls":    object{"certificate": certFile, "key": keyFile},
		},
	})
	if err != nil {
		return "", err
	}
	configFile = filepath.Join(dir, "config.yml")
	return configFile, errors.Join(
		os.WriteFile(filepath.Join(dir, "ca.pem"), authority.PEM, 0o644),
		os.WriteFile(htpasswd, fmt.Appendf(nil, "%s:%s\n", spec.username, hash), 0o600),
		os.WriteFile(configFile, config, 0o600),
	)
}

// awaitReady waits until the registry wants a password, under TLS with its own certificate: no other server does.
func (r *RegistryServer) awaitReady(ctx context.Context, spec registrySpec) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	address := spec.address
	if strings.HasSuffix(address, ":0") {
		port, err := r.port(ctx)
		if err != nil {
			return err
		}
		address = net.JoinHostPort(spec.name, strconv.Itoa(port))
		r.Host = address
	}
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: r.CAPool, ServerName: spec.name}}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport}
	return r.await(ctx, func(ctx context.Context) error {
		return answers(ctx, client, "https://"+address+"/v2/", http.StatusUnauthorized)
	})
}
