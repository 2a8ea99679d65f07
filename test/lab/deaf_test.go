package lab_test

import (
	"errors"
	"net"
	"syscall"
	"testing"

	"github.com/flowviz/flowagent/test/lab"
)

func TestADeafAddressRefusesUntilSomebodyListensThere(t *testing.T) {
	address := lab.DeafAddress(t)
	if _, err := net.Dial("tcp", address); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Fatalf("got %v, want a refusal", err)
	}
	listener, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	_ = conn.Close()
}
