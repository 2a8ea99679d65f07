package workload

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/moby/moby/api/types/container"

	"github.com/flowviz/flowagent/agent/config"
)

const (
	// settleTime is how long a service must lack something before it is brought back. Whoever removes a container to make
	// it again (docker compose up --force-recreate, rm and up) needs a second or two for it; the rest is for a busy machine.
	settleTime = 5 * time.Second
	// firstPause comes after the first try that failed, and each further pause is pauseGrowth times as long: 10 s, 40 s,
	// 2 min 40 s, 10 min 40 s. Five tries take about 14 minutes, which outlasts a reboot of a database host.
	firstPause  = 10 * time.Second
	pauseGrowth = 4
	// longestPause is for those who configure more tries: no service waits longer than this for somebody to look.
	longestPause = 15 * time.Minute
	// pauseSpread is how much of a pause is random, so that the services of a fleet that lost one database don't all come
	// back to it at once.
	pauseSpread = 0.2
	// calmTime is how long a service must be ready before its tries count from zero; the configuration promises it.
	calmTime = 10 * time.Minute
)

// policy decides which services are brought back, and when. It is told what is there and what time it is, and does
// nothing itself.
type policy struct {
	project *Project
	random  func() float64 // in [0, 1)
	// What may change between two looks.
	cfg   config.Reconcile
	ready config.Ready

	records map[string]*record
}

// record is what is known of one service.
type record struct {
	lack     string               // what it lacks; empty for nothing
	since    time.Time            // when that was first seen
	sick     map[string]time.Time // when each container that is unhealthy turned so
	unwell   []ContainerState     // those that have been for too long
	outage   time.Time            // when the present outage was first seen
	began    time.Time            // of the present try; zero for none
	tries    int
	notUntil time.Time // the end of the pause after the last try
	readyAt  time.Time // since when it is ready; zero while it isn't
	givenUp  bool
	over     bool // a one-shot whose containers all ended by themselves
}

// order is one service to be brought back.
type order struct {
	service string
	why     string
	// restart are the containers to restart; with none, the service is made what it should be by `compose up`.
	restart []ContainerState
}

// Recovery is one thing that happened while a service was to be brought back.
type Recovery struct {
	Service string
	Step    RecoveryStep
	// Why says what it lacks, or what the try ended with.
	Why string
	// Try counts from one; Tries is the limit.
	Try, Tries int
	// Elapsed is the time since the service was first seen to lack something.
	Elapsed time.Duration
	// Next is the pause before the next try; zero when there is none.
	Next time.Duration
}

// RecoveryStep is what happened.
type RecoveryStep string

const (
	RecoveryBegun     RecoveryStep = "begun"     // a try begins
	RecoveryDone      RecoveryStep = "done"      // it is ready again
	RecoveryFailed    RecoveryStep = "failed"    // the try failed
	RecoveryGivenUp   RecoveryStep = "given up"  // that was the last one
	RecoveryUnneeded  RecoveryStep = "unneeded"  // it was given up and is ready, by somebody else's doing
	RecoveryUnwelcome RecoveryStep = "unwelcome" // it was stopped on purpose and is left alone
)

func newPolicy(project *Project, random func() float64) *policy {
	p := &policy{project: project, random: random, records: map[string]*record{}}
	for _, service := range project.Services() {
		p.records[service] = &record{sick: map[string]time.Time{}}
	}
	return p
}

// keeps tells whether the service is one to be brought back.
func (p *policy) keeps(service string) bool {
	return p.cfg.Tries > 0 && !slices.Contains(p.cfg.Leave, service)
}

// observe takes in the project as it is. wake is when the policy has something to decide by time alone; zero for never.
func (p *policy) observe(state State, n *intents, now time.Time) (events []Recovery, wake time.Time) {
	at := func(t time.Time) {
		if t.After(now) {
			wake = earlier(wake, t)
		}
	}
	for _, s := range state.Services {
		r := p.records[s.Name]
		if len(s.Containers) > 0 {
			r.over = p.project.oneShot(s.Name) && !slices.ContainsFunc(s.Containers, func(c ContainerState) bool {
				return c.Status != string(container.StateExited) || c.Error != "" || n.interrupted[c.ID]
			})
		}
		lack := p.lack(r, s, n)
		if lack != "" && r.lack == "" {
			r.since = now
		}
		r.lack = lack
		at(p.examine(r, s, now))
		if n.holds(s.Name) && r.began.IsZero() {
			r.outage = time.Time{}
		}
		if (r.lack != "" || len(r.unwell) > 0) && r.outage.IsZero() {
			r.outage = now
		}
		if s.Phase.Ready() && lack == "" {
			events = append(events, p.recovered(r, s, now)...)
			continue
		}
		if !r.readyAt.IsZero() && now.Sub(r.readyAt) >= calmTime {
			r.tries, r.notUntil = 0, time.Time{}
		}
		r.readyAt = time.Time{}
		if !r.began.IsZero() {
			why, final, limit := p.verdict(r, s, n, now)
			if why != "" {
				events = append(events, p.failed(r, s.Name, why, final, now)...)
			}
			at(limit)
		}
		if o, found := p.order(s.Name, now); found && r.tries >= p.cfg.Tries {
			// Each try worked, and none for long.
			events = append(events, p.giveUp(r, s.Name, o.why, now))
		}
		if r.lack != "" {
			at(r.since.Add(settleTime))
		}
		if !r.givenUp {
			at(r.notUntil)
		}
	}
	return events, wake
}

// lack says why `compose up` is needed; empty when it isn't, or isn't wanted.
func (p *policy) lack(r *record, s ServiceState, n *intents) string {
	if n.holds(s.Name) {
		return ""
	}
	var lack string
	for _, c := range s.Containers {
		switch {
		case c.Status == string(container.StatePaused):
			return "" // compose can't start beside it, and whoever paused it will go on with it
		case lack != "":
		case c.Status == string(container.StateDead):
			lack = "is dead"
		case c.Error != "" && (c.ended() || c.Status == string(container.StateCreated)):
			lack = "could not be started: " + c.Error
		case c.Status == string(container.StateCreated):
			lack = "was created and never started"
		case !c.ended():
		case n.interrupted[c.ID]:
			lack = "ended with the engine"
		case !p.project.oneShot(s.Name):
			lack = exitReason(c) + " and the engine doesn't restart it"
		}
	}
	// A one-shot that did its work may be cleared away; that is no reason to do it again.
	if lack == "" && len(s.Containers) < s.Wanted && !r.over {
		lack = fmt.Sprintf("has %d of %d containers", len(s.Containers), s.Wanted)
	}
	return lack
}

// examine finds the containers that have been unhealthy for too long, and when there may be more.
func (p *policy) examine(r *record, s ServiceState, now time.Time) (wake time.Time) {
	r.unwell = nil
	sick := map[string]time.Time{}
	for _, c := range s.Containers {
		if c.Status != string(container.StateRunning) || c.Health != string(container.Unhealthy) || p.cfg.UnhealthyAfter == 0 {
			continue
		}
		key := c.ID + c.StartedAt.String() // one that was started anew begins anew
		since, known := r.sick[key]
		if !known {
			since = now
		}
		sick[key] = since
		if at := since.Add(time.Duration(p.cfg.UnhealthyAfter)); now.Before(at) {
			wake = earlier(wake, at)
		} else {
			r.unwell = append(r.unwell, c)
		}
	}
	r.sick = sick
	return wake
}

func (p *policy) recovered(r *record, s ServiceState, now time.Time) (events []Recovery) {
	if r.readyAt.IsZero() {
		r.readyAt = now
	}
	switch {
	case !r.began.IsZero():
		r.notUntil = now.Add(p.pause(r.tries)) // should it be lost again at once
		events = append(events, Recovery{Service: s.Name, Step: RecoveryDone, Try: r.tries, Tries: p.cfg.Tries, Elapsed: now.Sub(r.outage)})
	case r.givenUp:
		events = append(events, Recovery{Service: s.Name, Step: RecoveryUnneeded, Elapsed: now.Sub(r.outage)})
	}
	r.began, r.outage, r.givenUp = time.Time{}, time.Time{}, false
	return events
}

// verdict says why the present try has failed; empty while it may still work, which it may until limit. After a final
// one there is no point in another.
func (p *policy) verdict(r *record, s ServiceState, n *intents, now time.Time) (why string, final bool, limit time.Time) {
	if p.ready.Timeout > 0 {
		limit = r.began.Add(time.Duration(p.ready.Timeout))
	}
	switch {
	case n.holds(s.Name):
		r.began = time.Time{} // somebody stopped it: neither a failure nor ours any more
	case r.lack != "" && now.Sub(r.since) >= settleTime:
		return r.lack, false, limit
	case len(r.unwell) > 0:
		return fmt.Sprintf("is still unhealthy %s after it was restarted", now.Sub(r.began).Round(time.Second)), false, limit
	case r.over && s.Phase == PhaseFailed:
		return s.Reason + ", and what ends by itself is not run again", true, limit
	case !limit.IsZero() && !now.Before(limit):
		return fmt.Sprintf("is not ready %s after it was started: it %s", time.Duration(p.ready.Timeout), s.Reason), false, limit
	}
	return "", false, limit
}

// failed ends a try without success.
func (p *policy) failed(r *record, service, why string, final bool, now time.Time) []Recovery {
	r.began = time.Time{}
	event := Recovery{Service: service, Step: RecoveryFailed, Why: why, Try: r.tries, Tries: p.cfg.Tries, Elapsed: now.Sub(r.outage)}
	if final || r.tries >= p.cfg.Tries {
		return []Recovery{event, p.giveUp(r, service, why, now)}
	}
	event.Next = p.pause(r.tries)
	r.notUntil = now.Add(event.Next)
	return []Recovery{event}
}

func (p *policy) giveUp(r *record, service, why string, now time.Time) Recovery {
	r.givenUp = true
	return Recovery{Service: service, Step: RecoveryGivenUp, Why: why, Try: r.tries, Tries: p.cfg.Tries, Elapsed: now.Sub(r.outage)}
}

// pause is what comes after the given number of tries.
func (p *policy) pause(tries int) time.Duration {
	pause := firstPause
	for range tries - 1 {
		pause = min(pause*pauseGrowth, longestPause)
	}
	return time.Duration(float64(pause) * (1 + pauseSpread*(2*p.random()-1)))
}

// due are the services whose time has come. One that depends on another that is itself on its way waits for it.
func (p *policy) due(now time.Time) []order {
	var orders []order
	for _, name := range p.project.Services() {
		if o, found := p.order(name, now); found && !p.awaitsAnother(name) {
			orders = append(orders, o)
		}
	}
	return orders
}

// order is what the service needs now, if anything.
func (p *policy) order(service string, now time.Time) (o order, found bool) {
	r := p.records[service]
	switch {
	case !p.keeps(service), r.givenUp, !r.began.IsZero(), now.Before(r.notUntil):
		return o, false
	case r.lack != "":
		return order{service: service, why: r.lack}, now.Sub(r.since) >= settleTime
	case len(r.unwell) == 0:
		return o, false
	}
	var names []string
	for _, c := range r.unwell {
		names = append(names, c.Name)
	}
	why := fmt.Sprintf("has been unhealthy for %s: %s", time.Duration(p.cfg.UnhealthyAfter), strings.Join(names, ", "))
	return order{service: service, why: why, restart: r.unwell}, true
}

func (p *policy) awaitsAnother(service string) bool {
	for dependency := range p.project.model.Services[service].DependsOn {
		if r := p.records[dependency]; r != nil && p.keeps(dependency) && !r.givenUp && (r.lack != "" || !r.began.IsZero()) {
			return true
		}
	}
	return false
}

// begin notes that an order is carried out.
func (p *policy) begin(o order, now time.Time) Recovery {
	r := p.records[o.service]
	r.began = now
	r.tries++
	return Recovery{Service: o.service, Step: RecoveryBegun, Why: o.why, Try: r.tries, Tries: p.cfg.Tries, Elapsed: now.Sub(r.outage)}
}

// carriedOut notes how that went. Its containers are seen anew from here.
func (p *policy) carriedOut(o order, err error, now time.Time) []Recovery {
	r := p.records[o.service]
	r.since = now
	clear(r.sick)
	r.unwell = nil
	if err != nil {
		return p.failed(r, o.service, err.Error(), false, now)
	}
	return nil
}

// restarted notes that the engine was away: it has just begun to start what it starts by itself.
func (p *policy) restarted(now time.Time) {
	for _, r := range p.records {
		r.since = now
	}
}
