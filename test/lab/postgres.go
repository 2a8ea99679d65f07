package lab

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// PostgresConfig is how a PostgreSQL server is set up. The zero value listens on 127.0.0.1 and on its socket, and lets
// everybody in without a password.
type PostgresConfig struct {
	// Settings go into postgresql.conf, over the lab's own.
	Settings map[string]string
	// Access is pg_hba.conf; "" lets everybody in.
	Access string
	// Standby makes the server wait for a primary that never comes. With the setting hot_standby=off it takes no
	// connection, for as long as it runs.
	Standby bool
	// Starting makes the server start up for ten minutes: it restores from an archive that is slow to answer.
	Starting bool
	// CertFile and KeyFile give it TLS.
	CertFile, KeyFile string
}

// PostgresServer is a running PostgreSQL server with the superuser "postgres" and nothing in it.
type PostgresServer struct {
	*Process
	Port      int    // on 127.0.0.1, and in the socket's name
	SocketDir string // holds the socket, .s.PGSQL.<Port>
	DataDir   string
}

// Postgres starts a PostgreSQL server that ends with the test.
func Postgres(t testing.TB, config PostgresConfig) *PostgresServer {
	t.Helper()
	// Not t.TempDir, whose path may be longer than a socket's may be.
	dir, err := os.MkdirTemp("", "pg")
	need(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	server, err := StartPostgres(t.Context(), dir, config)
	need(t, err)
	endWith(t, server.Process)
	// The polite end waits for sessions; nothing in this server is worth that.
	t.Cleanup(func() { server.Signal(syscall.SIGQUIT) })
	return server
}

// PostgresProgram returns the path of a program that belongs to PostgreSQL, such as "pg_isready".
func PostgresProgram(t testing.TB, name string) string {
	t.Helper()
	path, err := postgresProgram(name)
	need(t, err)
	return path
}

// postgresProgram prefers the newest version among those that Debian keeps side by side, out of everybody's PATH.
func postgresProgram(name string) (string, error) {
	found, err := filepath.Glob(filepath.Join("/usr/lib/postgresql/*/bin", name))
	if err != nil {
		return "", err
	}
	if len(found) > 0 {
		return slices.MaxFunc(found, func(a, b string) int { return postgresVersion(a) - postgresVersion(b) }), nil
	}
	if path, err := exec.LookPath(name); err == nil {
		return path, nil
	}
	return "", missing(name, "run `scripts/setup.sh postgres` as root")
}

func postgresVersion(program string) int {
	version, _ := strconv.Atoi(filepath.Base(filepath.Dir(filepath.Dir(program)))) // 0 for "9.6", which is older than all
	return version
}

// StartPostgres makes a cluster in dir and starts its server on a free port. As root it runs as the user postgres or
// nobody, since it refuses root. ctx bounds the start only.
func StartPostgres(ctx context.Context, dir string, config PostgresConfig) (*PostgresServer, error) {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	program, err := postgresProgram("postgres")
	if err != nil {
		return nil, err
	}
	initdb, err := postgresProgram("initdb")
	if err != nil {
		return nil, err
	}
	owner, err := postgresOwner()
	if err != nil {
		return nil, err
	}
	if err := owner.own(dir); err != nil {
		return nil, err
	}
	s := &PostgresServer{SocketDir: dir, DataDir: filepath.Join(dir, "data")}
	create := exec.CommandContext(ctx, initdb, "--pgdata", s.DataDir, "--username", "postgres", "--auth", "trust",
		"--encoding", "UTF8", "--locale", "C", "--no-sync")
	create.Dir, create.SysProcAttr = dir, owner.attributes()
	if output, err := create.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("initdb: %w\n%s", err, output)
	}
	address, release, err := holdPort()
	if err != nil {
		return nil, err
	}
	defer release()
	s.Port = int(address.Port())
	if err := s.configure(owner, config); err != nil {
		return nil, err
	}
	run := exec.Command(program, "-D", s.DataDir)
	run.Dir, run.SysProcAttr = dir, owner.attributes()
	if s.Process, err = start("postgres", run); err != nil {
		return nil, err
	}
	ready := s.up
	if config.Starting {
		ready = s.listening
	}
	if err := s.await(ctx, ready); err != nil {
		s.Stop()
		return nil, err
	}
	return s, nil
}

// Signal sends the server's first process one of its signals: SIGTERM ends it when the last session ends, SIGINT when
// the running transactions are rolled back, SIGQUIT at once.
func (s *PostgresServer) Signal(signal syscall.Signal) {
	select {
	case <-s.Done():
	default:
		_ = syscall.Kill(s.pid, signal)
	}
}

// configure writes the configuration files.
func (s *PostgresServer) configure(owner *postgresUser, config PostgresConfig) error {
	settings := map[string]string{
		"listen_addresses":        "127.0.0.1",
		"port":                    strconv.Itoa(s.Port),
		"unix_socket_directories": s.SocketDir,
		"fsync":                   "off", // nothing of it shall last
		"shared_buffers":          "1MB",
	}
	if config.CertFile != "" {
		key := filepath.Join(s.DataDir, "server.key")
		if err := owner.copyFile(key, config.KeyFile); err != nil {
			return err
		}
		certificate := filepath.Join(s.DataDir, "server.crt")
		if err := owner.copyFile(certificate, config.CertFile); err != nil {
			return err
		}
		maps.Copy(settings, map[string]string{"ssl": "on", "ssl_cert_file": certificate, "ssl_key_file": key})
	}
	if config.Starting {
		settings["restore_command"] = "sleep 600"
	}
	maps.Copy(settings, config.Settings)
	var lines strings.Builder
	for _, name := range slices.Sorted(maps.Keys(settings)) {
		fmt.Fprintf(&lines, "%s = '%s'\n", name, settings[name])
	}
	err := owner.write(filepath.Join(s.DataDir, "postgresql.auto.conf"), lines.String())
	if config.Access != "" {
		err = errors.Join(err, owner.write(filepath.Join(s.DataDir, "pg_hba.conf"), config.Access))
	}
	if config.Starting {
		err = errors.Join(err, owner.write(filepath.Join(s.DataDir, "recovery.signal"), ""))
	}
	if config.Standby {
		err = errors.Join(err, owner.write(filepath.Join(s.DataDir, "standby.signal"), ""))
	}
	return err
}

// AwaitState waits until the server says of itself that it is in that state: starting, ready, standby or stopping.
func (s *PostgresServer) AwaitState(ctx context.Context, want string) error {
	return s.await(ctx, func(context.Context) error {
		state, err := s.state()
		if err == nil && state != want {
			err = fmt.Errorf("its state is %q", state)
		}
		return err
	})
}

func (s *PostgresServer) up(context.Context) error {
	state, err := s.state()
	if err == nil && state != "ready" && state != "standby" {
		err = fmt.Errorf("its state is %q", state)
	}
	return err
}

func (s *PostgresServer) listening(ctx context.Context) error {
	conn, err := new(net.Dialer).DialContext(ctx, "unix", filepath.Join(s.SocketDir, ".s.PGSQL."+strconv.Itoa(s.Port)))
	if err == nil {
		err = conn.Close()
	}
	return err
}

// state is what the server keeps in the eighth line of its lock file (pidfile.h).
func (s *PostgresServer) state() (string, error) {
	const line = 8
	content, err := os.ReadFile(filepath.Join(s.DataDir, "postmaster.pid"))
	if err != nil {
		return "", err
	}
	lines := strings.Split(string(content), "\n")
	if len(lines) < line {
		return "", errors.New("it has just started")
	}
	return strings.TrimSpace(lines[line-1]), nil
}

// postgresUser is who runs the server: nil for the test's own user.
type postgresUser struct{ uid, gid int }

func postgresOwner() (*postgresUser, error) {
	if os.Geteuid() != 0 {
		return nil, nil
	}
	for _, name := range []string{"postgres", "nobody"} {
		found, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, uidErr := strconv.Atoi(found.Uid)
		gid, gidErr := strconv.Atoi(found.Gid)
		return &postgresUser{uid, gid}, errors.Join(uidErr, gidErr)
	}
	return nil, missing("a user for PostgreSQL", "run `scripts/setup.sh postgres` as root")
}

func (u *postgresUser) attributes() *syscall.SysProcAttr {
	if u == nil {
		return &syscall.SysProcAttr{}
	}
	return &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(u.uid), Gid: uint32(u.gid)}}
}

func (u *postgresUser) own(path string) error {
	if u == nil {
		return nil
	}
	return os.Chown(path, u.uid, u.gid)
}

func (u *postgresUser) write(path, content string) error {
	return errors.Join(os.WriteFile(path, []byte(content), 0o600), u.own(path))
}

func (u *postgresUser) copyFile(to, from string) error {
	content, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return u.write(to, string(content))
}
