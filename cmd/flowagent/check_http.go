package main

import (
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"strings"

	"github.com/spf13/cobra"

	"github.com/flowviz/flowagent/agent/config"
	"github.com/flowviz/flowagent/agent/health/probe"
	"github.com/flowviz/flowagent/agent/secret"
)

func newCheckHTTPCommand(g *globals) *cobra.Command {
	p := &probe.HTTP{Headers: map[string]string{}, SecretHeaders: map[string]func() secret.Value{}}
	var once askOnce
	var secure clientTLSFlags
	var match string
	var headers, secretHeaders []string
	cmd := &cobra.Command{
		Use:   "http URL",
		Short: "Ask whether a URL answers as expected",
		Long: `Asks for a URL by GET, over HTTP/1.1, and holds status and body against what is expected. It follows no redirect and
uses no proxy. Nothing of the body or the headers is shown.

Exit code 0 when it passes, 1 when it fails.`,
		Example: `  flowagent check http http://127.0.0.1:8000/health --match '"status": ?"up"'
  flowagent check http https://api.internal/health --ca /etc/ssl/factory.pem --secret-header Authorization=/run/token`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) != 1 {
				return usageError(fmt.Errorf("'%s' takes one URL", cmd.CommandPath()))
			}
			// Its error doesn't repeat the URL.
			if err := new(config.URL).UnmarshalText([]byte(args[0])); err != nil {
				return usageError(err)
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			address, err := url.Parse(args[0])
			if err != nil {
				return usageError(errors.New("not a URL"))
			}
			p.URL = args[0]
			if p.TLS, err = secure.client(cmd); err != nil {
				return err
			}
			if match != "" {
				if p.Match, err = regexp.Compile(match); err != nil {
					return usageError(fmt.Errorf("--match: %w", err))
				}
			}
			for _, header := range headers {
				name, value, found := strings.Cut(header, ":")
				if !found || strings.TrimSpace(name) == "" {
					return usageError(errors.New(`--header must be "Name: value"`))
				}
				p.Headers[strings.TrimSpace(name)] = strings.TrimSpace(value)
			}
			for _, header := range secretHeaders {
				name, file, found := strings.Cut(header, "=")
				if !found || name == "" || file == "" {
					return usageError(errors.New("--secret-header must be Name=FILE"))
				}
				if p.SecretHeaders[name], err = secretFile("--secret-header", file); err != nil {
					return err
				}
			}
			// Without the query, which may hold a token.
			target := (&url.URL{Scheme: address.Scheme, Host: address.Host, Path: address.Path}).String()
			return once.ask(cmd, g, target, p)
		},
	}
	once.add(cmd)
	secure.add(cmd, false)
	set := cmd.Flags()
	set.IntSliceVar(&p.Statuses, "status", nil, "codes that pass, with commas (default 200 to 299)")
	set.StringVar(&match, "match", "", "regular expression that must match within the body's first MiB")
	set.StringArrayVar(&headers, "header", nil, `header to send, as "Name: value"; may be given several times`)
	set.StringArrayVar(&secretHeaders, "secret-header", nil, "header whose value is in a file, as Name=FILE; may be given several times")
	return cmd
}
