package lab

import (
	"context"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
)

// MetadataServer is a running amazon-ec2-metadata-mock.
type MetadataServer struct {
	*Process
	URL  string // such as http://127.0.0.1:41234, without /latest
	file string
}

// Configure changes the values that the mock serves. Paths, and what isn't a value, stay as they were at its start. The mock
// notices by itself, a moment later, and answers 404 for another one: whoever is to hear the new values alone needs a mock
// that starts with them.
func (m *MetadataServer) Configure(config string) error {
	aside := m.file + ".new" // else the mock would read a file that is empty, or half of one
	if err := os.WriteFile(aside, []byte(config), 0o600); err != nil {
		return err
	}
	return os.Rename(aside, m.file)
}

// StartMetadataMock starts an EC2 metadata service on a free loopback port that speaks IMDSv2 only: a request without
// a session token is refused. config is the JSON of the mock's configuration file, "" for none; dir is a directory for
// it that outlives the mock. Without a configuration everything the mock knows fires at once: spot interruption,
// rebalance recommendation, scheduled events. ctx bounds the start only.
func StartMetadataMock(ctx context.Context, dir, config string) (*MetadataServer, error) {
	path, err := program(MetadataVariable, "ec2-metadata-mock")
	if err != nil {
		return nil, err
	}
	if config == "" {
		config = "{}"
	}
	file := filepath.Join(dir, "metadata-mock.json")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		return nil, err
	}
	cmd := exec.Command(path, "--imdsv2", "--hostname", "127.0.0.1", "--port", "0", "--config-file", file, "--watch-config-file")
	p, err := start("ec2-metadata-mock", cmd)
	if err != nil {
		return nil, err
	}
	url, err := p.awaitHTTP(ctx, "/latest/meta-data/", http.StatusUnauthorized)
	if err != nil {
		p.Stop()
		return nil, err
	}
	return &MetadataServer{p, url, file}, nil
}
