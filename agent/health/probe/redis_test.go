package probe

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/flowviz/flowagent/agent/secret"
	"github.com/flowviz/flowagent/test/lab"
)

// redisVariable names another server program than this machine's Redis, such as valkey-server.
const redisVariable = "FLOWAGENT_TEST_REDIS"

// redisProgram is the server. In Debian, redis-server is a link to redis-check-rdb, which is in a package (redis-tools)
// that starts no service.
func redisProgram(t *testing.T) *exec.Cmd {
	t.Helper()
	if path := os.Getenv(redisVariable); path != "" {
		return exec.Command(path)
	}
	cmd := exec.Command(lab.Program(t, "redis-check-rdb"))
	cmd.Args[0] = "redis-server"
	return cmd
}

// redisServer is a real server that ends with the test.
type redisServer struct {
	socket string // its Unix socket
	port   string // its port on 127.0.0.1, plain or TLS
	dir    string
	exited chan struct{}
	cmd    *exec.Cmd
}

func (s *redisServer) address() string { return net.JoinHostPort("127.0.0.1", s.port) }

// startRedis starts a server that listens on a Unix socket and on 127.0.0.1, and waits until it answers.
// PORT in an argument stands for its TCP port.
func startRedis(t *testing.T, dir string, args ...string) *redisServer {
	t.Helper()
	for {
		s, err := tryRedis(t, dir, args...)
		if err == nil {
			return s
		}
		if !strings.Contains(err.Error(), "Address already in use") {
			t.Fatal(err)
		}
	}
}

func tryRedis(t *testing.T, dir string, args ...string) (*redisServer, error) {
	t.Helper()
	// Redis can't let the kernel choose: port 0 stands for none.
	listener := listen(t)
	_, port, _ := net.SplitHostPort(listener.Addr().String())
	_ = listener.Close()
	s := &redisServer{socket: filepath.Join(dir, "socket"), port: port, dir: dir, exited: make(chan struct{}), cmd: redisProgram(t)}
	var file []string // of a configuration, which comes first
	if len(args) > 0 && !strings.HasPrefix(args[0], "--") {
		file, args = args[:1], args[1:]
	}
	common := []string{"--port", "PORT", "--unixsocket", s.socket, "--dir", dir, "--bind", "127.0.0.1"}
	for _, arg := range slices.Concat(file, common, args) {
		if arg == "PORT" {
			arg = port
		}
		s.cmd.Args = append(s.cmd.Args, arg)
	}
	var log strings.Builder
	s.cmd.Stdout, s.cmd.Stderr = &log, &log
	// The kernel sends Pdeathsig when the thread that forked ends, not the process: keep the thread until then.
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	started := make(chan error)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := s.cmd.Start()
		started <- err
		if err == nil {
			_ = s.cmd.Wait()
			close(s.exited)
		}
	}()
	if err := <-started; err != nil {
		return nil, err
	}
	t.Cleanup(s.kill)
	for {
		// A cluster's node opens a second port after its socket, and ends if it can't.
		if s.answers() {
			return s, nil
		}
		select {
		case <-s.exited:
			return nil, fmt.Errorf("the server ended: %s", log.String())
		case <-t.Context().Done():
			return nil, t.Context().Err()
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// answers tells whether the server says anything to a PING, were it that it refuses.
func (s *redisServer) answers() bool {
	conn, err := net.Dial("unix", s.socket)
	if err != nil {
		return false
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, "PING\r\n"); err != nil {
		return false
	}
	n, _ := conn.Read(make([]byte, 1))
	return n > 0
}

func (s *redisServer) kill() {
	_ = syscall.Kill(-s.cmd.Process.Pid, syscall.SIGKILL)
	<-s.exited
	_ = os.Remove(s.socket)
}

// do runs one command and returns its reply.
func (s *redisServer) do(t *testing.T, arguments ...string) redisReply {
	t.Helper()
	c, err := (&Redis{}).open(t.Context(), s.socket)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	reply, err := c.ask(t.Context(), arguments...)
	if err != nil || reply.kind == '-' {
		t.Fatalf("%v: %v %q", arguments, err, reply.text)
	}
	return reply
}

// shortDir is a directory whose path leaves room for a Unix socket's name (108 bytes, unix(7)).
func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "probe")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

func listen(t *testing.T) net.Listener {
	t.Helper()
	return listenOn(t, "tcp", "127.0.0.1:0")
}

func listenOn(t *testing.T, network, address string) net.Listener {
	t.Helper()
	listener, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	return listener
}

func password(text string) func() secret.Value {
	return func() secret.Value { return secret.NewValue([]byte(text)) }
}

// expect compares a result with a status and a part of its output.
func expect(t *testing.T, got Result, status Status, part string) {
	t.Helper()
	if got.Status != status || !strings.Contains(got.Output, part) {
		t.Errorf("got %s %q, want %s with %q", got.Status, got.Output, status, part)
	}
}

// eventually probes until the result is the expected one, for states that a server reaches in its own time.
func eventually(t *testing.T, p Probe, status Status, part string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second) // only reached when something is wrong
	defer cancel()
	for {
		got := p.Probe(ctx)
		if got.Status == status && strings.Contains(got.Output, part) {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("still %s %q, want %s with %q", got.Status, got.Output, status, part)
		case <-time.After(10 * time.Millisecond):
		}
	}
}

func TestRedis_AServerThatAnswersPasses(t *testing.T) {
	s := startRedis(t, shortDir(t))
	for name, p := range map[string]*Redis{
		"over TCP":           {Addresses: []string{s.address()}},
		"over a Unix socket": {Addresses: []string{s.socket}},
		"as a primary":       {Addresses: []string{s.address()}, Primary: true},
	} {
		t.Run(name, func(t *testing.T) { expect(t, p.Probe(t.Context()), Pass, "answers PING") })
	}
	p := &Redis{Addresses: []string{s.address()}, Password: password("any")}
	expect(t, p.Probe(t.Context()), Warn, "wants no password although one is configured")
	p = &Redis{Addresses: []string{s.address()}, Cluster: true}
	expect(t, p.Probe(t.Context()), Fail, "not a node of a cluster")
	s.kill()
	expect(t, p.Probe(t.Context()), Fail, "connection refused")
}

func TestRedis_ALoginIsToldApartFromItsLack(t *testing.T) {
	s := startRedis(t, shortDir(t))
	s.do(t, "ACL", "SETUSER", "app", "on", ">another", "+ping")
	s.do(t, "ACL", "SETUSER", "mute", "on", ">another", "+@all", "-ping")
	s.do(t, "ACL", "SETUSER", "gone", "off", ">another", "+@all")
	s.do(t, "CONFIG", "SET", "requirepass", "the right one")
	tests := map[string]struct {
		user     string
		password func() secret.Value
		status   Status
		output   string
	}{
		"no password":        {status: Fail, output: "wants a password: configure one"},
		"the right password": {password: password("the right one"), status: Pass, output: "answers PING"},
		"a wrong password":   {password: password("a wrong one"), status: Fail, output: "refuses the login"},
		"an ACL user":        {user: "app", password: password("another"), status: Pass, output: "answers PING"},
		"a user without PING": {user: "mute", password: password("another"), status: Fail,
			output: "not run PING: allow it by ACL SETUSER … +ping"},
		"a disabled user":         {user: "gone", password: password("another"), status: Fail, output: "refuses the login"},
		"a user without password": {user: "app", status: Fail, output: `user "app" is configured without a password`},
		"a secret not fetched yet": {password: func() secret.Value { return secret.Value{} }, status: Fail,
			output: "the secret with the password isn't there yet"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			p := &Redis{Addresses: []string{s.address()}, User: test.user, Password: test.password}
			expect(t, p.Probe(t.Context()), test.status, test.output)
		})
	}
}

func TestRedis_ARotatedPasswordIsUsedByTheNextProbe(t *testing.T) {
	s := startRedis(t, shortDir(t), "--requirepass", "new")
	current := "old"
	p := &Redis{Addresses: []string{s.address()}, Password: func() secret.Value { return secret.NewValue([]byte(current)) }}
	expect(t, p.Probe(t.Context()), Fail, "refuses the login")
	current = "new"
	expect(t, p.Probe(t.Context()), Pass, "answers PING")
}

func TestRedis_AServerThatLoadsItsDataFails(t *testing.T) {
	dir := shortDir(t)
	s := startRedis(t, dir, "--enable-debug-command", "yes")
	s.do(t, "DEBUG", "POPULATE", "100000")
	s.do(t, "SAVE")
	s.kill()
	// A millisecond per key, and a look at connections after every few.
	s = startRedis(t, dir, "--key-load-delay", "1000", "--loading-process-events-interval-bytes", "1024")
	p := &Redis{Addresses: []string{s.address()}}
	expect(t, p.Probe(t.Context()), Fail, "the server is loading its data set")
}

func TestRedis_AReplicaWithoutItsPrimaryFails(t *testing.T) {
	_, port, _ := net.SplitHostPort(lab.DeafAddress(t))
	s := startRedis(t, shortDir(t), "--replicaof", "127.0.0.1", port, "--replica-serve-stale-data", "no")
	p := &Redis{Addresses: []string{s.address()}}
	expect(t, p.Probe(t.Context()), Fail, "is a replica that has lost its primary")
}

func TestRedis_AReplicaFailsOnlyWhereAPrimaryIsWanted(t *testing.T) {
	primary := startRedis(t, shortDir(t))
	s := startRedis(t, shortDir(t), "--replicaof", "127.0.0.1", primary.port)
	p := &Redis{Addresses: []string{s.address()}}
	expect(t, p.Probe(t.Context()), Pass, "answers PING")
	p.Primary = true
	expect(t, p.Probe(t.Context()), Fail, "read-only replica")
}

func TestRedis_AServerWithoutAFreeConnectionWarns(t *testing.T) {
	s := startRedis(t, shortDir(t), "--maxclients", "1")
	for holds := false; !holds; { // startRedis may not have let go yet
		conn, err := net.Dial("tcp", s.address())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		reply := make([]byte, 5)
		_, _ = conn.Write([]byte("PING\r\n"))
		if _, err := io.ReadFull(conn, reply); err != nil {
			t.Fatal(err)
		}
		holds = string(reply) == "+PONG"
	}
	for name, p := range map[string]*Redis{
		"at PING": {Addresses: []string{s.address()}},
		"at AUTH": {Addresses: []string{s.address()}, Password: password("any")},
	} {
		t.Run(name, func(t *testing.T) { expect(t, p.Probe(t.Context()), Warn, "its maximum number of clients is reached") })
	}
}

func TestRedis_AServerBusyWithAScriptFails(t *testing.T) {
	s := startRedis(t, shortDir(t), "--lua-time-limit", "1")
	conn, err := net.Dial("tcp", s.address())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.Write(appendRedisCommand(nil, []byte("EVAL"), []byte("while true do end"), []byte("0"))); err != nil {
		t.Fatal(err)
	}
	eventually(t, &Redis{Addresses: []string{s.address()}}, Fail, "is busy running a script")
}

func TestRedis_TLSIsVerified(t *testing.T) {
	authority := newAuthority(t)
	ca := authority.file
	certificate, key := authority.issue(t, issued{})
	files := []string{"--port", "0", "--tls-port", "PORT", "--tls-cert-file", certificate, "--tls-key-file", key, "--tls-ca-cert-file", ca}
	open := startRedis(t, shortDir(t), append(files, "--tls-auth-clients", "no")...)
	mutual := startRedis(t, shortDir(t), files...) // Redis wants a client's certificate unless told otherwise
	tests := map[string]struct {
		server *redisServer
		tls    *ClientTLS
		status Status
		output string
	}{
		"a trusted authority":               {open, &ClientTLS{CAFile: ca}, Pass, "answers PING"},
		"an unknown authority":              {open, &ClientTLS{}, Fail, "an authority that is not trusted here"},
		"another name":                      {open, &ClientTLS{CAFile: ca, ServerName: "cache.internal"}, Fail, "the certificate is for 127.0.0.1, not for cache.internal"},
		"no TLS on a TLS port":              {open, nil, Fail, "it may want TLS"},
		"the client's certificate":          {mutual, &ClientTLS{CAFile: ca, CertificateFile: certificate, KeyFile: key}, Pass, "answers PING"},
		"without the client's certificate":  {mutual, &ClientTLS{CAFile: ca}, Fail, "certificate required"},
		"a file of authorities that is not": {open, &ClientTLS{CAFile: key}, Fail, "holds no PEM certificate"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			p := &Redis{Addresses: []string{test.server.address()}, TLS: test.tls}
			expect(t, p.Probe(t.Context()), test.status, test.output)
		})
	}
}

func TestRedis_TLSWithAServerWithoutItEndsInTime(t *testing.T) {
	s := startRedis(t, shortDir(t)) // it takes the handshake for the beginning of a long command, and waits for more
	ctx := newOverdue(t.Context())
	p := &Redis{Addresses: []string{s.address()}, TLS: &ClientTLS{}}
	result := make(chan Result, 1)
	go func() { result <- p.Probe(ctx) }()
	begun := regexp.MustCompile(`qbuf=[1-9].* cmd=NULL `)
	until(t, "beginning of a command", func() bool {
		return begun.MatchString(s.do(t, "CLIENT", "LIST").text) || len(result) > 0
	})
	ctx.pass()
	expect(t, <-result, Fail, "TLS: no answer in time")
}

func TestRedis_SentinelNamesThePrimary(t *testing.T) {
	primary := startRedis(t, shortDir(t), "--requirepass", "of the server")
	dir := shortDir(t)
	file := filepath.Join(dir, "sentinel.conf")
	text := "requirepass of-the-sentinel\nsentinel monitor stores 127.0.0.1 " + primary.port + " 1\nsentinel auth-pass stores \"of the server\"\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	sentinel := startSentinel(t, file, dir)
	p := &Redis{
		Addresses: []string{"127.0.0.1:1", sentinel.address()}, Password: password("of the server"),
		Sentinel: &RedisSentinel{Primary: "stores", Password: password("of-the-sentinel")},
	}
	expect(t, p.Probe(t.Context()), Pass, "primary "+primary.address()+": answers PING")

	p.Sentinel.Primary = "other"
	expect(t, p.Probe(t.Context()), Fail, `knows no primary "other"`)
	p.Sentinel = &RedisSentinel{Primary: "stores"}
	expect(t, p.Probe(t.Context()), Fail, "wants a password")
	p.Sentinel.Password, p.Addresses = password("of the server"), []string{primary.address()}
	expect(t, p.Probe(t.Context()), Fail, "this is a server, not a Sentinel")

	p.Sentinel.Password, p.Addresses = password("of-the-sentinel"), []string{sentinel.address()}
	primary.kill()
	expect(t, p.Probe(t.Context()), Fail, "primary "+primary.address()+": cannot connect: connection refused")
}

func TestRedis_APrimaryThatBecameAReplicaFails(t *testing.T) {
	other := startRedis(t, shortDir(t))
	primary := startRedis(t, shortDir(t))
	dir := shortDir(t)
	file := filepath.Join(dir, "sentinel.conf")
	if err := os.WriteFile(file, []byte("sentinel monitor stores 127.0.0.1 "+primary.port+" 1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	sentinel := startSentinel(t, file, dir)
	primary.do(t, "REPLICAOF", "127.0.0.1", other.port)
	p := &Redis{Addresses: []string{sentinel.address()}, Sentinel: &RedisSentinel{Primary: "stores"}}
	expect(t, p.Probe(t.Context()), Fail, "read-only replica: a failover may be under way")
}

// startSentinel is startRedis with a configuration file, which Sentinel insists on.
func startSentinel(t *testing.T, file, dir string) *redisServer {
	t.Helper()
	return startRedis(t, dir, file, "--sentinel")
}

func TestRedis_AClusterAnswersThroughAnyNode(t *testing.T) {
	s := startRedis(t, shortDir(t), "--cluster-enabled", "yes")
	p := &Redis{Addresses: []string{"127.0.0.1:1", s.address()}, Cluster: true}
	expect(t, p.Probe(t.Context()), Warn, "the cluster's state is fail")
	s.do(t, "CLUSTER", "ADDSLOTSRANGE", "0", "16383")
	eventually(t, p, Pass, "the cluster is ok")
	s.kill()
	expect(t, p.Probe(t.Context()), Fail, "127.0.0.1:1: cannot connect: connection refused; "+s.address()+": cannot connect")
}

func TestRedis_AddressesThatMakeNoSenseFail(t *testing.T) {
	tests := map[string]struct {
		probe Redis
		want  string
	}{
		"none":                 {Redis{}, "no address is configured"},
		"several servers":      {Redis{Addresses: []string{"a:1", "b:1"}}, "name one"},
		"Sentinel and cluster": {Redis{Addresses: []string{"a:1"}, Cluster: true, Sentinel: &RedisSentinel{}}, "a cluster has no Sentinels"},
		"no port":              {Redis{Addresses: []string{"cache"}}, `"cache" is not an address: write host:port`},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) { expect(t, test.probe.Probe(t.Context()), Fail, test.want) })
	}
}

// say starts a server that reads one request from each connection, answers it, and closes the connection.
func say(t *testing.T, answers ...string) string {
	t.Helper()
	listener := listen(t)
	sayOn(t, listener, answers...)
	return listener.Addr().String()
}

func sayOn(t *testing.T, listener net.Listener, answers ...string) {
	t.Helper()
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			for _, answer := range answers {
				if _, err := conn.Read(make([]byte, 4<<10)); err != nil {
					break
				}
				_, _ = conn.Write([]byte(answer))
			}
			_ = conn.Close()
		}
	}()
}

func TestRedis_WhatServersOfOtherVersionsAndKindsSay(t *testing.T) {
	const secretText = "hunter2"
	tests := map[string]struct {
		answers []string
		login   bool
		status  Status
		output  string
	}{
		"protected mode":            {answers: []string{"-DENIED Redis is running in protected mode because …\r\n"}, output: "protected mode"},
		"no disk":                   {answers: []string{"-MISCONF Redis is configured to save RDB snapshots\r\n"}, output: "can't save to disk"},
		"cluster down":              {answers: []string{"-CLUSTERDOWN The cluster is down\r\n"}, output: "node of a cluster that is down"},
		"read only":                 {answers: []string{"-READONLY You can't write against a read only replica.\r\n"}, output: "read-only replica"},
		"an unknown error":          {answers: []string{"-ODD something\x1b[31m\r\n"}, output: "the server refuses: ODD something?[31m"},
		"Redis 5, no password":      {login: true, answers: []string{"-ERR Client sent AUTH, but no password is set\r\n", "+PONG\r\n"}, status: Warn, output: "wants no password"},
		"Redis 5, a wrong password": {login: true, answers: []string{"-ERR invalid password\r\n"}, output: "refuses the login"},
		"AUTH unknown":              {login: true, answers: []string{"-ERR unknown command `AUTH`, with args beginning with: `" + secretText + "`, \r\n"}, output: "doesn't take this kind of login"},
		"not quite PONG":            {answers: []string{"+PANG\r\n"}, output: "not Redis"},
		"a web server":              {answers: []string{"HTTP/1.1 400 Bad Request\r\n\r\n"}, output: "not Redis"},
		"a mail server":             {answers: []string{"220 mail.example ESMTP\r\n"}, output: "not Redis"},
		"a TLS alert":               {answers: []string{"\x15\x03\x01\x00\x02\x02\x0a"}, output: "it may want TLS"},
		"nothing":                   {answers: []string{""}, output: "the server closed the connection"},
		"a huge length":             {answers: []string{"$99999999999999\r\n"}, output: "not Redis"},
		"an endless line":           {answers: []string{"+" + strings.Repeat("x", 1<<20)}, output: "not Redis"},
		"nested without end":        {answers: []string{strings.Repeat("*1\r\n", 1<<10)}, output: "not Redis"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			p := &Redis{Addresses: []string{say(t, test.answers...)}}
			if test.login {
				p.Password = password(secretText)
			}
			got := p.Probe(t.Context())
			expect(t, got, test.status, test.output)
			if strings.Contains(got.Output, secretText) {
				t.Errorf("the output holds the password: %q", got.Output)
			}
		})
	}
}

func TestRedis_ADeadAddressLeavesTimeForTheNext(t *testing.T) {
	s := startRedis(t, shortDir(t), "--cluster-enabled", "yes")
	silent := listen(t) // the kernel accepts, nobody answers
	p := &Redis{Addresses: []string{silent.Addr().String(), s.address()}, Cluster: true}
	for allowed := time.Second; ; allowed *= 2 {
		deadline := time.Now().Add(allowed)
		ctx, cancel := context.WithDeadline(t.Context(), deadline)
		got := p.Probe(ctx)
		late := !time.Now().Before(deadline)
		cancel()
		if late && got.Status == Fail && allowed < 30*time.Second {
			continue // half of it may be too little for a busy machine
		}
		expect(t, got, Warn, "answers PING")
		return
	}
}

func FuzzRedisReader(f *testing.F) {
	for _, seed := range []string{"+PONG\r\n", "-LOADING x\r\n", "$3\r\nabc\r\n", "$-1\r\n", "*-1\r\n", ":12\r\n", "*2\r\n$1\r\na\r\n:1\r\n",
		"*1\r\n*1\r\n*0\r\n", "$65536\r\n", "*65536\r\n", "+a\n", "$2\r\nabc\r\n"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		reader := newRedisReader(strings.NewReader(string(raw)))
		for {
			reply, err := reader.read()
			if err != nil {
				return
			}
			verdict(redisRefused(reply.text))
			if reply.null || reply.kind == '+' || reply.kind == '-' || reply.kind == ':' {
				continue
			}
			again, err := newRedisReader(strings.NewReader(string(encode(reply)))).read()
			if err != nil && !errors.Is(err, errNotRedis) || err == nil && again.text != reply.text {
				t.Fatalf("%q is read as %+v, which is read as %+v, %v", raw, reply, again, err)
			}
		}
	})
}

func encode(reply redisReply) []byte {
	if reply.null {
		return []byte(string(reply.kind) + "-1\r\n")
	}
	switch reply.kind {
	case '$':
		return []byte("$" + strconv.Itoa(len(reply.text)) + "\r\n" + reply.text + "\r\n")
	case '*':
		out := []byte("*" + strconv.Itoa(len(reply.items)) + "\r\n")
		for _, item := range reply.items {
			out = append(out, encode(item)...)
		}
		return out
	}
	return []byte(string(reply.kind) + reply.text + "\r\n")
}
