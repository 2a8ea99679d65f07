package notify_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	sdk "github.com/aws/aws-sdk-go-v2/service/eventbridge"
	"github.com/aws/aws-sdk-go-v2/service/eventbridge/types"
	"github.com/google/go-cmp/cmp"

	"github.com/flowviz/flowagent/agent/notify"
	"github.com/flowviz/flowagent/internal/awsfake"
	"github.com/flowviz/flowagent/test/lab"
)

const (
	bus      = "flowviz"
	logGroup = "/aws/events/flowviz"
	// session is the session token of the tests' credentials; it may be nowhere.
	session = "the-session-token"
)

func client(url string) *sdk.Client {
	return notify.NewClient(aws.Config{
		Region: "us-east-1", BaseEndpoint: &url, Credentials: credentials.NewStaticCredentialsProvider("test", "test", session),
	})
}

// cloud is moto behind awsfake, with a bus whose every event of ours goes to a log group.
type cloud struct {
	*awsfake.Server
	*notify.EventBridge
	url string
}

func realCloud(t *testing.T) *cloud {
	t.Helper()
	fake, err := awsfake.New(lab.Moto(t))
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(fake)
	t.Cleanup(server.Close)
	c := &cloud{Server: fake, url: server.URL}
	api := client(c.url)
	c.EventBridge = notify.NewEventBridge(api, bus)
	c.logs(t, "CreateLogGroup", map[string]any{"logGroupName": logGroup})
	if _, err := api.CreateEventBus(t.Context(), &sdk.CreateEventBusInput{Name: aws.String(bus)}); err != nil {
		t.Fatal(err)
	}
	rule := aws.String("flowagent")
	if _, err := api.PutRule(t.Context(), &sdk.PutRuleInput{
		Name: rule, EventBusName: aws.String(bus), EventPattern: aws.String(`{"source": ["flowagent"], "detail": {"drain": {"trigger": ["spot"]}}}`),
	}); err != nil {
		t.Fatal(err)
	}
	if _, err := api.PutTargets(t.Context(), &sdk.PutTargetsInput{Rule: rule, EventBusName: aws.String(bus), Targets: []types.Target{
		{Id: aws.String("logs"), Arn: aws.String("arn:aws:logs:us-east-1:123456789012:log-group:" + logGroup)},
	}}); err != nil {
		t.Fatal(err)
	}
	return c
}

// logs calls CloudWatch Logs, for which the agent has no client.
func (c *cloud) logs(t *testing.T, action string, in map[string]any) (out struct{ Events []struct{ Message string } }) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, c.url, strings.NewReader(encoded(t, in)))
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Content-Type", "application/x-amz-json-1.1")
	request.Header.Set("X-Amz-Target", "Logs_20140328."+action)
	request.Header.Set("Authorization", "AWS4-HMAC-SHA256 Credential=test/20261124/us-east-1/logs/aws4_request, SignedHeaders=host, Signature=0")
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil || response.StatusCode != http.StatusOK {
		t.Fatalf("%s: got %s, %v: %s", action, response.Status, err, body)
	}
	if len(bytes.TrimSpace(body)) > 0 {
		if err := json.Unmarshal(body, &out); err != nil {
			t.Fatalf("%s: %v in %s", action, err, body)
		}
	}
	return out
}

// received are the events that a rule on the bus passed on.
func (c *cloud) received(t *testing.T) (events []map[string]any) {
	t.Helper()
	for _, line := range c.logs(t, "FilterLogEvents", map[string]any{"logGroupName": logGroup}).Events {
		var event map[string]any
		if err := json.Unmarshal([]byte(line.Message), &event); err != nil {
			t.Fatalf("%v in %s", err, line.Message)
		}
		events = append(events, event)
	}
	return events
}

func TestEventBridge_ReceiversGetTheDocumentThatAWebhookGets(t *testing.T) {
	c := realCloud(t)
	e := drained(t)
	if err := c.Send(t.Context(), e); err != nil {
		t.Fatal(err)
	}
	events := c.received(t)
	if len(events) != 1 {
		t.Fatalf("got %d events, want one:\n%v", len(events), events)
	}
	var want map[string]any
	if err := json.Unmarshal([]byte(encoded(t, e)), &want); err != nil {
		t.Fatal(err)
	}
	got := events[0]
	for _, own := range []string{"id", "time", "ingestion-time", "account"} { // moto writes the time as seconds
		delete(got, own)
		delete(want, own)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-webhook +EventBridge):\n%s", diff)
	}
}

func TestEventBridge_ALostReplyIsTwoEventsWithOneIDInTheDetail(t *testing.T) {
	c := realCloud(t)
	c.Inject("PutEvents", 1, awsfake.LoseReply())
	ctx, cancel := context.WithCancel(t.Context())
	n := notify.New(notify.Options{
		Sinks: []notify.Sink{c.EventBridge}, Random: func() float64 { return 0.01 }, Count: func(string, notify.Result) { cancel() },
	})
	n.Tell(notify.NodeDrainStarted, notify.Detail{Drain: &notify.Drain{Trigger: "spot"}})
	n.Run(ctx)
	var ids []any
	for _, e := range c.received(t) {
		ids = append(ids, e["detail"].(map[string]any)["eventId"])
	}
	if len(ids) != 2 || ids[0] != ids[1] || ids[0] == "" {
		t.Errorf("got the ids %v, want one id twice", ids)
	}
}

func TestEventBridge_SaysWhatWentWrongAndWhetherItWillPass(t *testing.T) {
	c := realCloud(t)
	for name, f := range map[string]struct {
		fault awsfake.Fault
		want  string
		says  string
	}{
		"denied":      {awsfake.AccessDenied(), "again", "allow events:PutEvents on this bus"},
		"throttled":   {awsfake.Throttled(), "again", "EventBridge answered ThrottlingException"},
		"unavailable": {awsfake.Unavailable(), "again", "EventBridge answered ServiceUnavailable"},
		"no bus":      {awsfake.Refuse(http.StatusBadRequest, "ResourceNotFoundException", "Event bus flowviz does not exist."), "refused", "create it, or correct notify.eventBridge.bus"},
		"invalid":     {awsfake.Refuse(http.StatusBadRequest, "ValidationException", "no"), "refused", "check notify.eventBridge"},
		"a signature that is quoted": {awsfake.Refuse(http.StatusBadRequest, "InvalidSignatureException", "The canonical request is X-Amz-Security-Token:"+session),
			"again", "EventBridge answered InvalidSignatureException"},
		"one entry throttled": {partly("ThrottlingException"), "again", "EventBridge answered ThrottlingException"},
		"one entry refused":   {partly("NotAuthorizedForSourceException"), "refused", "EventBridge answered NotAuthorizedForSourceException"},
		"no AWS at all":       {answer("<html>" + session), "again", "see whether a proxy stands in between"},
	} {
		t.Run(name, func(t *testing.T) {
			c.Inject("PutEvents", 1, f.fault)
			err := c.Send(t.Context(), drained(t))
			if got := sort(err); got != f.want || !strings.Contains(err.Error(), f.says) || !strings.Contains(err.Error(), "bus "+bus) {
				t.Errorf("got %s (%v), want %s with %q", got, err, f.want, f.says)
			}
			if strings.Contains(err.Error(), session) {
				t.Errorf("the error has the session token: %v", err)
			}
		})
	}
	if events := c.received(t); len(events) > 0 {
		t.Errorf("got %v, want nothing", events)
	}
	err := notify.NewEventBridge(client(c.url), "nobody").Send(t.Context(), drained(t))
	if err == nil || !strings.Contains(err.Error(), "put an event on bus nobody") {
		t.Errorf("a bus that moto doesn't have: got %v, want an error that names it", err)
	}
}

// answer is a reply that says nothing went wrong, with a body.
func answer(body string) awsfake.Fault {
	return func(http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/x-amz-json-1.1")
			_, _ = io.WriteString(w, body)
		})
	}
}

// partly is how PutEvents fails for one entry: the call succeeds.
func partly(code string) awsfake.Fault {
	return answer(`{"FailedEntryCount": 1, "Entries": [{"ErrorCode": "` + code + `", "ErrorMessage": "no"}]}`)
}

func TestBusRegion_IsTheOneInAnARN(t *testing.T) {
	for bus, want := range map[string]string{
		"default": "", "arn:aws:events:eu-central-1:123456789012:event-bus/flowviz": "eu-central-1",
	} {
		if got := notify.BusRegion(bus); got != want {
			t.Errorf("%s: got %q, want %q", bus, got, want)
		}
	}
}
