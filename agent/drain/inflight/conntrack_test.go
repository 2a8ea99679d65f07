package inflight

import (
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"
)

// entry is a line of /proc/net/nf_conntrack for a connection that came by a published port.
func entry(left int, client, service string) string {
	c, s := pair(client, service).local, pair(client, service).remote
	return fmt.Sprintf("ipv4     2 tcp      6 %d ESTABLISHED src=%s dst=192.0.2.9 sport=%d dport=80 src=%s dst=%s sport=%d dport=%d [ASSURED] mark=0 zone=0 use=2\n",
		left, c.Addr(), c.Port(), s.Addr(), c.Addr(), s.Port(), c.Port())
}

func TestConntrackTellsWhenSomethingMoved(t *testing.T) {
	now := time.Now()
	const client, service = "198.51.100.7:44098", "172.18.0.2:8080"
	short := timeouts{200 * time.Second, 300 * time.Second, 300 * time.Second}
	uneven := timeouts{432000 * time.Second, 300 * time.Second, 600 * time.Second}
	for name, test := range map[string]struct {
		line     string
		timeouts timeouts
		want     time.Duration // ago; -1 for unknown
	}{
		"just now":                                   {entry(432000, client, service), defaultTimeouts, 0},
		"within a second":                            {entry(431999, client, service), defaultTimeouts, 0},
		"a part of a second more":                    {entry(431994, client, service), defaultTimeouts, 5 * time.Second},
		"data not confirmed":                         {entry(300, client, service), defaultTimeouts, 0},
		"data not confirmed for a while":             {entry(288, client, service), defaultTimeouts, 11 * time.Second},
		"data sent again":                            {entry(590, client, service), uneven, 9 * time.Second},
		"data sent again for long, or not confirmed": {entry(300, client, service), uneven, 0},
		"a timeout shorter than the others":          {entry(150, client, service), short, 49 * time.Second},
		"more left than there can be":                {entry(432001, client, service), defaultTimeouts, -1},
		"closing":                                    {"ipv4 2 tcp 6 118 TIME_WAIT src=198.51.100.7 dst=192.0.2.9 sport=44098 dport=80 src=172.18.0.2 dst=198.51.100.7 sport=8080 dport=44098 [ASSURED] mark=0 use=2\n", defaultTimeouts, -1},
		"UDP":                                        {"ipv4 2 udp 17 431994 ESTABLISHED src=198.51.100.7 dst=192.0.2.9 sport=44098 dport=80 src=172.18.0.2 dst=198.51.100.7 sport=8080 dport=44098 [ASSURED] mark=0 use=2\n", defaultTimeouts, -1},
		"in hardware":                                {"ipv4 2 tcp 6 src=198.51.100.7 dst=192.0.2.9 sport=44098 dport=80 src=172.18.0.2 dst=198.51.100.7 sport=8080 dport=44098 [OFFLOAD] mark=0 zone=0 use=3\n", defaultTimeouts, -1},
		"seen from the middle, by an answer":         {"ipv4 2 tcp 6 431990 ESTABLISHED src=172.18.0.2 dst=198.51.100.7 sport=8080 dport=44098 [UNREPLIED] src=198.51.100.7 dst=172.18.0.2 sport=44098 dport=8080 mark=0 use=2\n", defaultTimeouts, 9 * time.Second},
		"words":                                      {"ipv4 2 tcp 6 431990 ESTABLISHED a b c d e f g h i j\n", defaultTimeouts, -1},
	} {
		got, known := parseConntrack([]byte(test.line), now, test.timeouts)[pair(service, client)]
		if ago := now.Sub(got); known != (test.want >= 0) || known && ago != test.want {
			t.Errorf("%s: got %v ago (known: %v), want %v", name, ago, known, test.want)
		}
	}
}

func TestTheLastOfSeveralMovementsCounts(t *testing.T) {
	now := time.Now()
	const client, service = "198.51.100.7:44098", "172.18.0.2:8080"
	for _, table := range []string{entry(431000, client, service) + entry(431994, client, service), entry(431994, client, service) + entry(431000, client, service)} {
		if got, want := now.Sub(parseConntrack([]byte(table), now, defaultTimeouts)[pair(service, client)]), 5*time.Second; got != want {
			t.Errorf("got %v ago, want %v", got, want)
		}
	}
}

// FuzzConntrack looks for tables that stop the reader, and for movements in the future.
func FuzzConntrack(f *testing.F) {
	f.Add([]byte(entry(431994, "198.51.100.7:44098", "172.18.0.2:8080")))
	f.Add([]byte("ipv6 10 tcp 6 431990 ESTABLISHED src=2001:db8::2 dst=2001:db8::1 sport=8080 dport=44098 [UNREPLIED] src=2001:db8::1 dst=2001:db8::2 sport=44098 dport=8080 mark=0 use=2\n"))
	f.Fuzz(func(t *testing.T, table []byte) {
		now := time.Now()
		for _, moved := range slices.Collect(maps.Values(parseConntrack(table, now, defaultTimeouts))) {
			if ago := now.Sub(moved); ago < 0 || ago > defaultTimeouts[0] {
				t.Errorf("got %v ago, want 0 to %v", ago, defaultTimeouts[0])
			}
		}
	})
}
