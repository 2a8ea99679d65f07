package probe

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/moby/moby/client"
)

func TestTCP_AConnectionAndItsAnswerDecide(t *testing.T) {
	expect(t, (&TCP{Address: listen(t).Addr().String()}).Probe(t.Context()), Pass, "accepts connections")
	expect(t, (&TCP{Address: "127.0.0.1:1"}).Probe(t.Context()), Fail, "cannot connect: connection refused")
	expect(t, (&TCP{Address: "127.0.0.1"}).Probe(t.Context()), Fail, "write host:port")
	expect(t, (&TCP{Address: "name.invalid:1"}).Probe(t.Context()), Fail, "cannot connect: ")

	greeting := &TCP{Address: say(t, "220 mail", ".example ESMTP\r\n"), Send: "EHLO x\r\n", Expect: "220 mail"}
	expect(t, greeting.Probe(t.Context()), Pass, "answers as expected")
	greeting.Expect = "554 no"
	greeting.Address = say(t, "220 mail.example\r\n")
	expect(t, greeting.Probe(t.Context()), Fail, "the expected answer did not come: the server closed the connection")
	greeting.Address = say(t, strings.Repeat("x", 1<<20))
	got := greeting.Probe(t.Context())
	expect(t, got, Fail, "the first 4096 bytes are others")
	if strings.Contains(got.Output, "xx") {
		t.Errorf("the output repeats what came: %q", got.Output)
	}
}

func TestTCP_SpeaksTLS(t *testing.T) {
	a := newAuthority(t)
	address := a.serveTLS(t, issued{})
	expect(t, (&TCP{Address: address, TLS: &ClientTLS{CAFile: a.file}}).Probe(t.Context()), Pass, "accepts connections")
	expect(t, (&TCP{Address: address, TLS: &ClientTLS{}}).Probe(t.Context()), Fail, "not trusted here")
}

// silent accepts connections and packets, and never says anything. Each that arrives is told of.
type silent struct {
	address string // of TCP and UDP
	socket  string // a Unix socket
	arrived chan struct{}
}

func newSilent(t *testing.T) *silent {
	t.Helper()
	s := &silent{socket: filepath.Join(shortDir(t), "socket"), arrived: make(chan struct{}, 64)}
	tcp, udp := listenTwice(t)
	s.address = tcp.Addr().String()
	unix, err := net.Listen("unix", s.socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = unix.Close()
		_ = udp.Close()
	})
	for _, listener := range []net.Listener{tcp, unix} {
		go func() {
			for {
				conn, err := listener.Accept()
				if err != nil {
					return
				}
				s.arrived <- struct{}{}
				go func() { // until the probe closes its end
					_, _ = io.Copy(io.Discard, conn)
					_ = conn.Close()
				}()
			}
		}()
	}
	go func() {
		for {
			if _, _, err := udp.ReadFrom(make([]byte, 64)); err != nil {
				return
			}
			s.arrived <- struct{}{}
		}
	}()
	return s
}

// listenTwice takes a port for TCP and UDP. Whichever the kernel chooses for one, somebody else may have of the other.
func listenTwice(t *testing.T) (net.Listener, *net.UDPConn) {
	t.Helper()
	for {
		tcp := listen(t)
		udp, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.MustParseAddrPort(tcp.Addr().String())))
		if err == nil {
			return tcp, udp
		}
		if !errors.Is(err, syscall.EADDRINUSE) {
			t.Fatal(err)
		}
	}
}

// hanging are probes of every kind, all of which hang.
func hanging(t *testing.T, s *silent) map[string]Probe {
	t.Helper()
	t.Setenv("DBUS_SYSTEM_BUS_ADDRESS", "unix:path="+s.socket)
	engine, err := client.New(client.WithHost("unix://" + s.socket))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = engine.Close() })
	stamp := filepath.Join(shortDir(t), "started")
	go func() { // tells of the command as of a connection
		for {
			select {
			case <-t.Context().Done():
				return
			case <-time.After(5 * time.Millisecond):
			}
			if _, err := os.Stat(stamp); err == nil {
				_ = os.Remove(stamp)
				s.arrived <- struct{}{}
			}
		}
	}()
	return map[string]Probe{
		"redis":             &Redis{Addresses: []string{s.address}},
		"redis with AUTH":   &Redis{Addresses: []string{s.socket}, Password: password("any")},
		"redis over TLS":    &Redis{Addresses: []string{s.address}, TLS: &ClientTLS{}},
		"Sentinel":          &Redis{Addresses: []string{s.address}, Sentinel: &RedisSentinel{Primary: "stores"}},
		"cluster":           &Redis{Addresses: []string{s.address, s.socket}, Cluster: true},
		"http":              &HTTP{URL: "http://" + s.address},
		"http with a match": &HTTP{URL: "http://" + s.address, Match: regexp.MustCompile("x")},
		"https":             &HTTP{URL: "https://" + s.address},
		"tcp":               &TCP{Address: s.address, Expect: "x"},
		"tls":               &TLS{Address: s.address},
		"container":         &Container{Engine: engine, Project: "p", Service: "s"},
		"command":           &Command{Argv: []string{"sh", "-c", "touch " + stamp + "; sleep 1000 & sleep 1000"}},
		"systemd":           &Systemd{Unit: "x.service"},
		"clock":             &Clock{Server: s.address},
	}
}

func TestProbes_EndWithTheirContextAndLeaveNothingBehind(t *testing.T) {
	s := newSilent(t)
	for name, p := range hanging(t, s) {
		for how, end := range map[string]func(context.Context) (context.Context, context.CancelFunc){
			"cancelled": context.WithCancel,
			"timed out": func(ctx context.Context) (context.Context, context.CancelFunc) {
				return context.WithTimeout(ctx, 100*time.Millisecond)
			},
		} {
			t.Run(name+"/"+how, func(t *testing.T) {
				goroutines, files := runtime.NumGoroutine(), openFiles(t)
				ctx, cancel := end(t.Context())
				defer cancel()
				result := make(chan Result, 1)
				go func() { result <- p.Probe(ctx) }()
				var got Result
				select {
				case <-s.arrived: // now it hangs
					if how == "cancelled" {
						cancel()
					}
					got = <-result
				case got = <-result: // on a busy machine its time may be up before it gets there
				}
				if name == "clock" {
					expect(t, got, Warn, "time server") // says nothing about the clock
				} else {
					want := map[string]string{"cancelled": "context canceled", "timed out": "no answer in time"}[how]
					expect(t, got, Fail, want)
				}
				if name == "container" { // connections are the engine's client's own, and their reader ends a moment later
					p.(*Container).Engine.(*client.Client).Close()
				}
				settle(t, "goroutines", goroutines, runtime.NumGoroutine)
				settle(t, "open files", files, func() int { return openFiles(t) })
				for len(s.arrived) > 0 { // the second connection of a probe that makes two
					<-s.arrived
				}
			})
		}
	}
}

// settle waits until a count is back where it was: what ended needs a moment to be gone.
func settle(t *testing.T, what string, want int, count func() int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second) // only reached when something leaks
	defer cancel()
	for got := count(); got > want; got = count() {
		select {
		case <-ctx.Done():
			stacks := make([]byte, 64<<10)
			t.Fatalf("%d %s, %d before:\n%s", got, what, want, stacks[:runtime.Stack(stacks, true)])
		case <-time.After(time.Millisecond):
		}
	}
}

func openFiles(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

func TestProbes_AContextThatEndedIsNotUsed(t *testing.T) {
	s := newSilent(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for name, p := range hanging(t, s) {
		if got := p.Probe(ctx); name != "clock" && got.Status != Fail {
			t.Errorf("%s: got %s %q, want fail", name, got.Status, got.Output)
		}
	}
	expect(t, (&Disk{Path: "/"}).Probe(ctx), Fail, "context canceled")
	expect(t, (&File{Path: "/etc/passwd"}).Probe(ctx), Fail, "context canceled")
}

func TestExcerpt_IsOneShortPrintableLine(t *testing.T) {
	for in, want := range map[string]string{
		"\n\n first \r\nsecond": "first",
		"a\tb\x00c\x1b[31m":     "a b?c?[31m",
		"bad \xff byte":         "bad ? byte",
		"ééééé":                 "ééééé",
		"éééééééééé":            "ééé…",
		"":                      "",
	} {
		if got := excerpt(in, 10); got != want {
			t.Errorf("%s: got %q, want %q", strconv.Quote(in), got, want)
		}
	}
}
