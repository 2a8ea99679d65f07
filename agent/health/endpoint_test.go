package health

import (
	"encoding/json"
	"math"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/flowviz/flowagent/agent/config"
	"github.com/flowviz/flowagent/agent/health/probe"
)

// node is an endpoint that serves a node with these checks.
func node(own State, admitted bool, checks ...CheckStatus) *Endpoint {
	e := NewEndpoint()
	e.setChecks(checks, admitted)
	e.Set(own, own.String())
	return e
}

func get(e http.Handler, target string) (code int, body string) {
	recorder := httptest.NewRecorder()
	e.ServeHTTP(recorder, httptest.NewRequest(http.MethodGet, target, nil))
	return recorder.Code, recorder.Body.String()
}

var (
	apiUp        = found("api", config.ScopeNode, config.GateAuto, up, probe.Pass)
	apiDown      = found("api", config.ScopeNode, config.GateAuto, down, probe.Fail)
	databaseUp   = found("database", config.ScopeShared, config.GateAuto, up, probe.Pass)
	databaseDown = found("database", config.ScopeShared, config.GateAuto, down, probe.Fail)
	diskWarns    = found("disk", config.ScopeNode, config.GateAuto, up, probe.Warn)
)

func TestEndpoint_HealthListsEveryCheckInTheDraftsFormat(t *testing.T) {
	free := 12.5
	disk := diskWarns
	disk.Kind, disk.Scope, disk.Value, disk.Unit, disk.Probed = "disk", "node", &free, "%", time.Date(2026, 11, 23, 19, 0, 0, 0, time.UTC)
	database := databaseDown
	database.Kind, database.Scope = "postgres", "shared"
	code, body := get(node(Ready, true, disk, database), "/health")
	var got, want any
	if err := json.Unmarshal([]byte(body), &got); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal([]byte(`{
		"status": "warn", "state": "ready", "output": "disk: found; database: found",
		"checks": {
			"disk": [{"componentType": "system", "status": "warn", "output": "found", "observedValue": 12.5, "observedUnit": "%",
				"time": "2026-11-23T19:00:00Z", "scope": "node", "gates": true}],
			"database": [{"componentType": "datastore", "status": "fail", "output": "found", "scope": "shared", "gates": false}]
		}}`), &want); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); code != 200 || diff != "" {
		t.Errorf("got %d (-want +got):\n%s", code, diff)
	}
}

func TestEndpoint_AnswersForEveryStateOnEveryPath(t *testing.T) {
	for _, c := range []struct {
		name                   string
		e                      *Endpoint
		health, readyz, api    int
		healthWord, readyzText string
	}{
		{"booting", node(Starting, false), 503, 503, 404, "fail", "[-]agent failed: starting"},
		{"waiting", node(Ready, false, found("api", config.ScopeNode, config.GateAuto, pending, probe.Fail)), 503, 503, 503, "fail", "[-]api failed: found"},
		{"ready", node(Ready, true, apiUp, databaseUp), 200, 200, 200, "pass", "ok"},
		{"warning", node(Ready, true, apiUp, databaseDown), 200, 200, 200, "warn", "ok"},
		{"failing", node(Ready, true, apiDown, databaseUp), 503, 503, 503, "fail", "[-]api failed: found\n[+]database ok\nreadyz check failed\n"},
		{"boot failed", node(Failing, true, apiUp), 503, 503, 200, "fail", "[-]agent failed: failing"},
		{"draining", node(Draining, true, apiUp), 503, 503, 200, "fail", "[-]agent failed: draining"},
	} {
		t.Run(c.name, func(t *testing.T) {
			for _, want := range []struct {
				target string
				code   int
				text   string
			}{
				{"/health", c.health, `"status":"` + c.healthWord + `"`},
				{"/health?verbose", c.health, "(" + c.healthWord + "): "},
				{"/health?verbose=false", c.health, `"status":"` + c.healthWord + `"`},
				{"/health?cachebuster=1", c.health, `"status":"` + c.healthWord + `"`},
				{"/readyz", c.readyz, c.readyzText},
				{"/readyz/api", c.api, ""},
				{"/readyz/other", 404, ""},
				{"/livez", 200, "ok\n"},
				{"/livez/ping", 200, "ok\n"},
				{"/livez?verbose", 200, "[+]ping ok\nlivez check passed\n"},
				{"/", 404, ""},
			} {
				if code, body := get(c.e, want.target); code != want.code || !strings.Contains(body, want.text) {
					t.Errorf("%s: got %d %q, want %d %q", want.target, code, body, want.code, want.text)
				}
			}
		})
	}
}

func TestReadyz_SpeaksKubernetes(t *testing.T) {
	for _, c := range []struct {
		name   string
		e      *Endpoint
		target string
		code   int
		want   string
	}{
		{"verbose", node(Ready, true, apiUp, databaseDown, diskWarns), "/readyz?verbose", 200,
			"[+]agent ok\n[+]api ok\n[!]database failed: found\n[!]disk warns: found\nreadyz check passed\n"},
		{"an excluded check", node(Ready, true, apiDown, databaseUp), "/readyz?exclude=api", 200, "ok\n"},
		{"an excluded check, verbose", node(Ready, true, apiDown), "/readyz?exclude=api&verbose", 200,
			"[+]agent ok\n[+]api excluded: ok\nreadyz check passed\n"},
		{"several excluded checks", node(Ready, false, apiDown, databaseDown), "/readyz?exclude=api&exclude=database", 200, "ok\n"},
		{"one of several", node(Ready, false, apiDown, databaseDown), "/readyz?exclude=api", 503,
			"[+]agent ok\n[+]api excluded: ok\n[!]database failed: found\nreadyz check failed\n"},
		{"a name that isn't there", node(Ready, true, apiUp), "/readyz?exclude=nope&verbose", 200,
			"[+]agent ok\n[+]api ok\nwarn: some health checks cannot be excluded: no matches for \"nope\"\nreadyz check passed\n"},
		{"the agent itself", node(Draining, true, apiUp), "/readyz?exclude=agent", 503,
			"[-]agent failed: draining: draining\n[+]api ok\nwarn: some health checks cannot be excluded: no matches for \"agent\"\nreadyz check failed\n"},
		{"one check", node(Ready, true, databaseDown), "/readyz/database", 503, "fail: found\n"},
		{"one check that warns", node(Ready, true, diskWarns), "/readyz/disk", 200, "warn: found\n"},
		{"the agent", node(Ready, true, apiDown), "/readyz/agent", 200, "ok\n"},
		{"the agent, leaving", node(Draining, true, apiUp), "/readyz/agent", 503, "draining: draining\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if code, body := get(c.e, c.target); code != c.code || body != c.want {
				t.Errorf("got %d\n%s\nwant %d\n%s", code, body, c.code, c.want)
			}
		})
	}
}

func TestEndpoint_NamesInAQueryComeBackHarmless(t *testing.T) {
	_, body := get(node(Ready, true, apiUp), "/readyz?verbose&exclude=%0A%5B%2B%5Dfake+ok&exclude="+strings.Repeat("x", 5000))
	if strings.Contains(body, "\n[+]fake") || len(body) > 1000 {
		t.Errorf("got %q", body)
	}
}

func TestEndpoint_ANumberThatJSONCannotSayIsStillAnAnswer(t *testing.T) {
	odd, nan := apiUp, math.NaN()
	odd.Value = &nan
	code, body := get(node(Ready, true, odd), "/health")
	if code != 200 || !strings.Contains(body, `"status":"pass"`) {
		t.Errorf("got %d %q", code, body)
	}
}

func TestEndpoint_ServesOtherPagesToReadersOnly(t *testing.T) {
	e := NewEndpoint()
	e.Handle("/metrics", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("up 1\n")) }))
	if code, body := get(e, "/metrics"); code != 200 || body != "up 1\n" {
		t.Errorf("got %d %q", code, body)
	}
	recorder := httptest.NewRecorder()
	e.ServeHTTP(recorder, httptest.NewRequest(http.MethodPost, "/metrics", nil))
	if recorder.Code != http.StatusMethodNotAllowed {
		t.Errorf("POST: got %d, want 405", recorder.Code)
	}
}

// The race detector's own memory isn't counted, so this holds with it, too. The number is the average's whole part: what
// a goroutine of an earlier test allocates meanwhile is less than one a request.
func TestEndpoint_AnAnswerFromTheSnapshotAllocatesNothing(t *testing.T) {
	e := node(Ready, true, apiUp, databaseDown, diskWarns)
	w := discardWriter{header: http.Header{}}
	for _, method := range []string{http.MethodGet, http.MethodHead} {
		request := httptest.NewRequest(method, "/health", nil)
		if got := testing.AllocsPerRun(1000, func() { e.ServeHTTP(w, request) }); got != 0 {
			t.Errorf("%s /health: got %v allocations a request, want none", method, got)
		}
	}
}

func TestEndpoint_TellsOnceOfWhatChanged(t *testing.T) {
	e := NewEndpoint()
	<-e.Changed() // that it starts
	e.Set(Starting, "images")
	e.Set(Starting, "workload")
	<-e.Changed()
	e.Set(Starting, "workload")
	select {
	case <-e.Changed():
		t.Error("told again, and nothing changed")
	default:
	}
}
