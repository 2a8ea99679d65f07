package probe

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
)

// TCP passes when a server accepts a connection and, where asked for, answers as expected.
type TCP struct {
	// Address is host:port, or the absolute path of a Unix socket.
	Address string
	// TLS, when not nil, is spoken on the connection.
	TLS *ClientTLS
	// Send is written once connected; empty for nothing. Not for secrets: it is part of the configuration.
	Send string
	// Expect must occur within the first 4 KiB of what the server says; empty for not listening.
	Expect string
}

// tcpAnswerLimit bounds how much of an answer is searched: greetings (SSH, SMTP, FTP) are one line of at most 512
// bytes (RFC 5321 section 4.5.3.1.5), and a server that talks without end must not fill the memory.
const tcpAnswerLimit = 4 << 10

// Probe fails when nobody listens, on a certificate that doesn't verify, and on another answer than the expected one.
func (p *TCP) Probe(ctx context.Context) Result {
	conn, err := dial(ctx, p.Address, p.TLS)
	if err != nil {
		return failure(err)
	}
	defer conn.Close()
	if p.Send != "" {
		if _, err := io.WriteString(conn, p.Send); err != nil {
			return failed("accepts connections, but can't be sent to: %v", plain(ctx, err))
		}
	}
	if p.Expect == "" {
		return passed("accepts connections")
	}
	if err := await(conn, []byte(p.Expect)); err != nil {
		return failed("accepts connections, but the expected answer did not come: %v", plain(ctx, err))
	}
	return passed("answers as expected")
}

var errOtherAnswer = fmt.Errorf("the first %d bytes are others", tcpAnswerLimit)

// await reads until what is wanted came by. It never returns what came instead: that is the server's own business.
func await(r io.Reader, wanted []byte) error {
	var seen []byte
	part := make([]byte, 512)
	r = io.LimitReader(r, tcpAnswerLimit)
	for {
		n, err := r.Read(part)
		seen = append(seen, part[:n]...)
		switch {
		case bytes.Contains(seen, wanted):
			return nil
		case errors.Is(err, io.EOF) && len(seen) == tcpAnswerLimit:
			return errOtherAnswer
		case err != nil:
			return err
		}
	}
}
