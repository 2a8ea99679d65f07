package inflight

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// As a kernel 6.18 wrote them, on a machine that keeps the lowest byte of a number first.
const (
	header  = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
	tableV4 = header +
		"   0: 0B00007F:99A3 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 3347750 1 00000000e614cbd3 100 0 0 10 0                   \n" +
		"  13: 0100007F:46A0 0100007F:AC42 01 00000000:00000000 02:00000386 00000000     0        0 3350866 2 0000000076237df8 20 4 31 11 -1                  \n" +
		"  14: 010011AC:1F90 070011AC:C722 08 00000000:00000001 00:00000000 00000000     0        0 3350873 2 0000000054e1910e 20 4 31 11 -1                  \n"
	tableV6 = header +
		"   1: 0000000000000000FFFF0000020012AC:1F90 0000000000000000FFFF0000010012AC:CFF0 01 00000000:00000000 02:00000392 00000000     0        0 3352192 2 0000000030928cb4 20 4 31 11 -1\n" +
		"   2: B80D0120000000000000000001000000:01BB B80D0120000000000000000002000000:D9BC 01 00000150:00000000 01:00000019 00000000     0        0 3350879 2 00000000332d9240 20 4 31 11 -1\n"
)

func pair(local, remote string) endpoints {
	return endpoints{netip.MustParseAddrPort(local), netip.MustParseAddrPort(remote)}
}

func TestTablesAreRead(t *testing.T) {
	if binary.NativeEndian.Uint16([]byte{1, 0}) != 1 {
		t.Fatal("the tables of this test are from a machine of the other byte order; write some for this one")
	}
	for name, test := range map[string]struct {
		table string
		want  []socket
	}{
		"IPv4": {tableV4, []socket{
			{endpoints: pair("127.0.0.11:39331", "0.0.0.0:0"), state: 0x0A},
			{endpoints: pair("127.0.0.1:18080", "127.0.0.1:44098"), state: stateEstablished, keepalive: true, probeIn: 9020 * time.Millisecond},
			{endpoints: pair("172.17.0.1:8080", "172.17.0.7:50978"), state: stateCloseWait, queued: true},
		}},
		"IPv6 and IPv4 in it": {tableV6, []socket{
			{endpoints: pair("172.18.0.2:8080", "172.18.0.1:53232"), state: stateEstablished, keepalive: true, probeIn: 9140 * time.Millisecond},
			{endpoints: pair("[2001:db8::1]:443", "[2001:db8::2]:55740"), state: stateEstablished, queued: true},
		}},
		"no connection": {header, nil},
		"nothing":       {"", nil},
	} {
		got, err := parseSockets([]byte(test.table))
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if diff := cmp.Diff(test.want, got, cmp.AllowUnexported(socket{}, endpoints{}), cmpopts.EquateComparable(netip.AddrPort{})); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

func TestALineThatCannotBeReadIsAnError(t *testing.T) {
	for _, line := range []string{
		"",
		"0: 0100007F:46A0 0100007F:AC42 01 00000000:00000000",
		"0: 0100007F46A0 0100007F:AC42 01 00000000:00000000 00:00000000",
		"0: 0100007:46A0 0100007F:AC42 01 00000000:00000000 00:00000000",
		"0: 01007F:46A0 0100007F:AC42 01 00000000:00000000 00:00000000",
		"0: 0100007G:46A0 0100007F:AC42 01 00000000:00000000 00:00000000",
		"0: 0100007F:146A0 0100007F:AC42 01 00000000:00000000 00:00000000",
		"0: 0100007F:46A0 0100007F:AC42 100 00000000:00000000 00:00000000",
		"0: 0100007F:46A0 0100007F:AC42 01 000000000 00:00000000",
		"0: 0100007F:46A0 0100007F:AC42 01 00000000:00000000 00:-1",
		"0: " + strings.Repeat("0", 1<<16),
	} {
		_, err := parseSockets([]byte(header + line + "\n"))
		if !errors.Is(err, errTable) {
			t.Errorf("%.80q: got error %v, want %v", line, err, errTable)
		}
		if err != nil && len(err.Error()) > 300 {
			t.Errorf("%.80q: the error has %d bytes, want a line", line, len(err.Error()))
		}
	}
}

// FuzzSockets looks for tables that stop the reader, and for sockets that aren't what the table says.
func FuzzSockets(f *testing.F) {
	f.Add([]byte(tableV4))
	f.Add([]byte(tableV6))
	f.Add([]byte(header + "0: 0100007F:46A0 0100007F 01\n"))
	f.Fuzz(func(t *testing.T, table []byte) {
		sockets, err := parseSockets(table)
		if err != nil {
			return
		}
		for _, s := range sockets {
			if !s.local.IsValid() || !s.remote.IsValid() || s.local.Addr().Is4In6() || s.remote.Addr().Is4In6() {
				t.Errorf("got endpoints %v and %v, want plain ones", s.local, s.remote)
			}
			again, err := parseSocket([]byte(render(s)))
			if err != nil || again != s {
				t.Errorf("written and read again: got %+v and error %v, want %+v", again, err, s)
			}
		}
	})
}

// render writes a socket as the kernel does.
func render(s socket) string {
	endpoint := func(e netip.AddrPort) string {
		raw := e.Addr().AsSlice()
		var b strings.Builder
		for ; len(raw) > 0; raw = raw[4:] {
			fmt.Fprintf(&b, "%08X", binary.NativeEndian.Uint32(raw))
		}
		return fmt.Sprintf("%s:%04X", b.String(), e.Port())
	}
	queue, timer := 0, "00:00000000"
	if s.queued {
		queue = 1
	}
	if s.keepalive {
		timer = fmt.Sprintf("%02X:%08X", timerKeepalive, int64(s.probeIn/clockTick))
	}
	return fmt.Sprintf("   0: %s %s %02X %08X:00000000 %s 00000000     0        0 1 2 0000000000000000 20 4 31 11 -1\n",
		endpoint(s.local), endpoint(s.remote), s.state, queue, timer)
}
