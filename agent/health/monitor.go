package health

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"github.com/flowviz/flowagent/agent/health/probe"
)

const (
	// grace is how long a probe may take to notice that its time is up. One that honours its context needs
	// milliseconds; a second tells it from a machine that is busy.
	grace = time.Second
	// Silent checks are looked for a few times within the shortest silence that counts, but not more often than minSweep.
	// Nor less often than maxSweep: a watchdog is fed from it.
	minSweep = time.Second
	maxSweep = 5 * time.Second
	// Findings that come right after others are shown together with them: with a thousand checks, showing each at once
	// would be most of the agent's work. What may change the node's answer waits for at most burst, the rest for settle.
	burst  = 20 * time.Millisecond
	settle = 250 * time.Millisecond
	// jitter is the share of an interval by which a start is moved, either way, so that the nodes of a fleet that were
	// started together don't ask their database together for ever.
	jitter = 0.1
)

// Options are what a monitor may be told.
type Options struct {
	// Admitted says that this node was admitted before, in this boot of the machine: what it shares with other nodes
	// then no longer keeps it from serving. A restart of the agent during a database's failover must not take it out.
	Admitted bool
	// OnAdmitted is called once, when every check that admits is up; at once where there is none, or with Admitted. It
	// may be nil, and must not call the monitor.
	OnAdmitted func()
	// Log gets one event for each change of a check's phase. It may be nil.
	Log *slog.Logger
	// Random returns numbers from 0 up to 1; nil for math/rand's.
	Random func() float64
}

// Monitor runs checks, each in its own rhythm, and publishes what they amount to. Between two probes a check is a timer
// and no goroutine.
type Monitor struct {
	endpoint *Endpoint
	options  Options
	log      *slog.Logger
	admitted chan struct{}
	delays   Delays

	mu       sync.Mutex
	ctx      context.Context // of Run; nil before
	runners  []*runner
	inFlight int           // probes that nobody gave up on
	quiet    chan struct{} // closed when the last of them ended after ctx did
	shown    time.Time     // when the findings were published last
	later    *time.Timer   // publishes what waits
	laterAt  time.Time     // when; zero when nothing waits
	progress time.Time
	isIn     bool // admitted
}

// runner is one check with its rhythm. The monitor's mu guards it.
type runner struct {
	check     Check
	track     track
	began     time.Time   // when the monitor began to run it
	timer     *time.Timer // of the next start
	due       time.Time
	started   time.Time // of the probe under way
	running   bool
	overdue   bool // the probe under way outlived its deadline
	abandoned uint64
	gone      bool // the check was replaced
}

// NewMonitor prepares checks whose findings endpoint serves. Run starts them; from now on the node waits for them.
func NewMonitor(endpoint *Endpoint, checks []Check, o Options) *Monitor {
	m := &Monitor{endpoint: endpoint, options: o, log: o.Log, admitted: make(chan struct{}), quiet: make(chan struct{})}
	if m.log == nil {
		m.log = slog.New(slog.DiscardHandler)
	}
	if m.options.Random == nil {
		m.options.Random = rand.Float64
	}
	now := time.Now()
	m.progress = now
	for _, c := range checks {
		m.runners = append(m.runners, &runner{check: c, track: newTrack(c, now)})
	}
	m.later = time.AfterFunc(settle, m.publishLater)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.publish()
	return m
}

// Run probes until ctx ends and the probes under way have noticed it. It may be called once.
func (m *Monitor) Run(ctx context.Context) {
	m.mu.Lock()
	m.ctx = ctx
	now := time.Now()
	m.progress = now
	m.begin(m.runners, now)
	sweep := time.NewTimer(m.sweepInterval())
	m.mu.Unlock()

	defer sweep.Stop()
	for {
		select {
		case <-sweep.C:
			sweep.Reset(m.sweep())
		case <-ctx.Done():
			m.end()
			return
		}
	}
}

// begin starts the rhythm of runners that have none yet.
func (m *Monitor) begin(runners []*runner, now time.Time) {
	for _, r := range runners {
		r.began = now
		r.track.heard = now
		window := r.check.Interval
		if m.eager(r, now) {
			window = min(window, eagerWindow(len(runners)))
		}
		m.schedule(r, now.Add(spread(r.check.Name, window)), now)
	}
}

// Admitted is closed when every check that admits was up at one moment.
func (m *Monitor) Admitted() <-chan struct{} { return m.admitted }

// Waiting names the checks that the node still waits for, each with what it found last.
func (m *Monitor) Waiting() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.isIn {
		return nil
	}
	var waiting []string
	for _, r := range m.runners {
		if r.check.admits() && r.track.phase != up {
			waiting = append(waiting, mention(r.status()))
		}
	}
	return waiting
}

// Checks is what every check found last, in the order of the configuration.
func (m *Monitor) Checks() []CheckStatus {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.statuses()
}

// Alive tells whether the monitor looks after its checks, which it does every few seconds. A watchdog that is fed from it
// bites when the agent hangs, and not when a database does.
func (m *Monitor) Alive() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return time.Since(m.progress) <= 2*m.sweepInterval()
}

// Delays tells how late probes started.
func (m *Monitor) Delays() *Delays { return &m.delays }

// Replace goes on with other checks. One that is the same but for its probe keeps its phase and its counts; a new one on
// a node that serves counts from the moment at which it has decided. Probes under way end by themselves, so the new
// checks' probes are values of their own.
func (m *Monitor) Replace(checks []Check) {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := time.Now()
	old := m.runners
	m.runners = nil
	var fresh []*runner
	for _, c := range checks {
		r := &runner{check: c, track: newTrack(c, now)}
		i := slices.IndexFunc(old, func(o *runner) bool {
			was, is := o.check, c
			was.Probe, is.Probe = nil, nil // probes need not be comparable
			return was == is
		})
		if i >= 0 {
			r.track, r.abandoned = old[i].track, old[i].abandoned
		}
		m.runners = append(m.runners, r)
		fresh = append(fresh, r)
	}
	for _, o := range old {
		o.gone = true
		if o.timer != nil {
			o.timer.Stop()
		}
	}
	if m.ctx != nil && m.ctx.Err() == nil {
		m.begin(fresh, now)
	}
	m.publish()
}

// schedule plans the next start.
func (m *Monitor) schedule(r *runner, due, now time.Time) {
	r.due = due
	wait := max(due.Sub(now), 0)
	if r.timer == nil {
		r.timer = time.AfterFunc(wait, func() { m.start(r) })
		return
	}
	r.timer.Reset(wait)
}

// start probes once, in the goroutine of the timer.
func (m *Monitor) start(r *runner) {
	m.mu.Lock()
	if m.ctx.Err() != nil || r.gone || r.running {
		m.mu.Unlock()
		return
	}
	now := time.Now()
	m.delays.observe(now.Sub(r.due))
	r.started, r.running, r.overdue = now, true, false
	m.inFlight++
	ctx, cancel := context.WithTimeout(m.ctx, r.check.Timeout)
	limit := time.AfterFunc(r.check.Timeout+grace, func() { m.abandon(r, now) })
	m.mu.Unlock()

	result := m.ask(ctx, r.check)
	limit.Stop()
	cancel()
	m.finish(r, result)
}

// ask keeps a probe's mistake from being the agent's end.
func (m *Monitor) ask(ctx context.Context, c Check) (result probe.Result) {
	defer func() {
		if p := recover(); p != nil {
			m.log.ErrorContext(ctx, "probe panicked: please report it", "check", c.Name, "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
			result = probe.Result{Output: "the probe panicked: see the agent's log"}
		}
	}()
	return c.Probe.Probe(ctx)
}

// finish takes a probe's result and plans the next one.
func (m *Monitor) finish(r *runner, result probe.Result) {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := time.Now()
	r.running = false
	if !r.overdue {
		m.inFlight--
		m.checkQuiet()
	}
	if m.ctx.Err() != nil || r.gone {
		return // what a cancelled probe says is of no use
	}
	if !r.overdue { // else it was counted as failed already
		before := r.track
		r.track.observe(result, now.Sub(r.started), now)
		m.noticed(r, before)
	}
	m.schedule(r, m.next(r, now), now)
}

// abandon gives up on a probe that doesn't heed its context. It stays the only one of its check until it returns.
func (m *Monitor) abandon(r *runner, started time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !r.running || !r.started.Equal(started) || r.overdue {
		return
	}
	r.overdue = true
	m.inFlight--
	m.checkQuiet()
	if m.ctx.Err() != nil || r.gone {
		return
	}
	r.abandoned++
	m.log.WarnContext(m.ctx, "probe outlived its deadline", "check", r.check.Name, "timeout", r.check.Timeout)
	before := r.track
	r.track.overdue(r.check.Timeout, time.Now())
	m.noticed(r, before)
}

// sweepInterval is how long to wait before silent checks are looked for again.
func (m *Monitor) sweepInterval() time.Duration {
	interval := maxSweep
	for _, r := range m.runners {
		interval = min(interval, r.track.staleAfter/4)
	}
	return max(interval, minSweep)
}

// sweep brings silent checks down, and returns when to do so again.
func (m *Monitor) sweep() (next time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := time.Now()
	for _, r := range m.runners {
		if before := r.track; r.track.expire(now) {
			m.noticed(r, before)
		}
	}
	m.progress = now
	return m.sweepInterval()
}

// noticed publishes what a check found: at once, or soon where there was another finding just now.
func (m *Monitor) noticed(r *runner, before track) {
	if r.track.phase != before.phase {
		level := slog.LevelInfo
		if r.track.phase == down {
			level = slog.LevelWarn
		}
		m.log.Log(m.ctx, level, "check is "+r.track.phase.String(), "check", r.check.Name, "output", r.track.output(),
			"elapsed", r.track.since.Sub(before.since).Round(time.Millisecond))
	}
	wait := settle
	if r.track.phase != before.phase || r.track.status() != before.status() {
		wait = burst
	}
	now, due := time.Now(), m.shown.Add(wait)
	switch {
	case !due.After(now):
		m.publish()
	case m.laterAt.IsZero() || due.Before(m.laterAt):
		m.laterAt = due
		m.later.Reset(due.Sub(now))
	}
}

// publishLater is what the timer does.
func (m *Monitor) publishLater() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.laterAt.IsZero() {
		m.publish()
	}
}

// publish gives the endpoint what the checks amount to.
func (m *Monitor) publish() {
	m.later.Stop()
	m.shown, m.laterAt = time.Now(), time.Time{}
	if !m.isIn && (m.options.Admitted || !slices.ContainsFunc(m.runners, func(r *runner) bool { return r.check.admits() && r.track.phase != up })) {
		m.isIn = true
		close(m.admitted)
		if m.options.OnAdmitted != nil {
			m.options.OnAdmitted()
		}
	}
	m.endpoint.setChecks(m.statuses(), m.isIn)
}

func (m *Monitor) statuses() []CheckStatus {
	all := make([]CheckStatus, len(m.runners))
	for i, r := range m.runners {
		all[i] = r.status()
	}
	return all
}

func (r *runner) status() CheckStatus {
	t := &r.track
	return CheckStatus{
		Name: r.check.Name, Kind: r.check.Kind, Scope: string(r.check.Scope), Gates: r.check.gates(), Admits: r.check.admits(),
		Phase: t.phase.String(), Status: t.status().String(), Output: t.output(), Value: t.last.Value, Unit: t.last.Unit,
		Since: t.since, Probed: t.probed, Took: t.took,
		Passed: t.counts[probe.Pass], Warned: t.counts[probe.Warn], Failed: t.counts[probe.Fail], Abandoned: r.abandoned,
		phase: t.phase, status: t.status(),
	}
}

// end stops the timers and waits for the probes under way.
func (m *Monitor) end() {
	m.mu.Lock()
	for _, r := range m.runners {
		if r.timer != nil {
			r.timer.Stop()
		}
	}
	m.later.Stop()
	m.laterAt = time.Time{}
	m.checkQuiet()
	m.mu.Unlock()
	limit := time.NewTimer(grace)
	defer limit.Stop()
	select {
	case <-m.quiet:
	case <-limit.C: // nothing can stop what doesn't heed its context
		m.log.Warn("probes under way don't end: left behind")
	}
}

func (m *Monitor) checkQuiet() {
	if m.ctx.Err() == nil || m.inFlight > 0 {
		return
	}
	select {
	case <-m.quiet:
	default:
		close(m.quiet)
	}
}
