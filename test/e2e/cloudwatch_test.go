package e2e

import (
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	sdk "github.com/aws/aws-sdk-go-v2/service/cloudwatch"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatch/types"

	"github.com/flowviz/flowagent/internal/awsfake"
)

// cloudWatch is the node's own account, as a rollout reads it.
func (n *node) cloudWatch() *sdk.Client {
	return sdk.New(sdk.Options{
		BaseEndpoint: aws.String(n.env["AWS_ENDPOINT_URL"]), Region: region,
		Credentials: credentials.NewStaticCredentialsProvider("testing", "testing", ""),
	})
}

// reported are the statistics of all that was reported under a color and a release; false for nothing yet.
func reported(t *testing.T, client *sdk.Client, metric, color, release string) (types.Datapoint, bool) {
	t.Helper()
	out, err := client.GetMetricStatistics(t.Context(), &sdk.GetMetricStatisticsInput{
		Namespace: aws.String("FlowViz/e2e"), MetricName: &metric, Period: aws.Int32(7200),
		StartTime: aws.Time(time.Now().Add(-time.Hour)), EndTime: aws.Time(time.Now().Add(time.Hour)),
		Statistics: []types.Statistic{types.StatisticSum, types.StatisticMinimum, types.StatisticMaximum},
		Dimensions: []types.Dimension{
			{Name: aws.String("Color"), Value: &color}, {Name: aws.String("Release"), Value: &release},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(out.Datapoints) != 1 {
		return types.Datapoint{}, false
	}
	return out.Datapoints[0], true
}

// silentDatabase adds a check, which only warns, of a database that takes connections and never speaks.
func silentDatabase(t *testing.T, n *node) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	checkDatabase(n, listener.Addr().(*net.TCPAddr).Port, ", gate: never")
}

// awaitFailedProbes waits until the node's only check failed so often.
func awaitFailedProbes(t *testing.T, n *node, times uint64) {
	t.Helper()
	eventually(t, fmt.Sprintf("%d failed probes", times), func() bool {
		checks := n.status().Checks
		return len(checks) == 1 && checks[0].Failed >= times
	})
}

func TestANodeOnEC2TellsCloudWatchWhenItIsReadyAndWhenItLeaves(t *testing.T) {
	t.Parallel()
	n := newNode(t, "stories/reported")
	silentDatabase(t, n)
	a := n.boot()
	client := n.cloudWatch()
	eventually(t, "NodeReady 1 under blue and its release", func() bool {
		got, found := reported(t, client, "NodeReady", "blue", "2026.11.1")
		return found && *got.Maximum == 1
	})
	awaitFailedProbes(t, n, 3)
	if stdout, stderr, code := n.flowagent("drain"); code != 0 {
		t.Fatalf("flowagent drain: got code %d: %s%s", code, stdout, stderr)
	}
	failed := n.status().Checks[0].Failed
	a.stop()
	// Nothing more comes of an agent that has ended, so this is all there will be.
	if got, found := reported(t, client, "NodeReady", "blue", "2026.11.1"); !found || *got.Minimum != 0 {
		t.Errorf("NodeReady of a drained node: got %v (%v), want a 0 in it", got, found)
	}
	if got, found := reported(t, client, "DatabaseConnectionErrors", "blue", "2026.11.1"); !found || *got.Sum < float64(failed) {
		t.Errorf("DatabaseConnectionErrors: got %v (%v), want a sum of at least %d", got, found, failed)
	}
	all, err := client.ListMetrics(t.Context(), &sdk.ListMetricsInput{Namespace: aws.String("FlowViz/e2e")})
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, m := range all.Metrics {
		names = append(names, aws.ToString(m.MetricName))
		if len(m.Dimensions) != 2 {
			t.Errorf("%s: got the dimensions %v, want color and release", *m.MetricName, m.Dimensions)
		}
	}
	slices.Sort(names)
	names = slices.Compact(names) // moto lists a metric several times
	if want := []string{"DatabaseConnectionErrors", "NodeReady"}; !slices.Equal(names, want) {
		t.Errorf("got the metrics %v, want %v", names, want)
	}
}

func TestANodeOutsideEC2SendsNoMetrics(t *testing.T) {
	t.Parallel()
	n := newNode(t, "stories/plain") // with credentials that would allow it
	n.dropIn("50-metrics.yaml", "node: {color: blue}\ncloudWatch: {namespace: FlowViz/e2e}\n")
	a := n.boot()
	a.await("that nothing is sent", func(e event) bool { return e.Level == "INFO" && strings.Contains(e.Msg, "no metrics are sent") })
	n.flowagent("drain")
	a.stop()
	if got := n.aws.Calls("PutMetricData"); got != 0 {
		t.Errorf("got %d calls of PutMetricData, want none", got)
	}
	if got := strings.Count(a.journal.String(), "no metrics are sent"); got != 1 {
		t.Errorf("got %d events about it, want one", got)
	}
}

func TestANodeWhoseRoleMayNotPutMetricsServesAndSaysSo(t *testing.T) {
	t.Parallel()
	n := newNode(t, "stories/reported")
	n.aws.Inject("PutMetricData", awsfake.Always, awsfake.AccessDenied())
	a := n.boot()
	a.await("what to allow", func(e event) bool {
		return e.Level == "WARN" && strings.Contains(e.line, "allow cloudwatch:PutMetricData")
	})
	if code, body := n.health(); code != 200 {
		t.Errorf("/health: got %d %s, want 200", code, body)
	}
	a.stop()
}
