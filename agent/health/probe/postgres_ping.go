package probe

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"
)

// next is what follows an attempt, as in libpq's PQconnectPoll.
type next int

const (
	decided     next = iota // whatever was found, it is the answer
	otherWay                // once more with or without TLS, where the mode allows it
	nextAddress             // this address can't be reached or doesn't answer in time
	nextHost                // this host rejects
)

// pinging is one ping under way. What libpq keeps in the connection, it keeps here.
type pinging struct {
	*Postgres
	asked    bool // the server asked for a login or let us in (auth_req_received)
	sqlstate string
	detail   string // what happened last
	route    *route
}

// route is a way to a server that began a session.
type route struct {
	host      PostgresHost
	endpoint  endpoint
	encrypted bool
}

// ping returns the way to the server as well if that began a session.
func (p *Postgres) ping(ctx context.Context) (PostgresPing, *route) {
	if err := p.TLS.validate(); err != nil {
		return PostgresPing{Readiness: NoAttempt, Detail: err.Error()}, nil
	}
	hosts := p.Hosts
	if len(hosts) == 0 {
		hosts = []PostgresHost{{}}
	}
	ping := &pinging{Postgres: p}
	for i, host := range hosts {
		if ping.host(ctx, host.filled(), len(hosts)-i-1) == decided || ctx.Err() != nil {
			break
		}
	}
	return ping.answer()
}

// answer is internal_ping's conclusion.
func (p *pinging) answer() (PostgresPing, *route) {
	answer := PostgresPing{Readiness: Accepting, SQLState: p.sqlstate, Detail: p.detail}
	switch {
	case p.asked:
		return answer, p.route
	case len(p.sqlstate) != 5: // no error, or one that isn't PostgreSQL's
		answer.Readiness = NoResponse
	case p.sqlstate == sqlstateCannotConnectNow:
		answer.Readiness = Rejecting
	}
	return answer, nil
}

// host tries one host; left is the number of hosts after it.
func (p *pinging) host(ctx context.Context, host PostgresHost, left int) next {
	port, ok := host.number()
	if !ok {
		p.detail = fmt.Sprintf("%q is no port", host.Port)
		return decided
	}
	// DNS is asked within the same limits. libpq waits for it as long as the system does.
	resolving, cancel := p.limited(ctx, left+1)
	endpoints, err := host.endpoints(resolving, port)
	cancel()
	if err != nil {
		p.detail = fmt.Sprintf("%s: %s", host, reason(err))
		return nextHost
	}
	for i, endpoint := range endpoints {
		connecting, cancel := p.limited(ctx, len(endpoints)-i+left)
		next := p.endpoint(connecting, host, endpoint)
		cancel()
		if next != nextAddress || ctx.Err() != nil {
			return next
		}
	}
	return nextHost
}

// limited bounds one address; turns is how many may follow, this one included.
func (p *pinging) limited(ctx context.Context, turns int) (context.Context, context.CancelFunc) {
	if p.ConnectTimeout > 0 {
		return context.WithTimeout(ctx, p.ConnectTimeout)
	}
	deadline, ok := ctx.Deadline()
	if !ok {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, time.Until(deadline)/time.Duration(turns))
}

// endpoint tries one address, with and without TLS as the mode allows.
func (p *pinging) endpoint(ctx context.Context, host PostgresHost, to endpoint) next {
	for _, encrypted := range p.TLS.tries(to.local()) {
		if next := p.connection(ctx, route{host, to, encrypted}); next != otherWay {
			return next
		}
	}
	return decided
}

// connection opens one and goes through the startup exchange.
func (p *pinging) connection(ctx context.Context, way route) next {
	// What an earlier connection had to say is forgotten, as libpq does (pqDropServerData).
	p.asked, p.sqlstate, p.route = false, "", nil

	conn, next, err := p.open(ctx, &way)
	if err != nil {
		p.detail = fmt.Sprintf("%s: %s", way.endpoint, reason(err))
		return next
	}
	defer conn.Close()
	said, err := p.startUp(conn)
	p.asked, p.sqlstate = said.asked, said.sqlstate
	p.detail = way.endpoint.String() + ": " + Accepting.String()
	switch {
	case said.refused && !said.asked && said.sqlstate == sqlstateCannotConnectNow:
		p.detail = way.endpoint.String() + ": " + refusal(said.message, said.sqlstate)
		return nextHost
	case said.refused:
		p.detail = way.endpoint.String() + ": " + refusal(said.message, said.sqlstate)
		if mode := p.TLS.mode(); !said.asked && (mode == tlsAllow && !way.encrypted || mode == tlsPrefer && way.encrypted) {
			return otherWay
		}
		return decided
	case errors.Is(err, os.ErrDeadlineExceeded):
		// Also where it let us in and then fell silent: libpq 16 and later forget what an address said that took too long.
		p.asked = false
		p.detail = fmt.Sprintf("%s: %s", way.endpoint, reason(err))
		return nextAddress
	case said.asked:
		p.route = &way
	case err != nil:
		p.detail = fmt.Sprintf("%s: %s", way.endpoint, reason(err))
	}
	return decided
}

// open connects, and sets up TLS if the route wants it. Where the server has none and the mode can do without, the
// route says so afterwards. The connection ends with ctx; it is the caller's to close.
func (p *Postgres) open(ctx context.Context, way *route) (_ net.Conn, _ next, err error) {
	raw, err := new(net.Dialer).DialContext(ctx, way.endpoint.network, way.endpoint.address)
	if err != nil {
		return nil, nextAddress, err
	}
	conn := endWithContext(ctx, raw)
	defer func() {
		if err != nil {
			_ = conn.Close()
		}
	}()
	if !way.encrypted {
		return conn, decided, nil
	}
	var more bool
	if !p.TLS.direct() {
		way.encrypted, more, err = requestTLS(conn)
		switch {
		case err != nil:
			return nil, afterFailure(err, decided), err
		case !way.encrypted && p.TLS.required():
			return nil, decided, errors.New("the server has no TLS, which the mode asks for")
		case !way.encrypted && more: // it answers what it hasn't been asked yet
			return nil, decided, errNotPostgres
		case !way.encrypted:
			return conn, decided, nil
		}
	}
	failed := decided
	if p.TLS.mode() == tlsPrefer {
		failed = otherWay
	}
	config, err := p.TLS.config(way.host.Name)
	if err != nil {
		return nil, failed, err
	}
	encrypted := tls.Client(conn, config)
	if err := encrypted.HandshakeContext(ctx); err != nil {
		if ctx.Err() != nil { // which closed the connection
			err = os.ErrDeadlineExceeded
		}
		return nil, afterFailure(err, failed), fmt.Errorf("TLS: %w", err)
	}
	if more {
		// Somebody on the way may have put it there, for us to take as the server's own words later (CVE-2021-23222).
		return nil, decided, errors.New("TLS: the server had said something in the clear before")
	}
	if p.TLS.direct() && encrypted.ConnectionState().NegotiatedProtocol != postgresALPN {
		return nil, decided, errors.New("TLS: the server doesn't know PostgreSQL's direct negotiation")
	}
	return encrypted, decided, nil
}

// afterFailure passes over an address that took too long, whatever it was doing.
func afterFailure(err error, otherwise next) next {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return nextAddress
	}
	return otherwise
}

// requestTLS asks for TLS and reads the one byte that answers; more is set if something follows it in the clear.
func requestTLS(conn net.Conn) (offered, more bool, err error) {
	request, err := (&pgproto3.SSLRequest{}).Encode(nil)
	if err != nil {
		return false, false, err
	}
	if _, err := conn.Write(request); err != nil {
		return false, false, err
	}
	// As much as libpq takes in, so that what follows the answer is seen.
	answer := make([]byte, 16<<10)
	n, err := conn.Read(answer)
	switch {
	case n == 0:
		return false, false, ended(err)
	case answer[0] != 'S' && answer[0] != 'N':
		return false, false, errors.New("not PostgreSQL's answer to a request for TLS") // an 'E' can't be trusted here
	}
	return answer[0] == 'S', n > 1, nil
}

// boundConn ends with a context.
type boundConn struct {
	net.Conn
	release func() bool
}

func (c *boundConn) Close() error {
	c.release()
	return c.Conn.Close()
}

// endWithContext makes reads and writes fail with os.ErrDeadlineExceeded as soon as ctx is done.
func endWithContext(ctx context.Context, conn net.Conn) net.Conn {
	if deadline, ok := ctx.Deadline(); ok {
		_ = conn.SetDeadline(deadline) // fails only on a closed connection, as the next read will
	}
	return &boundConn{conn, context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })}
}

// reason is the part of a network error that says why: the where is said already.
func reason(err error) string {
	var system *os.SyscallError
	var dns *net.DNSError
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, context.DeadlineExceeded):
		return "no answer in time"
	case errors.Is(err, context.Canceled):
		return "stopped before it answered"
	case errors.As(err, &system):
		return system.Err.Error()
	case errors.As(err, &dns):
		return "name resolution: " + dns.Err
	}
	return fromServer(err.Error())
}
