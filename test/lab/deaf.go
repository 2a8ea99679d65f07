package lab

import (
	"net/netip"
	"os"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// DeafAddress is an address of 127.0.0.1 that refuses connections. Its port is held until the test ends, so that no
// server gets it by chance; one that asks for this very address does, and listens there.
func DeafAddress(t testing.TB) string {
	t.Helper()
	address, release, err := holdPort()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(release)
	return address.String()
}

// holdPort takes a port of 127.0.0.1 for a server that won't choose one itself, as PostgreSQL and nginx won't. Until release
// is called nobody gets it by chance; the server, which asks for this very one, does.
func holdPort() (address netip.AddrPort, release func(), err error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return address, nil, os.NewSyscallError("socket", err)
	}
	release = sync.OnceFunc(func() { _ = unix.Close(fd) })
	defer func() {
		if err != nil {
			release()
		}
	}()
	// Two sockets may share a port if both say so, as those of Go, PostgreSQL, nginx and Redis do, and not both listen; see
	// socket(7).
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
		return address, nil, os.NewSyscallError("setsockopt", err)
	}
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		return address, nil, os.NewSyscallError("bind", err)
	}
	name, err := unix.Getsockname(fd)
	if err != nil {
		return address, nil, os.NewSyscallError("getsockname", err)
	}
	bound := name.(*unix.SockaddrInet4)
	return netip.AddrPortFrom(netip.AddrFrom4(bound.Addr), uint16(bound.Port)), release, nil
}
