package probe

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
)

// answerMax bounds one message of a login or a query's result, in bytes. A health check asks for a word; what is longer
// is somebody's mistake and shall not fill the agent's memory.
const answerMax = 64 << 10

// login logs in the way that the ping went, asks the query and judges the value.
func (p *Postgres) login(ctx context.Context, way *route) Result {
	session, err := p.logIn(ctx, *way)
	if err != nil {
		return Result{Status: Fail, Output: "accepting connections, but cannot log in: " + explain(ctx, err)}
	}
	defer session.Conn.Close()
	if p.Login.Query == "" {
		end(session)
		return Result{Status: Pass, Output: "accepting connections and logins"}
	}
	value, err := ask(ctx, session, p.Login.Query)
	switch {
	case err != nil:
		return Result{Status: Fail, Output: "accepting connections, but the query failed: " + explain(ctx, err)}
	case p.Login.Expect != "" && value != p.Login.Expect:
		return Result{Status: Fail, Output: fmt.Sprintf("the query returned %q, not %q", fromServer(value), p.Login.Expect)}
	}
	return Result{Status: Pass, Output: fmt.Sprintf("the query returned %q", fromServer(value))}
}

// logIn opens a session with pgconn, over a connection made by the rules of the ping.
func (p *Postgres) logIn(ctx context.Context, way route) (*pgconn.HijackedConn, error) {
	// The string keeps pgconn from resolving anything; what the environment says is replaced below.
	config, err := pgconn.ParseConfig("host=/ sslmode=disable target_session_attrs=any channel_binding=prefer " +
		"min_protocol_version=3.0 max_protocol_version=3.0 connect_timeout=0 require_auth=''")
	if err != nil {
		return nil, err
	}
	config.Host = way.host.Name // for messages: where it is, the ping found out
	if config.Host == "" {
		config.Host = way.host.Address
	}
	port, _ := way.host.number() // the ping went there, so it is one
	config.Port = uint16(port)
	config.LookupFunc = func(_ context.Context, host string) ([]string, error) { return []string{host}, nil }
	config.DialFunc = func(context.Context, string, string) (net.Conn, error) {
		conn, _, err := p.open(ctx, &way) // the probe's own context, which the session lasts as long as
		return conn, err
	}
	config.Fallbacks, config.TLSConfig, config.ValidateConnect = nil, nil, nil
	config.RequireAuth = ""
	if !way.encrypted && !way.endpoint.local() {
		// Whoever answers in the clear may ask for the password in the clear. libpq would send it.
		config.RequireAuth = "!password"
	}
	config.User, config.Database, config.Password = p.user(), p.database(), ""
	if p.Login.Password != nil {
		config.Password = string(p.Login.Password().Reveal())
	}
	config.RuntimeParams = map[string]string{"application_name": p.applicationName()}
	config.BuildFrontend = limitedFrontend
	session, err := pgconn.ConnectConfig(ctx, config)
	if err != nil {
		return nil, err
	}
	// pgconn ends a session whose context is done in a goroutine of its own, for up to 15 s. A probe leaves none behind,
	// so from here on the connection is ours.
	return session.Hijack()
}

func limitedFrontend(r io.Reader, w io.Writer) *pgproto3.Frontend {
	frontend := pgproto3.NewFrontend(r, w)
	frontend.SetMaxBodyLen(answerMax)
	return frontend
}

// ask runs one statement and returns its one value. All is sent at once: a round trip. The connection ends with the
// context of the login, which is ctx.
func ask(ctx context.Context, session *pgconn.HijackedConn, query string) (string, error) {
	begin := "BEGIN READ ONLY"
	if deadline, ok := ctx.Deadline(); ok {
		// The server gives up by itself, or queries of a slow database would pile up on it, probe by probe. It does so a
		// little earlier than we, to tell us. LOCAL, because a pool hands the connection on to others.
		limit := max(time.Until(deadline)*9/10, time.Millisecond)
		begin += fmt.Sprintf("; SET LOCAL statement_timeout = %d", limit.Milliseconds())
	}
	frontend := session.Frontend
	frontend.Send(&pgproto3.Query{String: begin})
	frontend.Send(&pgproto3.Parse{Query: query})
	frontend.Send(&pgproto3.Bind{})
	frontend.Send(&pgproto3.Describe{ObjectType: 'P'})
	frontend.Send(&pgproto3.Execute{MaxRows: 2}) // the second would be one too many
	frontend.Send(&pgproto3.Sync{})
	frontend.Send(&pgproto3.Query{String: "ROLLBACK"})
	frontend.Send(&pgproto3.Terminate{})
	if err := frontend.Flush(); err != nil {
		return "", err
	}
	const batches = 3 // begin, the query, rollback: each ends with ReadyForQuery
	return readValue(frontend, batches)
}

var errNotOneValue = errors.New("it must return one row with one column that isn't null")

// readValue reads the results of some batches, in which one row with one column is expected.
func readValue(frontend *pgproto3.Frontend, batches int) (string, error) {
	var value string
	var rows int
	var failed error
	for batches > 0 {
		message, err := frontend.Receive()
		if err != nil {
			return "", errors.Join(failed, err)
		}
		switch message := message.(type) {
		case *pgproto3.DataRow:
			rows++
			if len(message.Values) != 1 || message.Values[0] == nil {
				failed = errNotOneValue
				continue
			}
			value = string(message.Values[0])
		case *pgproto3.ErrorResponse:
			if failed == nil {
				failed = pgconn.ErrorResponseToPgError(message)
			}
		case *pgproto3.ReadyForQuery:
			batches--
		}
	}
	if failed == nil && rows != 1 {
		failed = errNotOneValue
	}
	return value, failed
}

// end says goodbye.
func end(session *pgconn.HijackedConn) {
	session.Frontend.Send(&pgproto3.Terminate{})
	_ = session.Frontend.Flush() // politeness; the connection is closed next
}

// explain says why, without what pgconn adds around it: user, database and every address.
func explain(ctx context.Context, err error) string {
	var server *pgconn.PgError
	var connect *pgconn.ConnectError
	switch {
	case errors.As(err, &server):
		return refusal(server.Message, server.Code)
	case ctx.Err() != nil:
		return "no answer in time"
	case errors.As(err, &connect):
		err = connect.Unwrap()
	}
	return reason(err)
}
