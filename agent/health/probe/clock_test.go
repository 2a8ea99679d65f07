package probe

import (
	"context"
	"encoding/binary"
	"net"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// timeServer answers as a real one whose clock is ahead by offset; change may alter its answers.
func timeServer(t *testing.T, offset time.Duration, change func(answer []byte)) string {
	t.Helper()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	go func() {
		request := make([]byte, 1024)
		for {
			n, from, err := conn.ReadFrom(request)
			if err != nil {
				return
			}
			arrived := time.Now().Add(offset)
			if n != ntpPacket || request[0] != 4<<3|3 {
				continue
			}
			answer := make([]byte, ntpPacket)
			answer[0], answer[1] = 4<<3|4, 2 // version 4, server, stratum 2
			copy(answer[24:32], request[40:48])
			putTime(answer[32:40], arrived)
			putTime(answer[40:48], time.Now().Add(offset))
			if change != nil {
				change(answer)
			}
			_, _ = conn.WriteTo(answer, from)
		}
	}()
	return conn.LocalAddr().String()
}

func putTime(b []byte, at time.Time) {
	binary.BigEndian.PutUint32(b, uint32(at.Unix()+2208988800))
	binary.BigEndian.PutUint32(b[4:], uint32(uint64(at.Nanosecond())<<32/1e9))
}

func TestClock_TheOffsetDecides(t *testing.T) {
	tests := map[string]struct {
		offset     time.Duration
		warn, fail time.Duration
		status     Status
		output     string
	}{
		"in step":               {status: Pass, output: "the clock is "},
		"behind":                {offset: 2 * time.Second, status: Warn, output: "behind 127.0.0.1:"},
		"ahead":                 {offset: -2 * time.Second, status: Warn, output: "ahead of 127.0.0.1:"},
		"far behind":            {offset: 2 * time.Minute, status: Fail, output: "is a time service (chrony, systemd-timesyncd) running?"},
		"years ahead":           {offset: -20 * 365 * day, status: Fail, output: "ahead of"},
		"less than is expected": {offset: 2 * time.Second, warn: time.Minute, status: Pass, output: "behind"},
		"more than is expected": {offset: 2 * time.Second, fail: time.Second, status: Fail, output: "behind"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			p := &Clock{Server: timeServer(t, test.offset, nil), Warn: test.warn, Fail: test.fail}
			expect(t, p.judge(test.offset), test.status, test.output)
			began := time.Now()
			got := p.Probe(t.Context())
			// Both ends share a clock: what is left is half the difference between the two ways, and some rounding.
			within := time.Since(began)/2 + time.Microsecond
			if got.Value == nil || got.Unit != "s" {
				t.Fatalf("got %+v, want a value in seconds", got)
			}
			offset := time.Duration(*got.Value * float64(time.Second))
			if (offset - test.offset).Abs() > within {
				t.Errorf("got %v, want %v within %v", offset, test.offset, within)
			}
			if want := p.judge(offset); got.Status != want.Status {
				t.Errorf("got %s for %v, want %s", got.Status, offset, want.Status)
			}
		})
	}
}

func TestClock_AServerThatCannotBeUsedWarns(t *testing.T) {
	tests := map[string]struct {
		change func([]byte)
		output string
	}{
		"a kiss of death":      {func(b []byte) { b[1] = 0; copy(b[12:], "RATE") }, "it refuses: RATE"},
		"not in step":          {func(b []byte) { b[0] |= 3 << 6 }, "it is not in step itself"},
		"stratum 16":           {func(b []byte) { b[1] = 16 }, "it is not in step itself"},
		"a peer, not a server": {func(b []byte) { b[0] = 4<<3 | 1 }, "it answers in mode 1"},
		"too far from a clock": {func(b []byte) { b[5] = 4; b[9] = 1 }, "it may be off by "},
		"times that cross":     {func(b []byte) { putTime(b[40:], time.Now().Add(-time.Hour)) }, "its times contradict each other"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			expect(t, (&Clock{Server: timeServer(t, 0, test.change)}).Probe(t.Context()), Warn, test.output)
		})
	}
	expect(t, (&Clock{Server: "name.invalid"}).Probe(t.Context()), Warn, "time server name.invalid: ")
}

// Somebody who doesn't see the request can't know its cookie.
func TestClock_AForgedAnswerIsPassedOver(t *testing.T) {
	server := timeServer(t, time.Hour, func(b []byte) { b[24]++ })
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	expect(t, (&Clock{Server: server}).Probe(ctx), Warn, "no answer in time")
}

func TestClock_TimesAreReadAcrossTheEraOf2036(t *testing.T) {
	for _, at := range []time.Time{
		time.Date(2026, 11, 23, 1, 2, 3, 500_000_000, time.UTC),
		time.Date(2036, 2, 7, 6, 28, 15, 0, time.UTC),
		time.Date(2036, 2, 7, 6, 28, 16, 0, time.UTC),
		time.Date(2060, 1, 1, 0, 0, 0, 0, time.UTC),
	} {
		var b [8]byte
		putTime(b[:], at)
		if got := ntpTime(b[:], at.AddDate(0, 0, -300)); got.Sub(at).Abs() > time.Microsecond {
			t.Errorf("got %v, want %v", got.UTC(), at)
		}
	}
}

func TestClock_TheKernelIsAskedWithoutAServer(t *testing.T) {
	got := (&Clock{}).Probe(t.Context())
	var now unix.Timex
	state, err := unix.Adjtimex(&now)
	if err != nil {
		t.Fatal(err)
	}
	if want := judgeKernel(state, now); got.Status != want.Status {
		t.Errorf("got %s %q, want %s", got.Status, got.Output, want.Status)
	}
	expect(t, judgeKernel(unix.TIME_ERROR, unix.Timex{}), Warn, "nothing keeps the kernel's clock in step")
	expect(t, judgeKernel(unix.TIME_OK, unix.Timex{Status: unix.STA_UNSYNC}), Warn, "nothing keeps the kernel's clock in step")
	expect(t, judgeKernel(unix.TIME_OK, unix.Timex{Esterror: 1500}), Pass, "kept in step, to about 1.5ms")
}

func FuzzClockOffset(f *testing.F) {
	answer := make([]byte, ntpPacket)
	answer[0], answer[1] = 4<<3|4, 1
	putTime(answer[32:], time.Unix(1795000000, 0))
	putTime(answer[40:], time.Unix(1795000000, 1000))
	f.Add(answer)
	f.Add(answer[:20])
	sent := time.Unix(1795000000, 0)
	f.Fuzz(func(t *testing.T, raw []byte) {
		offset, err := clockOffset(raw, sent, sent.Add(time.Second))
		if err == nil && offset.Abs() > 70*365*day {
			t.Fatalf("%x: an offset of %v, which 32 bits of seconds can't mean", raw, offset)
		}
	})
}
