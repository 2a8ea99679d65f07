package metrics

import (
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/flowviz/flowagent/agent/health"
	"github.com/flowviz/flowagent/agent/health/probe"
	"github.com/flowviz/flowagent/agent/report"
	"github.com/flowviz/flowagent/agent/secret"
)

// emitter writes the metrics of one scrape.
type emitter struct {
	out chan<- prometheus.Metric
	now time.Time
}

func (e emitter) gauge(d *prometheus.Desc, value float64, labels ...string) {
	e.out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, value, labels...)
}

func (e emitter) counter(d *prometheus.Desc, value uint64, labels ...string) {
	e.out <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(value), labels...)
}

func (e emitter) flag(d *prometheus.Desc, value bool, labels ...string) {
	number := 0.0
	if value {
		number = 1
	}
	e.gauge(d, number, labels...)
}

// timestamp leaves out what never happened.
func (e emitter) timestamp(d *prometheus.Desc, at time.Time, labels ...string) {
	if !at.IsZero() {
		e.gauge(d, float64(at.UnixMilli())/1e3, labels...)
	}
}

func (e emitter) health(s health.Snapshot) {
	e.flag(nodeReady, s.State == health.Ready)
	e.flag(nodeWarns, s.State == health.Ready && s.Status == probe.Warn)
	for _, state := range health.States {
		e.flag(nodeState, s.State == state, state.String())
	}
	e.timestamp(nodeSince, s.Since)
	for _, c := range s.Checks {
		for _, status := range []probe.Status{probe.Pass, probe.Warn, probe.Fail} {
			e.flag(checkStatus, c.Status == status.String(), c.Name, c.Kind, c.Scope, status.String())
		}
		e.flag(checkGates, c.Gates, c.Name)
		e.counter(checkResults, c.Passed, c.Name, probe.Pass.String())
		e.counter(checkResults, c.Warned, c.Name, probe.Warn.String())
		e.counter(checkResults, c.Failed, c.Name, probe.Fail.String())
		e.counter(checkAbandoned, c.Abandoned, c.Name)
		e.timestamp(checkProbed, c.Probed, c.Name)
		if !c.Probed.IsZero() {
			e.gauge(checkDuration, c.Took.Seconds(), c.Name)
		}
		if c.Value != nil {
			e.gauge(checkValue, *c.Value, c.Name, c.Unit)
		}
	}
}

func (e emitter) delays(d *health.Delays) {
	if d == nil {
		return
	}
	all, within, sum := d.Counts()
	buckets := map[float64]uint64{}
	for i, bound := range health.DelayBounds {
		buckets[bound.Seconds()] = within[i]
	}
	e.out <- prometheus.MustNewConstHistogram(startDelay, all, sum.Seconds(), buckets)
}

func (e emitter) boot(b Boot) {
	e.timestamp(bootStarted, b.Started)
	if !b.Ready.IsZero() {
		e.gauge(bootReady, b.Ready.Sub(b.Started).Seconds())
	}
	// A stage may come twice, such as one that a reload runs again: the last one counts.
	last := map[string]int{}
	for i, stage := range b.Stages {
		last[stage.Name] = i
	}
	for i, stage := range b.Stages {
		if last[stage.Name] != i {
			continue
		}
		e.gauge(stageDuration, stage.Elapsed(e.now).Seconds(), stage.Name)
		e.gauge(stageAttempts, float64(stage.Attempts), stage.Name)
		e.flag(stageFailed, stage.Error != "", stage.Name)
	}
	var pulled, bytes int64
	for _, i := range b.Images {
		if i.Pulled {
			pulled++
			bytes += i.Bytes
		}
	}
	e.gauge(bootImages, float64(pulled), "pulled")
	e.gauge(bootImages, float64(int64(len(b.Images))-pulled), "present")
	e.gauge(bootPulled, float64(bytes))
}

func (e emitter) secrets(all []secret.Status) {
	for _, s := range all {
		for _, state := range []secret.State{secret.Fresh, secret.Stale, secret.Withdrawn, secret.Missing} {
			e.flag(secretState, s.State == state, s.Name, string(state))
		}
		if !s.FetchedAt.IsZero() {
			e.gauge(secretAge, e.now.Sub(s.FetchedAt).Seconds(), s.Name)
		}
		e.timestamp(secretChanged, s.ChangedAt, s.Name)
	}
}

func (e emitter) recoveries(all []Recoveries) {
	for _, r := range all {
		e.counter(recoveries, r.Recovered, r.Service, "recovered")
		e.counter(recoveries, r.Failed, r.Service, "failed")
		e.flag(givenUp, r.GivenUp, r.Service)
	}
}

func (e emitter) drain(d *report.Drain) {
	state := "none"
	switch {
	case d == nil || d.TakenBack:
	case d.Ended.IsZero():
		state = "draining"
	case d.Error != "":
		state = "failed"
	default:
		state = "drained"
	}
	for _, each := range []string{"none", "draining", "drained", "failed"} {
		e.flag(drainState, each == state, each)
	}
	if d == nil {
		return
	}
	end := d.Ended
	if end.IsZero() {
		end = e.now
	}
	e.gauge(drainDuration, end.Sub(d.Started).Seconds())
	if r := d.Requests; r != nil {
		e.gauge(drainRequests, float64(r.Busy), "busy")
		e.gauge(drainRequests, float64(r.Idle), "idle")
		e.gauge(drainRequests, float64(r.Unknown), "unknown")
	}
	for _, step := range d.Steps { // each once, by names of ours
		name := strings.TrimPrefix(step.Name, "drain.")
		e.gauge(drainStep, step.Elapsed(e.now).Seconds(), name)
		e.flag(drainFailed, step.Error != "", name)
	}
}
