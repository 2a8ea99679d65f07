// Package health answers for the node's fitness to serve over HTTP.
//
// What enters are the node's state, set by the agent, and the findings of probes, which a [Monitor] asks in loops of
// their own; what leaves are ready-made answers from an atomic snapshot, so that no request ever runs a probe, waits
// for one or can change anything. It shows no secret and has no control: that is on the Unix socket alone.
package health

import (
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/flowviz/flowagent/agent/health/probe"
)

// Snapshot is what the node answers at one moment. It is never changed.
type Snapshot struct {
	State State
	// Status is pass or warn in the state Ready, else fail.
	Status probe.Status
	// Detail says what the node waits for or what is wrong; never a secret.
	Detail string
	// Since is when State began.
	Since  time.Time
	Checks []CheckStatus
}

// Endpoint serves the node's health. The zero value is not usable; see [NewEndpoint].
type Endpoint struct {
	current atomic.Pointer[answers]
	pages   map[string]http.Handler
	changed chan struct{} // holds one when State or Detail changed since somebody looked

	mu     sync.Mutex // guards what the answers are made from
	now    situation
	since  time.Time
	latest verdict
}

// NewEndpoint starts in the state Starting, without checks.
func NewEndpoint() *Endpoint {
	e := &Endpoint{pages: map[string]http.Handler{}, changed: make(chan struct{}, 1), since: time.Now()}
	e.now.admitted = true // a node without checks waits for none
	e.Set(Starting, "starting")
	return e
}

// Handle serves a page of its own, such as /metrics, to GET and HEAD. It is called before the endpoint serves.
func (e *Endpoint) Handle(path string, page http.Handler) { e.pages[path] = page }

// State returns the state that is being served: the agent's own, or what the checks make of it.
func (e *Endpoint) State() State { return e.current.Load().snapshot.State }

// Own returns the state that the agent set last, whatever the checks say.
func (e *Endpoint) Own() State {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.now.own
}

// Snapshot returns what is being served.
func (e *Endpoint) Snapshot() Snapshot { return e.current.Load().snapshot }

// Changed yields once after the state or its detail changed, however often. It is for one reader.
func (e *Endpoint) Changed() <-chan struct{} { return e.changed }

// Set says what the agent knows of itself; from the next request on that is answered, or, in the state Ready, what the
// checks make of it. Detail is shown to whoever may reach the port: it says what the node waits for, and never a secret.
func (e *Endpoint) Set(state State, detail string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.now.own, e.now.detail = state, detail
	e.answer()
}

// setChecks takes what a monitor found. The slice is not changed afterwards.
func (e *Endpoint) setChecks(checks []CheckStatus, admitted bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.now.checks, e.now.admitted = checks, admitted
	e.answer()
}

// answer makes the answers for the present situation.
func (e *Endpoint) answer() {
	v := decide(e.now)
	if v.state == Ready {
		e.now.served = true
	}
	if v.state != e.latest.state {
		e.since = time.Now()
	}
	news := v.state != e.latest.state || v.detail != e.latest.detail
	e.latest = v
	e.current.Store(render(e.now, Snapshot{State: v.state, Status: v.status, Detail: v.detail, Since: e.since, Checks: e.now.checks}))
	if news {
		select {
		case e.changed <- struct{}{}:
		default: // nobody looked since the last one
		}
	}
}

var (
	healthType = []string{"application/health+json"}
	textType   = []string{"text/plain; charset=utf-8"}
	noStore    = []string{"no-store"} // a cached answer is a wrong answer
	noSniff    = []string{"nosniff"}
)

// ServeHTTP answers GET and HEAD from the snapshot. It changes nothing.
func (e *Endpoint) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		http.Error(w, "method not allowed", http.StatusMethodNotAllowed)
		return
	}
	a := e.current.Load()
	if r.URL.Path == "/health" && r.URL.RawQuery == "" { // what load balancers ask, without a detour
		a.health.write(w)
		return
	}
	e.route(a, w, r)
}

func (e *Endpoint) route(a *answers, w http.ResponseWriter, r *http.Request) {
	path := r.URL.Path
	query := r.URL.Query()
	switch {
	case path == "/health" && !flag(query, "verbose"):
		a.health.write(w)
	case path == "/health":
		a.healthText().write(w)
	case path == "/readyz":
		a.readyz(query).write(w)
	case path == "/livez":
		livez(query).write(w)
	case path == "/livez/ping":
		alive.write(w)
	case strings.HasPrefix(path, "/readyz/"):
		one, found := a.one(strings.TrimPrefix(path, "/readyz/"))
		if !found {
			http.NotFound(w, r)
			return
		}
		one.write(w)
	default:
		page, found := e.pages[path]
		if !found {
			http.NotFound(w, r)
			return
		}
		w.Header()["Cache-Control"] = noStore
		page.ServeHTTP(w, r)
	}
}

// flag tells whether a query has a flag: ?verbose, ?verbose=true; not ?verbose=false.
func flag(query url.Values, name string) bool {
	return query.Has(name) && query.Get(name) != "false" && query.Get(name) != "0"
}
