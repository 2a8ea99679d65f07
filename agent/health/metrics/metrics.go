// Package metrics shows to Prometheus what the agent knows of its node.
//
// What enters are the results of the other stages, read when somebody asks; what leaves is Prometheus' text format. It
// asks nobody itself, neither the engine nor a probe. Labels are names from the configuration, the lifecycle hooks of the
// node's own Auto Scaling group and words from fixed lists, so that no client, server or secret can make series; and no
// value of a secret ever reaches it.
package metrics

import (
	"log/slog"
	"net/http"
	"runtime"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/flowviz/flowagent/agent/health"
	"github.com/flowviz/flowagent/agent/image"
	"github.com/flowviz/flowagent/agent/notify"
	"github.com/flowviz/flowagent/agent/report"
	"github.com/flowviz/flowagent/agent/secret"
)

// Sources are where the numbers come from. The functions are called for each scrape, by several goroutines, and answer
// at once from what is known. A nil one leaves its metrics out.
type Sources struct {
	// Version is the agent's own.
	Version string
	// Health is what the node answers.
	Health func() health.Snapshot
	// Delays are those of the monitor; nil before there is one.
	Delays  func() *health.Delays
	Boot    func() Boot
	Secrets func() []secret.Status
	// Notices are the kinds of announcements that there are.
	Notices []string
	// Drain is how far a drain is; nil for none.
	Drain func() *report.Drain
	// Recoveries has one entry for each service that is watched; nil for none.
	Recoveries func() []Recoveries
}

// Boot is how the node came up, as far as it is.
type Boot struct {
	// Started is when the agent started; Ready when the node first was, zero for not yet.
	Started, Ready time.Time
	Stages         []report.Stage
	Images         []image.Image
}

// Recoveries are what became of one service that had to be brought back.
type Recoveries struct {
	Service           string
	Recovered, Failed uint64
	GivenUp           bool
}

// Result is how a refresh of the secrets ended.
type Result string

const (
	Changed   Result = "changed"   // at least one has another value
	Unchanged Result = "unchanged" // none has
	Failed    Result = "failed"    // at least one could not be fetched
)

// Metrics are served by [Metrics.Handler].
type Metrics struct {
	registry  *prometheus.Registry
	refreshes *prometheus.CounterVec
	notices   *prometheus.CounterVec
	beats     *prometheus.CounterVec
	actions   *prometheus.CounterVec
	notified  *prometheus.CounterVec
}

// New makes the metrics of one agent, in a registry of their own.
func New(s Sources) *Metrics {
	m := &Metrics{
		registry: prometheus.NewRegistry(),
		refreshes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "flowagent_secret_refreshes_total", Help: "Refreshes of the secrets by result.",
		}, []string{"result"}),
		notices: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "flowagent_notices_total", Help: "What EC2 announced to this instance, by kind.",
		}, []string{"kind"}),
		beats: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "flowagent_lifecycle_heartbeats_total", Help: "Heartbeats for lifecycle actions by result.",
		}, []string{"hook", "transition", "result"}),
		actions: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "flowagent_lifecycle_actions_total", Help: "Lifecycle actions that the agent completed, by what it asked for and what became of that.",
		}, []string{"hook", "transition", "result", "outcome"}),
		notified: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "flowagent_notifications_total", Help: "Notifications by receiver and what became of them.",
		}, []string{"sink", "result"}),
	}
	for _, result := range []Result{Changed, Unchanged, Failed} {
		m.refreshes.WithLabelValues(string(result)) // a series that is missing until it happens can't be alerted on
	}
	for _, kind := range s.Notices {
		m.notices.WithLabelValues(kind)
	}
	m.registry.MustRegister(
		m.refreshes, m.notices, m.beats, m.actions, m.notified, collector{s},
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	)
	return m
}

// Refreshed counts one refresh of the secrets.
func (m *Metrics) Refreshed(r Result) { m.refreshes.WithLabelValues(string(r)).Inc() }

// Noticed counts one announcement of EC2's, of one of the kinds in [Sources].
func (m *Metrics) Noticed(kind string) { m.notices.WithLabelValues(kind).Inc() }

// HookFound begins to count a hook's heartbeats; transition is launching or terminating.
func (m *Metrics) HookFound(hook, transition string) {
	for _, taken := range []bool{true, false} {
		m.beats.WithLabelValues(hook, transition, beatResult(taken))
	}
}

// Beat counts one heartbeat by whether Auto Scaling took it.
func (m *Metrics) Beat(hook, transition string, taken bool) {
	m.beats.WithLabelValues(hook, transition, beatResult(taken)).Inc()
}

func beatResult(taken bool) string {
	if taken {
		return "sent"
	}
	return "failed"
}

// Completed counts one lifecycle action by its end. Result is CONTINUE or ABANDON, outcome completed, already over or gave
// up.
func (m *Metrics) Completed(hook, transition, result, outcome string) {
	m.actions.WithLabelValues(hook, transition, result, strings.ReplaceAll(outcome, " ", "_")).Inc()
}

// NotifiesBy begins to count the notifications of a sink.
func (m *Metrics) NotifiesBy(sink string) {
	for _, result := range notify.Results {
		m.notified.WithLabelValues(sink, string(result))
	}
}

// Notified counts one notification by what became of it.
func (m *Metrics) Notified(sink string, result notify.Result) {
	m.notified.WithLabelValues(sink, string(result)).Inc()
}

// scrapes is how many may be answered at once: a pair of Prometheus servers and a curious person.
const scrapes = 3

// Handler serves the metrics. A scrape beyond those that it answers at once gets 503.
func (m *Metrics) Handler(log *slog.Logger) http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{
		ErrorLog:            slog.NewLogLogger(log.Handler(), slog.LevelWarn),
		ErrorHandling:       promhttp.ContinueOnError, // better one metric less than none
		MaxRequestsInFlight: scrapes,
		DisableCompression:  true, // a few kilobytes, on a machine that has better things to do
	})
}

// collector turns what is known into metrics, anew for each scrape.
type collector struct{ Sources }

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("flowagent_"+name, help, labels, nil)
}

var (
	buildInfo = desc("build_info", "The agent's version; always 1.", "version", "goversion")

	nodeReady = desc("node_ready", "Whether /health answers 200.")
	nodeWarns = desc("node_warning", "Whether /health answers 200 with a warning.")
	nodeState = desc("node_state", "The node's state: 1 for the one that it is in.", "state")
	nodeSince = desc("node_state_since_timestamp_seconds", "When the node's state began.")

	checkStatus    = desc("check_status", "A check's status, settled by rise and fall: 1 for the one that it has.", "check", "kind", "scope", "status")
	checkGates     = desc("check_gates", "Whether the node fails while the check is down.", "check")
	checkDuration  = desc("check_last_duration_seconds", "How long a check's last probe took.", "check")
	checkProbed    = desc("check_last_probe_timestamp_seconds", "When a check's last probe ended.", "check")
	checkResults   = desc("check_results_total", "A check's probes by result.", "check", "result")
	checkAbandoned = desc("check_abandoned_total", "A check's probes that outlived their deadline.", "check")
	checkValue     = desc("check_value", "What a check measured last, in its own unit: free bytes, days left, seconds off.", "check", "unit")
	startDelay     = desc("check_start_delay_seconds", "How late probes started.")

	bootReady     = desc("boot_ready_seconds", "Time from the agent's start to the node's first being ready.")
	bootStarted   = desc("start_timestamp_seconds", "When the agent started.")
	stageDuration = desc("boot_stage_duration_seconds", "How long a stage of the boot took, or has taken up to now.", "stage")
	stageAttempts = desc("boot_stage_attempts", "How often a stage of the boot was tried.", "stage")
	stageFailed   = desc("boot_stage_failed", "Whether a stage of the boot failed.", "stage")
	bootImages    = desc("boot_images", "Images that the workload needs, by where they came from.", "origin")
	bootPulled    = desc("boot_pulled_bytes", "What was pulled for this boot, as compressed by the registry.")

	secretAge     = desc("secret_age_seconds", "Time since a secret was last fetched.", "secret")
	secretChanged = desc("secret_changed_timestamp_seconds", "When a secret was last seen to have another value.", "secret")
	secretState   = desc("secret_state", "A secret's state: 1 for the one that it is in.", "secret", "state")

	recoveries = desc("service_recoveries_total", "Tries to bring a service back, by result.", "service", "result")
	givenUp    = desc("service_given_up", "Whether a service is no longer tried to be brought back.", "service")

	drainState    = desc("drain_state", "How far the node's drain is: 1 for the state that it is in.", "state")
	drainDuration = desc("drain_duration_seconds", "How long the drain took, or has taken up to now.")
	drainStep     = desc("drain_step_duration_seconds", "How long a step of the drain took, or has taken up to now.", "step")
	drainRequests = desc("drain_requests_left", "Requests under way when the drain counted them last, by what is known of them.", "state")
	drainFailed   = desc("drain_step_failed", "Whether a step of the drain failed.", "step")
)

// Describe makes this an unchecked collector: most of what it collects is there only from some stage on.
func (collector) Describe(chan<- *prometheus.Desc) {}

// Collect implements [prometheus.Collector].
func (c collector) Collect(out chan<- prometheus.Metric) {
	e := emitter{out, time.Now()}
	e.gauge(buildInfo, 1, c.Version, runtime.Version())
	if c.Health != nil {
		e.health(c.Health())
	}
	if c.Delays != nil {
		e.delays(c.Delays())
	}
	if c.Boot != nil {
		e.boot(c.Boot())
	}
	if c.Secrets != nil {
		e.secrets(c.Secrets())
	}
	if c.Drain != nil {
		e.drain(c.Drain())
	}
	if c.Recoveries != nil {
		e.recoveries(c.Recoveries())
	}
}
