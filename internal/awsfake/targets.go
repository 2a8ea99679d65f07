package awsfake

import (
	"cmp"
	"encoding/xml"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"sync"
	"time"
)

// Targets answers DescribeTargetHealth, DeregisterTargets and RegisterTargets with targets that drain: moto forgets a target
// at once, and keeps one port for each only. Calls about groups that nobody added go on to moto. Its methods may be called while it
// serves.
type Targets struct {
	elsewhere http.Handler
	now       func() time.Time
	drains    time.Duration

	mu     sync.Mutex
	groups map[string]*targetGroup
}

type targetGroup struct {
	port    int // of a target that is named without one
	targets map[target]*targetState
}

type target struct {
	id   string
	port int
}

type targetState struct {
	health string
	left   time.Time // when it was deregistered; zero while it is registered
}

// Targets takes the three actions over. A deregistered target is draining for so long, by the clock now, and then unused.
func (s *Server) Targets(now func() time.Time, drains time.Duration) *Targets {
	t := &Targets{elsewhere: s.upstream, now: now, drains: drains, groups: make(map[string]*targetGroup)}
	s.Handle("DescribeTargetHealth", t.handler(t.describe))
	s.Handle("DeregisterTargets", t.handler(t.deregister))
	s.Handle("RegisterTargets", t.handler(t.register))
	return t
}

// Add makes an empty target group with the port that targets have by default.
func (t *Targets) Add(group string, port int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.groups[group] = &targetGroup{port: port, targets: make(map[target]*targetState)}
}

// Register puts a target into a group that was added, in a state such as healthy or initial, or changes its state.
func (t *Targets) Register(group, id string, port int, health string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.groups[group].targets[target{id, port}] = &targetState{health: health}
}

// Deregister lets a target begin to drain, as its Auto Scaling group does. One that isn't registered stays as it is.
func (t *Targets) Deregister(group, id string, port int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.groups[group].deregister(target{id, port}, t.now())
}

// State tells a target's state as DescribeTargetHealth does.
func (t *Targets) State(group, id string, port int) string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.health(t.groups[group], target{id, port}).State
}

func (g *targetGroup) deregister(one target, now time.Time) {
	if state := g.targets[one]; state != nil && state.left.IsZero() {
		state.left = now
	}
}

// health is the state of a target with the reason that AWS gives for it.
func (t *Targets) health(g *targetGroup, one target) targetHealth {
	state := g.targets[one]
	switch {
	case state == nil, !state.left.IsZero() && t.now().Sub(state.left) >= t.drains:
		return targetHealth{State: "unused", Reason: "Target.NotRegistered"}
	case !state.left.IsZero():
		return targetHealth{State: "draining", Reason: "Target.DeregistrationInProgress"}
	}
	return targetHealth{State: state.health}
}

// handler finds the group that a call is about and the targets that it names.
func (t *Targets) handler(answer func(g *targetGroup, named []target) any) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		form, err := url.ParseQuery(string(peek(r)))
		if err != nil {
			WriteError(w, r, http.StatusBadRequest, "MalformedQueryString", err.Error())
			return
		}
		t.mu.Lock()
		g := t.groups[form.Get("TargetGroupArn")]
		if g == nil {
			t.mu.Unlock()
			t.elsewhere.ServeHTTP(w, r)
			return
		}
		var body []byte
		named, err := g.named(form)
		if err == nil {
			body, err = xml.Marshal(answer(g, named))
		}
		t.mu.Unlock()
		if err != nil {
			WriteError(w, r, http.StatusBadRequest, "ValidationError", err.Error())
			return
		}
		w.Header().Set("Content-Type", "text/xml")
		_, _ = w.Write(body) // a client that hung up needs no answer
	})
}

// named reads a call's targets; one without a port means the group's.
func (g *targetGroup) named(form url.Values) ([]target, error) {
	var named []target
	for i := 1; ; i++ {
		member := fmt.Sprintf("Targets.member.%d.", i)
		one := target{form.Get(member + "Id"), g.port}
		if one.id == "" {
			return named, nil
		}
		if port := form.Get(member + "Port"); port != "" {
			var err error
			if one.port, err = strconv.Atoi(port); err != nil {
				return nil, fmt.Errorf("port %q is not a number", port)
			}
		}
		named = append(named, one)
	}
}

// describe tells of the named targets, or of all that are registered or draining.
func (t *Targets) describe(g *targetGroup, named []target) any {
	all := len(named) == 0
	if all {
		named = slices.SortedFunc(maps.Keys(g.targets), func(a, b target) int {
			return cmp.Or(cmp.Compare(a.id, b.id), cmp.Compare(a.port, b.port))
		})
	}
	var reply describeTargetHealthResponse
	for _, one := range named {
		health := t.health(g, one)
		if all && health.Reason == "Target.NotRegistered" {
			continue
		}
		d := targetHealthDescription{TargetHealth: health}
		d.Target.ID, d.Target.Port = one.id, one.port
		reply.Descriptions = append(reply.Descriptions, d)
	}
	return reply
}

func (t *Targets) deregister(g *targetGroup, named []target) any {
	for _, one := range named {
		g.deregister(one, t.now())
	}
	return deregisterTargetsResponse{}
}

// register begins a target anew, as AWS does: its first health checks are to come.
func (t *Targets) register(g *targetGroup, named []target) any {
	for _, one := range named {
		g.targets[one] = &targetState{health: "initial"}
	}
	return registerTargetsResponse{}
}

// The answers as Elastic Load Balancing spells them (API version 2015-12-01).
type describeTargetHealthResponse struct {
	XMLName      xml.Name                  `xml:"DescribeTargetHealthResponse"`
	Descriptions []targetHealthDescription `xml:"DescribeTargetHealthResult>TargetHealthDescriptions>member"`
}

type targetHealthDescription struct {
	Target struct {
		ID   string `xml:"Id"`
		Port int
	}
	TargetHealth targetHealth
}

type targetHealth struct {
	State  string
	Reason string `xml:",omitempty"`
}

type registerTargetsResponse struct {
	XMLName xml.Name `xml:"RegisterTargetsResponse"`
	Result  struct{} `xml:"RegisterTargetsResult"`
}

type deregisterTargetsResponse struct {
	XMLName xml.Name `xml:"DeregisterTargetsResponse"`
	Result  struct{} `xml:"DeregisterTargetsResult"`
}
