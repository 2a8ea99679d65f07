package probe

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"regexp"
	"slices"
	"strings"

	"github.com/flowviz/flowagent/agent/secret"
)

// HTTP passes when a GET of a URL is answered as expected, over HTTP/1.1 and a connection of its own. It follows no
// redirect (where a server points is another service's health) and uses no proxy.
type HTTP struct {
	// URL is absolute, http or https, without credentials.
	URL string
	// Statuses are the codes that pass; empty for 200 to 299.
	Statuses []int
	// Match, when not nil, must match within the body's first MiB.
	Match *regexp.Regexp
	// Headers are sent, Host included. Values that are secret belong into SecretHeaders.
	Headers map[string]string
	// SecretHeaders are sent as well, each asked for each probe, since secrets rotate.
	SecretHeaders map[string]func() secret.Value
	// TLS is used for https; nil is the zero value.
	TLS *ClientTLS
}

const (
	// httpBodyLimit is the part of a body that is searched; what a health endpoint says fits many times.
	httpBodyLimit = 1 << 20
	// httpHeadLimit bounds the status line and headers, as net/http's server does by default with a request's.
	httpHeadLimit = 1 << 20
	// httpInterim bounds the 1xx answers before the real one; net/http's client takes as many.
	httpInterim = 5
)

// Probe fails when the server can't be reached, and on another status or body. Nothing of a body or header is in the
// result, nor a query, which may hold a token.
func (p *HTTP) Probe(ctx context.Context) Result {
	request, err := p.request(ctx)
	if err != nil {
		return failure(err)
	}
	address, secure := request.URL.Host, (*ClientTLS)(nil)
	port := "80"
	if request.URL.Scheme == "https" {
		port = "443"
		if secure = p.TLS; secure == nil {
			secure = &ClientTLS{}
		}
	}
	if request.URL.Port() == "" {
		address = net.JoinHostPort(request.URL.Hostname(), port)
	}
	conn, err := dial(ctx, address, secure)
	if err != nil {
		return failure(err)
	}
	defer conn.Close()
	// Written and read here rather than by an http.Transport, whose goroutines outlive the answer.
	// A server that refuses says why and closes the connection: its words matter more than that writing failed.
	if err := request.Write(conn); err != nil && !ofConnection(err) {
		return failure(plain(ctx, err))
	}
	response, err := p.response(conn, request)
	if err != nil {
		return failure(plain(ctx, err))
	}
	if !p.expected(response.StatusCode) {
		return failed("answers %s", status(response.StatusCode))
	}
	if p.Match == nil {
		return passed("answers %s", status(response.StatusCode))
	}
	body, err := io.ReadAll(io.LimitReader(response.Body, httpBodyLimit))
	if p.Match.Match(body) {
		return passed("answers %s and what is expected", status(response.StatusCode))
	}
	if err != nil {
		return failed("answers %s, but its body breaks off: %v", status(response.StatusCode), plain(ctx, err))
	}
	return failed("answers %s, but its body doesn't match %q", status(response.StatusCode), p.Match)
}

func (p *HTTP) request(ctx context.Context) (*http.Request, error) {
	// The error would repeat the URL.
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, p.URL, nil)
	if err != nil || (request.URL.Scheme != "http" && request.URL.Scheme != "https") || request.URL.Host == "" {
		return nil, errors.New("not an http or https URL: write it like http://127.0.0.1:8000/health")
	}
	if request.URL.User != nil {
		return nil, errors.New("the URL holds credentials: send a secret header instead")
	}
	request.Close = true
	request.Header.Set("User-Agent", "flowagent")
	for name, value := range p.Headers {
		setHeader(request, name, value)
	}
	for name, value := range p.SecretHeaders {
		v := value()
		if v.IsZero() {
			return nil, fmt.Errorf("the secret for header %s isn't there yet", name)
		}
		// A trailing newline is how a file with one line ends, and would be refused.
		line := strings.TrimRight(string(v.Reveal()), "\r\n")
		if strings.ContainsFunc(line, func(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }) {
			return nil, fmt.Errorf("the secret for header %s has more than one line", name)
		}
		setHeader(request, name, line)
	}
	return request, nil
}

func setHeader(request *http.Request, name, value string) {
	if http.CanonicalHeaderKey(name) == "Host" {
		request.Host = value
		return
	}
	request.Header.Set(name, value)
}

var errEndlessHead = fmt.Errorf("more than %d bytes of headers", httpHeadLimit)

// response reads the head of the real answer; its body ends with what the connection may deliver.
func (p *HTTP) response(conn io.Reader, request *http.Request) (*http.Response, error) {
	limit := &io.LimitedReader{R: conn, N: httpHeadLimit}
	in := bufio.NewReader(limit)
	for range httpInterim {
		response, err := http.ReadResponse(in, request)
		switch {
		case err != nil && limit.N <= 0:
			return nil, errEndlessHead
		case err != nil && !ofConnection(err): // the parser's errors repeat what came
			return nil, errors.New("what answers is not HTTP/1.1")
		case err != nil:
			return nil, err
		case response.StatusCode >= 200 || response.StatusCode == http.StatusSwitchingProtocols:
			// Chunks need a few bytes each, and a hostile one's extensions more; they count against this too.
			limit.N = 2 * httpBodyLimit
			return response, nil
		}
	}
	return nil, errors.New("it never comes to an answer")
}

// ofConnection tells errors of the connection from those about what came over it.
func ofConnection(err error) bool {
	var operation *net.OpError
	return errors.As(err, &operation) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
}

func (p *HTTP) expected(code int) bool {
	if len(p.Statuses) == 0 {
		return code >= 200 && code <= 299
	}
	return slices.Contains(p.Statuses, code)
}

// status names a code; the server's own words for it stay out.
func status(code int) string {
	if text := http.StatusText(code); text != "" {
		return fmt.Sprintf("%d %s", code, text)
	}
	return fmt.Sprint(code)
}
