package workload

import (
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
	"golang.org/x/sys/unix"
)

// seat is the place of one container in its service. The container that replaces another one takes its seat.
type seat struct {
	service string
	number  int
}

// intents tell from the engine's events which containers ended because somebody wanted it: an operator, or the engine
// on its own way out. The engine's events don't: both read "kill, die, stop" and name the same signal.
//
// Two things tell them apart. An engine that shuts down stops listening before it stops its first container, so a stop
// was an operator's when the engine answers a new connection after it; until then it is unconfirmed. And an engine that
// goes away takes every container with it: when none of ours ran through a gap in the events, unconfirmed stops were
// the engine's, and what ran until then has to be brought back.
type intents struct {
	// mine tells whether this agent was changing the service at that time.
	mine func(service string, at time.Time) bool

	held        map[seat]*hold
	killed      map[string]bool // containers that got a signal to end and didn't yet
	ending      map[string]end  // containers that died of one; whether they are still there tells what was wanted
	interrupted map[string]bool // containers that ended with the engine
	deafUntil   time.Time       // an engine that started stopped what was left of the one before; that wasn't wanted
	generation  int             // of the event stream
}

// end is a container's end by a signal.
type end struct {
	seat
	at time.Time
}

// hold is one container that was stopped on purpose.
type hold struct {
	container string
	since     time.Time
	confirmed bool
	told      bool
}

func newIntents(mine func(string, time.Time) bool) *intents {
	return &intents{
		mine: mine, held: map[seat]*hold{}, killed: map[string]bool{}, ending: map[string]end{}, interrupted: map[string]bool{},
	}
}

// heard takes an event in.
func (n *intents) heard(m events.Message, stopSignal string) {
	id, at := m.Actor.ID, time.Unix(0, m.TimeNano)
	number, _ := strconv.Atoi(m.Actor.Attributes[labelNumber]) // compose's own label
	s := seat{m.Actor.Attributes[labelService], number}
	if m.Action == events.ActionStart {
		delete(n.killed, id)
		delete(n.ending, id)
		delete(n.interrupted, id)
		// It may be gone before settle sees it run. A reopened stream also tells of starts before the stop.
		if h := n.held[s]; h != nil && at.After(h.since) {
			delete(n.held, s)
		}
		return
	}
	if !at.After(n.deafUntil) || n.mine(s.service, at) {
		return
	}
	switch m.Action {
	case events.ActionKill:
		n.killed[id] = n.killed[id] || ends(m.Actor.Attributes["signal"], stopSignal)
	case events.ActionDie:
		if n.killed[id] {
			n.ending[id] = end{s, at}
		}
	case events.ActionStop:
		// Also of a container that is gone by now: `compose down` stops, then removes.
		n.held[s] = &hold{container: id, since: at}
	case events.ActionDestroy:
		delete(n.killed, id)
	}
}

// ends tells whether a signal is one to end a container with, rather than to tell it something.
func ends(number, stopSignal string) bool {
	n, err := strconv.Atoi(number)
	if err != nil {
		return false
	}
	if own, err := strconv.Atoi(stopSignal); err == nil && own == n {
		return true
	}
	s := unix.Signal(n)
	return slices.Contains([]unix.Signal{unix.SIGTERM, unix.SIGKILL, unix.SIGINT, unix.SIGQUIT}, s) || s == unix.SignalNum(stopSignal)
}

// settle holds what was heard against the containers as they are.
func (n *intents) settle(containers map[string]ContainerState) {
	for id, e := range n.ending {
		// `docker kill` leaves the container, and the engine doesn't restart it. `docker rm -f` kills, too, but takes the
		// container away, which isn't a way to stop a service.
		if c, found := containers[id]; found && c.Status == string(container.StateExited) && n.held[e.seat] == nil {
			n.held[e.seat] = &hold{container: id, since: e.at}
		}
		delete(n.ending, id)
	}
	for id, c := range containers {
		if c.Status == string(container.StateRunning) || c.Status == string(container.StatePaused) {
			delete(n.held, seat{c.Service, c.Number})
			delete(n.interrupted, id)
		}
	}
	for id := range n.interrupted {
		if _, found := containers[id]; !found {
			delete(n.interrupted, id)
		}
	}
}

// reopened takes in that the events had a gap, and the containers before and after it.
func (n *intents) reopened(before, after map[string]ContainerState, at time.Time) {
	n.generation++
	var ran []string
	for id, c := range before {
		if !c.running() {
			continue
		}
		now, found := after[id]
		if found && now.running() && now.StartedAt.Equal(c.StartedAt) {
			return // the engine never went away, or left its containers running (live-restore)
		}
		ran = append(ran, id)
	}
	for s, h := range n.held {
		if !h.confirmed {
			ran = append(ran, h.container)
			delete(n.held, s)
		}
	}
	for id := range n.ending {
		ran = append(ran, id)
	}
	clear(n.ending)
	clear(n.killed)
	n.deafUntil = at
	for _, id := range ran {
		if c, found := after[id]; found && c.ended() {
			n.interrupted[id] = true
		}
	}
}

// unconfirmed are the holds of which it isn't known yet whether the engine stopped them on its way out.
func (n *intents) unconfirmed() []*hold {
	var holds []*hold
	for _, h := range n.held {
		if !h.confirmed {
			holds = append(holds, h)
		}
	}
	return holds
}

// holds tells whether a container of the service was stopped on purpose and none took its place since.
func (n *intents) holds(service string) bool {
	for s := range n.held {
		if s.service == service {
			return true
		}
	}
	return false
}

// news are the services that turned out to be stopped on purpose since the last call, and when there may be more; zero
// for never. A restart or a recreation by an operator also begins with a stop, so it is none before settleTime.
func (n *intents) news(now time.Time) (services []string, wake time.Time) {
	for s, h := range n.held {
		at := h.since.Add(settleTime)
		switch {
		case h.told || !h.confirmed:
		case now.Before(at):
			wake = earlier(wake, at)
		default:
			h.told = true
			services = append(services, s.service)
		}
	}
	slices.Sort(services)
	return slices.Compact(services), wake
}

// earlier of two times, of which zero is never.
func earlier(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

// changesKept is how long a change of ours is remembered after its end. Its events arrive within milliseconds; after a
// broken stream, as soon as that is open again.
const changesKept = time.Hour

// changes remembers when this agent itself changed services, so that what it stops doesn't look stopped by somebody.
type changes struct {
	mu  sync.Mutex
	all []*change
}

type change struct {
	services []string // none for all
	from, to time.Time
}

// begin notes a change of the services, or of all when none is named, until end is called.
func (c *changes) begin(services ...string) (end func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	c.all = slices.DeleteFunc(c.all, func(old *change) bool { return !old.to.IsZero() && now.Sub(old.to) > changesKept })
	this := &change{services: services, from: now}
	c.all = append(c.all, this)
	return func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		this.to = time.Now()
	}
}

// covers tells whether the service was being changed at that time.
func (c *changes) covers(service string, at time.Time) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.ContainsFunc(c.all, func(one *change) bool {
		return (len(one.services) == 0 || slices.Contains(one.services, service)) &&
			!at.Before(one.from) && (one.to.IsZero() || !at.After(one.to))
	})
}
