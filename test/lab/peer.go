package lab

import (
	"net"
	"testing"
)

// Peer listens on a free port of 127.0.0.1 until the test ends, hands each connection to serve and closes it afterwards.
// It plays a server that says what no real one would. It returns the port.
func Peer(t testing.TB, serve func(net.Conn)) int {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				serve(conn)
			}()
		}
	}()
	return listener.Addr().(*net.TCPAddr).Port
}
