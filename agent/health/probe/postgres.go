package probe

import (
	"context"
	"fmt"
	"strings"
	"time"
	"unicode"

	"github.com/flowviz/flowagent/agent/secret"
)

// Readiness is what a PostgreSQL server says to a new connection before anybody logs in. The numbers are those of
// libpq's PGPing, which are pg_isready's exit codes as well.
type Readiness int

const (
	Accepting  Readiness = 0 // it asked for a login, let one in, or refused for any reason but the next
	Rejecting  Readiness = 1 // SQLSTATE 57P03: it starts, recovers or shuts down
	NoResponse Readiness = 2 // nobody answered, or something that isn't PostgreSQL
	NoAttempt  Readiness = 3 // the parameters are wrong, so nobody was asked
)

// String is pg_isready's own wording.
func (r Readiness) String() string {
	switch r {
	case Accepting:
		return "accepting connections"
	case Rejecting:
		return "rejecting connections"
	case NoResponse:
		return "no response"
	default:
		return "no attempt"
	}
}

// SQLSTATE codes that mean something to a health check (PostgreSQL's errcodes.txt).
const (
	sqlstateCannotConnectNow   = "57P03" // cannot_connect_now
	sqlstateTooManyConnections = "53300" // too_many_connections
	sqlstateNoSuchDatabase     = "3D000" // invalid_catalog_name
)

// Postgres asks a PostgreSQL server whether it accepts connections, by the rules of libpq's PQping (internal_ping and
// PQconnectPoll in src/interfaces/libpq/fe-connect.c) and without logging in: it begins a session and leaves when the
// server asks for a password. A server that asks for none (trust, peer) completes the session, which is then ended
// politely.
//
// What the server logs of it: nothing where a password is asked for; where none is, one FATAL line a probe if User or
// Database doesn't exist. log_connections adds a line for each probe.
//
// A missing database shows only where no password is asked for, since the server looks for it after the login: to be
// sure, give a Login.
//
// Where libpq would log in, we stop one step earlier; that can't change its answer, because PQping counts the request
// for a password as an answer already. Hence target_session_attrs, which needs a login, means nothing here. GSSAPI
// encryption isn't supported.
type Postgres struct {
	// Hosts are tried in this order until one decides, as libpq does: a host that can't be reached, that doesn't answer
	// in time or that rejects with 57P03 is passed over; any other answer is final. Empty is one zero PostgresHost.
	Hosts []PostgresHost
	// User may be any name if there is no Login; "" is "postgres", which most servers know and so don't complain about.
	User string
	// Database is "" for one that has the user's name, as in libpq.
	Database string
	// ApplicationName shows in the server's pg_stat_activity and logs; "" is "flowagent".
	ApplicationName string
	TLS             PostgresTLS
	// ConnectTimeout is how long each address of each host may take, as libpq's connect_timeout. With 0, what is left of
	// the context's time is shared out evenly among the hosts and addresses that are left, so that one which swallows
	// packets doesn't keep the others from being asked.
	ConnectTimeout time.Duration
	// Login adds a login, and a query where it has one. It is asked after a ping that found the server accepting, on the
	// address that said so. Nil for none.
	Login *PostgresLogin
}

// PostgresPing is the answer to one ping. Its zero value isn't an answer.
type PostgresPing struct {
	Readiness Readiness
	// SQLState is the code of the server's refusal, "" where it didn't refuse.
	SQLState string
	// Detail says what happened, in a short phrase for people: "127.0.0.1:5432: connection refused".
	Detail string
}

// Warning says what somebody should look at although the server is up, or "". PQping counts both as accepting.
func (p PostgresPing) Warning() string {
	if p.Readiness != Accepting {
		return ""
	}
	switch p.SQLState {
	case sqlstateTooManyConnections:
		return "the server has no free connection: " + p.Detail
	case sqlstateNoSuchDatabase:
		return "the database doesn't exist: " + p.Detail
	}
	return ""
}

// Probe pings, and logs in if there is a Login. Only Accepting passes; a server without a free connection or without
// the database warns, or fails where a Login needs them.
func (p *Postgres) Probe(ctx context.Context) Result {
	ping, route := p.ping(ctx)
	switch {
	case ping.Readiness != Accepting:
		return Result{Status: Fail, Output: ping.Readiness.String() + ": " + ping.Detail}
	case p.Login != nil && route == nil: // the server refused to begin a session
		return Result{Status: Fail, Output: "accepting connections, but cannot log in: " + ping.Detail}
	case p.Login != nil:
		return p.login(ctx, route)
	case ping.Warning() != "":
		return Result{Status: Warn, Output: ping.Warning()}
	}
	return Result{Status: Pass, Output: ping.Readiness.String()}
}

// Ping asks once, without a login. With parameters that can't work it answers NoAttempt.
func (p *Postgres) Ping(ctx context.Context) PostgresPing {
	ping, _ := p.ping(ctx)
	return ping
}

func (p *Postgres) user() string {
	if p.User != "" {
		return p.User
	}
	return "postgres"
}

func (p *Postgres) database() string {
	if p.Database != "" {
		return p.Database
	}
	return p.user()
}

func (p *Postgres) applicationName() string {
	if p.ApplicationName != "" {
		return p.ApplicationName
	}
	return "flowagent"
}

// PostgresLogin logs in as Postgres.User and asks one question.
type PostgresLogin struct {
	// Password returns what to log in with now; it is called for each login, since secrets rotate. Nil is no password.
	Password func() secret.Value
	// Query is one SQL statement that returns one value, "" to log in only. It runs in a read-only transaction which the
	// server itself ends when the probe's time is over, and which leaves nothing behind in a pooled connection.
	Query string
	// Expect is what the value must be, as text: "t" for a true boolean. "" accepts every value but NULL.
	Expect string
}

// fromServer makes what a server sent fit to show: servers may send anything, in any length.
func fromServer(text string) string {
	const shown = 200 // characters; PostgreSQL's own startup messages are half as long
	text = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(text, "�"))
	if runes := []rune(text); len(runes) > shown {
		text = string(runes[:shown]) + "…"
	}
	return strings.TrimSpace(text)
}

// refusal is a server's error as people read it.
func refusal(message, sqlstate string) string {
	switch message, sqlstate = fromServer(message), fromServer(sqlstate); {
	case message == "":
		return fmt.Sprintf("refused with SQLSTATE %s", sqlstate)
	case sqlstate == "":
		return message
	}
	return fmt.Sprintf("%s (SQLSTATE %s)", message, sqlstate)
}
