// Package control is the agent's control interface: HTTP over a Unix socket that only root and the group flowagent
// may open.
//
// The server half calls the agent through [Agent]; the client half is what the command line uses. No value of a secret
// goes through it.
package control

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptrace"
	"os"
	"os/user"
	"strconv"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/flowviz/flowagent/agent/drain"
	"github.com/flowviz/flowagent/agent/report"
)

// Agent is what can be asked of a running agent.
type Agent interface {
	Status(ctx context.Context) report.Status
	// RefreshSecrets fetches now and returns the names of the secrets that changed.
	RefreshSecrets(ctx context.Context) ([]string, error)
	// Reload reads the configuration again, applies what can change on a running node and names what can't.
	Reload(ctx context.Context) (report.Reload, error)
	// Drain returns when the node is drained. A second call joins the first one.
	Drain(ctx context.Context, request drain.Request) error
	// CancelDrain takes a drain back whose services still run, and returns when the node serves again.
	CancelDrain(ctx context.Context) error
}

var (
	// ErrUnreachable means that no agent answers on the socket, so that nothing was done; of a question that changes
	// nothing, also that an agent ended before it answered.
	ErrUnreachable = errors.New("no agent answers")
	// ErrConfiguration is what an agent's error is when only the operator can mend what was asked for. It crosses the
	// socket, so that a command can end with the exit code for it.
	ErrConfiguration = errors.New("the configuration is wrong")
)

// group owns the socket beside root, where it exists.
const group = "flowagent"

// Listen opens the socket at path, taking over one that a killed agent left behind. It refuses a socket on which an
// agent still answers, and one that another agent is opening: of two that found the same socket left behind, the second
// would remove the first one's. The file path.lock stays.
func Listen(path string) (net.Listener, error) {
	lock, err := os.OpenFile(path+".lock", os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock the control socket: %w", err)
	}
	defer lock.Close()
	switch err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); {
	case errors.Is(err, unix.EWOULDBLOCK):
		return nil, fmt.Errorf("listen on %s: another agent is starting: stop it first", path)
	case err != nil:
		return nil, fmt.Errorf("lock the control socket: %w", err)
	}
	listener, err := net.Listen("unix", path)
	if errors.Is(err, syscall.EADDRINUSE) {
		if conn, dialErr := net.Dial("unix", path); dialErr == nil {
			conn.Close()
			return nil, fmt.Errorf("listen on %s: another agent is running: stop it first", path)
		}
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("remove the socket of an agent that is gone: %w", err)
		}
		listener, err = net.Listen("unix", path)
	}
	if err != nil {
		return nil, fmt.Errorf("listen on the control socket: %w", err)
	}
	if err := restrict(path); err != nil {
		listener.Close()
		return nil, err
	}
	return listener, nil
}

func restrict(path string) error {
	if err := os.Chmod(path, 0o600); err != nil {
		return fmt.Errorf("restrict the control socket: %w", err)
	}
	g, err := user.LookupGroup(group)
	if err != nil {
		return nil // no such group: root alone
	}
	gid, err := strconv.Atoi(g.Gid)
	if err != nil {
		return fmt.Errorf("group %s has the id %q: %w", group, g.Gid, err)
	}
	if err := os.Chown(path, -1, gid); err != nil {
		return fmt.Errorf("give the control socket to group %s: %w", group, err)
	}
	return os.Chmod(path, 0o660)
}

// NewServer serves agent.
func NewServer(agent Agent, log *slog.Logger) *http.Server {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/status", func(w http.ResponseWriter, r *http.Request) {
		reply(w, agent.Status(r.Context()), nil)
	})
	mux.HandleFunc("POST /v1/secrets/refresh", func(w http.ResponseWriter, r *http.Request) {
		changed, err := agent.RefreshSecrets(r.Context())
		reply(w, refreshReply{Changed: changed}, err)
	})
	mux.HandleFunc("POST /v1/reload", func(w http.ResponseWriter, r *http.Request) {
		outcome, err := agent.Reload(r.Context())
		reply(w, outcome, err)
	})
	mux.HandleFunc("POST /v1/drain", func(w http.ResponseWriter, r *http.Request) {
		var request drain.Request
		if err := json.NewDecoder(io.LimitReader(r.Body, maxRequest)).Decode(&request); err != nil {
			http.Error(w, "not a drain request", http.StatusBadRequest)
			return
		}
		reply(w, struct{}{}, agent.Drain(r.Context(), request))
	})
	mux.HandleFunc("POST /v1/drain/cancel", func(w http.ResponseWriter, r *http.Request) {
		reply(w, struct{}{}, agent.CancelDrain(r.Context()))
	})
	return &http.Server{
		Handler:           mux,
		ReadHeaderTimeout: 5 * time.Second, // local clients send their headers at once
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
}

// maxRequest is more than any request of ours needs, in bytes.
const maxRequest = 64 << 10

type refreshReply struct {
	Changed []string `json:"changed"`
}

type errorReply struct {
	Error string `json:"error"`
}

func reply(w http.ResponseWriter, body any, err error) {
	w.Header().Set("Content-Type", "application/json")
	if err != nil {
		code := http.StatusInternalServerError
		if errors.Is(err, ErrConfiguration) {
			code = http.StatusUnprocessableEntity
		}
		w.WriteHeader(code)
		body = errorReply{Error: err.Error()}
	}
	_ = json.NewEncoder(w).Encode(body) // a client that left is no concern of ours
}

// configurationError is an agent's error that is [ErrConfiguration].
type configurationError string

func (e configurationError) Error() string        { return string(e) }
func (e configurationError) Is(target error) bool { return target == ErrConfiguration }

// Client asks the agent behind one socket.
type Client struct {
	http *http.Client
	path string
}

// NewClient doesn't connect yet.
func NewClient(path string) *Client {
	return &Client{
		path: path,
		http: &http.Client{Transport: &http.Transport{
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				var d net.Dialer
				return d.DialContext(ctx, "unix", path)
			},
		}},
	}
}

// Status asks how the node is doing.
func (c *Client) Status(ctx context.Context) (report.Status, error) {
	var status report.Status
	err := c.call(ctx, http.MethodGet, "/v1/status", nil, &status)
	return status, err
}

// RefreshSecrets has the agent fetch its secrets now and returns the names of those that changed.
func (c *Client) RefreshSecrets(ctx context.Context) ([]string, error) {
	var answer refreshReply
	err := c.call(ctx, http.MethodPost, "/v1/secrets/refresh", nil, &answer)
	return answer.Changed, err
}

// Reload has the agent read its configuration again.
func (c *Client) Reload(ctx context.Context) (report.Reload, error) {
	var outcome report.Reload
	err := c.call(ctx, http.MethodPost, "/v1/reload", nil, &outcome)
	return outcome, err
}

// Drain asks for a drain and waits for its end, or for the end of ctx, which does not stop the drain.
func (c *Client) Drain(ctx context.Context, request drain.Request) error {
	return c.call(ctx, http.MethodPost, "/v1/drain", request, &struct{}{})
}

// CancelDrain takes a drain back, and returns when the node serves again.
func (c *Client) CancelDrain(ctx context.Context) error {
	return c.call(ctx, http.MethodPost, "/v1/drain/cancel", nil, &struct{}{})
}

func (c *Client) call(ctx context.Context, method, path string, body, answer any) error {
	encoded, err := json.Marshal(body)
	if err != nil {
		return fmt.Errorf("encode the request: %w", err)
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://agent"+path, bytes.NewReader(encoded))
	if err != nil {
		return err
	}
	var answered atomic.Bool
	trace := &httptrace.ClientTrace{GotFirstResponseByte: func() { answered.Store(true) }}
	req = req.WithContext(httptrace.WithClientTrace(ctx, trace))
	resp, err := c.http.Do(req)
	if err != nil {
		var dial *net.OpError
		switch {
		case errors.Is(err, fs.ErrPermission):
			return fmt.Errorf("%w: may not open %s: run as root or as a member of group %s", ErrUnreachable, c.path, group)
		case errors.As(err, &dial) && dial.Op == "dial":
			return fmt.Errorf("%w on %s: is it running? Start it with 'flowagent run' or 'systemctl start flowagent'", ErrUnreachable, c.path)
		case method == http.MethodGet && !answered.Load() && ctx.Err() == nil:
			// The kernel takes connections for an agent that may end before it does.
			return fmt.Errorf("%w on %s: it ended while it was asked; see 'systemctl status flowagent'", ErrUnreachable, c.path)
		}
		return fmt.Errorf("ask the agent on %s: %w", c.path, err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		var failed errorReply
		if err := json.NewDecoder(resp.Body).Decode(&failed); err != nil {
			return fmt.Errorf("the agent answered %s", resp.Status)
		}
		if resp.StatusCode == http.StatusUnprocessableEntity {
			return configurationError(failed.Error)
		}
		return errors.New(failed.Error)
	}
	if err := json.NewDecoder(resp.Body).Decode(answer); err != nil {
		return fmt.Errorf("the agent's answer is cut short: %w", err)
	}
	return nil
}
