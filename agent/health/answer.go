package health

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/flowviz/flowagent/agent/health/probe"
)

// answer is one complete response. Its headers are slices, which is what net/http keeps them as: nothing is made for a
// request.
type answer struct {
	code        int
	contentType []string
	length      []string
	body        []byte
}

func newAnswer(code int, contentType []string, body []byte) answer {
	return answer{code: code, contentType: contentType, length: []string{strconv.Itoa(len(body))}, body: body}
}

func (a *answer) write(w http.ResponseWriter) {
	header := w.Header()
	header["Cache-Control"] = noStore
	header["Content-Type"] = a.contentType
	header["Content-Length"] = a.length
	header["X-Content-Type-Options"] = noSniff
	w.WriteHeader(a.code)
	_, _ = w.Write(a.body) // net/http drops the body of an answer to HEAD; a client that left is no concern of ours
}

// answers are a snapshot with what is asked for most, ready-made.
type answers struct {
	made       situation // what they were made from
	snapshot   Snapshot
	health     answer
	healthText func() *answer // made when somebody asks for it
}

func render(made situation, s Snapshot) *answers {
	code := http.StatusServiceUnavailable
	if s.State == Ready {
		code = http.StatusOK
	}
	return &answers{
		made:       made,
		snapshot:   s,
		health:     newAnswer(code, healthType, healthJSON(s)),
		healthText: sync.OnceValue(func() *answer { a := newAnswer(code, textType, healthText(s)); return &a }),
	}
}

// document is an answer in the format of draft-inadarei-api-health-check-06, which several load balancers and
// dashboards read, with the node's state beside it.
type document struct {
	Status string                  `json:"status"`
	State  string                  `json:"state"`
	Output string                  `json:"output"`
	Checks map[string][1]component `json:"checks,omitempty"`
}

// component is one check in that format, which wants a list of measurements for each; scope and gates are ours.
type component struct {
	ComponentType string    `json:"componentType"`
	Status        string    `json:"status"`
	Output        string    `json:"output,omitempty"`
	ObservedValue *float64  `json:"observedValue,omitempty"`
	ObservedUnit  string    `json:"observedUnit,omitempty"`
	Time          time.Time `json:"time,omitzero"`
	Scope         string    `json:"scope"`
	Gates         bool      `json:"gates"`
}

func healthJSON(s Snapshot) []byte {
	d := document{Status: s.Status.String(), State: s.State.String(), Output: s.Detail}
	if len(s.Checks) > 0 {
		d.Checks = make(map[string][1]component, len(s.Checks))
	}
	for _, c := range s.Checks {
		d.Checks[c.Name] = [1]component{{
			ComponentType: componentType(c.Kind), Status: c.Status, Output: c.Output, ObservedValue: c.Value, ObservedUnit: c.Unit,
			Time: c.Probed.UTC(), Scope: c.Scope, Gates: c.Gates,
		}}
	}
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false) // the type is no HTML, and people read it in a terminal
	if err := e.Encode(d); err != nil {
		// The only thing here that JSON can't say is a number that is none. Without the findings it is still an answer.
		return healthJSON(Snapshot{State: s.State, Status: s.Status, Detail: join(s.Detail, "the checks can't be shown")})
	}
	return b.Bytes()
}

// componentType is the draft's word for a kind of check.
func componentType(kind string) string {
	switch kind {
	case "postgres", "redis":
		return "datastore"
	case "disk", "file", "command", "systemd", "clock":
		return "system"
	}
	return "component"
}

func healthText(s Snapshot) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s (%s): %s\n", s.State, s.Status, s.Detail)
	width := 0
	for _, c := range s.Checks {
		width = max(width, len(c.Name))
	}
	for _, c := range s.Checks {
		fmt.Fprintf(&b, "%s %-*s  %-4s  %s\n", mark(c), width, c.Name, c.Status, c.Output)
	}
	return b.Bytes()
}

// mark is what Kubernetes prints before a check, and a third one: a check that is down, or warns, without taking the
// node out.
func mark(c CheckStatus) string {
	switch {
	case c.phase == up && c.status == probe.Pass:
		return "[+]"
	case c.phase == up, c.phase == down && !c.Gates:
		return "[!]"
	}
	return "[-]"
}

// alive is the whole truth: a process that answers is alive.
var alive = newAnswer(http.StatusOK, textType, []byte("ok\n"))

// livez answers in the form of Kubernetes' /livez.
func livez(query url.Values) *answer {
	var b bytes.Buffer
	excluded := query["exclude"]
	if !flag(query, "verbose") {
		return &alive
	}
	if slices.Contains(excluded, "ping") {
		b.WriteString("[+]ping excluded: ok\n")
	} else {
		b.WriteString("[+]ping ok\n")
	}
	b.WriteString(unmatched(excluded, []string{"ping"}))
	b.WriteString("livez check passed\n")
	a := newAnswer(http.StatusOK, textType, b.Bytes())
	return &a
}

// agentCheck is the name under which /readyz shows the agent's own state. It can't be excluded: a node that drains is
// not ready, whoever asks. No configured check may have it.
const agentCheck = "agent"

// longestExclude bounds the names that an answer repeats.
const longestExclude = 64

// readyz answers in the form of Kubernetes' /readyz: "ok", or the list of checks where one is wrong or ?verbose asks
// for it; ?exclude= leaves checks out, several by repeating it.
func (a *answers) readyz(query url.Values) *answer {
	s := a.snapshot
	verbose, excluded := flag(query, "verbose"), query["exclude"]
	ready := s.State == Ready
	if !ready && len(excluded) > 0 {
		ready = decide(a.made.without(excluded)).state == Ready
	}
	if ready && !verbose {
		return &alive
	}
	var b bytes.Buffer
	names := make([]string, 0, len(s.Checks))
	own, wrong := a.own()
	if wrong {
		fmt.Fprintf(&b, "[-]%s failed: %s\n", agentCheck, own)
	} else {
		fmt.Fprintf(&b, "[+]%s ok\n", agentCheck)
	}
	for _, c := range s.Checks {
		names = append(names, c.Name)
		switch {
		case slices.Contains(excluded, c.Name):
			fmt.Fprintf(&b, "[+]%s excluded: ok\n", c.Name)
		case c.phase == up && c.status == probe.Pass:
			fmt.Fprintf(&b, "[+]%s ok\n", c.Name)
		case c.phase == up:
			fmt.Fprintf(&b, "%s%s warns: %s\n", mark(c), c.Name, c.Output)
		default:
			fmt.Fprintf(&b, "%s%s failed: %s\n", mark(c), c.Name, c.Output)
		}
	}
	b.WriteString(unmatched(excluded, names))
	code, word := http.StatusOK, "passed"
	if !ready {
		code, word = http.StatusServiceUnavailable, "failed"
	}
	fmt.Fprintf(&b, "readyz check %s\n", word)
	answer := newAnswer(code, textType, b.Bytes())
	return &answer
}

// own is what the agent says of itself, checks aside, and whether that keeps the node from being ready.
func (a *answers) own() (detail string, wrong bool) {
	return join(a.made.own.String(), a.made.detail), a.made.own != Ready
}

// unmatched warns about names that ?exclude= asked for in vain, in Kubernetes' words.
func unmatched(excluded, names []string) string {
	var unknown []string
	for _, name := range excluded {
		if !slices.Contains(names, name) && len(name) <= longestExclude {
			unknown = append(unknown, strconv.QuoteToASCII(name))
		}
	}
	if len(unknown) == 0 {
		return ""
	}
	return "warn: some health checks cannot be excluded: no matches for " + strings.Join(unknown, ",") + "\n"
}

// one is the answer for a single check: 503 while it is down or undecided, whatever that means for the node.
func (a *answers) one(name string) (*answer, bool) {
	if name == agentCheck {
		if own, wrong := a.own(); wrong {
			answer := newAnswer(http.StatusServiceUnavailable, textType, []byte(own+"\n"))
			return &answer, true
		}
		return &alive, true
	}
	for _, c := range a.snapshot.Checks {
		if c.Name != name {
			continue
		}
		switch {
		case c.phase != up:
			answer := newAnswer(http.StatusServiceUnavailable, textType, []byte(c.Status+": "+c.Output+"\n"))
			return &answer, true
		case c.status == probe.Warn:
			answer := newAnswer(http.StatusOK, textType, []byte(c.Status+": "+c.Output+"\n"))
			return &answer, true
		}
		return &alive, true
	}
	return nil, false
}
