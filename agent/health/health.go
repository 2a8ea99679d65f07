// Package health answers for the node's fitness to serve over HTTP.
//
// What enters is the node's state, set by the agent; what leaves are ready-made answers from an atomic snapshot, so
// that no request ever runs a probe, takes a lock or can change anything. It shows no secret and has no control: that
// is on the Unix socket alone.
package health

import (
	"encoding/json"
	"log/slog"
	"net/http"
	"strconv"
	"sync/atomic"
	"time"
)

// State is where the node is in its life.
type State int

const (
	Starting State = iota // the zero value: not fit to serve yet
	Ready                 // the only state that answers 200
	Failing               // the boot failed for good, or the workload is broken
	Draining              // leaving: no new work, please
)

func (s State) String() string {
	switch s {
	case Ready:
		return "ready"
	case Failing:
		return "failing"
	case Draining:
		return "draining"
	default:
		return "starting"
	}
}

// answer is one complete response.
type answer struct {
	state  State
	code   int
	json   []byte
	length []string
}

// Endpoint serves /health and /livez. The zero value is not usable; see [NewEndpoint].
type Endpoint struct {
	current atomic.Pointer[answer]
}

// NewEndpoint starts in the state Starting.
func NewEndpoint() *Endpoint {
	e := &Endpoint{}
	e.Set(Starting, "starting")
	return e
}

// State returns the state that is being served.
func (e *Endpoint) State() State { return e.current.Load().state }

// Set changes what is answered from the next request on. Detail is shown to whoever may reach the port: it says what
// the node waits for, and never a secret.
func (e *Endpoint) Set(state State, detail string) {
	// The format of draft-inadarei-api-health-check-06, which several load balancers and dashboards read.
	body := struct {
		Status string `json:"status"`
		Output string `json:"output"`
	}{Status: "fail", Output: detail}
	code := http.StatusServiceUnavailable
	if state == Ready {
		body.Status, code = "pass", http.StatusOK
	}
	encoded, err := json.Marshal(body)
	if err != nil { // strings always encode; invalid UTF-8 is replaced
		encoded = []byte(`{"status":"fail"}`)
	}
	encoded = append(encoded, '\n')
	e.current.Store(&answer{state: state, code: code, json: encoded, length: []string{strconv.Itoa(len(encoded))}})
}

var (
	healthType = []string{"application/health+json"}
	textType   = []string{"text/plain; charset=utf-8"}
	noStore    = []string{"no-store"} // a cached answer is a wrong answer
)

// ServeHTTP answers GET and HEAD.
func (e *Endpoint) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		http.Error(w, "method not allowed", http.StatusMethodNotAllowed)
		return
	}
	header := w.Header()
	header["Cache-Control"] = noStore
	switch r.URL.Path {
	case "/health":
		a := e.current.Load()
		header["Content-Type"] = healthType
		header["Content-Length"] = a.length
		w.WriteHeader(a.code)
		_, _ = w.Write(a.json) // net/http drops the body of an answer to HEAD; a client that left is no concern of ours
	case "/livez":
		header["Content-Type"] = textType
		_, _ = w.Write([]byte("ok\n"))
	default:
		http.NotFound(w, r)
	}
}

// NewServer wraps the endpoint with limits that keep slow or hostile clients from holding it.
func NewServer(e *Endpoint, log *slog.Logger) *http.Server {
	return &http.Server{
		Handler: e,
		// A load balancer sends its few header lines at once; ALB's own probe gives up after 5 s by default.
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       5 * time.Second,
		WriteTimeout:      5 * time.Second,
		// Longer than the 30 s between two probes of an ALB, so that its connection is kept.
		IdleTimeout: 65 * time.Second,
		// A probe needs a few hundred bytes.
		MaxHeaderBytes: 8 << 10,
		ErrorLog:       slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
}
