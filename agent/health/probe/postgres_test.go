package probe_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/flowviz/flowagent/agent/health/probe"
	"github.com/flowviz/flowagent/agent/secret"
	"github.com/flowviz/flowagent/test/lab"
)

// canary is a password that must be nowhere but in the login.
const canary = "canary-3f9c81d2"

func password(text string) func() secret.Value {
	return func() secret.Value { return secret.NewValue([]byte(text)) }
}

func localhost(port int) []probe.PostgresHost {
	return []probe.PostgresHost{{Name: "127.0.0.1", Port: strconv.Itoa(port)}}
}

// execute runs SQL as the superuser, by the socket.
func execute(t *testing.T, server *lab.PostgresServer, sql string) {
	t.Helper()
	conn, err := pgconn.Connect(t.Context(), fmt.Sprintf("host=%s port=%d user=postgres sslmode=disable", server.SocketDir, server.Port))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	if _, err := conn.Exec(t.Context(), sql).ReadAll(); err != nil {
		t.Fatal(err)
	}
}

func TestPostgresLogsInAndComparesAValue(t *testing.T) {
	server := lab.Postgres(t, lab.PostgresConfig{Access: `
local all all trust
host all app   all scram-sha-256
host all plain all password
host all open  all trust
`})
	execute(t, server, `
		CREATE ROLE app LOGIN PASSWORD '`+canary+`';
		CREATE ROLE plain LOGIN PASSWORD '`+canary+`';
		CREATE ROLE open LOGIN;`)

	for name, c := range map[string]struct {
		probe probe.Postgres
		want  probe.Result
	}{
		"without a login": {
			probe.Postgres{User: "app", Database: "postgres"},
			probe.Result{Status: probe.Pass, Output: "accepting connections"},
		},
		"a login alone": {
			probe.Postgres{User: "app", Database: "postgres", Login: &probe.PostgresLogin{Password: password(canary)}},
			probe.Result{Status: probe.Pass, Output: "accepting connections and logins"},
		},
		"the expected value": {
			probe.Postgres{User: "app", Database: "postgres", Login: &probe.PostgresLogin{
				Password: password(canary), Query: "SELECT pg_is_in_recovery()", Expect: "f",
			}},
			probe.Result{Status: probe.Pass, Output: `the query returned "f"`},
		},
		"another value": {
			probe.Postgres{User: "app", Database: "postgres", Login: &probe.PostgresLogin{
				Password: password(canary), Query: "SELECT 41", Expect: "42",
			}},
			probe.Result{Status: probe.Fail, Output: `the query returned "41", not "42"`},
		},
		"any value": {
			probe.Postgres{User: "app", Database: "postgres", Login: &probe.PostgresLogin{Password: password(canary), Query: "SELECT 'v1'"}},
			probe.Result{Status: probe.Pass, Output: `the query returned "v1"`},
		},
		"no row": {
			probe.Postgres{User: "app", Database: "postgres", Login: &probe.PostgresLogin{Password: password(canary), Query: "SELECT 1 WHERE false"}},
			probe.Result{Status: probe.Fail, Output: "accepting connections, but the query failed: it must return one row with one column that isn't null"},
		},
		"two rows": {
			probe.Postgres{User: "app", Database: "postgres", Login: &probe.PostgresLogin{Password: password(canary), Query: "SELECT generate_series(1, 2)"}},
			probe.Result{Status: probe.Fail, Output: "accepting connections, but the query failed: it must return one row with one column that isn't null"},
		},
		"null": {
			probe.Postgres{User: "app", Database: "postgres", Login: &probe.PostgresLogin{Password: password(canary), Query: "SELECT NULL"}},
			probe.Result{Status: probe.Fail, Output: "accepting connections, but the query failed: it must return one row with one column that isn't null"},
		},
		"a wrong query": {
			probe.Postgres{User: "app", Database: "postgres", Login: &probe.PostgresLogin{Password: password(canary), Query: "SELECT nothing"}},
			probe.Result{Status: probe.Fail, Output: `accepting connections, but the query failed: column "nothing" does not exist (SQLSTATE 42703)`},
		},
		"two statements": {
			probe.Postgres{User: "app", Database: "postgres", Login: &probe.PostgresLogin{Password: password(canary), Query: "COMMIT; SELECT 1"}},
			probe.Result{Status: probe.Fail, Output: `accepting connections, but the query failed: cannot insert multiple commands into a prepared statement (SQLSTATE 42601)`},
		},
		"a query that writes": {
			probe.Postgres{User: "app", Database: "postgres", Login: &probe.PostgresLogin{Password: password(canary), Query: "CREATE TABLE t (i int)"}},
			probe.Result{Status: probe.Fail, Output: `accepting connections, but the query failed: cannot execute CREATE TABLE in a read-only transaction (SQLSTATE 25006)`},
		},
		"a long value": {
			probe.Postgres{User: "app", Database: "postgres", Login: &probe.PostgresLogin{Password: password(canary), Query: "SELECT repeat('x', 300)"}},
			probe.Result{Status: probe.Pass, Output: `the query returned "` + strings.Repeat("x", 200) + `…"`},
		},
		"a wrong password": {
			probe.Postgres{User: "app", Database: "postgres", Login: &probe.PostgresLogin{Password: password("wrong-" + canary)}},
			probe.Result{Status: probe.Fail, Output: `accepting connections, but cannot log in: password authentication failed for user "app" (SQLSTATE 28P01)`},
		},
		"a database that doesn't exist, without a login": {
			probe.Postgres{User: "open", Database: "nosuch"},
			probe.Result{Status: probe.Warn, Output: `the database doesn't exist: 127.0.0.1:PORT: database "nosuch" does not exist (SQLSTATE 3D000)`},
		},
		"a database that doesn't exist, with a login": {
			probe.Postgres{User: "open", Database: "nosuch", Login: &probe.PostgresLogin{}},
			probe.Result{Status: probe.Fail, Output: `accepting connections, but cannot log in: 127.0.0.1:PORT: database "nosuch" does not exist (SQLSTATE 3D000)`},
		},
		"a database that doesn't exist, behind a password": {
			probe.Postgres{User: "app", Database: "nosuch", Login: &probe.PostgresLogin{Password: password(canary)}},
			probe.Result{Status: probe.Fail, Output: `accepting connections, but cannot log in: database "nosuch" does not exist (SQLSTATE 3D000)`},
		},
		"a user whom pg_hba doesn't know": {
			probe.Postgres{User: "stranger", Database: "postgres", TLS: probe.PostgresTLS{Mode: "disable"}},
			probe.Result{Status: probe.Pass, Output: "accepting connections"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			c.probe.Hosts = localhost(server.Port)
			c.want.Output = strings.ReplaceAll(c.want.Output, "PORT", strconv.Itoa(server.Port))
			got := c.probe.Probe(t.Context())
			if got != c.want {
				t.Errorf("got %v %q, want %v %q", got.Status, got.Output, c.want.Status, c.want.Output)
			}
			if strings.Contains(got.Output, canary) {
				t.Errorf("the password is in %q", got.Output)
			}
		})
	}

	t.Run("a password in the clear is never sent in the clear", func(t *testing.T) {
		p := probe.Postgres{Hosts: localhost(server.Port), User: "plain", Database: "postgres", Login: &probe.PostgresLogin{Password: password(canary)}}
		got := p.Probe(t.Context())
		if got.Status != probe.Fail || !strings.Contains(got.Output, "require_auth") || strings.Contains(got.Output, canary) {
			t.Errorf("got %v %q, want a failure for require_auth", got.Status, got.Output)
		}
	})
	t.Run("what this process has in its environment changes nothing", func(t *testing.T) {
		for _, variable := range []string{"PGHOST", "PGPORT", "PGUSER", "PGDATABASE", "PGPASSWORD", "PGOPTIONS", "PGAPPNAME", "PGSSLMODE", "PGSSLROOTCERT", "PGCONNECT_TIMEOUT", "PGREQUIREAUTH", "PGMINPROTOCOLVERSION", "PGTARGETSESSIONATTRS"} {
			t.Setenv(variable, "1")
		}
		p := probe.Postgres{Hosts: localhost(server.Port), User: "app", Database: "postgres", Login: &probe.PostgresLogin{
			Password: password(canary), Query: "SELECT current_setting('application_name')", Expect: "flowagent",
		}}
		if got := p.Probe(t.Context()); got.Status != probe.Pass {
			t.Errorf("got %v %q, want pass", got.Status, got.Output)
		}
	})
	t.Run("the server is to give up a little earlier than the probe", func(t *testing.T) {
		const allowed = time.Minute
		deadline := time.Now().Add(allowed)
		ctx, cancel := context.WithDeadline(t.Context(), deadline)
		defer cancel()
		p := probe.Postgres{Hosts: localhost(server.Port), User: "app", Database: "postgres", Login: &probe.PostgresLogin{
			Password: password(canary), Query: "SELECT setting FROM pg_settings WHERE name = 'statement_timeout'",
		}}
		got := p.Probe(ctx)
		left := time.Until(deadline)
		var limit int64 // in milliseconds
		if _, err := fmt.Sscanf(got.Output, `the query returned "%d"`, &limit); err != nil {
			t.Fatalf("got %v %q, want a number", got.Status, got.Output)
		}
		if least, most := (left * 9 / 10).Milliseconds(), (allowed * 9 / 10).Milliseconds(); limit < least || limit > most {
			t.Errorf("got a limit of %d ms, want 9/10 of what was left, %d to %d ms", limit, least, most)
		}
	})
	if log := server.Log(); strings.Contains(log, "client") {
		t.Error("the server complains of lost connections")
	}
	t.Run("a query that takes too long ends on the server as well", func(t *testing.T) {
		p := probe.Postgres{Hosts: localhost(server.Port), User: "app", Database: "postgres", Login: &probe.PostgresLogin{
			Password: password(canary), Query: "SELECT pg_sleep(600)",
		}}
		want := "accepting connections, but the query failed: canceling statement due to statement timeout (SQLSTATE 57014)"
		var got probe.Result
		for allowed := time.Second; allowed < 30*time.Second; allowed *= 2 {
			ctx, cancel := context.WithTimeout(t.Context(), allowed)
			got = p.Probe(ctx)
			cancel()
			if !strings.HasSuffix(got.Output, "no answer in time") {
				break // else a tenth of it was too little for the server's answer, on a busy machine
			}
		}
		if got.Status != probe.Fail || got.Output != want {
			t.Errorf("got %v %q, want %v %q", got.Status, got.Output, probe.Fail, want)
		}
		count := probe.Postgres{Hosts: localhost(server.Port), User: "app", Database: "postgres", Login: &probe.PostgresLogin{
			Password: password(canary), Query: "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep%'", Expect: "0",
		}}
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for count.Probe(t.Context()).Status != probe.Pass {
			select {
			case <-tick.C:
			case <-t.Context().Done():
				t.Fatal("the query is still running")
			}
		}
	})
	if strings.Contains(server.Log(), canary) {
		t.Error("the password is in the server's log")
	}
}

func TestPostgresLogsInOverVerifiedTLS(t *testing.T) {
	dir := t.TempDir()
	authority, err := lab.NewAuthority()
	if err != nil {
		t.Fatal(err)
	}
	certFile, keyFile, err := authority.Issue(dir, "127.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	root := filepath.Join(dir, "ca.pem")
	if err := os.WriteFile(root, authority.PEM, 0o600); err != nil {
		t.Fatal(err)
	}
	server := lab.Postgres(t, lab.PostgresConfig{
		Access: "local all all trust\nhostssl all plain all password\nhostssl all all all scram-sha-256\n", CertFile: certFile, KeyFile: keyFile,
	})
	execute(t, server, `CREATE ROLE app LOGIN PASSWORD '`+canary+`'; CREATE ROLE plain LOGIN PASSWORD '`+canary+`'`)
	for _, user := range []string{"app", "plain"} { // app with channel binding, which ties the password to the certificate
		p := probe.Postgres{
			Hosts: localhost(server.Port), User: user, Database: "postgres",
			TLS: probe.PostgresTLS{Mode: "verify-full", RootFile: root},
			Login: &probe.PostgresLogin{
				Password: password(canary), Query: "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()", Expect: "t",
			},
		}
		if got := p.Probe(t.Context()); got.Status != probe.Pass {
			t.Errorf("user %s: got %v %q, want pass", user, got.Status, got.Output)
		}
	}
}

func TestPostgresWarnsOfAServerWithoutFreeConnections(t *testing.T) {
	port := lab.Peer(t, func(conn net.Conn) {
		respond(conn, &pgproto3.ErrorResponse{Code: "53300", Message: "sorry, too many clients already"})
	})
	p := probe.Postgres{Hosts: localhost(port), TLS: probe.PostgresTLS{Mode: "disable"}}
	want := probe.Result{
		Status: probe.Warn,
		Output: fmt.Sprintf("the server has no free connection: 127.0.0.1:%d: sorry, too many clients already (SQLSTATE 53300)", port),
	}
	if got := p.Probe(t.Context()); got != want {
		t.Errorf("got %v, want %v", got, want)
	}
	p.Login = &probe.PostgresLogin{}
	if got := p.Probe(t.Context()); got.Status != probe.Fail {
		t.Errorf("with a login got %v %q, want fail", got.Status, got.Output)
	}
}

func TestPostgresRefusesParametersThatCantWork(t *testing.T) {
	for name, settings := range map[string]probe.PostgresTLS{
		"an unknown mode":                {Mode: "on"},
		"an unknown negotiation":         {Negotiation: "fast"},
		"direct negotiation, too weak":   {Mode: "prefer", Negotiation: "direct"},
		"the system's authorities, weak": {Mode: "verify-ca", RootFile: "system"},
		"versions of TLS the wrong way":  {MinVersion: tls.VersionTLS13, MaxVersion: tls.VersionTLS12},
		"direct negotiation, by default": {Negotiation: "direct"},
	} {
		t.Run(name, func(t *testing.T) {
			p := probe.Postgres{TLS: settings}
			if got := p.Ping(t.Context()); got.Readiness != probe.NoAttempt || got.Detail == "" {
				t.Errorf("got %v %q, want %v and a reason", got.Readiness, got.Detail, probe.NoAttempt)
			}
		})
	}
}

func TestPostgresNegotiatesTLSDirectly(t *testing.T) {
	dir := t.TempDir()
	authority, err := lab.NewAuthority()
	if err != nil {
		t.Fatal(err)
	}
	certFile, keyFile, err := authority.Issue(dir, "127.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	pair, err := tls.LoadX509KeyPair(certFile, keyFile)
	if err != nil {
		t.Fatal(err)
	}
	root := filepath.Join(dir, "ca.pem")
	if err := os.WriteFile(root, authority.PEM, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		protocols []string
		want      probe.Readiness
	}{
		"with a server that knows it":     {[]string{"postgresql"}, probe.Accepting},
		"with a server that doesn't":      {nil, probe.NoResponse},
		"with a server of something else": {[]string{"h2"}, probe.NoResponse},
	} {
		t.Run(name, func(t *testing.T) {
			port := lab.Peer(t, func(conn net.Conn) {
				server := tls.Server(conn, &tls.Config{Certificates: []tls.Certificate{pair}, NextProtos: c.protocols})
				respond(server, &pgproto3.AuthenticationCleartextPassword{})
				_ = server.Close()
			})
			p := probe.Postgres{Hosts: localhost(port), TLS: probe.PostgresTLS{Mode: "verify-full", Negotiation: "direct", RootFile: root}}
			if got := p.Ping(t.Context()); got.Readiness != c.want {
				t.Errorf("got %v (%s), want %v", got.Readiness, got.Detail, c.want)
			}
		})
	}
}

// TestPostgresSharesItsTimeAmongHosts would wait for ever, or find nobody, if the first host had all the time.
func TestPostgresSharesItsTimeAmongHosts(t *testing.T) {
	quiet := lab.Peer(t, func(conn net.Conn) { _, _ = conn.Read(make([]byte, 1)); <-t.Context().Done() })
	accepting := lab.Peer(t, func(conn net.Conn) { respond(conn, &pgproto3.AuthenticationCleartextPassword{}) })
	p := probe.Postgres{
		Hosts: append(localhost(quiet), localhost(accepting)...),
		TLS:   probe.PostgresTLS{Mode: "disable"},
	}
	for allowed := time.Second; ; allowed *= 2 {
		deadline := time.Now().Add(allowed)
		ctx, cancel := context.WithDeadline(t.Context(), deadline)
		got := p.Ping(ctx)
		late := !time.Now().Before(deadline)
		cancel()
		switch {
		case got.Readiness == probe.Accepting:
		case late && allowed < 30*time.Second:
			continue // half of it may be too little for a busy machine
		default:
			t.Errorf("got %v (%s), want %v", got.Readiness, got.Detail, probe.Accepting)
		}
		return
	}
}

func TestPostgresLeavesNothingBehindWhenItIsCancelled(t *testing.T) {
	var closed sync.WaitGroup
	arrived := make(chan struct{}, 1)
	port := lab.Peer(t, func(conn net.Conn) {
		defer closed.Done()
		arrived <- struct{}{}
		for buffer := make([]byte, 512); ; {
			if _, err := conn.Read(buffer); err != nil {
				return // the probe closed it
			}
		}
	})
	for name, p := range map[string]probe.Postgres{
		"while it waits for an answer": {TLS: probe.PostgresTLS{Mode: "disable"}},
		"while it waits for TLS":       {},
		"during a handshake":           {TLS: probe.PostgresTLS{Mode: "require", Negotiation: "direct"}},
	} {
		t.Run(name, func(t *testing.T) {
			before := runtime.NumGoroutine()
			ctx, cancel := context.WithCancel(t.Context())
			p.Hosts = localhost(port)
			closed.Add(1)
			answer := make(chan probe.Result)
			go func() { answer <- p.Probe(ctx) }()
			<-arrived
			cancel()
			if got := <-answer; got.Status != probe.Fail {
				t.Errorf("got %v, want fail", got)
			}
			closed.Wait()
			tick := time.NewTicker(time.Millisecond)
			defer tick.Stop()
			for runtime.NumGoroutine() > before {
				select {
				case <-tick.C:
				case <-t.Context().Done():
					t.Fatalf("got %d goroutines, want %d", runtime.NumGoroutine(), before)
				}
			}
		})
	}
}

// TestPostgresShowsNothingUnprintable gives a hostile server the last word.
func TestPostgresShowsNothingUnprintable(t *testing.T) {
	port := lab.Peer(t, func(conn net.Conn) {
		respond(conn, &pgproto3.ErrorResponse{Code: "57P03", Message: "\x1b[2J\xff" + strings.Repeat("é", 1000)})
	})
	p := probe.Postgres{Hosts: localhost(port), TLS: probe.PostgresTLS{Mode: "disable"}}
	got := p.Probe(t.Context())
	want := fmt.Sprintf("rejecting connections: 127.0.0.1:%d: [2J�%s… (SQLSTATE 57P03)", port, strings.Repeat("é", 195))
	if got.Output != want {
		t.Errorf("got %q, want %q", got.Output, want)
	}
}

// respond reads the startup message and sends one message.
func respond(conn net.Conn, answer pgproto3.BackendMessage) {
	backend := pgproto3.NewBackend(conn, conn)
	if _, err := backend.ReceiveStartupMessage(); err != nil {
		return
	}
	backend.Send(answer)
	_ = backend.Flush()
}
