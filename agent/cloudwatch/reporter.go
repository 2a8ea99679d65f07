// Package cloudwatch reports to Amazon CloudWatch the two numbers that a rollout decides on.
//
// What enters is the node's health, read from its snapshot; what leaves are PutMetricData calls with the metrics NodeReady
// and DatabaseConnectionErrors, under the node's color and release. It asks no database itself, it never holds up what the
// node does, and it sends numbers only: no name of a check, no address, nothing that a server said, no secret.
package cloudwatch

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	sdk "github.com/aws/aws-sdk-go-v2/service/cloudwatch"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatch/types"

	"github.com/flowviz/flowagent/agent/awserror"
	"github.com/flowviz/flowagent/agent/health"
)

// What the metrics and their dimensions are called.
const (
	NodeReady                = "NodeReady"                // 1 while /health answers 200, else 0
	DatabaseConnectionErrors = "DatabaseConnectionErrors" // failed probes of postgres checks since the last report

	Color   = "Color"
	Release = "Release"
)

const (
	// interval is CloudWatch's standard resolution: it keeps one value a minute.
	interval = time.Minute
	// look is how often the snapshot is looked at: sixty times finer than what CloudWatch keeps, and next to no work.
	look = time.Second
	// changeGap is the least time between two reports of a change. A node that flaps costs six calls a minute at most.
	changeGap = 10 * time.Second
	// callTimeout bounds one call, the SDK's retries included: ten times what a slow region takes.
	callTimeout = 10 * time.Second
	// lastTimeout bounds the last report, for which the agent's end waits.
	lastTimeout = 3 * time.Second
	// margin keeps the node's place away from the ends of a minute. A report that waits for a call under way then still
	// falls into the minute it is meant for.
	margin = callTimeout
	// attempts and backoff are the SDK's: few and short enough for callTimeout, because a minute later there is the next
	// report.
	attempts = 3
	backoff  = time.Second
)

// databaseKind is the configuration's word for the checks whose failures are counted.
const databaseKind = "postgres"

// API is what is needed of CloudWatch.
type API interface {
	PutMetricData(ctx context.Context, in *sdk.PutMetricDataInput, options ...func(*sdk.Options)) (*sdk.PutMetricDataOutput, error)
}

// put is the one call that is made. After a failure it is tried again every minute.
var put = awserror.Call{
	Did: "put metric data", Service: "CloudWatch",
	Allow: "cloudwatch:PutMetricData in this namespace", Endpoint: "monitoring",
}

// NewClient makes a client whose retries fit into one report's time.
func NewClient(cfg aws.Config) *sdk.Client {
	return sdk.NewFromConfig(cfg, func(o *sdk.Options) {
		o.DisableRequestCompression = true // two numbers are not worth it, whatever threshold the configuration has
		o.Retryer = retry.NewStandard(func(o *retry.StandardOptions) { o.MaxAttempts, o.MaxBackoff = attempts, backoff })
	})
}

// Options are what a reporter works with. API, Namespace and Health are needed.
type Options struct {
	API       API
	Namespace string
	// Color and Release become dimensions; one that is empty is left out.
	Color, Release string
	// Health is what the node answers. It is called every second.
	Health func() health.Snapshot
	// Log gets one event when reports begin to fail and one when they arrive again. Nil for none.
	Log *slog.Logger
	// Random returns a number from 0 up to 1, the node's place within a minute; nil for math/rand's.
	Random func() float64
}

// Reporter sends the metrics of one node. [Reporter.Run] does it, alone.
type Reporter struct {
	api        API
	namespace  string
	dimensions []types.Dimension
	health     func() health.Snapshot
	log        *slog.Logger
	place      time.Duration // where in each minute this node reports

	minute    time.Time // of the last report that came by the clock
	told      bool      // the last report said ready
	changedAt time.Time // when the last change was reported; zero for never
	databases tally
	failed    int // reports in a row that didn't arrive
}

// New prepares a reporter.
func New(o Options) *Reporter {
	r := &Reporter{api: o.API, namespace: o.Namespace, health: o.Health, log: o.Log}
	if r.log == nil {
		r.log = slog.New(slog.DiscardHandler)
	}
	random := o.Random
	if random == nil {
		random = rand.Float64
	}
	r.place = margin + time.Duration(random()*float64(interval-2*margin))
	for _, d := range []struct{ name, value string }{{Color, o.Color}, {Release, o.Release}} {
		if d.value != "" {
			r.dimensions = append(r.dimensions, types.Dimension{Name: &d.name, Value: &d.value})
		}
	}
	return r
}

// Run reports once a minute, and soon after the node turns ready or stops being so, until ctx ends. Every node has a place
// of its own within the minute, so that a fleet doesn't report together; and each keeps its place, because an alarm looks
// at whole minutes and takes one without a report for a failure. A node that isn't ready when Run begins says so when its
// place comes: nothing changed yet.
func (r *Reporter) Run(ctx context.Context) {
	if now := time.Now(); now.Sub(now.Truncate(interval)) >= r.place {
		r.minute = now.Truncate(interval) // the place in this minute is past
	}
	tick := time.NewTicker(look)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			r.look(ctx)
		case <-ctx.Done():
			// What failed since the last report would be lost, and so would the end of a drain that took less than a
			// second. ctx has ended, so this takes a context of its own; a short one, because the agent's end waits.
			snapshot := r.observe()
			r.report(context.WithoutCancel(ctx), lastTimeout, time.Now(), snapshot)
			return
		}
	}
}

// observe counts what failed since the last look. A check that a reload replaces begins to count at 0 again: what it counted
// before is missed for the last second only.
func (r *Reporter) observe() health.Snapshot {
	snapshot := r.health()
	r.databases.observe(snapshot.Checks)
	return snapshot
}

func (r *Reporter) look(ctx context.Context) {
	snapshot, now := r.observe(), time.Now()
	due := r.due(now)
	changed := ready(snapshot) != r.told && (r.changedAt.IsZero() || now.Sub(r.changedAt) >= changeGap)
	if changed {
		r.changedAt = now
	}
	if due || changed {
		r.report(ctx, callTimeout, now, snapshot)
	}
}

// due tells whether this minute's report has to be made now. It goes by the wall clock, as CloudWatch does.
func (r *Reporter) due(now time.Time) bool {
	minute := now.Truncate(interval)
	if minute.Equal(r.minute) || now.Sub(minute) < r.place {
		return false
	}
	r.minute = minute
	return true
}

func ready(s health.Snapshot) bool { return s.State == health.Ready }

// report makes one call. What can't be delivered is added to the next report's count; a state is not, because the next
// report has a newer one. A call whose reply was lost is repeated too: rather an error counted twice than never.
func (r *Reporter) report(ctx context.Context, limit time.Duration, now time.Time, snapshot health.Snapshot) {
	r.told = ready(snapshot)
	value := 0.0
	if r.told {
		value = 1
	}
	data := []types.MetricDatum{r.datum(NodeReady, value, types.StandardUnitNone, now)}
	// 0 is sent, too: an alarm can't tell a node without errors from one that is gone. Without a check there is nobody who
	// could know, and nothing is sent.
	if r.databases.watched || r.databases.unsent > 0 {
		data = append(data, r.datum(DatabaseConnectionErrors, float64(r.databases.unsent), types.StandardUnitCount, now))
	}
	call, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	_, err := r.api.PutMetricData(call, &sdk.PutMetricDataInput{Namespace: &r.namespace, MetricData: data})
	if err == nil {
		r.databases.unsent = 0
	}
	r.note(ctx, err)
}

// datum is one value. The time is the node's own: what arrives late still belongs to when it was true.
func (r *Reporter) datum(name string, value float64, unit types.StandardUnit, at time.Time) types.MetricDatum {
	return types.MetricDatum{MetricName: &name, Value: &value, Unit: unit, Timestamp: &at, Dimensions: r.dimensions}
}

// note logs the first report that fails and the first that arrives again, and none in between.
func (r *Reporter) note(ctx context.Context, err error) {
	switch {
	case err == nil && r.failed > 0:
		r.log.InfoContext(ctx, "metrics reach CloudWatch again", "namespace", r.namespace, "failed", r.failed)
		r.failed = 0
	case err == nil, ctx.Err() != nil: // the agent ends, and the last report is still to come
	default:
		if r.failed == 0 {
			r.log.WarnContext(ctx, "metrics don't reach CloudWatch", "namespace", r.namespace, "error", put.Explain(err))
		}
		r.failed++
	}
}

// tally counts the failures of checks that come and go.
type tally struct {
	seen    map[string]uint64 // each check's own count at the last look
	watched bool              // there is at least one check
	unsent  uint64
}

func (t *tally) observe(checks []health.CheckStatus) {
	seen := map[string]uint64{}
	for _, c := range checks {
		if c.Kind != databaseKind {
			continue
		}
		before := t.seen[c.Name]
		if c.Failed < before { // it began anew
			before = 0
		}
		t.unsent += c.Failed - before
		seen[c.Name] = c.Failed
	}
	t.seen, t.watched = seen, len(seen) > 0
}
