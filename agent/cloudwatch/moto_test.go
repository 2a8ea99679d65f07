package cloudwatch_test

import (
	"context"
	"log/slog"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	sdk "github.com/aws/aws-sdk-go-v2/service/cloudwatch"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatch/types"
	"github.com/google/go-cmp/cmp"

	"github.com/flowviz/flowagent/agent/cloudwatch"
	"github.com/flowviz/flowagent/agent/health"
	"github.com/flowviz/flowagent/internal/awsfake"
	"github.com/flowviz/flowagent/test/lab"
)

// realCloud is moto behind awsfake, with the client that the agent uses.
func realCloud(t *testing.T) (*awsfake.Server, *sdk.Client) {
	t.Helper()
	fake, err := awsfake.New(lab.Moto(t))
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(fake)
	t.Cleanup(server.Close)
	return fake, cloudwatch.NewClient(aws.Config{
		Region: "us-east-1", BaseEndpoint: &server.URL, Credentials: credentials.NewStaticCredentialsProvider("test", "test", ""),
	})
}

// patient gives moto more time than the end of an agent has.
type patient struct{ *sdk.Client }

func (p patient) PutMetricData(ctx context.Context, in *sdk.PutMetricDataInput, options ...func(*sdk.Options)) (*sdk.PutMetricDataOutput, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
	defer cancel()
	return p.Client.PutMetricData(ctx, in, options...)
}

// last has a node make its last report, which is a report like any other.
func last(t *testing.T, o cloudwatch.Options, m *machine) string {
	t.Helper()
	var log journal
	o.Namespace, o.Health, o.Log = namespace, m.health, slog.New(slog.NewTextHandler(&log, nil))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	cloudwatch.New(o).Run(ctx)
	return log.String()
}

// metrics lists what CloudWatch knows of the namespace, as "Name Dimension=value …".
func metrics(t *testing.T, client *sdk.Client) []string {
	t.Helper()
	out, err := client.ListMetrics(t.Context(), &sdk.ListMetricsInput{Namespace: aws.String(namespace)})
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for _, m := range out.Metrics {
		words := []string{aws.ToString(m.MetricName)}
		for _, d := range m.Dimensions {
			words = append(words, aws.ToString(d.Name)+"="+aws.ToString(d.Value))
		}
		found = append(found, strings.Join(words, " "))
	}
	slices.Sort(found)
	return slices.Compact(found) // moto lists a metric several times
}

// statistics are of all that was sent in the last hour for a color.
func statistics(t *testing.T, client *sdk.Client, metric string, unit types.StandardUnit, color string) []types.Datapoint {
	t.Helper()
	out, err := client.GetMetricStatistics(t.Context(), &sdk.GetMetricStatisticsInput{
		Namespace: aws.String(namespace), MetricName: &metric, Unit: unit, Period: aws.Int32(7200),
		StartTime: aws.Time(time.Now().Add(-time.Hour)), EndTime: aws.Time(time.Now().Add(time.Hour)),
		Statistics: []types.Statistic{types.StatisticSum, types.StatisticMinimum, types.StatisticMaximum},
		Dimensions: []types.Dimension{{Name: aws.String(cloudwatch.Color), Value: &color}},
	})
	if err != nil {
		t.Fatal(err)
	}
	return out.Datapoints
}

func TestMetricsAreInCloudWatchUnderTheNodesColorAndRelease(t *testing.T) {
	fake, client := realCloud(t)
	for _, node := range []struct {
		color, release string
		state          health.State
		failures       uint64
	}{
		{"blue", "2026.11.1", health.Ready, 0},
		{"blue", "2026.11.1", health.Draining, 3},
		{"green", "", health.Ready, 0},
		{"", "2026.11.2", health.Ready, 0},
		{"", "", health.Ready, 0},
	} {
		m := &machine{}
		m.is(node.state)
		m.checks(map[string]uint64{"database": node.failures})
		fake.Inject("PutMetricData", 1, awsfake.Throttled()) // which the SDK tries again
		if log := last(t, cloudwatch.Options{API: patient{client}, Color: node.color, Release: node.release}, m); log != "" {
			t.Fatalf("a node of color %q and release %q: %s", node.color, node.release, log)
		}
	}
	want := []string{
		"DatabaseConnectionErrors",
		"DatabaseConnectionErrors Color=blue Release=2026.11.1",
		"DatabaseConnectionErrors Color=green",
		"DatabaseConnectionErrors Release=2026.11.2",
		"NodeReady",
		"NodeReady Color=blue Release=2026.11.1",
		"NodeReady Color=green",
		"NodeReady Release=2026.11.2",
	}
	if diff := cmp.Diff(want, metrics(t, client)); diff != "" {
		t.Errorf("metrics (-want +got):\n%s", diff)
	}
	for _, c := range []struct {
		metric        string
		unit          types.StandardUnit
		color         string
		sum, min, max float64
	}{
		{cloudwatch.NodeReady, types.StandardUnitNone, "blue", 1, 0, 1},
		{cloudwatch.DatabaseConnectionErrors, types.StandardUnitCount, "blue", 3, 0, 3},
		{cloudwatch.NodeReady, types.StandardUnitNone, "green", 1, 1, 1},
		{cloudwatch.DatabaseConnectionErrors, types.StandardUnitCount, "green", 0, 0, 0},
	} {
		got := statistics(t, client, c.metric, c.unit, c.color)
		if len(got) != 1 || *got[0].Sum != c.sum || *got[0].Minimum != c.min || *got[0].Maximum != c.max {
			t.Errorf("%s of %s: got %v, want one with sum %v, minimum %v and maximum %v", c.metric, c.color, got, c.sum, c.min, c.max)
		}
	}
}

func TestARoleThatMayNotPutMetricsIsToldSo(t *testing.T) {
	fake, client := realCloud(t)
	fake.Inject("PutMetricData", awsfake.Always, awsfake.AccessDenied())
	log := last(t, cloudwatch.Options{API: client}, &machine{})
	if !strings.Contains(log, "level=WARN") || !strings.Contains(log, "allow cloudwatch:PutMetricData in this namespace") {
		t.Errorf("got %q, want a warning that says what to allow", log)
	}
	if found := metrics(t, client); len(found) > 0 {
		t.Errorf("got %v in CloudWatch, want nothing", found)
	}
}
