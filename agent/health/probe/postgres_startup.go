package probe

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"

	"github.com/jackc/pgx/v5/pgproto3"
)

// Limits of libpq for the first message: what is longer isn't PostgreSQL, or is a server from before 2003 (PQconnectPoll).
const (
	authenticationMax = 2000
	errorMax          = 30000
)

// authenticationOK is the request that asks for nothing: the session begins (AuthenticationOk).
const authenticationOK = 0

var errNotPostgres = errors.New("what answers there isn't PostgreSQL")

// said is what a server answered to a startup message.
type said struct {
	asked    bool // it asked for a login, or let us in without
	admitted bool // it let us in, so it is for us to say goodbye
	refused  bool // it sent an error, perhaps after it let us in
	sqlstate string
	message  string
}

// startUp begins a session, reads until the server has decided and ends the session.
func (p *Postgres) startUp(conn net.Conn) (said, error) {
	startup, err := (&pgproto3.StartupMessage{
		// 3.0 rather than the newest, as libpq does by default: every server since 2003 answers it at once.
		ProtocolVersion: pgproto3.ProtocolVersion30,
		Parameters: map[string]string{
			"user":             p.user(),
			"database":         p.database(),
			"application_name": p.applicationName(),
		},
	}).Encode(nil)
	if err != nil {
		return said{}, err
	}
	// A server that refuses may have closed already: then this fails, and its answer can still be read.
	_, _ = conn.Write(startup)
	answer, err := readAnswer(conn)
	if answer.admitted {
		goodbye, encodeErr := (&pgproto3.Terminate{}).Encode(nil)
		if encodeErr == nil {
			_, _ = conn.Write(goodbye) // politeness: without it the server logs a lost connection
		}
	}
	return answer, err
}

// readAnswer reads a server's messages from the first until the server waits for us or has refused. The error says why
// there is no such end; what was said before it counts.
func readAnswer(from io.Reader) (answer said, err error) {
	r := bufio.NewReader(from)
	kind, err := r.ReadByte()
	if err != nil {
		return answer, ended(err)
	}
	// Decided by the first byte, before the length is there, as in libpq.
	if kind != 'R' && kind != 'E' {
		return answer, errNotPostgres
	}
	length, err := readLength(r)
	switch {
	case err != nil:
		return answer, err
	case kind == 'R' && (length < 4 || length > authenticationMax-4):
		return answer, errNotPostgres
	case kind == 'E' && (length < 4 || length > errorMax-4):
		return answer, fmt.Errorf("%w, or one too old to know", errNotPostgres)
	}
	body := make([]byte, length)
	if _, err := io.ReadFull(r, body); err != nil {
		return answer, ended(err)
	}
	if kind == 'E' {
		return answer, answer.refusedWith(body)
	}
	answer.asked = true
	if binary.BigEndian.Uint32(body) != authenticationOK {
		return answer, nil
	}
	return answer, answer.readAdmission(r)
}

// readAdmission reads what follows when no login is needed, until the session is ready or refused after all: only here
// does a server say that a database doesn't exist.
func (s *said) readAdmission(r *bufio.Reader) error {
	for {
		kind, err := r.ReadByte()
		if err != nil {
			return ended(err)
		}
		length, err := readLength(r)
		if err != nil {
			return err
		}
		if length > errorMax {
			return errNotPostgres
		}
		switch kind {
		case 'Z': // ReadyForQuery
			s.admitted = true
			return nil
		case 'E':
			body := make([]byte, length)
			if _, err := io.ReadFull(r, body); err != nil {
				return ended(err)
			}
			return s.refusedWith(body)
		default: // settings, the key to cancel with, notices
			if _, err := r.Discard(length); err != nil {
				return ended(err)
			}
		}
	}
}

// refusedWith takes in an ErrorResponse.
func (s *said) refusedWith(body []byte) error {
	var response pgproto3.ErrorResponse
	if err := response.Decode(body); err != nil {
		return errNotPostgres
	}
	s.refused, s.message = true, response.Message
	s.sqlstate = response.Code[:min(len(response.Code), 5)] // libpq keeps five characters of it
	return nil
}

// readLength reads the length of a message's body. On the wire it counts its own four bytes.
func readLength(r io.Reader) (int, error) {
	var wire [4]byte
	if _, err := io.ReadFull(r, wire[:]); err != nil {
		return 0, ended(err)
	}
	length := int32(binary.BigEndian.Uint32(wire[:]))
	if length < 4 {
		return 0, errNotPostgres
	}
	return int(length) - 4, nil
}

// ended says in words that a stream was over too early.
func ended(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return errors.New("closed the connection without an answer")
	}
	return err
}
