package probe

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// link is one connection of one probe. Every operation on it fails as soon as the probe's context ends.
type link struct {
	net.Conn          // what is spoken: plain or TLS
	raw      net.Conn // what carries it
	unbind   func() bool
}

// dial connects to address, host:port or the absolute path of a Unix socket, and speaks TLS where secure is not nil.
// Its error says what was tried, not where: whoever reads it asked for the address.
func dial(ctx context.Context, address string, secure *ClientTLS) (*link, error) {
	network, host := "tcp", ""
	if strings.HasPrefix(address, "/") {
		network = "unix"
	} else {
		var err error
		if host, _, err = net.SplitHostPort(address); err != nil {
			return nil, fmt.Errorf("%q is not an address: write host:port", address)
		}
	}
	// No keep-alive probes on a connection that lives for a moment.
	dialer := net.Dialer{KeepAliveConfig: net.KeepAliveConfig{Enable: false}, KeepAlive: -1}
	raw, err := dialer.DialContext(ctx, network, address)
	if err != nil {
		return nil, fmt.Errorf("cannot connect: %w", plain(ctx, err))
	}
	l := &link{Conn: raw, raw: raw}
	// A time in the past ends what is under way and whatever comes after it.
	l.unbind = context.AfterFunc(ctx, func() { _ = raw.SetDeadline(time.Unix(1, 0)) })
	if secure == nil {
		return l, nil
	}
	settings, err := secure.config(host)
	if err != nil {
		l.Close()
		return nil, err
	}
	session := tls.Client(raw, settings)
	if err := session.HandshakeContext(ctx); err != nil {
		l.Close()
		return nil, &handshakeError{plain(ctx, err)}
	}
	l.Conn = session
	return l, nil
}

// Close says goodbye under TLS only while the peer listened until now: tls.Conn gives its last message five seconds.
func (l *link) Close() {
	if l.unbind() {
		_ = l.Conn.Close()
	}
	_ = l.raw.Close()
}

// plain reduces what packages net and os say of a failed operation to the reason.
func plain(ctx context.Context, err error) error {
	if ended := ctx.Err(); ended != nil || errors.Is(err, os.ErrDeadlineExceeded) {
		if errors.Is(ended, context.Canceled) {
			return ended
		}
		return errTimeout
	}
	for _, end := range []error{io.EOF, io.ErrUnexpectedEOF, syscall.EPIPE, syscall.ECONNRESET} {
		if errors.Is(err, end) {
			return errClosed
		}
	}
	var lookup *net.DNSError
	if errors.As(err, &lookup) {
		if lookup.IsNotFound {
			return fmt.Errorf("the name %s has no address", lookup.Name)
		}
		return fmt.Errorf("look up %s: %s", lookup.Name, lookup.Err)
	}
	var operation *net.OpError
	if errors.As(err, &operation) {
		err = operation.Err
	}
	var path *fs.PathError
	if errors.As(err, &path) {
		err = path.Err
	}
	var call *os.SyscallError
	if errors.As(err, &call) {
		err = call.Err
	}
	return err
}

var (
	errTimeout = errors.New("no answer in time")
	errClosed  = errors.New("the server closed the connection")
)

// excerpt makes something that a peer or a program wrote fit for a result: one line, printable, at most limit bytes.
func excerpt(s string, limit int) string {
	s, _, _ = strings.Cut(strings.TrimLeft(s, "\r\n\t "), "\n")
	s = strings.Map(func(r rune) rune {
		switch {
		case r == '\t':
			return ' '
		case !strconv.IsPrint(r):
			return '?'
		}
		return r
	}, strings.ToValidUTF8(strings.TrimRight(s, "\r\t "), "?"))
	if len(s) <= limit {
		return s
	}
	return strings.ToValidUTF8(s[:limit-len("…")], "") + "…"
}

func failed(format string, args ...any) Result {
	return Result{Status: Fail, Output: fmt.Sprintf(format, args...)}
}
func warned(format string, args ...any) Result {
	return Result{Status: Warn, Output: fmt.Sprintf(format, args...)}
}
func passed(format string, args ...any) Result {
	return Result{Status: Pass, Output: fmt.Sprintf(format, args...)}
}

// failure is a result whose reason is err.
func failure(err error) Result { return failed("%v", err) }

// measured adds the number behind a result.
func (r Result) measured(value float64, unit string) Result {
	r.Value, r.Unit = &value, unit
	return r
}
