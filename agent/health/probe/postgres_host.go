package probe

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"path"
	"strconv"
	"strings"
)

const (
	// postgresPort is PostgreSQL's own (DEF_PGPORT).
	postgresPort = "5432"
	// postgresSocketDir is where Debian, Red Hat and the official container image have the server's socket. A
	// self-compiled libpq has /tmp.
	postgresSocketDir = "/var/run/postgresql"
	// socketPathMax is the longest path of a Unix socket: sun_path holds 108 bytes, one of them the end (unix(7)).
	socketPathMax = 107
)

// PostgresHost is one server that may answer. The zero value is the server of this machine, by its socket.
type PostgresHost struct {
	// Name is a DNS name, an IP address, a directory that holds the server's socket (with a leading slash) or an
	// abstract socket's name (with a leading @). It is what a certificate must be for.
	Name string
	// Address is an IP address to use in place of asking DNS for Name; libpq's hostaddr.
	Address string
	// Port is "" for 5432.
	Port string
}

func (h PostgresHost) String() string {
	name := h.Name
	if name == "" {
		name = h.Address
	}
	return net.JoinHostPort(name, h.Port)
}

// endpoint is one address of a host: what to connect to.
type endpoint struct {
	network, address string
}

func (e endpoint) String() string { return e.address }
func (e endpoint) local() bool    { return e.network == "unix" }

// filled puts the defaults in.
func (h PostgresHost) filled() PostgresHost {
	if h.Name == "" && h.Address == "" {
		h.Name = postgresSocketDir
	}
	if h.Port == "" {
		h.Port = postgresPort
	}
	return h
}

// number reads the port. libpq gives up for good on what isn't a number, and passes over a number that isn't a port.
func (h PostgresHost) number() (port int, isNumber bool) {
	port, err := parseInteger(h.Port)
	return port, err == nil
}

// parseInteger reads a number as libpq does (parse_int_param): blanks around it are fine, all else is not.
func parseInteger(text string) (int, error) {
	number, err := strconv.ParseInt(strings.TrimSpace(text), 10, 32)
	return int(number), err
}

// endpoints finds the host's addresses, in the order in which they should be tried.
func (h PostgresHost) endpoints(ctx context.Context, port int) ([]endpoint, error) {
	if port < 1 || port > 65535 {
		return nil, fmt.Errorf("%d is no port", port)
	}
	var addresses []netip.Addr
	switch {
	case h.Address != "":
		address, err := netip.ParseAddr(h.Address)
		if err != nil {
			return nil, fmt.Errorf("%q is no IP address", h.Address)
		}
		addresses = []netip.Addr{address}
	case h.Name[0] == '/' || h.Name[0] == '@':
		socket := path.Join(h.Name, ".s.PGSQL."+strconv.Itoa(port))
		if len(socket) > socketPathMax {
			return nil, fmt.Errorf("the socket's path is longer than %d bytes", socketPathMax)
		}
		return []endpoint{{"unix", socket}}, nil
	default:
		// Go's own resolver: the C library's can't be interrupted, and the agent is linked without it anyway.
		resolver := net.Resolver{PreferGo: true}
		found, err := resolver.LookupNetIP(ctx, "ip", h.Name)
		if err != nil {
			return nil, err
		}
		addresses = found
	}
	var endpoints []endpoint
	for _, address := range addresses {
		endpoints = append(endpoints, endpoint{"tcp", netip.AddrPortFrom(address.Unmap(), uint16(port)).String()})
	}
	return endpoints, nil
}
