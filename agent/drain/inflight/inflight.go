// Package inflight tells which requests are still under way on this node, so that a drain ends when the work ends.
//
// What enters are the project's running containers, by [Project] or another [Containers], and what the kernel says of
// their TCP connections below /proc; what leaves are counts by service, and a wait that returns when there is nothing to
// wait for. It changes nothing, opens no connection and needs no capability but CAP_DAC_READ_SEARCH.
//
// A request is counted as the open connection on a published port that it came by, in the network namespace of the
// container. A load balancer keeps connections open that nobody asks on, so those on which no packet was seen for some
// time are told apart, where the kernel keeps /proc/net/nf_conntrack. Three things follow:
//
//   - A request on which both sides are silent for longer than that looks idle. The time has to be longer than the
//     longest silence of a request that a drain should wait for; the service's own grace at its stop is for the others.
//   - Where nothing can be told, every connection counts as work, and the caller's context is the limit.
//   - UDP isn't counted, QUIC included: it has no connections that the kernel knows of.
package inflight

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// DefaultIdleAfter is a judgement, not a measurement: longer than an answer that somebody waits for is silent, and some
// times the second that conntrack counts in, but short beside a deregistration delay of tens of seconds, since a drain
// takes at least as long while a load balancer's unused connections are open.
const DefaultIdleAfter = 5 * time.Second

const (
	// pollEvery is how often a wait looks: a drain ends a twentieth of a second after its last request, on average, which
	// nobody notices in one that takes seconds.
	pollEvery = 100 * time.Millisecond
	// pollShare keeps a look cheap: the next one comes after twenty times what this one took, so that all take a twentieth
	// of a core at most, which is left to the last requests. The kernel goes through its whole table of connections for
	// each namespace, at 7 ms for both files on a machine with 24 GB, and less with less memory; a hundred connections
	// cost 0.2 ms on top.
	pollShare = 20
	// lookEvery is how often a wait also asks the engine and reads conntrack, which cost milliseconds on a busy node.
	// Conntrack counts in seconds anyway.
	lookEvery = time.Second
	// lookLimit is what the engine may take for an answer, which is milliseconds, and on a busy node less than this.
	lookLimit = 2 * time.Second
)

// Container is one that runs.
type Container struct {
	ID      string
	Service string
	// PID is its main process, as this process's /proc has it.
	PID int
	// Ports are the TCP ports, inside, that it is reached by from outside.
	Ports []uint16
}

// Containers knows what runs.
type Containers interface {
	// Running returns the project's running containers. One that ends meanwhile may be missing or not.
	Running(ctx context.Context) ([]Container, error)
}

// Options are what a [Counter] works with.
type Options struct {
	Containers Containers
	// ProcRoot is where the machine's processes are; /proc if empty.
	ProcRoot string
	// IdleAfter is for how long nothing has to move on an idle connection; [DefaultIdleAfter] if zero.
	IdleAfter time.Duration
	// Log gets what makes counts worse than they could be; nil for nowhere.
	Log *slog.Logger
}

// Counter counts requests under way. It keeps nothing from one call to the next.
type Counter struct{ options Options }

// New makes a counter.
func New(options Options) *Counter {
	if options.ProcRoot == "" {
		options.ProcRoot = "/proc"
	}
	if options.IdleAfter == 0 {
		options.IdleAfter = DefaultIdleAfter
	}
	if options.Log == nil {
		options.Log = slog.New(slog.DiscardHandler)
	}
	return &Counter{options: options}
}

// Count looks once. A container that is gone meanwhile has nothing under way.
func (c *Counter) Count(ctx context.Context) (Counts, error) {
	return c.watch(c.options.IdleAfter).count(ctx, true)
}

// Wait looks until no connection is busy or unknown, twice in a row, since the kernel's table may change while it is
// read; idle ones are done. idleLimit takes the place of IdleAfter; zero keeps it. progress, which may be nil, is called
// with the first counts and with each that differ from those before.
//
// When ctx ends first, it returns the last counts and an error that wraps the cause. An engine or a table that can't be
// read ends nothing: it is asked again until ctx ends, and why it couldn't is in the error then. An engine that answered
// before, and goes away, isn't needed: the containers that it knew are gone on with.
func (c *Counter) Wait(ctx context.Context, idleLimit time.Duration, progress func(Counts)) (Counts, error) {
	if idleLimit == 0 {
		idleLimit = c.options.IdleAfter
	}
	w := c.watch(idleLimit)
	pause := time.NewTimer(pollEvery)
	defer pause.Stop()
	var last Counts
	var problem error
	counted, done := false, false
	for {
		// The second of two looks is whole, so that it knows of containers that came in between.
		counts, err := w.count(ctx, done || time.Since(w.looked) >= lookEvery)
		switch {
		case err == nil:
			if progress != nil && (!counted || !slices.Equal(counts.Services, last.Services)) {
				progress(counts)
			}
			last, counted, problem = counts, true, nil
			if done && counts.Done() {
				return counts, nil
			}
			done = counts.Done()
		case ctx.Err() == nil:
			if problem == nil {
				c.options.Log.WarnContext(ctx, "requests under way can't be counted", "error", err)
			}
			problem, done = err, false
		}
		pause.Reset(max(pollEvery, pollShare*w.took))
		select {
		case <-ctx.Done():
			return last, fmt.Errorf("wait for the requests under way: %w", errors.Join(context.Cause(ctx), problem))
		case <-pause.C:
		}
	}
}

// watch is a look at the node, or a series of them, in which later ones know of earlier ones.
type watch struct {
	*Counter
	idleAfter  time.Duration
	looked     time.Time // when the following were read
	containers []Container
	alone      bool // the engine doesn't answer any more
	machine    movements
	own        map[namespace]movements // by the containers' own conntrack, as far as somebody asked
	known      map[connection]record
	took       time.Duration // to read the sockets, the last time
	warned     bool
}

// connection is one among all namespaces.
type connection struct {
	namespace
	endpoints
}

func (c *Counter) watch(idleAfter time.Duration) *watch {
	return &watch{Counter: c, idleAfter: idleAfter, known: make(map[connection]record)}
}

// place is one network namespace, whose ports belong to services.
type place struct {
	namespace
	pid   int
	ports map[uint16]string
}

// count looks at the sockets, and before that, if it is a whole look, at all else.
func (w *watch) count(ctx context.Context, whole bool) (Counts, error) {
	if whole {
		if err := w.look(ctx); err != nil {
			return Counts{}, err
		}
	}
	begin := time.Now()
	defer func() { w.took = time.Since(begin) }()
	var counts Counts
	places, err := w.places(&counts)
	if err != nil {
		return Counts{}, fmt.Errorf("count the requests under way: %w", err)
	}
	known := make(map[connection]record) // without what is closed
	for _, p := range places {
		sockets, err := w.sockets(p.pid)
		if err != nil {
			return Counts{}, fmt.Errorf("count the requests under way: %w", err)
		}
		now := time.Now()
		for _, s := range sockets {
			service, ours := p.ports[s.local.Port()]
			if !ours || s.state != stateEstablished && s.state != stateCloseWait {
				continue
			}
			at := connection{p.namespace, s.endpoints}
			tally, r := w.judge(p, s, w.known[at], now)
			known[at] = r
			counts.add(service, tally)
		}
	}
	w.known = known
	return counts, nil
}

// look asks the engine and reads the machine's conntrack. That comes before the sockets, see [record].
func (w *watch) look(ctx context.Context) error {
	limited, cancel := context.WithTimeout(ctx, lookLimit)
	containers, err := w.options.Containers.Running(limited)
	cancel()
	switch {
	case err == nil:
		w.containers, w.alone = containers, false
	case w.looked.IsZero() || ctx.Err() != nil:
		return err
	case !w.alone:
		w.alone = true
		w.options.Log.WarnContext(ctx, "the engine can't be asked: requests are counted in the containers that ran before", "error", err)
	}
	w.machine, w.own = nil, make(map[namespace]movements)
	limits, err := w.hostTimeouts()
	if err == nil {
		w.machine, err = conntrack(filepath.Join(w.options.ProcRoot, "net"), time.Now(), limits)
	}
	if !gone(err) {
		w.warn(err)
	}
	w.looked = time.Now()
	return nil
}

// places are the network namespaces with ports. Containers that share one, by network_mode, are one place; of two that
// name the same port there, only one can listen, and the first by name has it. Their services get into counts.
func (w *watch) places(counts *Counts) ([]*place, error) {
	var places []*place
	byNamespace := make(map[namespace]*place)
	ordered := slices.SortedFunc(slices.Values(w.containers), func(a, b Container) int {
		return strings.Compare(a.Service, b.Service)
	})
	for _, c := range ordered {
		if len(c.Ports) == 0 {
			continue
		}
		counts.add(c.Service, Tally{})
		n, found, err := w.namespaceOf(c.PID)
		if err != nil {
			return nil, err
		}
		if !found {
			continue
		}
		p := byNamespace[n]
		if p == nil {
			p = &place{namespace: n, pid: c.PID, ports: make(map[uint16]string)}
			byNamespace[n] = p
			places = append(places, p)
		}
		for _, port := range c.Ports {
			if _, taken := p.ports[port]; !taken {
				p.ports[port] = c.Service
			}
		}
	}
	return places, nil
}

// judge tells what a connection is, and what to remember of it.
func (w *watch) judge(p *place, s socket, before record, now time.Time) (Tally, record) {
	moved, known := w.moved(p, s.endpoints)
	r := before.next(s, moved, now)
	switch {
	case s.queued || s.state == stateCloseWait:
		return Tally{Busy: 1}, r
	case !known:
		return Tally{Unknown: 1}, r
	case now.Sub(r.quiet) > w.idleAfter:
		return Tally{Idle: 1}, r
	}
	return Tally{Busy: 1}, r
}

// moved is when conntrack last saw a packet of the connection. The machine's own knows all that comes through published
// ports, by the packet filter or by docker-proxy. What containers say to each other may only be known to theirs.
func (w *watch) moved(p *place, e endpoints) (time.Time, bool) {
	if moved, found := w.machine[e]; found {
		return moved, true
	}
	own, read := w.own[p.namespace]
	if !read {
		var err error
		own, err = conntrack(w.netDir(p.pid), time.Now(), defaultTimeouts)
		w.warn(err)
		w.own[p.namespace] = own
	}
	moved, found := own[e]
	return moved, found
}

// warn says once what keeps connections unknown that could be known.
func (w *watch) warn(err error) {
	if err != nil && !w.warned {
		w.warned = true
		w.options.Log.Warn("idle connections can't be told apart", "error", err)
	}
}
