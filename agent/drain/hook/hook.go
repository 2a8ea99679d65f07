// Package hook sees one lifecycle action of this instance through, from its beginning to exactly one effective completion.
//
// What enters is Auto Scaling's API, the instance's id and, where one is configured, the hook's name; what leaves are
// heartbeats while the node still works and one completion that says how it went. It decides nothing about the drain or the
// boot, it never touches other instances, and no error or event of it holds a credential.
package hook

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	sdk "github.com/aws/aws-sdk-go-v2/service/autoscaling"
)

// Transition is what an instance goes through while a hook holds it, in the API's words.
type Transition string

const (
	Launching   Transition = "autoscaling:EC2_INSTANCE_LAUNCHING"
	Terminating Transition = "autoscaling:EC2_INSTANCE_TERMINATING"
)

// Result is how an action ends, in the API's words.
type Result string

const (
	// Continue lets the transition go on.
	Continue Result = "CONTINUE"
	// Abandon has a launching instance terminated and replaced. For either transition it stops the group's other hooks, and
	// a group with an instance lifecycle policy may keep a terminating instance for a person to look at.
	Abandon Result = "ABANDON"
)

// Numbers of Auto Scaling's API reference: PutLifecycleHook and LifecycleHook.
const (
	defaultTimeout  = time.Hour        // a hook's heartbeat timeout where none was given
	shortestTimeout = 30 * time.Second // the least that can be given
	longestWait     = 48 * time.Hour   // in a wait state, whatever the heartbeats
	timeoutsPerWait = 100              // or so many heartbeat timeouts, where that is less
	defaultResult   = Abandon          // a hook's result where none was given
)

const (
	// callTimeout bounds one call. The API answers within a second, and the shortest hook has time for six of these.
	callTimeout = 5 * time.Second
	// findLimit bounds Find's tries: half of the shortest hook, so that its first heartbeat still comes in time.
	findLimit = shortestTimeout / 2
	// beatsPerTimeout lets two heartbeats in a row be lost without harm.
	beatsPerTimeout = 3
	// beatSpread is how much earlier than that a heartbeat may come, as a share: instances of one group that leave together
	// then don't call together. Never later, which would eat into the reserve.
	beatSpread = 0.1
	// unknownInterval is between heartbeats for a hook that IAM doesn't let the node describe. Its timeout may be far below
	// the default; this is soon enough for three minutes, and one call a minute is no burden.
	unknownInterval = time.Minute
	// firstRetry and lastRetry bound the pauses after failures, under full jitter: throttling passes within seconds, and
	// several tries fit into the shortest hook.
	firstRetry = time.Second
	lastRetry  = 15 * time.Second
	// refusedRetry is the pause after a call that was refused for what it is: a person has to change a policy, and IAM takes
	// up to about a minute to spread that.
	refusedRetry = 30 * time.Second
	// earlyLimit is how long an instance may take into its wait state once it is on its way there. That takes seconds.
	earlyLimit = 2 * time.Minute
)

// API is what is needed of Auto Scaling.
type API interface {
	DescribeAutoScalingInstances(context.Context, *sdk.DescribeAutoScalingInstancesInput, ...func(*sdk.Options)) (*sdk.DescribeAutoScalingInstancesOutput, error)
	DescribeLifecycleHooks(context.Context, *sdk.DescribeLifecycleHooksInput, ...func(*sdk.Options)) (*sdk.DescribeLifecycleHooksOutput, error)
	RecordLifecycleActionHeartbeat(context.Context, *sdk.RecordLifecycleActionHeartbeatInput, ...func(*sdk.Options)) (*sdk.RecordLifecycleActionHeartbeatOutput, error)
	CompleteLifecycleAction(context.Context, *sdk.CompleteLifecycleActionInput, ...func(*sdk.Options)) (*sdk.CompleteLifecycleActionOutput, error)
}

// NewClient makes a client that tries each call once: how often and how long to try is decided here, by the hook's time.
func NewClient(cfg aws.Config) *sdk.Client {
	return sdk.NewFromConfig(cfg, func(o *sdk.Options) { o.Retryer = aws.NopRetryer{} })
}

// Options are what a node's hooks are found with. API and Instance are needed.
type Options struct {
	API      API
	Instance string // its id
	// Group is the instance's Auto Scaling group where that is known, such as from its tags; "" asks the API.
	Group string
	// Log gets one event for each fact; nil for none.
	Log *slog.Logger
	// Observer is told the same for metrics and status; nil for nobody.
	Observer Observer
	// Random returns a number from 0 up to 1; nil for math/rand's.
	Random func() float64
}

// Observer is told what becomes of actions. Its methods are called by several goroutines, and return at once.
type Observer interface {
	// Found tells of each hook that Find returns.
	Found(k *Hook)
	// Beat tells of each heartbeat that Auto Scaling had to answer: err is nil where it took it.
	Beat(k *Hook, err error)
	// Completed tells how Complete ended.
	Completed(k *Hook, result Result, outcome Outcome)
}

// nobody observes nothing.
type nobody struct{}

func (nobody) Found(*Hook)                      {}
func (nobody) Beat(*Hook, error)                {}
func (nobody) Completed(*Hook, Result, Outcome) {}

// Hooks finds the hooks of one instance. Its methods may be called at any time.
type Hooks struct {
	api      API
	instance string
	log      *slog.Logger
	observer Observer
	random   func() float64

	mu     sync.Mutex
	group  string // the last one known; "" for none
	denied bool   // it was said that hooks can't be described
}

// New prepares to find hooks.
func New(o Options) *Hooks {
	h := &Hooks{api: o.API, instance: o.Instance, group: o.Group, log: o.Log, observer: o.Observer, random: o.Random}
	if h.log == nil {
		h.log = slog.New(slog.DiscardHandler)
	}
	if h.observer == nil {
		h.observer = nobody{}
	}
	if h.random == nil {
		h.random = rand.Float64
	}
	return h
}

// Hook is one hook of this instance's group, and the instance's action under it. It is for one action: find it again for
// the next. Keep and Complete may run at the same time.
type Hook struct {
	Name, Group string
	Transition  Transition
	Timeout     time.Duration // how long an action lives without a heartbeat
	Longest     time.Duration // how long it lives with them, from its beginning
	Default     Result        // what Auto Scaling does when either is over
	Described   bool          // false: IAM hides the hook, and the three above are AWS's defaults

	hooks *Hooks

	mu    sync.Mutex
	began time.Time // when Keep or Complete first heard of the action; zero before
	alive time.Time // since when its timeout runs
}

// begin says that the action is under way, and returns since when this node knows.
func (k *Hook) begin() time.Time {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.began.IsZero() {
		k.began = time.Now()
		k.alive = k.began
	}
	return k.began
}

func (k *Hook) lives() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.alive = time.Now()
}

// ends is when Auto Scaling decides by itself, unless a heartbeat arrives before.
func (k *Hook) ends() time.Time {
	k.mu.Lock()
	defer k.mu.Unlock()
	return earlier(k.alive.Add(k.Timeout), k.began.Add(k.Longest))
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

func longest(timeout time.Duration) time.Duration { return min(longestWait, timeoutsPerWait*timeout) }
