package awsfake

import (
	"encoding/xml"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// What the API reference's LifecycleHook says of the time that an instance may wait: two days, or a hundred times the
// heartbeat's timeout where that is less.
const (
	longestGlobalTimeout = 48 * time.Hour
	globalTimeouts       = 100
)

// LifecycleHook is a hook of an Auto Scaling group, with the words that the API has for it.
type LifecycleHook struct {
	Group, Name string
	Transition  string        // autoscaling:EC2_INSTANCE_LAUNCHING or autoscaling:EC2_INSTANCE_TERMINATING
	Timeout     time.Duration // HeartbeatTimeout, whole seconds
	Default     string        // DefaultResult: CONTINUE or ABANDON
}

func (h LifecycleHook) globalTimeout() time.Duration {
	return min(longestGlobalTimeout, globalTimeouts*h.Timeout)
}

// LifecycleAction is what became of one hook for one instance.
type LifecycleAction struct {
	Began      time.Time
	Heartbeats []time.Time // those that had an effect
	Results    []string    // of the completions that had an effect: never more than one, or the fake is wrong
	TimedOut   bool        // the hook's default decided
	Stopped    bool        // another hook was abandoned, which stops the rest
}

// Lifecycle is Auto Scaling's side of lifecycle hooks: it answers DescribeAutoScalingInstances, DescribeLifecycleHooks,
// RecordLifecycleActionHeartbeat and CompleteLifecycleAction. Tests say which instances and hooks there are and when a
// transition begins; an action then waits until it is completed or its time is up. Its methods may be called while it
// serves.
type Lifecycle struct {
	now func() time.Time

	mu        sync.Mutex
	hooks     []LifecycleHook
	instances []*lifecycleInstance
}

type lifecycleInstance struct {
	id, group, state string
	actions          []*lifecycleAction
}

type lifecycleAction struct {
	LifecycleAction
	hook  LifecycleHook
	alive time.Time // since when its timeout runs
	open  bool
}

// NewLifecycle takes its clock; nil is time.Now.
func NewLifecycle(now func() time.Time) *Lifecycle {
	if now == nil {
		now = time.Now
	}
	return &Lifecycle{now: now}
}

// Serve has a server answer the four actions from here; the rest of Auto Scaling stays where it was.
func (l *Lifecycle) Serve(s *Server) {
	for action, answer := range map[string]func(url.Values) (any, error){
		"DescribeAutoScalingInstances":   l.describeInstances,
		"DescribeLifecycleHooks":         l.describeHooks,
		"RecordLifecycleActionHeartbeat": l.heartbeat,
		"CompleteLifecycleAction":        l.complete,
	} {
		s.Handle(action, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if err := r.ParseForm(); err != nil {
				WriteError(w, r, http.StatusBadRequest, "MalformedQueryString", err.Error())
				return
			}
			l.mu.Lock()
			l.expire()
			result, err := answer(r.Form)
			l.mu.Unlock()
			if err != nil {
				WriteError(w, r, http.StatusBadRequest, "ValidationError", err.Error())
				return
			}
			writeResult(w, action, result)
		}))
	}
}

// Add gives a group a hook. Actions that wait already don't change.
func (l *Lifecycle) Add(h LifecycleHook) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.hooks = append(l.hooks, h)
}

// Place puts an instance into a group and a state, such as InService or Pending. What waited for it is forgotten.
func (l *Lifecycle) Place(instance, group, state string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.instances = slices.DeleteFunc(l.instances, func(i *lifecycleInstance) bool { return i.id == instance })
	l.instances = append(l.instances, &lifecycleInstance{id: instance, group: group, state: state})
}

// Begin has a placed instance wait for every hook that its group has for a transition.
func (l *Lifecycle) Begin(instance, transition string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	i := l.find(instance)
	i.state = phase(transition) + ":Wait"
	i.actions = nil
	for _, h := range l.hooks {
		if h.Group == i.group && h.Transition == transition {
			i.actions = append(i.actions, &lifecycleAction{LifecycleAction: LifecycleAction{Began: l.now()}, hook: h, alive: l.now(), open: true})
		}
	}
	i.proceed(transition)
}

// State is a placed instance's lifecycle state.
func (l *Lifecycle) State(instance string) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.expire()
	return l.find(instance).state
}

// Action tells what became of a hook since the instance's last Begin; the zero value is no action.
func (l *Lifecycle) Action(instance, hook string) LifecycleAction {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.expire()
	for _, a := range l.find(instance).actions {
		if a.hook.Name == hook {
			told := a.LifecycleAction
			told.Heartbeats, told.Results = slices.Clone(a.Heartbeats), slices.Clone(a.Results)
			return told
		}
	}
	return LifecycleAction{}
}

// find panics for an instance that was never placed: that is the test's mistake.
func (l *Lifecycle) find(instance string) *lifecycleInstance {
	for _, i := range l.instances {
		if i.id == instance {
			return i
		}
	}
	panic("awsfake: no instance " + instance + " was placed")
}

// phase is how states call a transition.
func phase(transition string) string {
	if strings.HasSuffix(transition, "LAUNCHING") {
		return "Pending"
	}
	return "Terminating"
}

// expire lets the defaults decide for all actions whose time is up, in the order in which they ended.
func (l *Lifecycle) expire() {
	now := l.now()
	for _, i := range l.instances {
		var late []*lifecycleAction
		for _, a := range i.actions {
			if a.open && !now.Before(a.end()) {
				late = append(late, a)
			}
		}
		slices.SortFunc(late, func(a, b *lifecycleAction) int { return a.end().Compare(b.end()) })
		for _, a := range late {
			if a.open { // the one before may have stopped it
				a.TimedOut = true
				i.close(a, a.hook.Default)
			}
		}
	}
}

func (a *lifecycleAction) end() time.Time {
	end, last := a.alive.Add(a.hook.Timeout), a.Began.Add(a.hook.globalTimeout())
	if last.Before(end) {
		return last
	}
	return end
}

// close ends an action. ABANDON stops what else waits.
func (i *lifecycleInstance) close(a *lifecycleAction, result string) {
	a.open = false
	for _, other := range i.actions {
		if result == "ABANDON" && other.open {
			other.open, other.Stopped = false, true
		}
	}
	i.proceed(a.hook.Transition)
}

func (i *lifecycleInstance) proceed(transition string) {
	if !slices.ContainsFunc(i.actions, func(a *lifecycleAction) bool { return a.open }) {
		i.state = phase(transition) + ":Proceed"
	}
}

// waiting finds the action that a request is about. The refusal has Auto Scaling's words.
func (l *Lifecycle) waiting(form url.Values) (*lifecycleInstance, *lifecycleAction, error) {
	for _, i := range l.instances {
		for _, a := range i.actions {
			if a.open && i.id == form.Get("InstanceId") && i.group == form.Get("AutoScalingGroupName") && a.hook.Name == form.Get("LifecycleHookName") {
				return i, a, nil
			}
		}
	}
	return nil, nil, refusal("No active Lifecycle Action found with instance ID " + form.Get("InstanceId"))
}

// refusal is a ValidationError's message.
type refusal string

func (r refusal) Error() string { return string(r) }

func (l *Lifecycle) heartbeat(form url.Values) (any, error) {
	_, a, err := l.waiting(form)
	if err != nil {
		return nil, err
	}
	a.alive = l.now()
	a.Heartbeats = append(a.Heartbeats, a.alive)
	return struct{}{}, nil
}

func (l *Lifecycle) complete(form url.Values) (any, error) {
	result := form.Get("LifecycleActionResult")
	if result != "CONTINUE" && result != "ABANDON" {
		return nil, refusal("LifecycleActionResult is neither CONTINUE nor ABANDON")
	}
	i, a, err := l.waiting(form)
	if err != nil {
		return nil, err
	}
	a.Results = append(a.Results, result)
	i.close(a, result)
	return struct{}{}, nil
}

func (l *Lifecycle) describeInstances(form url.Values) (any, error) {
	type member struct {
		InstanceID           string `xml:"InstanceId"`
		AutoScalingGroupName string
		AvailabilityZone     string
		LifecycleState       string
		HealthStatus         string
		ProtectedFromScaleIn bool
	}
	var result struct {
		Members []member `xml:"AutoScalingInstances>member"`
	}
	asked := list(form, "InstanceIds")
	for _, i := range l.instances {
		if len(asked) == 0 || slices.Contains(asked, i.id) {
			result.Members = append(result.Members, member{i.id, i.group, "us-east-1a", i.state, "HEALTHY", false})
		}
	}
	return result, nil
}

func (l *Lifecycle) describeHooks(form url.Values) (any, error) {
	type member struct {
		LifecycleHookName    string
		AutoScalingGroupName string
		LifecycleTransition  string
		HeartbeatTimeout     int
		GlobalTimeout        int
		DefaultResult        string
	}
	var result struct {
		Members []member `xml:"LifecycleHooks>member"`
	}
	asked := list(form, "LifecycleHookNames")
	for _, h := range l.hooks {
		if h.Group == form.Get("AutoScalingGroupName") && (len(asked) == 0 || slices.Contains(asked, h.Name)) {
			result.Members = append(result.Members, member{h.Name, h.Group, h.Transition, int(h.Timeout.Seconds()), int(h.globalTimeout().Seconds()), h.Default})
		}
	}
	return result, nil
}

// list reads awsQuery's form of a list: Name.member.1, Name.member.2 and so on.
func list(form url.Values, name string) []string {
	var values []string
	for n := 1; form.Has(name + ".member." + strconv.Itoa(n)); n++ {
		values = append(values, form.Get(name+".member."+strconv.Itoa(n)))
	}
	return values
}

// writeResult answers an action in awsQuery's form.
func writeResult(w http.ResponseWriter, action string, result any) {
	w.Header().Set("Content-Type", "text/xml")
	e := xml.NewEncoder(w)
	response := xml.StartElement{Name: xml.Name{Local: action + "Response"}, Attr: []xml.Attr{
		{Name: xml.Name{Local: "xmlns"}, Value: "http://autoscaling.amazonaws.com/doc/2011-01-01/"},
	}}
	// A client that hung up needs no answer, and everything else here encodes.
	_ = e.EncodeToken(response)
	_ = e.EncodeElement(result, xml.StartElement{Name: xml.Name{Local: action + "Result"}})
	_ = e.EncodeElement(struct {
		RequestID string `xml:"RequestId"`
	}{requestID}, xml.StartElement{Name: xml.Name{Local: "ResponseMetadata"}})
	_ = e.EncodeToken(response.End())
	_ = e.Flush()
}
