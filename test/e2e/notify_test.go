package e2e

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"github.com/flowviz/flowagent/agent/notify"
)

// inbox is a webhook's server.
type inbox struct {
	t     *testing.T
	url   string
	judge *standardwebhooks.Webhook

	mu     sync.Mutex
	events []notify.Event
	broken bool // every request is refused, with what it asked
}

// signingSecret is the node's in Secrets Manager, and the inbox's.
const signingSecret = "whsec_ZTJlLWUyZS1lMmUtZTJlLWUyZS1lMmUtZTJlIQ=="

// receive has the node tell a webhook, with requests signed by a secret of the node's.
func receive(t *testing.T, n *node) *inbox {
	t.Helper()
	i := &inbox{t: t}
	var err error
	if i.judge, err = standardwebhooks.NewWebhook(signingSecret); err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(i)
	t.Cleanup(server.Close)
	i.url = server.URL
	n.createSecret("e2e/webhook", signingSecret)
	n.dropIn("50-notify.yaml", `secrets: {items: [{name: webhook, from: {secretsManager: {id: e2e/webhook}}}]}
notify: {webhook: {url: "`+i.url+`/hook", signingSecret: webhook}}
`)
	return i
}

func (i *inbox) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.broken {
		http.Error(w, fmt.Sprint(r.Header), http.StatusInternalServerError)
		return
	}
	var e notify.Event
	if err == nil {
		err = json.Unmarshal(body, &e)
	}
	if err == nil {
		err = i.judge.Verify(body, r.Header)
	}
	if err != nil {
		i.t.Errorf("POST %s: %v in %s", r.URL, err, body)
	}
	i.events = append(i.events, e)
}

func (i *inbox) fail(broken bool) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.broken = broken
}

// all are the events that arrived, without those that EC2 announces at any agent's start.
func (i *inbox) all() (events []notify.Event) {
	i.mu.Lock()
	defer i.mu.Unlock()
	for _, e := range i.events {
		if e.Detail.Notice == nil || e.Detail.Notice.Kind != "lifecycle" {
			events = append(events, e)
		}
	}
	return events
}

func kinds(events []notify.Event) (kinds []notify.Type) {
	for _, e := range events {
		kinds = append(kinds, e.Type)
	}
	return kinds
}

func TestOthersAreToldFromTheFirstRequestToTheLast(t *testing.T) {
	t.Parallel()
	n, group := member(t, time.Minute)
	i := receive(t, n)
	n.dropIn("60-bus.yaml", "notify: {eventBridge: {bus: default}}\n")
	n.dropIn("70-broken.yaml", "drain: {hooks: [{name: broken, argv: [/bin/sh, -c, 'echo my-own-output; exit 1']}]}\n")
	a := n.boot()
	eventually(t, "the node says that it is ready", func() bool { return len(i.all()) == 1 })
	terminate(n, group)
	awaitCompletion(t, group)
	eventually(t, "the completion is told", func() bool { return len(i.all()) == 5 })
	eventually(t, "EventBridge is told as much", func() bool { return n.aws.Calls("PutEvents") >= 5 })
	status := n.status()
	if len(status.Hooks) != 1 || status.Hooks[0].Name != hookName || status.Hooks[0].Heartbeats == 0 || status.Hooks[0].Outcome != "completed" {
		t.Errorf("status: got hooks %+v, want the one that was completed", status.Hooks)
	}
	if r := status.Drain.Requests; r == nil || !r.Done() {
		t.Errorf("status: got requests %v, want that none is left", r)
	}
	n.checkMetric(`flowagent_lifecycle_actions_total{hook="` + hookName + `",outcome="completed",result="CONTINUE",transition="terminating"} 1`)
	n.checkMetric(`flowagent_lifecycle_heartbeats_total{hook="` + hookName + `",result="failed",transition="terminating"} 0`)
	n.checkMetric(`flowagent_drain_requests_left{state="busy"} 0`)
	n.checkMetric(`flowagent_notifications_total{result="failed",sink="eventbridge"} 0`)
	a.stop()

	events := i.all()
	want := []notify.Type{notify.NodeReady, notify.NodeNoticeReceived, notify.NodeDrainStarted, notify.NodeDrainEnded, notify.LifecycleActionCompleted}
	if got := kinds(events); !slices.Equal(got, want) {
		t.Fatalf("got %q, want %q", got, want)
	}
	for _, e := range events {
		if arn := "arn:aws:ec2:" + region + ":" + e.Account + ":instance/" + instanceID; len(e.Resources) != 1 || e.Resources[0] != arn || e.Account == "" {
			t.Errorf("%s: got resources %v, want %s", e.Type, e.Resources, arn)
		}
	}
	if d := events[3].Detail.Drain; d == nil || d.Trigger != "terminate" || d.Result != "failed" || !slices.Equal(d.FailedSteps, []string{"hooks"}) {
		t.Errorf("got %+v, want a drain that failed in its hooks", d)
	}
	if l := events[4].Detail.LifecycleAction; l == nil || l.Hook != hookName || l.Result != "CONTINUE" || l.Outcome != "completed" {
		t.Errorf("got %+v, want the hook's completion", l)
	}
	if text := fmt.Sprintf("%+v", events[3].Detail.Drain); strings.Contains(text, "my-own-output") {
		t.Errorf("an operator's program is quoted to others: %s", text)
	}
}

func TestAReceiverThatIsDownHoldsNothingUpAndLearnsOfAllWhenItIsBack(t *testing.T) {
	t.Parallel()
	n := newNode(t, "stories/member")
	i := receive(t, n)
	i.fail(true)
	a := n.boot()
	a.await("a warning", func(e event) bool { return e.Level == "WARN" && e.Msg == "notifications don't arrive" })
	if code, body := n.health(); code != 200 {
		t.Errorf("/health: got %d %s, want 200", code, body)
	}
	if stdout, stderr, code := n.flowagent("drain"); code != 0 {
		t.Fatalf("flowagent drain: got code %d: %s%s", code, stdout, stderr)
	}
	i.fail(false)
	a.stop() // which delivers what is left
	want := []notify.Type{notify.NodeReady, notify.NodeDrainStarted, notify.NodeDrainEnded}
	if got := kinds(i.all()); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestARestartedAgentDoesNotSayAgainThatItsNodeIsReady(t *testing.T) {
	t.Parallel()
	n := newNode(t, "stories/member")
	i := receive(t, n)
	a := n.boot()
	eventually(t, "the node says that it is ready", func() bool { return len(i.all()) == 1 })
	a.stop()
	n.boot().stop()
	if got := kinds(i.all()); !slices.Equal(got, []notify.Type{notify.NodeReady}) {
		t.Errorf("got %q, want no more than that it is ready", got)
	}
}

func TestABootThatFailsIsTold(t *testing.T) {
	t.Parallel()
	n := newNode(t, "stories/member")
	told := make(chan notify.Event, 10)
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		var e notify.Event
		if err := json.NewDecoder(r.Body).Decode(&e); err != nil {
			t.Error(err)
		}
		if e.Detail.Notice == nil {
			told <- e
		}
	}))
	t.Cleanup(server.Close)
	n.dropIn("50-notify.yaml", `notify: {webhook: {url: "`+server.URL+`"}}`+"\n")
	n.deleteSecret("e2e/key")
	if code := n.start().wait(); code == 0 {
		t.Error("got exit code 0 of an agent whose boot failed")
	}
	if len(told) != 1 {
		t.Fatalf("got %d events, want one", len(told))
	}
	if e := <-told; e.Type != notify.NodeBootFailed || e.Detail.Boot == nil || !strings.Contains(e.Detail.Boot.Error, "e2e/key") {
		t.Errorf("got %s with %+v, want that the boot failed, and why", e.Type, e.Detail.Boot)
	}
}
