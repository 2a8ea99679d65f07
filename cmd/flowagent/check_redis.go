package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/flowviz/flowagent/agent/health/probe"
	"github.com/flowviz/flowagent/agent/secret"
)

func newCheckRedisCommand(g *globals) *cobra.Command {
	p := &probe.Redis{}
	var once askOnce
	var secure clientTLSFlags
	var sentinel probe.RedisSentinel
	var passwordFile, sentinelPasswordFile string
	cmd := &cobra.Command{
		Use:   "redis ADDRESS...",
		Short: "Ask whether a Redis or Valkey server answers",
		Long: `Asks a Redis or Valkey server for a PING, after a login where it has one. An address is host:port or the path of a
Unix socket; several are those of Sentinels or of a cluster's nodes, any one of which is enough.

Exit code 0 when it passes or warns, 1 when it fails: the server is away, loads its data set, has lost its primary,
wants another login, or isn't Redis at all.`,
		Example: `  flowagent check redis cache.internal:6379 --tls --password-file /run/secrets/cache_password
  flowagent check redis s1:26379 s2:26379 s3:26379 --sentinel mymaster`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return usageError(fmt.Errorf("'%s' needs an address: write host:port, or the path of a Unix socket", cmd.CommandPath()))
			}
			for _, address := range args {
				if strings.HasPrefix(address, "/") {
					continue
				}
				if err := checkAddress(address); err != nil {
					return err
				}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			var err error
			if p.Password, err = secretFile("--password-file", passwordFile); err != nil {
				return err
			}
			if sentinel.Password, err = secretFile("--sentinel-password-file", sentinelPasswordFile); err != nil {
				return err
			}
			if p.TLS, err = secure.client(cmd); err != nil {
				return err
			}
			if sentinel.Primary != "" {
				p.Sentinel = &sentinel
			}
			switch {
			case p.Sentinel == nil && (sentinel.User != "" || sentinel.Password != nil):
				return usageError(errors.New("a login for Sentinels needs --sentinel with the primary's name"))
			case p.Sentinel != nil && p.Cluster:
				return usageError(errors.New("--sentinel and --cluster exclude each other"))
			case len(args) > 1 && p.Sentinel == nil && !p.Cluster:
				return usageError(errors.New("several addresses need --sentinel or --cluster"))
			case p.User != "" && p.Password == nil, sentinel.User != "" && sentinel.Password == nil:
				return usageError(errors.New("a user needs a password: give its file"))
			}
			p.Addresses = args
			return once.ask(cmd, g, strings.Join(args, ","), p)
		},
	}
	once.add(cmd)
	secure.add(cmd, true)
	set := cmd.Flags()
	set.StringVar(&p.User, "user", "", "ACL user (default the default user)")
	set.StringVar(&passwordFile, "password-file", "", "file that holds the password")
	set.BoolVar(&p.Primary, "primary", false, "fail on a read-only replica")
	set.BoolVar(&p.Cluster, "cluster", false, "the addresses are nodes of a cluster: warn when it doesn't serve every slot")
	set.StringVar(&sentinel.Primary, "sentinel", "", "the addresses are Sentinels, which watch a primary under this name")
	set.StringVar(&sentinel.User, "sentinel-user", "", "ACL user of the Sentinels")
	set.StringVar(&sentinelPasswordFile, "sentinel-password-file", "", "file that holds the Sentinels' password")
	return cmd
}

// secretFile reads a secret that a flag names a file for, without the end of its line; nil for no file.
func secretFile(flag, path string) (func() secret.Value, error) {
	if path == "" {
		return nil, nil
	}
	content, err := os.ReadFile(path)
	if err != nil {
		return nil, usageError(fmt.Errorf("%s: %w", flag, err))
	}
	value := secret.NewValue(bytes.TrimRight(content, "\r\n"))
	return func() secret.Value { return value }, nil
}
