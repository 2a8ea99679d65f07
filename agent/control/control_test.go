package control

import (
	"bufio"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/flowviz/flowagent/agent/config"
	"github.com/flowviz/flowagent/agent/drain"
	"github.com/flowviz/flowagent/agent/report"
)

// answering is an agent that answers as it is told and remembers what it was asked.
type answering struct {
	status  report.Status
	changed []string
	err     error
	asked   drain.Request
	stays   bool
}

func (a *answering) Status(context.Context) report.Status             { return a.status }
func (a *answering) RefreshSecrets(context.Context) ([]string, error) { return a.changed, a.err }
func (a *answering) Reload(context.Context) (report.Reload, error) {
	return report.Reload{Applied: a.changed}, a.err
}
func (a *answering) Drain(_ context.Context, request drain.Request) error {
	a.asked = request
	return a.err
}

func (a *answering) CancelDrain(context.Context) error {
	a.stays = true
	return a.err
}

func listen(t *testing.T, agent Agent) *Client {
	t.Helper()
	path := filepath.Join(t.TempDir(), "agent.sock")
	listener, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	server := NewServer(agent, slog.New(slog.DiscardHandler))
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = server.Serve(listener) // always ends with ErrServerClosed here
	}()
	t.Cleanup(func() {
		_ = server.Close()
		<-done
	})
	return NewClient(path)
}

func TestClient_AsksForStatusRefreshAndDrain(t *testing.T) {
	agent := &answering{status: report.Status{State: "ready", Version: "1.2.3"}, changed: []string{"db_password"}}
	client := listen(t, agent)

	status, err := client.Status(t.Context())
	if err != nil || status.State != "ready" || status.Version != "1.2.3" {
		t.Errorf("Status: got %+v, %v", status, err)
	}
	changed, err := client.RefreshSecrets(t.Context())
	if err != nil || !slices.Equal(changed, agent.changed) {
		t.Errorf("RefreshSecrets: got %v, %v; want %v", changed, err, agent.changed)
	}
	outcome, err := client.Reload(t.Context())
	if err != nil || !slices.Equal(outcome.Applied, agent.changed) {
		t.Errorf("Reload: got %+v, %v; want %v applied", outcome, err, agent.changed)
	}
	want := drain.Request{Reason: "kernel update", Budget: config.Duration(time.Minute)}
	if err := client.Drain(t.Context(), want); err != nil || agent.asked != want {
		t.Errorf("Drain: the agent got %+v, %v; want %+v", agent.asked, err, want)
	}
}

// misconfigured is an error as package agent has it.
type misconfigured struct{}

func (misconfigured) Error() string        { return "config.yaml:3:1: unknown field" }
func (misconfigured) Is(target error) bool { return target == ErrConfiguration }

func TestClient_TellsAWrongConfigurationFromAFailure(t *testing.T) {
	_, err := listen(t, &answering{err: misconfigured{}}).Reload(t.Context())
	if !errors.Is(err, ErrConfiguration) || err.Error() != (misconfigured{}).Error() {
		t.Errorf("got %v, want an ErrConfiguration with the agent's own words", err)
	}
	_, err = listen(t, &answering{err: errors.New("disk full")}).Reload(t.Context())
	if err == nil || errors.Is(err, ErrConfiguration) {
		t.Errorf("got %v, want an error that is no ErrConfiguration", err)
	}
}

func TestClient_PassesOnTheAgentsOwnError(t *testing.T) {
	client := listen(t, &answering{err: errors.New("still booting")})
	if _, err := client.RefreshSecrets(t.Context()); err == nil || err.Error() != "still booting" {
		t.Errorf("RefreshSecrets: got %v, want still booting", err)
	}
	if err := client.Drain(t.Context(), drain.Request{}); errors.Is(err, ErrUnreachable) {
		t.Errorf("Drain: an agent that answered counts as unreachable: %v", err)
	}
}

func TestClient_SaysThatNoAgentAnswers(t *testing.T) {
	_, err := NewClient(filepath.Join(t.TempDir(), "nobody.sock")).Status(t.Context())
	if !errors.Is(err, ErrUnreachable) || !strings.Contains(err.Error(), "flowagent run") {
		t.Errorf("got %v, want ErrUnreachable with what to do", err)
	}
}

// breaking is a socket on which each connection is handled by end, which closes it. With a nil end nobody accepts, and
// the socket is closed once somebody has connected.
func breaking(t *testing.T, end func(net.Conn)) *Client {
	t.Helper()
	path := filepath.Join(t.TempDir(), "agent.sock")
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		if end == nil {
			awaitConnection(t, listener)
			_ = listener.Close()
			return
		}
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			end(conn)
			_ = conn.Close()
		}
	})
	t.Cleanup(func() {
		_ = listener.Close()
		wg.Wait()
	})
	return NewClient(path)
}

func readRequest(conn net.Conn) { _, _ = http.ReadRequest(bufio.NewReader(conn)) }

// awaitConnection waits until somebody has connected, without accepting it.
func awaitConnection(t *testing.T, listener *net.UnixListener) {
	file, err := listener.File()
	if err != nil {
		t.Error(err)
		return
	}
	defer file.Close()
	for {
		_, err := unix.Poll([]unix.PollFd{{Fd: int32(file.Fd()), Events: unix.POLLIN}}, -1)
		if err == nil {
			return
		}
		if !errors.Is(err, unix.EINTR) {
			t.Error(err)
			return
		}
	}
}

func TestClient_TakesAnAgentThatEndsBeforeItAnswersForNone(t *testing.T) {
	for name, end := range map[string]func(net.Conn){
		"never accepted":   nil,
		"closed at once":   func(net.Conn) {},
		"closed when read": readRequest,
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := breaking(t, end).Status(t.Context()); !errors.Is(err, ErrUnreachable) {
				t.Errorf("Status: got %v, want ErrUnreachable", err)
			}
			// The agent may have begun what it was told to do.
			if err := breaking(t, end).Drain(t.Context(), drain.Request{}); err == nil || errors.Is(err, ErrUnreachable) {
				t.Errorf("Drain: got %v, want an error that isn't ErrUnreachable", err)
			}
		})
	}
}

func TestClient_TakesAnAnswerThatIsNoneOfAnAgentForAnError(t *testing.T) {
	client := breaking(t, func(conn net.Conn) {
		readRequest(conn)
		_, _ = io.WriteString(conn, "220 mail.example ESMTP\r\n")
	})
	if _, err := client.Status(t.Context()); err == nil || errors.Is(err, ErrUnreachable) {
		t.Errorf("got %v, want an error that isn't ErrUnreachable", err)
	}
}

func TestClient_BlamesNoAgentForItsOwnEnd(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	client := breaking(t, func(net.Conn) { cancel() })
	if _, err := client.Status(ctx); err == nil || errors.Is(err, ErrUnreachable) {
		t.Errorf("got %v, want an error that isn't ErrUnreachable", err)
	}
}

func TestListen_TakesOverTheSocketOfAKilledAgentButNotOfALivingOne(t *testing.T) {
	path := filepath.Join(t.TempDir(), "agent.sock")
	first, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Listen(path); err == nil || !strings.Contains(err.Error(), "another agent") {
		t.Errorf("beside a living agent: got %v, want a refusal", err)
	}
	first.SetUnlinkOnClose(false) // as SIGKILL leaves it
	first.Close()
	second, err := Listen(path)
	if err != nil {
		t.Fatalf("after a killed agent: %v", err)
	}
	second.Close()
}

func TestListen_KeepsOthersOut(t *testing.T) {
	path := filepath.Join(t.TempDir(), "agent.sock")
	listener, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if got := info.Mode().Perm() & 0o007; got != 0 {
		t.Errorf("others may %o the control socket, want nothing", got)
	}
}

func TestServer_RefusesWhatIsNoDrainRequest(t *testing.T) {
	agent := &answering{}
	client := listen(t, agent)
	if err := client.call(t.Context(), "POST", "/v1/drain", "soon", &struct{}{}); err == nil {
		t.Error("a drain that is a string was accepted")
	}
	if agent.asked != (drain.Request{}) {
		t.Errorf("the agent was asked for %+v", agent.asked)
	}
}

func TestListen_LetsOneOfTwoThatComeAtOnceTakeOver(t *testing.T) {
	dir := t.TempDir()
	for round := range 500 {
		path := filepath.Join(dir, strconv.Itoa(round))
		stale, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
		if err != nil {
			t.Fatal(err)
		}
		stale.SetUnlinkOnClose(false) // as SIGKILL leaves it
		stale.Close()
		var listeners [2]net.Listener
		var errs [2]error
		begin := make(chan struct{})
		var wg sync.WaitGroup
		for i := range listeners {
			wg.Go(func() {
				<-begin
				listeners[i], errs[i] = Listen(path)
			})
		}
		close(begin)
		wg.Wait()
		won := 0
		for i, listener := range listeners {
			if errs[i] == nil {
				won++
				defer listener.Close()
			} else if !strings.Contains(errs[i].Error(), "another agent") {
				t.Errorf("round %d: got %v, want that there is another agent", round, errs[i])
			}
		}
		if won != 1 {
			t.Fatalf("round %d: %d agents listen, want one", round, won)
		}
	}
}
