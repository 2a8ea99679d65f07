package main

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/flowviz/flowagent/test/lab"
)

// session logs in as postgres and stays.
func session(t *testing.T, server *lab.PostgresServer) {
	t.Helper()
	conn, err := pgconn.Connect(t.Context(), fmt.Sprintf("host=%s port=%d user=postgres sslmode=disable", server.SocketDir, server.Port))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.WithoutCancel(t.Context())) })
}

// closedPort returns a port of 127.0.0.1 on which nobody listens.
func closedPort(t *testing.T) int {
	t.Helper()
	address, err := netip.ParseAddrPort(lab.DeafAddress(t))
	if err != nil {
		t.Fatal(err)
	}
	return int(address.Port())
}

func TestCheckPostgresAgreesWithPgIsreadyOnAServerThatAccepts(t *testing.T) {
	both := newPair(t)
	server := lab.Postgres(t, lab.PostgresConfig{Access: `
local all all              trust
host  all trusted all      trust
host  all asked   all      scram-sha-256
host  all md5     all      md5
host  all plain   all      password
host  all refused all      reject
hostssl all encrypted all  trust
`})
	socket := filepath.Join(server.SocketDir, ".s.PGSQL."+strconv.Itoa(server.Port))
	for name, args := range map[string][]string{
		"by TCP":                             at(server.Port, "-U", "trusted"),
		"by socket":                          {"-h", server.SocketDir, "-p", strconv.Itoa(server.Port), "-U", "postgres", "-d", "postgres"},
		"a password is asked for (SCRAM)":    at(server.Port, "-U", "asked"),
		"a password is asked for (MD5)":      at(server.Port, "-U", "md5"),
		"a password is asked for (clear)":    at(server.Port, "-U", "plain"),
		"the user doesn't exist":             at(server.Port, "-U", "trusted"),
		"pg_hba rejects":                     at(server.Port, "-U", "refused"),
		"pg_hba has no entry":                at(server.Port, "-U", "stranger"),
		"TLS is required and not there":      at(server.Port, "-U", "encrypted"),
		"a connection URI":                   {"-d", fmt.Sprintf("postgresql://trusted@127.0.0.1:%d/postgres", server.Port)},
		"a connection URI of a socket":       {"-d", fmt.Sprintf("postgresql://%s:%d/postgres?user=postgres", strings.ReplaceAll(server.SocketDir, "/", "%2F"), server.Port)},
		"without a time limit":               at(server.Port, "-t", "0"),
		"TLS by all means, but by socket":    {"-d", fmt.Sprintf("host=%s port=%d sslmode=verify-full", server.SocketDir, server.Port)},
		"long flags":                         {"--host=127.0.0.1", "--port=" + strconv.Itoa(server.Port), "--username=trusted", "--dbname=postgres", "--timeout=10"},
		"the first host is refused":          {"-h", "127.0.0.1,127.0.0.1", "-p", fmt.Sprintf("%d,%d", closedPort(t), server.Port)},
		"the first host has no address":      {"-h", "nowhere.invalid,127.0.0.1", "-p", strconv.Itoa(server.Port)},
		"the first host has no such port":    {"-h", "127.0.0.1,127.0.0.1", "-p", fmt.Sprintf("70000,%d", server.Port)},
		"an address beside the name":         {"-d", fmt.Sprintf("host=nowhere.invalid hostaddr=127.0.0.1 port=%d", server.Port)},
		"a standby is wanted":                conninfo(server.Port, "user=trusted dbname=postgres target_session_attrs=standby"),
		"too old a TLS version is the limit": conninfo(server.Port, "ssl_max_protocol_version=TLSv1.2"),
	} {
		t.Run(name, func(t *testing.T) { both.agree(t, 0, args...) })
	}
	t.Run("quietly", func(t *testing.T) {
		if ours := both.agree(t, 0, at(server.Port, "-q", "-U", "refused")...); ours.Stdout+ours.stderr != "" {
			t.Errorf("got %q, want no output", ours.Stdout+ours.stderr)
		}
	})
	t.Run("by environment", func(t *testing.T) {
		both.with("PGHOST="+server.SocketDir, "PGPORT="+strconv.Itoa(server.Port), "PGUSER=postgres", "PGDATABASE=postgres").agree(t, 0)
		both.with("PGHOSTADDR=127.0.0.1", "PGPORT="+strconv.Itoa(server.Port), "PGSSLMODE=disable").agree(t, 0)
		both.with("PGHOST=127.0.0.1", "PGPORT="+strconv.Itoa(server.Port), "PGCONNECT_TIMEOUT=never").agree(t, 0)
		both.with("PGHOST=127.0.0.1", "PGPORT=1", "PGSSLMODE=require").agree(t, 0, "-h", server.SocketDir, "-p", strconv.Itoa(server.Port))
		both.with("PGHOST=127.0.0.1", "PGPORT="+strconv.Itoa(server.Port), "PGREQUIRESSL=1").agree(t, 2)
	})
	t.Run("the database doesn't exist", func(t *testing.T) {
		// The user must exist, or the server refuses that first.
		ours := both.agree(t, 0, "-h", server.SocketDir, "-p", strconv.Itoa(server.Port), "-U", "postgres", "-d", "nosuch")
		want := "flowagent: warning: the database doesn't exist: " + socket + `: database "nosuch" does not exist (SQLSTATE 3D000)` + "\n"
		if ours.stderr != want {
			t.Errorf("got %q, want %q", ours.stderr, want)
		}
	})
	t.Run("no TLS where it is required", func(t *testing.T) {
		for _, mode := range []string{"require", "verify-ca", "verify-full"} {
			both.agree(t, 2, conninfo(server.Port, "sslmode="+mode)...)
		}
	})
}

func TestCheckPostgresAgreesWithPgIsreadyOnAServerWithTLS(t *testing.T) {
	both := newPair(t)
	dir := t.TempDir()
	stranger := newCertificate(t, certificateOf{commonName: "127.0.0.1"})
	for name, c := range map[string]struct {
		certificate certificateOf
		settings    map[string]int // and the exit code they lead to; ROOT is the server's certificate, OTHER another
	}{
		"with its address": {certificateOf{addresses: []string{"127.0.0.1"}}, map[string]int{
			"sslmode=disable":                                                      0, // pg_hba refuses, so it is up
			"sslmode=allow":                                                        0,
			"sslmode=prefer":                                                       0,
			"sslmode=prefer sslrootcert=OTHER":                                     0, // falls back to no TLS, and is refused there
			"sslmode=require":                                                      0,
			"sslmode=require sslrootcert=ROOT":                                     0,
			"sslmode=require sslrootcert=OTHER":                                    2, // a file of authorities makes every mode verify
			"sslmode=require sslrootcert=/none":                                    0,
			"sslmode=verify-ca":                                                    2, // no authorities given
			"sslmode=verify-ca sslrootcert=/none":                                  2,
			"sslmode=verify-ca sslrootcert=ROOT":                                   0,
			"sslmode=verify-ca sslrootcert=OTHER":                                  2,
			"sslmode=verify-full sslrootcert=ROOT":                                 0,
			"sslmode=verify-full sslrootcert=OTHER":                                2,
			"sslmode=verify-full sslrootcert=/dev/null":                            2,
			"sslmode=verify-full sslrootcert=ROOT host=db.test hostaddr=127.0.0.1": 2,
			"sslmode=verify-ca sslrootcert=ROOT host=db.test hostaddr=127.0.0.1":   0,
			"sslmode=require sslcert=/none":                                        0,
			"sslmode=require sslcert=ROOT sslkey=/none":                            2,
			"sslmode=require ssl_min_protocol_version=TLSv1.3":                     0,
			"sslmode=require ssl_max_protocol_version=TLSv1.2":                     0,
			"sslmode=require sslsni=0":                                             0,
		}},
		"expired": {certificateOf{addresses: []string{"127.0.0.1"}, expired: true}, map[string]int{
			"sslmode=require":                      0,
			"sslmode=verify-ca sslrootcert=ROOT":   2,
			"sslmode=verify-full sslrootcert=ROOT": 2,
		}},
		"with a common name only": {certificateOf{commonName: "127.0.0.1"}, map[string]int{
			"sslmode=verify-full sslrootcert=ROOT":                                 0,
			"sslmode=verify-full sslrootcert=ROOT host=db.test hostaddr=127.0.0.1": 2,
		}},
		"with names": {certificateOf{commonName: "127.0.0.1", names: []string{"db.test", "*.shop.test"}}, map[string]int{
			"sslmode=verify-full sslrootcert=ROOT host=DB.test hostaddr=127.0.0.1":       0,
			"sslmode=verify-full sslrootcert=ROOT host=a.shop.test hostaddr=127.0.0.1":   0,
			"sslmode=verify-full sslrootcert=ROOT host=a.b.shop.test hostaddr=127.0.0.1": 2,
			"sslmode=verify-full sslrootcert=ROOT host=shop.test hostaddr=127.0.0.1":     2,
			"sslmode=verify-full sslrootcert=ROOT":                                       0, // the common name still counts for an address
		}},
	} {
		t.Run(name, func(t *testing.T) {
			certificate := newCertificate(t, c.certificate)
			server := lab.Postgres(t, lab.PostgresConfig{
				Access: "hostssl all all all trust\n", CertFile: certificate.file, KeyFile: certificate.keyFile,
			})
			for settings, want := range c.settings {
				settings = strings.NewReplacer("ROOT", certificate.file, "OTHER", stranger.file).Replace(settings)
				both.agree(t, want, conninfo(server.Port, settings)...)
			}
			if both.version >= 17 {
				both.agree(t, 0, conninfo(server.Port, "sslnegotiation=direct sslmode=require")...)
				both.agree(t, 2, conninfo(server.Port, "sslnegotiation=direct sslmode=verify-full sslrootcert="+stranger.file)...)
			}
			// By default libpq looks into the home directory.
			home := filepath.Join(dir, name)
			place := filepath.Join(home, ".postgresql", "root.crt")
			if err := os.MkdirAll(filepath.Dir(place), 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.Symlink(stranger.file, place); err != nil {
				t.Fatal(err)
			}
			both.with("HOME="+home).agree(t, 2, conninfo(server.Port, "sslmode=require")...)
		})
	}
}

func TestCheckPostgresAgreesWithPgIsreadyOnAServerThatRejects(t *testing.T) {
	both := newPair(t)
	t.Run("starting up", func(t *testing.T) {
		server := lab.Postgres(t, lab.PostgresConfig{Starting: true})
		ours := both.agree(t, 1, at(server.Port)...)
		if want := "the database system is starting up (SQLSTATE 57P03)\n"; !strings.HasSuffix(ours.stderr, want) {
			t.Errorf("got %q, want it to end with %q", ours.stderr, want)
		}
	})
	t.Run("in recovery, without hot standby", func(t *testing.T) {
		server := lab.Postgres(t, lab.PostgresConfig{Standby: true, Settings: map[string]string{"hot_standby": "off"}})
		both.agree(t, 1, at(server.Port)...)
		both.agree(t, 1, "-h", server.SocketDir, "-p", strconv.Itoa(server.Port))

		other := lab.Postgres(t, lab.PostgresConfig{})
		for name, c := range map[string]struct {
			host, port string
			want       int
		}{
			"the next host accepts":        {"127.0.0.1,127.0.0.1", fmt.Sprintf("%d,%d", server.Port, other.Port), 0},
			"the next host is refused":     {"127.0.0.1,127.0.0.1", fmt.Sprintf("%d,%d", server.Port, closedPort(t)), 2},
			"the next host has no address": {"127.0.0.1,nowhere.invalid", strconv.Itoa(server.Port), 1},
			"the next host has no port":    {"127.0.0.1,127.0.0.1", fmt.Sprintf("%d,none", server.Port), 1},
		} {
			t.Run(name, func(t *testing.T) { both.agree(t, c.want, "-h", c.host, "-p", c.port) })
		}
	})
	t.Run("in recovery, with hot standby", func(t *testing.T) {
		server := lab.Postgres(t, lab.PostgresConfig{Standby: true})
		both.agree(t, 0, at(server.Port)...)
		both.agree(t, 0, conninfo(server.Port, "user=postgres target_session_attrs=primary")...)
	})
	t.Run("shutting down", func(t *testing.T) {
		server := lab.Postgres(t, lab.PostgresConfig{})
		session(t, server)
		server.Signal(syscall.SIGTERM)
		if err := server.AwaitState(t.Context(), "stopping"); err != nil {
			t.Fatal(err)
		}
		ours := both.agree(t, 1, at(server.Port)...)
		if want := "the database system is shutting down (SQLSTATE 57P03)\n"; !strings.HasSuffix(ours.stderr, want) {
			t.Errorf("got %q, want it to end with %q", ours.stderr, want)
		}
		if ours := both.agree(t, 1, at(server.Port, "-q")...); ours.Stdout+ours.stderr != "" {
			t.Errorf("got %q, want no output", ours.Stdout+ours.stderr)
		}
	})
}

func TestCheckPostgresAgreesWithPgIsreadyOnAServerWithoutFreeConnections(t *testing.T) {
	both := newPair(t)
	server := lab.Postgres(t, lab.PostgresConfig{Settings: map[string]string{
		"max_connections": "3", "superuser_reserved_connections": "0", "max_wal_senders": "0",
	}})
	for range 3 {
		session(t, server)
	}
	ours := both.agree(t, 0, at(server.Port)...)
	if want := "flowagent: warning: the server has no free connection: "; !strings.HasPrefix(ours.stderr, want) {
		t.Errorf("got %q, want it to begin with %q", ours.stderr, want)
	}
}

func TestCheckPostgresAgreesWithPgIsreadyOnAServerWithASocketOnly(t *testing.T) {
	both := newPair(t)
	server := lab.Postgres(t, lab.PostgresConfig{Settings: map[string]string{"listen_addresses": ""}})
	port := strconv.Itoa(server.Port)
	both.agree(t, 0, "-h", server.SocketDir, "-p", port)
	both.agree(t, 2, "-h", "127.0.0.1", "-p", port)
	both.agree(t, 0, "-h", "127.0.0.1,"+server.SocketDir, "-p", port)
}
