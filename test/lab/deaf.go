package lab

import (
	"net/netip"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// DeafAddress is an address of 127.0.0.1 that refuses connections. Its port is held until the test ends, so that no
// server gets it by chance; one that asks for this very address does, and listens there.
func DeafAddress(t testing.TB) string {
	t.Helper()
	address, err := holdPort(t)
	if err != nil {
		t.Fatal(err)
	}
	return address.String()
}

func holdPort(t testing.TB) (netip.AddrPort, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return netip.AddrPort{}, os.NewSyscallError("socket", err)
	}
	t.Cleanup(func() { _ = unix.Close(fd) })
	// Two sockets may share a port if both say so, as Go's listeners do, and not both listen; see socket(7).
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
		return netip.AddrPort{}, os.NewSyscallError("setsockopt", err)
	}
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		return netip.AddrPort{}, os.NewSyscallError("bind", err)
	}
	name, err := unix.Getsockname(fd)
	if err != nil {
		return netip.AddrPort{}, os.NewSyscallError("getsockname", err)
	}
	bound := name.(*unix.SockaddrInet4)
	return netip.AddrPortFrom(netip.AddrFrom4(bound.Addr), uint16(bound.Port)), nil
}
