package main

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/flowviz/flowagent/test/lab"
)

// answering reads one message and sends text, then waits for the other side to leave or says nothing more.
func answering(text string, stays bool) func(net.Conn) {
	return func(conn net.Conn) {
		if readRequest(conn) != nil {
			return
		}
		_, _ = conn.Write([]byte(text))
		if stays {
			_, _ = io.Copy(io.Discard, conn)
		}
	}
}

// withoutTLS declines TLS and answers the startup message.
func withoutTLS(text string, stays bool) func(net.Conn) {
	return func(conn net.Conn) {
		if readRequest(conn) != nil {
			return
		}
		_, _ = conn.Write([]byte{'N'})
		answering(text, stays)(conn)
	}
}

// either answers a request for TLS with one text and any other with the other.
func either(tls, other string) func(net.Conn) {
	return func(conn net.Conn) {
		var request [8]byte
		if _, err := io.ReadFull(conn, request[:]); err != nil {
			return
		}
		const sslRequest = 80877103 // the protocol version that asks for TLS
		if binary.BigEndian.Uint32(request[4:]) == sslRequest {
			_, _ = conn.Write([]byte(tls))
			return
		}
		_, _ = conn.Write([]byte(other))
		_, _ = io.Copy(io.Discard, conn)
	}
}

// readRequest reads one message as a client begins with: a length and that much less four.
func readRequest(r io.Reader) error {
	var length [4]byte
	if _, err := io.ReadFull(r, length[:]); err != nil {
		return err
	}
	_, err := io.CopyN(io.Discard, r, int64(binary.BigEndian.Uint32(length[:]))-4)
	return err
}

// message is a server's message of the given kind, with a length that may lie.
func message(kind byte, length int32, body string) string {
	return string(binary.BigEndian.AppendUint32([]byte{kind}, uint32(length))) + body
}

func refusing(t *testing.T, code string) string {
	t.Helper()
	encoded, err := (&pgproto3.ErrorResponse{Severity: "FATAL", Code: code, Message: "no"}).Encode(nil)
	if err != nil {
		t.Fatal(err)
	}
	return string(encoded)
}

func TestCheckPostgresAgreesWithPgIsreadyOnWhatIsNotPostgres(t *testing.T) {
	both := newPair(t)
	web := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(web.Close)
	secure := httptest.NewUnstartedServer(http.NotFoundHandler())
	secure.Config.ErrorLog = log.New(io.Discard, "", 0)
	secure.StartTLS()
	t.Cleanup(secure.Close)

	certificate := newCertificate(t, certificateOf{addresses: []string{"127.0.0.1"}})
	encryptedAfter := func(offer string, serve func(net.Conn)) func(net.Conn) {
		return func(conn net.Conn) {
			if readRequest(conn) != nil {
				return
			}
			_, _ = conn.Write([]byte(offer))
			server := tls.Server(conn, &tls.Config{Certificates: []tls.Certificate{certificate.pair}})
			serve(server)
			_ = server.Close()
		}
	}
	encrypted := func(serve func(net.Conn)) func(net.Conn) { return encryptedAfter("S", serve) }
	for name, c := range map[string]struct {
		port int
		want int
	}{
		"an HTTP server":                           {web.Listener.Addr().(*net.TCPAddr).Port, 2},
		"an HTTPS server":                          {secure.Listener.Addr().(*net.TCPAddr).Port, 2},
		"it closes at once":                        {lab.Peer(t, func(net.Conn) {}), 2},
		"it closes when asked for TLS":             {lab.Peer(t, answering("", false)), 2},
		"it speaks first":                          {lab.Peer(t, func(conn net.Conn) { _, _ = conn.Write([]byte("220 mail ready\r\n")) }), 2},
		"garbage":                                  {lab.Peer(t, answering("\x00\x01\x02\x03\x04\x05\x06\x07", false)), 2},
		"an error when asked for TLS":              {lab.Peer(t, answering(refusing(t, "57P03"), false)), 2},
		"more than the answer about TLS":           {lab.Peer(t, answering("S"+refusing(t, "57P03"), false)), 2},
		"more than the answer about TLS, then TLS": {lab.Peer(t, encryptedAfter("Sx", answering(message('R', 8, "\x00\x00\x00\x03"), true))), 2},
		"more than the answer about TLS, or none":  {lab.Peer(t, either("S"+refusing(t, "57P03"), message('R', 8, "\x00\x00\x00\x03"))), 0},
		"more than a refusal of TLS":               {lab.Peer(t, answering("N"+refusing(t, "57P03"), false)), 2},
		"TLS offered, then something else":         {lab.Peer(t, answering("S\x15\x03\x03\x00\x02\x02\x28", false)), 2},
		"TLS, then closes":                         {lab.Peer(t, encrypted(answering("", false))), 2},
		"TLS, then garbage":                        {lab.Peer(t, encrypted(answering("garbage", false))), 2},
		"TLS, then asks for a password":            {lab.Peer(t, encrypted(answering(message('R', 8, "\x00\x00\x00\x03"), true))), 0},
		"TLS, then rejects":                        {lab.Peer(t, encrypted(answering(refusing(t, "57P03"), false))), 1},
		"no TLS, then closes":                      {lab.Peer(t, withoutTLS("", false)), 2},
		"no TLS, then garbage":                     {lab.Peer(t, withoutTLS("garbage", false)), 2},
		"half a message":                           {lab.Peer(t, withoutTLS(refusing(t, "57P03")[:10], false)), 2},
		"half a length":                            {lab.Peer(t, withoutTLS("E\x00\x00", false)), 2},
		"half a request for a password":            {lab.Peer(t, withoutTLS("R\x00\x00\x00\x08\x00\x00", false)), 2},
		"a request for a password that is short":   {lab.Peer(t, withoutTLS(message('R', 7, "\x00\x00\x00"), false)), 2},
		"a request for a password that is long":    {lab.Peer(t, withoutTLS(message('R', 2001, strings.Repeat("\x00", 1997)), false)), 2},
		"the longest request for a password":       {lab.Peer(t, withoutTLS(message('R', 2000, "\x00\x00\x00\x0a"+strings.Repeat("\x00", 1992)), false)), 0},
		"an unknown request for a password":        {lab.Peer(t, withoutTLS(message('R', 8, "\x00\x00\x00\x63"), false)), 0},
		"an error of the time before SQLSTATE":     {lab.Peer(t, withoutTLS("EFATAL: too old\n\x00", false)), 2},
		"an error without SQLSTATE":                {lab.Peer(t, withoutTLS(message('E', 9, "Mno\x00\x00"), false)), 2},
		"an error whose SQLSTATE is short":         {lab.Peer(t, withoutTLS(message('E', 11, "C57P0\x00\x00"), false)), 2},
		"an error whose SQLSTATE is long":          {lab.Peer(t, withoutTLS(message('E', 13, "C57P034\x00\x00"), false)), 1},
		"an error of another kind":                 {lab.Peer(t, withoutTLS(refusing(t, "XX000"), false)), 0},
		"an error that is long":                    {lab.Peer(t, withoutTLS(message('E', 30001, strings.Repeat("x", 29996)+"\x00"), false)), 2},
		"a negative length":                        {lab.Peer(t, withoutTLS(message('E', -1, "C57P03\x00\x00"), false)), 2},
		"another message first":                    {lab.Peer(t, withoutTLS(message('N', 13, "C57P034\x00\x00"), false)), 2},
		"it lets us in and closes":                 {lab.Peer(t, withoutTLS(message('R', 8, "\x00\x00\x00\x00"), false)), 0},
		"it lets us in and rejects":                {lab.Peer(t, withoutTLS(message('R', 8, "\x00\x00\x00\x00")+refusing(t, "57P03"), false)), 0},
		"it lets us in, then garbage":              {lab.Peer(t, withoutTLS(message('R', 8, "\x00\x00\x00\x00")+"garbage", false)), 0},
		"it lets us in, with an impossible length": {lab.Peer(t, withoutTLS(message('R', 8, "\x00\x00\x00\x00")+message('S', 0, ""), false)), 0},
	} {
		// None waits for it; of two seconds libpq may give little more than one.
		t.Run(name, func(t *testing.T) { both.agree(t, c.want, at(c.port, "-t", "10")...) })
	}
}

// TestCheckPostgresAgreesWithPgIsreadyOnSilence waits for the timeout in most cases: two seconds, which libpq counts by
// the clock's seconds. Where another host has to answer after that, it is more, for slow machines.
func TestCheckPostgresAgreesWithPgIsreadyOnSilence(t *testing.T) {
	both := newPair(t)
	silent := func(conn net.Conn) { _, _ = io.Copy(io.Discard, conn) }
	quiet := lab.Peer(t, silent)
	accepting := lab.Peer(t, withoutTLS(message('R', 8, "\x00\x00\x00\x03"), true))
	two := func(seconds string, first, second int) []string {
		return []string{"-t", seconds, "-h", "127.0.0.1,127.0.0.1", "-p", fmt.Sprintf("%d,%d", first, second)}
	}
	for name, c := range map[string]struct {
		args []string
		want int
	}{
		"it never answers":                        {at(quiet, "-t", "2"), 2},
		"one second is two":                       {at(quiet, "-t", "1"), 2},
		"it never answers in the clear":           {append(conninfo(quiet, "sslmode=disable"), "-t", "2"), 2},
		"it never answers after declining TLS":    {at(lab.Peer(t, withoutTLS("", true)), "-t", "2"), 2},
		"it never begins TLS":                     {at(lab.Peer(t, answering("S", true)), "-t", "2"), 2},
		"it sends half a message":                 {at(lab.Peer(t, withoutTLS("E\x00\x00", true)), "-t", "2"), 2},
		"it never takes a connection":             {at(full(t), "-t", "2"), 2},
		"the next host accepts":                   {two("4", quiet, accepting), 0},
		"the next host accepts, none taken":       {two("4", full(t), accepting), 0},
		"it asks for a password, the next is off": {two("10", accepting, closedPort(t)), 0},
		"it closes, and the next host accepts":    {two("10", lab.Peer(t, func(net.Conn) {}), accepting), 2},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel() // they only wait
			ours := both.agree(t, c.want, c.args...)
			if reason := "no answer in time\n"; strings.HasPrefix(name, "it never") && !strings.HasSuffix(ours.stderr, reason) {
				t.Errorf("got %q, want it to end with %q", ours.stderr, reason)
			}
		})
	}
}

// full returns a port that takes no connection any more: its queue is full, so the kernel drops what arrives, as a
// firewall does.
func full(t *testing.T) int {
	t.Helper()
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Close(fd) })
	if err := syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Listen(fd, 0); err != nil {
		t.Fatal(err)
	}
	name, err := syscall.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	port := name.(*syscall.SockaddrInet4).Port
	// One place in the queue for a backlog of 0 (sk_acceptq_is_full); a second connection is for safety.
	for range 2 {
		waiting, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC|syscall.SOCK_NONBLOCK, 0)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = syscall.Close(waiting) })
		err = syscall.Connect(waiting, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}, Port: port})
		if err != nil && err != syscall.EINPROGRESS {
			t.Fatal(err)
		}
	}
	return port
}

func TestCheckPostgresAgreesWithPgIsreadyWhereNothingIs(t *testing.T) {
	both := newPair(t)
	for name, args := range map[string][]string{
		"the port is closed":             at(closedPort(t)),
		"the port is closed, in all":     {"-h", "127.0.0.1,127.0.0.1", "-p", fmt.Sprintf("%d,%d", closedPort(t), closedPort(t))},
		"the name has no address":        {"-h", "nowhere.invalid"},
		"there is no such socket":        {"-h", t.TempDir()},
		"there is no such abstract name": {"-h", "@flowagent/nowhere"},
		"the socket's path is too long":  {"-h", "/" + strings.Repeat("x", 110)},
	} {
		t.Run(name, func(t *testing.T) { both.agree(t, 2, args...) })
	}
	t.Run("there is no route", func(t *testing.T) {
		// Refused by the kernel before a packet is sent: no connection goes to a broadcast address.
		ours := both.agree(t, 2, "-h", "255.255.255.255")
		if want := "flowagent: 255.255.255.255:5432: network is unreachable\n"; ours.stderr != want {
			t.Errorf("got %q, want %q", ours.stderr, want)
		}
	})
	t.Run("quietly", func(t *testing.T) {
		if ours := both.agree(t, 2, at(closedPort(t), "-q")...); ours.Stdout+ours.stderr != "" {
			t.Errorf("got %q, want no output", ours.Stdout+ours.stderr)
		}
	})
}

func TestCheckPostgresAgreesWithPgIsreadyOnBadParameters(t *testing.T) {
	both := newPair(t)
	for want, lines := range map[int][][]string{
		3: {
			{"--nonsense"}, {"-x"}, {"-p"}, {"extra"}, {"-q", "extra"},
			{"-d", "sslmode=nonsense"}, {"-d", "sslmode="}, {"-d", "nonsense=1"}, {"-d", "=1"}, {"-d", "host=a port=1,2"},
			{"-d", "host=a,b hostaddr=127.0.0.1"}, {"-d", "host='a"}, {"-d", "host=a port"}, {"-d", "host=a target_session_attrs=x"},
			{"-d", "gssencmode=x"}, {"-d", "channel_binding=x"}, {"-d", "ssl_min_protocol_version=x"},
			{"-d", "ssl_min_protocol_version=TLSv1.3 ssl_max_protocol_version=TLSv1.2"},
			{"-d", "postgresql://%zz/"}, {"-d", "postgresql://%00/"}, {"-d", "postgresql://[::1/"}, {"-d", "postgresql://[]/"},
			{"-d", "postgresql://[::1]x/"}, {"-d", "postgresql://h/?x=1"}, {"-d", "postgresql://h/?port"},
			{"-d", "postgresql://h/?port=1=2"}, {"-d", "postgresql://h/?port=1&&user=a"},
		},
		2: {
			// Not "no attempt": libpq reads these when it is about to use them.
			{"-p", "nonsense"}, {"-p", "0"}, {"-p", "70000"}, {"-p", "-1"}, {"-t", "nonsense"}, {"-t", ""}, {"-t", "99999999999"},
			{"-h", "", "-p", ""}, {"-d", ""}, {"-d", "hostaddr=nonsense"}, {"-d", "postgresql://"}, {"-d", "postgres://,/?"},
			{"-d", `host=/no\ where port = '5432' user='a\'b'`}, {"-d", "postgresql://u:p%40@%2Fnowhere:1/db?sslmode=disable&"},
		},
	} {
		for _, args := range lines {
			t.Run(strconv.Itoa(want)+" "+strings.Join(args, " "), func(t *testing.T) { both.agree(t, want, args...) })
		}
	}
	t.Run("from the environment", func(t *testing.T) {
		both.with("PGSSLMODE=nonsense").agree(t, 3)
		both.with("PGSSLMODE=").agree(t, 3)
		both.with("PGHOST=", "PGPORT=").agree(t, 2)
		both.with("PGSERVICE=nonsense").agree(t, 3)
	})
}

// TestCheckPostgresDiffersFromPgIsreadyOnPurpose holds every known difference, so that none comes unnoticed.
func TestCheckPostgresDiffersFromPgIsreadyOnPurpose(t *testing.T) {
	both := newPair(t)
	server := lab.Postgres(t, lab.PostgresConfig{})
	lapsed := lab.Peer(t, withoutTLS(message('R', 8, "\x00\x00\x00\x00"), true))
	since := func(version, code, before int) int {
		if both.version < version {
			return before
		}
		return code
	}
	for name, c := range map[string]struct {
		args         []string
		theirs, ours int
	}{
		// Ours is the answer of today's libpq.
		"it lets us in and says nothing more": {at(lapsed, "-t", "2"), since(16, 2, 0), 2},
		"direct negotiation":                  {conninfo(server.Port, "sslnegotiation=direct sslmode=require"), since(17, 2, 3), 2},
		"direct negotiation, too weak":        {conninfo(server.Port, "sslnegotiation=direct"), 3, 3},
		"the system's authorities":            {conninfo(server.Port, "sslrootcert=system"), since(16, 2, 0), 2},
		"the system's authorities, too weak":  {conninfo(server.Port, "sslrootcert=system sslmode=require"), since(16, 3, 2), 3},
		// A libpq with GSSAPI finds no ticket after it has connected; ours is one without GSSAPI, which refuses to begin.
		"GSSAPI encryption is required": {conninfo(server.Port, "gssencmode=require"), 2, 3},
		// We don't take part in either, and say so rather than give an answer that libpq might not.
		"a revocation list":      {conninfo(server.Port, "sslcrl=/none"), 0, 3},
		"the server's own user":  {[]string{"-d", fmt.Sprintf("host=%s port=%d requirepeer=nobody", server.SocketDir, server.Port)}, 2, 3},
		"our flags for all":      {at(server.Port, "--output", "json"), 3, 0},
		"a wrong flag for all":   {at(server.Port, "--output", "xml"), 3, 3},
		"help is a flag of ours": {[]string{"--help"}, 0, 0},
	} {
		t.Run(name, func(t *testing.T) {
			theirs, ours := both.run(t, c.args)
			if theirs.Code != c.theirs || ours.Code != c.ours {
				t.Errorf("got exit codes %d and %d, want %d and %d\n%s%s", theirs.Code, ours.Code, c.theirs, c.ours, ours.Stdout, ours.stderr)
			}
		})
	}
}

func TestCheckPostgresPrintsJSON(t *testing.T) {
	both := newPair(t)
	port := lab.Peer(t, withoutTLS(refusing(t, "57P03"), false))
	ours := both.start(t, "flowagent", append([]string{"check", "postgres", "-o", "json"}, at(port)...)...)()
	want := fmt.Sprintf(`{
  "target": "127.0.0.1:%[1]d",
  "code": 1,
  "state": "rejecting connections",
  "sqlstate": "57P03",
  "detail": "127.0.0.1:%[1]d: no (SQLSTATE 57P03)"
}
`, port)
	if ours.Stdout != want || ours.Code != 1 {
		t.Errorf("got exit code %d and\n%s\nwant 1 and\n%s", ours.Code, ours.Stdout, want)
	}
}

// TestCheckPostgresLeavesPolitely looks at what a server hears from us: a goodbye where a session began, and nothing
// that its log would hold against us.
func TestCheckPostgresLeavesPolitely(t *testing.T) {
	both := newPair(t)
	heard := make(chan []byte, 1)
	admitted := message('R', 8, "\x00\x00\x00\x00") + message('Z', 5, "I")
	port := lab.Peer(t, func(conn net.Conn) {
		r := bufio.NewReader(conn)
		if readRequest(r) != nil {
			return
		}
		_, _ = conn.Write([]byte(admitted))
		rest, _ := io.ReadAll(r)
		heard <- rest
	})
	if got := both.start(t, "flowagent", append([]string{"check", "postgres"}, conninfo(port, "sslmode=disable")...)...)(); got.Code != 0 {
		t.Fatalf("got exit code %d, want 0: %s", got.Code, got.stderr)
	}
	goodbye, err := (&pgproto3.Terminate{}).Encode(nil)
	if err != nil {
		t.Fatal(err)
	}
	if got := <-heard; !bytes.Equal(got, goodbye) {
		t.Errorf("got %q after the session began, want %q", got, goodbye)
	}

	server := lab.Postgres(t, lab.PostgresConfig{Access: "local all all trust\nhost all all all scram-sha-256\n"})
	awaitLog(t, server, "ready to accept connections") // its last line of the start, which may be read after it is up
	before := strings.Count(server.Log(), "\n")
	both.agree(t, 0, at(server.Port, "-U", "nobody")...)
	both.agree(t, 0, "-h", server.SocketDir, "-p", strconv.Itoa(server.Port), "-U", "postgres", "-d", "postgres")
	session(t, server) // whatever the server had to say of the others, it has said by now
	lines := strings.Split(server.Log(), "\n")
	if said := slices.DeleteFunc(lines[min(before+1, len(lines)):], func(line string) bool { return line == "" }); len(said) > 0 {
		t.Errorf("the server logged of checks that went well:\n%s", strings.Join(said, "\n"))
	}
}

// awaitLog waits until the server's log holds text.
func awaitLog(t *testing.T, server *lab.PostgresServer, text string) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !strings.Contains(server.Log(), text) {
		select {
		case <-tick.C:
		case <-server.Done():
			t.Fatalf("the server ended and didn't say %q:\n%s", text, server.Log())
		case <-t.Context().Done():
			t.Fatalf("the server didn't say %q:\n%s", text, server.Log())
		}
	}
}
