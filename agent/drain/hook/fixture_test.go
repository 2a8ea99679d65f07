package hook_test

import (
	"bytes"
	"context"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"

	"github.com/flowviz/flowagent/agent/drain/hook"
	"github.com/flowviz/flowagent/internal/awsfake"
)

const (
	instance = "i-0123456789abcdef0"
	group    = "flowviz-blue"
	// token is the session token of every test's credentials; it may be nowhere.
	token = "the-session-token"
)

// The actions' names, for faults and counts.
const (
	describeInstances = "DescribeAutoScalingInstances"
	describeHooks     = "DescribeLifecycleHooks"
	heartbeat         = "RecordLifecycleActionHeartbeat"
	complete          = "CompleteLifecycleAction"
)

var launch = awsfake.LifecycleHook{
	Group: group, Name: "launch", Transition: string(hook.Launching), Timeout: 5 * time.Minute, Default: "ABANDON",
}

var terminate = awsfake.LifecycleHook{
	Group: group, Name: "terminate", Transition: string(hook.Terminating), Timeout: 5 * time.Minute, Default: "CONTINUE",
}

// journal takes the log of several goroutines.
type journal struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (j *journal) Write(p []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.b.Write(p)
}

func (j *journal) count(text string) int {
	j.mu.Lock()
	defer j.mu.Unlock()
	return strings.Count(j.b.String(), text)
}

func (j *journal) String() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.b.String()
}

// scene is a node in service and Auto Scaling, on one clock and without a network.
type scene struct {
	*awsfake.Lifecycle
	aws   *awsfake.Server
	hooks *hook.Hooks
	log   *journal
}

// options change how a scene's node looks for its hooks.
type options func(*hook.Options)

func inGroup(name string) options { return func(o *hook.Options) { o.Group = name } }

// always makes jitter a fixed share.
func always(share float64) options {
	return func(o *hook.Options) { o.Random = func() float64 { return share } }
}

func config(endpoint string, client *http.Client) aws.Config {
	cfg := aws.Config{
		Region: "us-east-1", BaseEndpoint: &endpoint,
		Credentials: credentials.NewStaticCredentialsProvider("the-key", "the-secret-key", token),
	}
	if client != nil {
		cfg.HTTPClient = client
	}
	return cfg
}

// client reaches a server without a network.
func client(s *awsfake.Server) *http.Client { return &http.Client{Transport: awsfake.Transport(s)} }

func stage(t *testing.T, hooks []awsfake.LifecycleHook, change ...options) *scene {
	t.Helper()
	server, err := awsfake.New("")
	if err != nil {
		t.Fatal(err)
	}
	s := &scene{Lifecycle: awsfake.NewLifecycle(nil), aws: server, log: &journal{}}
	s.Serve(server)
	for _, h := range hooks {
		s.Add(h)
	}
	s.Place(instance, group, "InService")
	o := hook.Options{
		API:      hook.NewClient(config("http://aws.test", client(server))),
		Instance: instance, Log: slog.New(slog.NewTextHandler(s.log, nil)),
	}
	for _, c := range change {
		c(&o)
	}
	s.hooks = hook.New(o)
	return s
}

// wantWords checks what the log says of calls that failed: what to allow, once, where IAM refused; never a credential.
func (s *scene) wantWords(t *testing.T, refused bool, action string) {
	t.Helper()
	want := 0
	if refused {
		want = 1
	}
	if got := s.log.count("allow autoscaling:" + action); got != want {
		t.Errorf("the log says %d times to allow %s, want %d:\n%s", got, action, want, s.log)
	}
	if s.log.count(token) > 0 {
		t.Errorf("the log holds the session token:\n%s", s.log)
	}
}

// find is for tests in which a transition has one hook.
func (s *scene) find(t *testing.T, transition hook.Transition) *hook.Hook {
	t.Helper()
	found, err := s.hooks.Find(t.Context(), transition, "")
	if err != nil || len(found) != 1 {
		t.Fatalf("got hooks %v, %v, want one", found, err)
	}
	return found[0]
}

// keep has heartbeats sent until the returned function, which waits for their end.
func keep(t *testing.T, k *hook.Hook, until time.Time) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { defer close(ended); k.Keep(ctx, until) }()
	stop = func() { cancel(); <-ended }
	t.Cleanup(stop)
	return stop
}

// pass lets so much time pass, and all that happens in it happen.
func pass(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

// since are the moments of heartbeats after the action's beginning.
func since(a awsfake.LifecycleAction) []time.Duration {
	var after []time.Duration
	for _, at := range a.Heartbeats {
		after = append(after, at.Sub(a.Began))
	}
	return after
}
