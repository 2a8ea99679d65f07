package systemd

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
)

// manager is the receiving end of sd_notify.
func manager(t *testing.T) *net.UnixConn {
	t.Helper()
	path := filepath.Join(t.TempDir(), "notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	t.Setenv("NOTIFY_SOCKET", path)
	return conn
}

func received(t *testing.T, conn *net.UnixConn) string {
	t.Helper()
	buffer := make([]byte, 4096)
	n, err := conn.Read(buffer)
	if err != nil {
		t.Fatal(err)
	}
	return string(buffer[:n])
}

func TestNotifier_SpeaksSdNotify(t *testing.T) {
	conn := manager(t)
	t.Setenv("WATCHDOG_USEC", "30000000")
	n := NewNotifier(slog.New(slog.DiscardHandler))
	if got := n.Watchdog(); got != 30*time.Second {
		t.Errorf("watchdog: got %s, want 30s", got)
	}
	for _, c := range []struct {
		say  func()
		want string
	}{
		{n.Ready, `READY=1`},
		{n.Alive, `WATCHDOG=1`},
		{n.Stopping, `STOPPING=1`},
		{n.Reloading, `RELOADING=1\nMONOTONIC_USEC=[0-9]+\n`},
		{func() { n.Extend(90 * time.Second) }, `EXTEND_TIMEOUT_USEC=90000000`},
		{func() { n.Status("failing: no such image\nREADY=1") }, `STATUS=failing: no such image …`}, // one line, one assignment
	} {
		c.say()
		if got := received(t, conn); !regexp.MustCompile(`^` + c.want + `$`).MatchString(got) {
			t.Errorf("got %q, want %q", got, c.want)
		}
	}
}

func TestNotifier_OutsideSystemdSaysNothing(t *testing.T) {
	t.Setenv("NOTIFY_SOCKET", "")
	t.Setenv("WATCHDOG_USEC", "")
	var log bytes.Buffer
	n := NewNotifier(slog.New(slog.NewTextHandler(&log, nil)))
	n.Ready()
	if n.Watchdog() != 0 || log.Len() > 0 {
		t.Errorf("got watchdog %s and log %q, want neither", n.Watchdog(), log.String())
	}
	t.Setenv("NOTIFY_SOCKET", filepath.Join(t.TempDir(), "nobody"))
	n.Ready()
	if !strings.Contains(log.String(), "systemd not told") {
		t.Errorf("a socket that nobody reads: got log %q, want a word of it", log.String())
	}
}

func TestNotifier_StoresAPortThatCanStillBeClosed(t *testing.T) {
	conn := manager(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if err := NewNotifier(slog.New(slog.DiscardHandler)).Store(l.(*net.TCPListener)); err != nil {
		t.Fatal(err)
	}
	message, rights := make([]byte, 256), make([]byte, 256)
	n, rightsLength, _, _, err := conn.ReadMsgUnix(message, rights)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := string(message[:n]), "FDSTORE=1\nFDNAME=flowagent-stored"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	controls, err := syscall.ParseSocketControlMessage(rights[:rightsLength])
	if err != nil || len(controls) != 1 {
		t.Fatalf("got %d control messages and %v, want one", len(controls), err)
	}
	fds, err := syscall.ParseUnixRights(&controls[0])
	if err != nil || len(fds) != 1 {
		t.Fatalf("got descriptors %v and %v, want one", fds, err)
	}
	stored := os.NewFile(uintptr(fds[0]), "stored")
	defer stored.Close()

	// The agent ends: its Accept, which waits, has to end with it.
	accepted := make(chan error, 1)
	waiting := make(chan struct{})
	go func() {
		close(waiting)
		_, err := l.Accept()
		accepted <- err
	}()
	<-waiting
	_ = l.Close() // what Accept says is looked at
	if err := <-accepted; !errors.Is(err, net.ErrClosed) {
		t.Errorf("Accept: got %v, want %v", err, net.ErrClosed)
	}
	// And whoever comes now is not refused.
	late, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Errorf("connect to the stored port: %v", err)
	} else {
		_ = late.Close()
	}
}

// TestHelperListeners is the process that systemd would have started with sockets.
func TestHelperListeners(t *testing.T) {
	if os.Getenv("WANT_LISTENERS") == "" {
		return // it is the test below that runs it
	}
	listeners, err := Listeners()
	if err != nil {
		fmt.Println("error:", err)
		os.Exit(0)
	}
	again, _ := Listeners()
	for _, l := range listeners {
		fmt.Println("listener:", l.Addr())
	}
	fmt.Println("again:", len(again))
	os.Exit(0)
}

func TestListeners_AreThoseThatSystemdPassed(t *testing.T) {
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer tcp.Close()
	unix, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close()
	tcpFile, err := tcp.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	defer tcpFile.Close()
	unixFile, err := unix.(*net.UnixListener).File()
	if err != nil {
		t.Fatal(err)
	}
	defer unixFile.Close()
	for _, c := range []struct {
		what  string
		files []*os.File
		want  string
	}{
		{"none", nil, "again: 0\n"},
		{"one", []*os.File{tcpFile}, fmt.Sprintf("listener: %s\nagain: 0\n", tcp.Addr())},
		{"a Unix socket", []*os.File{unixFile}, `error: systemd passed the socket "health", which is no TCP listener: correct the units that name flowagent.service` + "\n"},
	} {
		// LISTEN_PID is the process's own, which is known to itself only.
		cmd := exec.Command("sh", "-c", `LISTEN_PID=$$ exec "$0" -test.run '^TestHelperListeners$'`, os.Args[0])
		cmd.Env = append(os.Environ(), "WANT_LISTENERS=1", fmt.Sprintf("LISTEN_FDS=%d", len(c.files)), "LISTEN_FDNAMES=health")
		cmd.ExtraFiles = c.files
		out, err := cmd.Output()
		if err != nil {
			t.Fatal(err)
		}
		if string(out) != c.want {
			t.Errorf("%s: got %q, want %q", c.what, out, c.want)
		}
	}
}
