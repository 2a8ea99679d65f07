package health

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"runtime"
	"testing"
	"time"

	"github.com/flowviz/flowagent/agent/health/probe"
)

// BenchmarkHealth is what a request costs beside net/http's own work.
func BenchmarkHealth(b *testing.B) {
	e := node(Ready, true, apiUp, databaseDown, diskWarns)
	req := httptest.NewRequest(http.MethodGet, "/health", nil)
	w := discardWriter{header: http.Header{}}
	b.ReportAllocs()
	for b.Loop() {
		e.ServeHTTP(w, req)
	}
}

// BenchmarkThousandChecks says how late the probes of a thousand checks start, in the machine's own time: one iteration
// is one second with a probe each. The promise is 50 ms for 99 of 100.
func BenchmarkThousandChecks(b *testing.B) {
	var checks []Check
	for i := range 1000 {
		c := checked(fmt.Sprintf("check-%d", i))
		c.Interval = time.Second
		checks = append(checks, with(c, scripted(func(ctx context.Context) probe.Result {
			select { // about as long as a query in the same rack
			case <-time.After(time.Millisecond):
			case <-ctx.Done():
			}
			return probe.Result{Status: probe.Pass, Output: "fine"}
		})))
	}
	m := NewMonitor(NewEndpoint(), checks, Options{})
	ctx, cancel := context.WithCancel(b.Context())
	ended := make(chan struct{})
	go func() { defer close(ended); m.Run(ctx) }()
	<-m.Admitted()
	second := time.NewTicker(time.Second)
	for b.Loop() {
		<-second.C
	}
	second.Stop()
	goroutines := runtime.NumGoroutine()
	all, within, sum := m.Delays().Counts()
	cancel()
	<-ended
	for i, bound := range DelayBounds {
		if within[i]*100 >= all*99 {
			b.ReportMetric(float64(bound.Milliseconds()), "ms-p99-at-most")
			break
		}
	}
	b.ReportMetric(sum.Seconds()*1e3/float64(all), "ms-mean")
	b.ReportMetric(float64(goroutines), "goroutines")
}
