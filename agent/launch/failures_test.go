package launch

import (
	"encoding/json"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/ssm"
	"github.com/google/go-cmp/cmp"

	"github.com/flowviz/flowagent/internal/awsfake"
	"github.com/flowviz/flowagent/test/lab"
)

// store is moto's Parameter Store, whose calls can be made to fail.
func store(t *testing.T) (*ssm.Client, *awsfake.Server) {
	t.Helper()
	fake, err := awsfake.New(lab.MotoParameters(t))
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(fake)
	t.Cleanup(server.Close)
	return ssm.New(ssm.Options{
		Region: "us-east-1", BaseEndpoint: &server.URL, Credentials: credentials.NewStaticCredentialsProvider("testing", "testing", ""),
		RetryMaxAttempts: 1,
	}), fake
}

func TestFailures_AreCountedInARowAcrossInstances(t *testing.T) {
	client, _ := store(t)
	const group = "flowviz blue"
	now := time.Date(2026, 11, 24, 3, 0, 0, 0, time.UTC)
	add := func(instance, reason string) int {
		t.Helper()
		f := NewFailures(client, group, instance)
		f.now = func() time.Time { return now }
		count, err := f.Add(t.Context(), reason)
		if err != nil {
			t.Fatal(err)
		}
		return count
	}
	if got := []int{add("i-1", "no such image"), add("i-2", "no such image"), add("i-3", "config.yaml:3:1: unknown field")}; !cmp.Equal(got, []int{1, 2, 3}) {
		t.Errorf("got counts %v, want 1, 2, 3", got)
	}
	out, err := client.GetParameter(t.Context(), &ssm.GetParameterInput{Name: aws.String("/flowagent/launch-failures/flowviz_blue")})
	if err != nil {
		t.Fatal(err)
	}
	var kept record
	if err := json.Unmarshal([]byte(aws.ToString(out.Parameter.Value)), &kept); err != nil {
		t.Fatal(err)
	}
	if want := (record{Failures: 3, Last: now, Instance: "i-3", Reason: "config.yaml:3:1: unknown field"}); kept != want {
		t.Errorf("the parameter holds %+v, want %+v", kept, want)
	}

	ended := NewFailures(client, group, "i-4")
	for range 2 { // a second launch that worked finds nothing to do
		if err := ended.Clear(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if got := add("i-5", "again"); got != 1 {
		t.Errorf("after a launch that worked: got count %d, want 1", got)
	}
	now = now.Add(forgotten)
	if got := add("i-6", "another day"); got != 1 {
		t.Errorf("after a day: got count %d, want 1", got)
	}
}

func TestFailures_BeginAnewOverWhatIsNoRecord(t *testing.T) {
	client, _ := store(t)
	const group = "damaged"
	if _, err := client.PutParameter(t.Context(), &ssm.PutParameterInput{Name: aws.String(Parameter(group)), Value: aws.String("mine"), Type: "String"}); err != nil {
		t.Fatal(err)
	}
	if count, err := NewFailures(client, group, "i-1").Add(t.Context(), "x"); count != 1 || err != nil {
		t.Errorf("got %d, %v, want the first failure", count, err)
	}
}

func TestFailures_SayWhatToAllowAndNeverWhatAWSQuotes(t *testing.T) {
	client, fake := store(t)
	f := NewFailures(client, "denied", "i-1")
	fake.Inject("GetParameter", 1, awsfake.AccessDenied())
	if count, err := f.Add(t.Context(), "x"); count != 1 || err == nil || !strings.Contains(err.Error(), "allow ssm:GetParameter on it") {
		t.Errorf("got %d, %v, want 1 and what to allow", count, err)
	}
	fake.Inject("PutParameter", 1, awsfake.AccessDenied())
	if count, err := f.Add(t.Context(), "x"); count != 1 || err == nil || !strings.Contains(err.Error(), "allow ssm:PutParameter on it") {
		t.Errorf("got %d, %v, want 1 and what to allow", count, err)
	}
	fake.Inject("GetParameter", 1, awsfake.Throttled())
	if _, err := f.Add(t.Context(), "x"); err == nil || !strings.Contains(err.Error(), "ThrottlingException") {
		t.Errorf("got %v, want AWS's code", err)
	}
}

func TestFailures_KeepALongReasonThatFits(t *testing.T) {
	client, _ := store(t)
	f := NewFailures(client, "long", "i-1")
	if _, err := f.Add(t.Context(), strings.Repeat("ä", 3000)); err != nil {
		t.Fatal(err)
	}
	kept, err := f.read(t.Context())
	if err != nil || !strings.HasPrefix(kept.Reason, "ää") || !strings.HasSuffix(kept.Reason, "ä …") || len(kept.Reason) > longestReason+10 {
		t.Errorf("got %d bytes of a reason (%v), want its beginning", len(kept.Reason), err)
	}
}

func TestDamping_DoublesUpToItsLimit(t *testing.T) {
	var got []time.Duration
	for count := range 10 {
		got = append(got, Damping(count))
	}
	m := time.Minute
	if diff := cmp.Diff([]time.Duration{0, 0, m, 2 * m, 4 * m, 8 * m, 16 * m, 30 * m, 30 * m, 30 * m}, got); diff != "" {
		t.Errorf("waits by the count of failures (-want +got):\n%s", diff)
	}
}
