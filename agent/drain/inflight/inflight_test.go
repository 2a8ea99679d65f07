package inflight

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

// proc is a directory like /proc, with the machine's own network and those of processes.
type proc struct {
	t   *testing.T
	dir string
}

func newProc(t *testing.T) proc {
	p := proc{t, t.TempDir()}
	for name, seconds := range map[string]string{"established": "432000", "unacknowledged": "300", "max_retrans": "300"} {
		p.write("sys/net/netfilter/nf_conntrack_tcp_timeout_"+name, seconds+"\n")
	}
	return p
}

func (p proc) write(name, content string) {
	p.t.Helper()
	file := filepath.Join(p.dir, name)
	if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o755), os.WriteFile(file, []byte(content), 0o644)); err != nil {
		p.t.Fatal(err)
	}
}

// sockets gives a process's network namespace these.
func (p proc) sockets(pid int, sockets ...socket) {
	p.t.Helper()
	var table strings.Builder
	table.WriteString(header)
	for _, s := range sockets {
		table.WriteString(render(s))
	}
	p.write(strconv.Itoa(pid)+"/net/tcp", table.String())
}

// share puts a process into the namespace of another one.
func (p proc) share(pid, other int) {
	p.t.Helper()
	if err := os.Symlink(strconv.Itoa(other), filepath.Join(p.dir, strconv.Itoa(pid))); err != nil {
		p.t.Fatal(err)
	}
}

// listed are containers that always run.
type listed []Container

func (l listed) Running(context.Context) ([]Container, error) { return l, nil }

func established(local, remote string) socket {
	return socket{endpoints: pair(local, remote), state: stateEstablished}
}

func TestConnectionsAreCountedByServiceAndByWhatIsKnown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // "just now" must not be over when it is counted
		p := newProc(t)
		closeWait, finWait, queued := established("172.18.0.2:8080", "192.0.2.1:4"), established("172.18.0.2:8080", "192.0.2.1:5"), established("172.18.0.2:8080", "192.0.2.1:6")
		closeWait.state, finWait.state, queued.queued = stateCloseWait, 0x04, true
		p.sockets(10,
			established("172.18.0.2:8080", "192.0.2.1:1"), // moved just now
			established("172.18.0.2:8080", "192.0.2.1:2"), // didn't move for a minute
			established("172.18.0.2:8080", "192.0.2.1:3"), // nobody knows
			closeWait, finWait, queued,
			established("172.18.0.2:9090", "192.0.2.1:7"),     // on a port that isn't published
			established("172.18.0.2:40000", "192.0.2.1:8080"), // its own request to another machine
		)
		p.sockets(20, established("172.18.0.3:8443", "192.0.2.1:1"))
		p.sockets(30)
		p.write("net/nf_conntrack", entry(432000, "192.0.2.1:1", "172.18.0.2:8080")+entry(431940, "192.0.2.1:2", "172.18.0.2:8080")+
			entry(431940, "192.0.2.1:6", "172.18.0.2:8080"))
		// Only its own namespace knows of it.
		p.write("20/net/nf_conntrack", entry(431940, "192.0.2.1:1", "172.18.0.3:8443"))
		containers := listed{{Service: "web", PID: 20, Ports: []uint16{8443}}, {Service: "api", PID: 10, Ports: []uint16{8080}},
			{Service: "quiet", PID: 30, Ports: []uint16{8080}}, {Service: "worker", PID: 30}}

		counts, err := New(Options{Containers: containers, ProcRoot: p.dir}).Count(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		want := Counts{Services: []ServiceCount{{"api", Tally{Busy: 3, Idle: 1, Unknown: 1}}, {"quiet", Tally{}}, {"web", Tally{Idle: 1}}}}
		if diff := cmp.Diff(want, counts); diff != "" {
			t.Errorf("counts (-want +got):\n%s", diff)
		}
		if got, want := counts.String(), "api: 3 busy, 1 idle, 1 unknown; web: 1 idle"; got != want {
			t.Errorf("got %q, want %q", got, want)
		}
		if got, want := (Counts{}).String(), "none"; got != want {
			t.Errorf("nothing: got %q, want %q", got, want)
		}
	})
}

func TestASharedNamespaceIsCountedOnce(t *testing.T) {
	p := newProc(t)
	p.sockets(10, established("172.18.0.2:8080", "192.0.2.1:1"), established("172.18.0.2:9090", "192.0.2.1:2"))
	p.share(20, 10)
	p.share(30, 10)
	containers := listed{{Service: "sidecar", PID: 20, Ports: []uint16{8080}}, {Service: "api", PID: 10, Ports: []uint16{8080}}, {Service: "other", PID: 30, Ports: []uint16{9090}}}
	counts, err := New(Options{Containers: containers, ProcRoot: p.dir}).Count(t.Context())
	if got, want := counts.String(), "api: 1 unknown; other: 1 unknown"; err != nil || got != want {
		t.Errorf("got %q and error %v, want %q", got, err, want)
	}
}

func TestReplicasOfAServiceAddUp(t *testing.T) {
	p := newProc(t)
	p.sockets(10, established("172.18.0.2:8080", "192.0.2.1:1"))
	p.sockets(20, established("172.18.0.3:8080", "192.0.2.1:1"))
	containers := listed{{Service: "api", PID: 10, Ports: []uint16{8080}}, {Service: "api", PID: 20, Ports: []uint16{8080}}, {Service: "api", PID: nobody, Ports: []uint16{8080}}}
	counts, err := New(Options{Containers: containers, ProcRoot: p.dir}).Count(t.Context())
	if got, want := counts.String(), "api: 2 unknown"; err != nil || got != want {
		t.Errorf("got %q and error %v, want %q, with none of the process that is gone", got, err, want)
	}
}

// nobody is above the kernel's PID_MAX_LIMIT.
const nobody = 1 << 23

func TestAProcessThatIsHiddenIsNotGone(t *testing.T) {
	p := newProc(t) // which doesn't show this process
	containers := listed{{Service: "api", PID: os.Getpid(), Ports: []uint16{8080}}}
	if counts, err := New(Options{Containers: containers, ProcRoot: p.dir}).Count(t.Context()); !errors.Is(err, errHidden) {
		t.Errorf("got %v and error %v, want %v", counts, err, errHidden)
	}
}

func TestATableThatCannotBeReadIsNoEndOfTheWork(t *testing.T) {
	p := newProc(t)
	p.write("10/net/tcp", header+"   0: nonsense\n")
	counter := New(Options{Containers: listed{{Service: "api", PID: 10, Ports: []uint16{8080}}}, ProcRoot: p.dir})
	if _, err := counter.Count(t.Context()); !errors.Is(err, errTable) {
		t.Errorf("count: got error %v, want %v", err, errTable)
	}
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if _, err := counter.Wait(ctx, 0, nil); !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, errTable) {
			t.Errorf("wait: got error %v, want %v and %v", err, context.DeadlineExceeded, errTable)
		}
	})
}

func TestWaitEndsWithTheLastRequest(t *testing.T) {
	p := newProc(t)
	one, two := established("172.18.0.2:8080", "192.0.2.1:1"), established("172.18.0.2:8080", "192.0.2.1:2")
	p.sockets(10, one, two)
	counter := New(Options{Containers: listed{{Service: "api", PID: 10, Ports: []uint16{8080}}}, ProcRoot: p.dir})
	synctest.Test(t, func(t *testing.T) {
		// Between two looks, so that no file is read while it is written.
		const last = 8*time.Second + pollEvery/2
		time.AfterFunc(3*time.Second+pollEvery/2, func() { p.sockets(10, two) })
		time.AfterFunc(last, func() { p.sockets(10) })
		begin := time.Now()
		var story []string
		counts, err := counter.Wait(t.Context(), 0, func(c Counts) { story = append(story, c.String()) })
		if err != nil || !counts.Done() {
			t.Errorf("got %v and error %v, want nothing under way", counts, err)
		}
		if diff := cmp.Diff([]string{"api: 2 unknown", "api: 1 unknown", "none"}, story); diff != "" {
			t.Errorf("progress (-want +got):\n%s", diff)
		}
		if took, most := time.Since(begin), last+2*pollEvery; took < last || took > most {
			t.Errorf("it took %v, want %v to %v", took, last, most)
		}
	})
}

// leaving is an engine that goes away after its first answer: it refuses, or never answers again.
type leaving struct {
	listed
	hangs bool
	asked int
}

func (l *leaving) Running(ctx context.Context) ([]Container, error) {
	l.asked++
	switch {
	case l.asked == 1:
		return l.listed, nil
	case l.hangs:
		<-ctx.Done()
		return nil, ctx.Err()
	}
	return nil, errors.New("connection refused")
}

func TestAnEngineThatGoesAwayKeepsNoWaitFromItsEnd(t *testing.T) {
	for _, engine := range []*leaving{{}, {hangs: true}} {
		p := newProc(t)
		p.sockets(10, established("172.18.0.2:8080", "192.0.2.1:1"))
		engine.listed = listed{{Service: "api", PID: 10, Ports: []uint16{8080}}}
		counter := New(Options{Containers: engine, ProcRoot: p.dir})
		synctest.Test(t, func(t *testing.T) {
			const last = 8*time.Second + pollEvery/2
			time.AfterFunc(last, func() { p.sockets(10) })
			begin := time.Now()
			counts, err := counter.Wait(t.Context(), 0, nil)
			if err != nil || !counts.Done() {
				t.Errorf("got %v and error %v, want nothing under way", counts, err)
			}
			if took, most := time.Since(begin), last+2*lookLimit+2*pollEvery; took < last || took > most {
				t.Errorf("it took %v, want %v to %v", took, last, most)
			}
		})
	}
}

func TestWaitReturnsTheLastCountsWhenItsTimeIsUp(t *testing.T) {
	p := newProc(t)
	p.sockets(10, established("172.18.0.2:8080", "192.0.2.1:1"))
	counter := New(Options{Containers: listed{{Service: "api", PID: 10, Ports: []uint16{8080}}}, ProcRoot: p.dir})
	synctest.Test(t, func(t *testing.T) {
		up := errors.New("the budget is spent")
		ctx, cancel := context.WithTimeoutCause(t.Context(), time.Minute, up)
		defer cancel()
		counts, err := counter.Wait(ctx, time.Second, nil)
		if got, want := counts.String(), "api: 1 unknown"; got != want || !errors.Is(err, up) {
			t.Errorf("got %q and error %v, want %q and %v", got, err, want, up)
		}
	})
}

func TestWaitEndsWhenConnectionsAreIdle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for limit, want := range map[time.Duration]time.Duration{0: DefaultIdleAfter, 20 * time.Second: 20 * time.Second} {
			p := newProc(t)
			p.sockets(10, established("172.18.0.2:8080", "192.0.2.1:1"))
			begin := time.Now()
			tick(t.Context(), func() {
				p.write("net/nf_conntrack", entry(431999-int(time.Since(begin)/time.Second), "192.0.2.1:1", "172.18.0.2:8080"))
			})
			counter := New(Options{Containers: listed{{Service: "api", PID: 10, Ports: []uint16{8080}}}, ProcRoot: p.dir})
			counts, err := counter.Wait(t.Context(), limit, nil)
			if got, want := counts.String(), "api: 1 idle"; err != nil || got != want {
				t.Errorf("limit %v: got %q and error %v, want %q", limit, got, err, want)
			}
			if took, most := time.Since(begin), want+lookEvery+2*pollEvery; took < want || took > most {
				t.Errorf("limit %v: it took %v, want %v to %v", limit, took, want, most)
			}
		}
	})
}

// tick calls do now and then between any two looks, until ctx ends.
func tick(ctx context.Context, do func()) {
	do()
	go func() {
		timer := time.NewTimer(pollEvery / 2)
		defer timer.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-timer.C:
				do()
				timer.Reset(pollEvery)
			}
		}
	}()
}

func TestProbesOfUnusedConnectionsAreNoWork(t *testing.T) {
	const interval = 15 * time.Second // a Go server's
	synctest.Test(t, func(t *testing.T) {
		p := newProc(t)
		begin := time.Now()
		const number = 15
		// Each connection is probed, and moves by it, at a second of its own, so that some have always moved in the last
		// five seconds.
		tick(t.Context(), func() {
			var sockets []socket
			var entries strings.Builder
			for i := range number {
				client := "192.0.2.1:" + strconv.Itoa(1000+i)
				since := (time.Since(begin) + time.Duration(i)*time.Second) % interval
				s := established("172.18.0.2:8080", client)
				s.keepalive, s.probeIn = true, interval-since
				sockets = append(sockets, s)
				entries.WriteString(entry(int((432000*time.Second-since-time.Millisecond)/time.Second), client, "172.18.0.2:8080"))
			}
			p.write("net/nf_conntrack", entries.String())
			p.sockets(10, sockets...)
		})
		counter := New(Options{Containers: listed{{Service: "api", PID: 10, Ports: []uint16{8080}}}, ProcRoot: p.dir})
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		counts, err := counter.Wait(ctx, 0, nil)
		if got, want := counts.String(), "api: 15 idle"; err != nil || got != want {
			t.Errorf("got %q and error %v, want %q", got, err, want)
		}
		if took, most := time.Since(begin), DefaultIdleAfter+2*lookEvery; took > most {
			t.Errorf("it took %v, want at most %v", took, most)
		}
	})
}

func TestARequestOnAnIdleConnectionIsWork(t *testing.T) {
	now := time.Now()
	s := established("172.18.0.2:8080", "192.0.2.1:1")
	s.keepalive, s.probeIn = true, 9*time.Second
	r := record{}.next(s, now.Add(-6*time.Second), now)
	asked := now.Add(time.Second)
	s.probeIn = 8 * time.Second // it wasn't probed
	if r = r.next(s, asked, asked); !r.quiet.Equal(asked) {
		t.Errorf("asked: got quiet since %v before, want since it was asked", asked.Sub(r.quiet))
	}
	waiting := asked.Add(time.Second)
	s.queued = true
	if r = r.next(s, asked, waiting); !r.quiet.Equal(waiting) {
		t.Errorf("with bytes in a queue: got quiet since %v before, want since now", waiting.Sub(r.quiet))
	}
}
