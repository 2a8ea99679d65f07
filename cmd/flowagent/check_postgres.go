package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/flowviz/flowagent/agent/health/probe"
)

// postgresFlags are pg_isready's.
type postgresFlags struct {
	host, port, database, user, timeout string
	quiet                               bool
}

const (
	// defaultPostgresTimeout is pg_isready's, in seconds.
	defaultPostgresTimeout = "3"
	// shortestPostgresTimeout is libpq's least (connectDBComplete): it once counted in whole seconds, of which the first
	// may be nearly over.
	shortestPostgresTimeout = 2 * time.Second
)

func newCheckPostgresCommand(g *globals) *cobra.Command {
	var flags postgresFlags
	cmd := &cobra.Command{
		Use:   "postgres",
		Short: "Ask whether a PostgreSQL server accepts connections, as pg_isready does",
		Long: `Asks a PostgreSQL server whether it accepts connections, without logging in: a stand-in for pg_isready, with its
flags, environment variables (PGHOST, PGPORT, PGSSLMODE …), connection strings, wording and exit codes:

  0  the server accepts connections, or refuses this one for another reason than the next
  1  it rejects connections: it starts up, recovers or shuts down
  2  it doesn't answer
  3  nobody was asked, because the command line or a parameter is wrong

Why it is so is said on the standard error. Unlike in flowagent's other commands, -h is the host: help is --help.`,
		Example: `  flowagent check postgres -h db.internal -t 5
  flowagent check postgres -d "host=db1,db2 sslmode=verify-full sslrootcert=/etc/ssl/db.pem"`,
		// What other commands call a usage error would read as "no response" here.
		PersistentPreRunE: func(cmd *cobra.Command, args []string) error {
			if cmd.Root().PersistentPreRunE == nil {
				return nil
			}
			return notAttempted(cmd.Root().PersistentPreRunE(cmd, args))
		},
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 {
				return notAttempted(fmt.Errorf("too many arguments, the first is %q: see --help", args[0]))
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error {
			return checkPostgres(cmd, g, flags)
		},
	}
	cmd.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return notAttempted(fmt.Errorf("%w\nRun '%s --help' for its flags", err, cmd.CommandPath()))
	})
	set := cmd.Flags()
	set.StringVarP(&flags.host, "host", "h", "", "server's host or directory of its socket; several with commas")
	set.StringVarP(&flags.port, "port", "p", "", "server's port (default 5432)")
	set.StringVarP(&flags.database, "dbname", "d", "", "database's name, or a connection string")
	set.StringVarP(&flags.user, "username", "U", "", "user to connect as; none is logged in")
	set.StringVarP(&flags.timeout, "timeout", "t", defaultPostgresTimeout, "seconds to wait for each address, at least 2; 0 waits for ever")
	set.BoolVarP(&flags.quiet, "quiet", "q", false, "say nothing, only give the exit code")
	// Defined here so that cobra doesn't take -h for it.
	set.BoolP("help", "?", false, "show this help")
	return cmd
}

func notAttempted(err error) error {
	if err == nil {
		return nil
	}
	return &exitError{int(probe.NoAttempt), err}
}

// checkedPostgres is what --output json prints.
type checkedPostgres struct {
	Target   string `json:"target"`
	Code     int    `json:"code"`
	State    string `json:"state"`
	SQLState string `json:"sqlstate,omitempty"`
	Detail   string `json:"detail,omitempty"`
}

func checkPostgres(cmd *cobra.Command, g *globals, flags postgresFlags) error {
	settings, target, err := flags.settings(cmd.Flags())
	if err != nil {
		return notAttempted(err) // pg_isready prints no state either
	}
	ping := pingPostgres(cmd.Context(), settings)
	switch {
	case flags.quiet:
	case g.output == "json":
		err = printJSON(cmd.OutOrStdout(), checkedPostgres{
			target, int(ping.Readiness), ping.Readiness.String(), ping.SQLState, ping.Detail,
		})
	default:
		_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s - %s\n", target, ping.Readiness)
	}
	if err != nil {
		return notAttempted(err) // nobody could read the answer
	}
	return postgresExit(cmd.ErrOrStderr(), ping, flags.quiet)
}

// postgresExit gives the state as exit code, with the reason unless quiet.
func postgresExit(stderr io.Writer, ping probe.PostgresPing, quiet bool) error {
	if ping.Readiness == probe.Accepting {
		if warning := ping.Warning(); warning != "" && !quiet {
			fmt.Fprintln(stderr, "flowagent: warning:", warning)
		}
		return nil
	}
	exit := &exitError{code: int(ping.Readiness)}
	if !quiet {
		exit.err = errors.New(ping.Detail)
	}
	return exit
}

func pingPostgres(ctx context.Context, settings probe.PostgresSettings) probe.PostgresPing {
	p, err := settings.Postgres()
	if err != nil {
		return probe.PostgresPing{Readiness: probe.NoAttempt, Detail: err.Error()}
	}
	seconds, err := strconv.ParseInt(strings.TrimSpace(settings["connect_timeout"]), 10, 32)
	switch {
	case err != nil && settings["connect_timeout"] != "":
		// "no response" is what pg_isready calls it: libpq reads the timeout when it is about to wait.
		return probe.PostgresPing{
			Readiness: probe.NoResponse,
			Detail:    fmt.Sprintf("the timeout %q is no number of seconds", settings["connect_timeout"]),
		}
	case seconds > 0:
		p.ConnectTimeout = max(time.Duration(seconds)*time.Second, shortestPostgresTimeout)
	}
	return p.Ping(ctx)
}

// settings merges the flags, the connection string and the environment in pg_isready's order: a connection string wins
// over -h, -p and -U, and -t, which always has a value, over everything. target is the server as pg_isready names it.
func (f postgresFlags) settings(given *pflag.FlagSet) (settings probe.PostgresSettings, target string, err error) {
	defaults := probe.PostgresSettings{}
	defaults.AddDefaults(os.LookupEnv)
	shown := defaults.Clone()

	settings = probe.PostgresSettings{}
	for _, flag := range []struct{ name, keyword, value string }{
		{"host", "host", f.host},
		{"port", "port", f.port},
		{"username", "user", f.user},
		{"dbname", "dbname", f.database},
	} {
		if !given.Changed(flag.name) || flag.keyword == "dbname" && probe.IsPostgresConninfo(f.database) {
			continue
		}
		if flag.keyword == "host" || flag.keyword == "port" {
			shown[flag.keyword] = flag.value
		}
		if flag.value != "" { // an empty one leaves the default
			settings[flag.keyword] = flag.value
		}
	}
	if probe.IsPostgresConninfo(f.database) {
		parsed, err := probe.ParsePostgresConninfo(f.database)
		if err != nil {
			return nil, "", err
		}
		for keyword, value := range parsed {
			settings[keyword], shown[keyword] = value, value
		}
	}
	if f.timeout != "" {
		settings["connect_timeout"] = f.timeout
	}
	settings["fallback_application_name"] = "flowagent"
	settings.AddDefaults(os.LookupEnv)
	return settings, shown.Target(), nil
}
