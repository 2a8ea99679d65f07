package probe

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"net"
	"time"

	"golang.org/x/sys/unix"
)

// Clock watches how far the machine's clock is off. Certificates, tokens and signatures of requests (AWS) end or are
// refused by it.
type Clock struct {
	// Server is an NTP server, host or host:port. Empty: the kernel is asked whether something keeps its clock in step.
	Server string
	// Warn and Fail are the offsets, either way, from which it warns and fails; 0 stands for [DefaultClockWarn] and
	// [DefaultClockFail].
	Warn, Fail time.Duration
}

const (
	// DefaultClockWarn is what a clock in step stays below by far, and one that runs free reaches within a week.
	DefaultClockWarn = 500 * time.Millisecond
	// DefaultClockFail is the usual allowance of those who check tokens (JWT libraries' leeway); AWS refuses requests
	// that are off by five minutes.
	DefaultClockFail = time.Minute
)

// Probe's value is the offset in seconds, positive when this clock is behind, or, of the kernel, the error that it
// estimates. A server that doesn't answer says nothing about the clock: that is a warning.
func (p *Clock) Probe(ctx context.Context) Result {
	if p.Server == "" {
		return kernelClock()
	}
	answer, err := askTime(ctx, p.Server)
	if err != nil {
		kernel := kernelClock()
		return warned("time server %s: %v; %s", p.Server, plain(ctx, err), kernel.Output)
	}
	return p.judge(answer)
}

func (p *Clock) judge(offset time.Duration) Result {
	limit := func(value, instead time.Duration) time.Duration {
		if value == 0 {
			return instead
		}
		return value
	}
	way := "behind"
	if offset < 0 {
		way = "ahead of"
	}
	result := passed("the clock is %s %s %s", offset.Abs().Round(time.Microsecond), way, p.Server)
	switch {
	case offset.Abs() >= limit(p.Fail, DefaultClockFail):
		result.Status = Fail
		result.Output += ": is a time service (chrony, systemd-timesyncd) running?"
	case offset.Abs() >= limit(p.Warn, DefaultClockWarn):
		result.Status = Warn
	}
	return result.measured(offset.Seconds(), "s")
}

// kernelClock asks adjtimex(2), which changes nothing when no mode is set.
func kernelClock() Result {
	var t unix.Timex
	state, err := unix.Adjtimex(&t)
	if err != nil {
		return warned("the kernel doesn't tell whether its clock is in step: %v", err)
	}
	return judgeKernel(state, t)
}

func judgeKernel(state int, t unix.Timex) Result {
	if state == unix.TIME_ERROR || t.Status&unix.STA_UNSYNC != 0 {
		return warned("nothing keeps the kernel's clock in step: run a time service (chrony, systemd-timesyncd)")
	}
	estimate := time.Duration(t.Esterror) * time.Microsecond
	return passed("the kernel's clock is kept in step, to about %s", estimate).measured(estimate.Seconds(), "s")
}

const (
	ntpPort   = "123"
	ntpPacket = 48 // bytes without extensions, RFC 5905 figure 8
	// ntpTrust is the most that an answer may be off by the server's own account: RFC 5905's MAXDIST, with which a
	// client keeps in step.
	ntpTrust = 1500 * time.Millisecond
)

// askTime asks a time server once (SNTP, RFC 5905 section 14) and returns how far this clock is behind. There is no
// second try for a lost packet: the next probe is one.
func askTime(ctx context.Context, server string) (time.Duration, error) {
	address := server
	if _, _, err := net.SplitHostPort(server); err != nil {
		address = net.JoinHostPort(server, ntpPort)
	}
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "udp", address)
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })()

	// A random number in place of the time tells the answer from a forged one and keeps this clock's time from everybody
	// on the way (draft-ietf-ntp-data-minimization).
	request := make([]byte, ntpPacket)
	request[0] = 4<<3 | 3 // version 4, client
	cookie := request[40:48]
	_, _ = rand.Read(cookie) // never fails: crypto/rand
	sent := time.Now()
	if _, err := conn.Write(request); err != nil {
		return 0, err
	}
	answer := make([]byte, ntpPacket+1024) // extensions and a MAC may follow, and are of no interest
	for {
		n, err := conn.Read(answer)
		if err != nil {
			return 0, err
		}
		received := sent.Add(time.Since(sent)) // by the monotonic clock, in case the other is set meanwhile
		if n < ntpPacket || [8]byte(answer[24:32]) != [8]byte(cookie) {
			continue // not an answer to this question; it may still come
		}
		return clockOffset(answer[:n], sent, received)
	}
}

// clockOffset reads an answer to a request that was sent and received at those times of this clock.
func clockOffset(answer []byte, sent, received time.Time) (time.Duration, error) {
	if len(answer) < ntpPacket {
		return 0, fmt.Errorf("an answer of %d bytes is no answer", len(answer))
	}
	leap, mode, stratum := answer[0]>>6, answer[0]&7, answer[1]
	switch {
	case mode != 4:
		return 0, fmt.Errorf("it answers in mode %d, not as a server", mode)
	case stratum == 0: // a kiss of death, RFC 5905 section 7.4
		return 0, fmt.Errorf("it refuses: %s", excerpt(string(answer[12:16]), 4))
	case leap == 3 || stratum > 15:
		return 0, fmt.Errorf("it is not in step itself")
	}
	distance := ntpShort(answer[4:8])/2 + ntpShort(answer[8:12])
	if distance > ntpTrust {
		return 0, fmt.Errorf("it may be off by %s itself", distance)
	}
	arrived, left := ntpTime(answer[32:40], sent), ntpTime(answer[40:48], sent)
	if left.Before(arrived) {
		return 0, fmt.Errorf("its times contradict each other")
	}
	// RFC 5905 section 8: half the sum of the differences on both ways. Halved first, since both may be decades.
	return arrived.Sub(sent)/2 + left.Sub(received)/2, nil
}

// ntpShort reads a time span: seconds with 16 bits, fraction with 16 bits.
func ntpShort(b []byte) time.Duration {
	return time.Duration(int64(binary.BigEndian.Uint32(b)) * int64(time.Second) >> 16)
}

// ntpTime reads a point in time: seconds since 1900 with 32 bits, which wrap in 2036, and fraction with 32 bits. Of the
// times that it may mean, it is the one within 68 years of near.
func ntpTime(b []byte, near time.Time) time.Time {
	const until1970 = 2208988800 // seconds from 1900, RFC 5905 figure 4
	seconds, fraction := binary.BigEndian.Uint32(b), uint64(binary.BigEndian.Uint32(b[4:]))
	ahead := int32(seconds - uint32(near.Unix()+until1970))
	return time.Unix(near.Unix()+int64(ahead), int64(fraction*uint64(time.Second)>>32))
}
