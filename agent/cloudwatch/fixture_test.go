package cloudwatch_test

import (
	"bytes"
	"context"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	sdk "github.com/aws/aws-sdk-go-v2/service/cloudwatch"
	"github.com/aws/smithy-go"

	"github.com/flowviz/flowagent/agent/cloudwatch"
	"github.com/flowviz/flowagent/agent/health"
)

// namespace is every test's; its account is its own.
const namespace = "FlowViz/test"

// sample is one value that CloudWatch took.
type sample struct {
	metric string
	value  float64
	at     time.Time // its own timestamp
}

// cloud keeps what it is sent, as CloudWatch does, or does what a test told it to.
type cloud struct {
	mu      sync.Mutex
	calls   int
	samples []sample
	fault   func(ctx context.Context) error
	lost    bool // the reply is, not the call
}

func (c *cloud) PutMetricData(ctx context.Context, in *sdk.PutMetricDataInput, _ ...func(*sdk.Options)) (*sdk.PutMetricDataOutput, error) {
	c.mu.Lock()
	c.calls++
	fault, lost := c.fault, c.lost
	c.mu.Unlock()
	if fault != nil && !lost {
		if err := fault(ctx); err != nil {
			return nil, err
		}
	}
	c.mu.Lock()
	for _, d := range in.MetricData {
		c.samples = append(c.samples, sample{aws.ToString(d.MetricName), aws.ToFloat64(d.Value), aws.ToTime(d.Timestamp)})
	}
	c.mu.Unlock()
	if lost {
		return nil, fault(ctx)
	}
	return &sdk.PutMetricDataOutput{}, nil
}

// fail makes every call go wrong from now on; nil heals.
func (c *cloud) fail(fault func(ctx context.Context) error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.fault, c.lost = fault, false
}

// loseReplies takes every call and answers with an error from now on.
func (c *cloud) loseReplies() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.fault, c.lost = unavailable, true
}

func (c *cloud) count() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.calls
}

// of returns what was sent of one metric, in its order.
func (c *cloud) of(metric string) []sample {
	c.mu.Lock()
	defer c.mu.Unlock()
	var found []sample
	for _, s := range c.samples {
		if s.metric == metric {
			found = append(found, s)
		}
	}
	return found
}

func (c *cloud) values(metric string) []float64 {
	var values []float64
	for _, s := range c.of(metric) {
		values = append(values, s.value)
	}
	return values
}

func (c *cloud) sum(metric string) float64 {
	sum := 0.0
	for _, v := range c.values(metric) {
		sum += v
	}
	return sum
}

// What CloudWatch may do to a call.
func denied(context.Context) error {
	return &smithy.GenericAPIError{Code: "AccessDenied", Message: "node is not authorized to perform: cloudwatch:PutMetricData"}
}

func unavailable(context.Context) error {
	return &smithy.GenericAPIError{Code: "ServiceUnavailable", Message: "Service is temporarily unavailable"}
}

func hang(ctx context.Context) error {
	<-ctx.Done()
	return ctx.Err()
}

// signatureRefused is how AWS refuses a signature: it quotes the request, and with it the session's token.
var signatureRefused = &smithy.GenericAPIError{
	Code:    "SignatureDoesNotMatch",
	Message: "The Canonical String for this request should have been 'POST\n/\n\nx-amz-security-token:session-token'",
}

// machine is a node's health as a test wants it.
type machine struct {
	mu       sync.Mutex
	snapshot health.Snapshot
}

func (m *machine) health() health.Snapshot {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.snapshot
}

func (m *machine) is(state health.State) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.snapshot.State = state
}

// checks gives the node checks of databases by name, each with so many failures up to now, beside one of a cache.
func (m *machine) checks(failures map[string]uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.snapshot.Checks = []health.CheckStatus{{Name: "cache", Kind: "redis", Failed: 1000}}
	for name, failed := range failures {
		m.snapshot.Checks = append(m.snapshot.Checks, health.CheckStatus{Name: name, Kind: "postgres", Passed: 10, Failed: failed})
	}
}

// journal takes a log from several goroutines.
type journal struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (j *journal) Write(p []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.b.Write(p)
}

func (j *journal) String() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.b.String()
}

// scene is a node that reports, in a bubble whose clock starts at the beginning of a minute.
type scene struct {
	*cloud
	*machine
	log  journal
	stop func() // ends the reporter and waits for it
}

// report runs a reporter at a place within the minute, 0 up to 1, until the test ends.
func report(t *testing.T, place float64) *scene {
	t.Helper()
	s := &scene{cloud: &cloud{}, machine: &machine{}}
	s.checks(map[string]uint64{"database": 0})
	r := cloudwatch.New(cloudwatch.Options{
		API: s.cloud, Namespace: namespace, Color: "blue", Release: "1", Health: s.health,
		Log: slog.New(slog.NewTextHandler(&s.log, nil)), Random: func() float64 { return place },
	})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { defer close(ended); r.Run(ctx) }()
	s.stop = func() { cancel(); <-ended }
	t.Cleanup(s.stop)
	return s
}

// pass lets so much time pass, and all that happens in it happen.
func pass(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}
