package metrics

import (
	"log/slog"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/flowviz/flowagent/agent/drain/inflight"
	"github.com/flowviz/flowagent/agent/health"
	"github.com/flowviz/flowagent/agent/health/probe"
	"github.com/flowviz/flowagent/agent/image"
	"github.com/flowviz/flowagent/agent/notify"
	"github.com/flowviz/flowagent/agent/report"
	"github.com/flowviz/flowagent/agent/secret"
)

// sources are those of a node that has been through everything.
func sources() Sources {
	now := time.Now()
	free := 1.5e9
	return Sources{
		Version: "1.2.3",
		Health: func() health.Snapshot {
			return health.Snapshot{State: health.Ready, Status: probe.Warn, Since: now, Checks: []health.CheckStatus{
				{Name: "database", Kind: "postgres", Scope: "shared", Status: "fail", Probed: now, Took: 3 * time.Millisecond, Passed: 7, Failed: 3, Abandoned: 1},
				{Name: "disk", Kind: "disk", Scope: "node", Gates: true, Status: "pass", Probed: now, Passed: 10, Warned: 2, Value: &free, Unit: "By"},
				{Name: "late", Kind: "http", Scope: "node", Gates: true, Status: "fail"},
			}}
		},
		Delays: func() *health.Delays { return &health.Delays{} },
		Boot: func() Boot {
			return Boot{
				Started: now.Add(-10 * time.Second), Ready: now.Add(-4 * time.Second),
				Stages: []report.Stage{
					{Name: "config", Started: now.Add(-10 * time.Second), Ended: now.Add(-9 * time.Second), Attempts: 1},
					{Name: "secrets", Started: now.Add(-9 * time.Second), Ended: now.Add(-8 * time.Second), Attempts: 3, Error: "denied"},
					{Name: "secrets", Started: now.Add(-8 * time.Second), Ended: now.Add(-6 * time.Second), Attempts: 2},
				},
				Images: []image.Image{{Ref: "app", Pulled: true, Bytes: 1000}, {Ref: "db"}},
			}
		},
		Secrets: func() []secret.Status {
			return []secret.Status{{Name: "db_password", State: secret.Stale, FetchedAt: now.Add(-time.Minute), ChangedAt: now}, {Name: "lost", State: secret.Missing}}
		},
		Recoveries: func() []Recoveries {
			return []Recoveries{{Service: "api", Recovered: 2, Failed: 1}, {Service: "worker", Failed: 5, GivenUp: true}}
		},
		Notices: []string{"spot", "terminate"},
		Drain: func() *report.Drain {
			return &report.Drain{Started: now.Add(-time.Second), Ended: now, Requests: &inflight.Tally{Busy: 2, Idle: 5}, Steps: []report.Stage{
				{Name: "drain.services", Started: now.Add(-time.Second), Ended: now.Add(-500 * time.Millisecond)},
				{Name: "drain.secrets", Started: now.Add(-500 * time.Millisecond), Ended: now, Error: "mount is busy"},
			}}
		},
	}
}

func scrape(t *testing.T, m *Metrics) string {
	t.Helper()
	recorder := httptest.NewRecorder()
	m.Handler(slog.New(slog.DiscardHandler)).ServeHTTP(recorder, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	if recorder.Code != http.StatusOK {
		t.Fatalf("got %d: %s", recorder.Code, recorder.Body)
	}
	return recorder.Body.String()
}

func TestMetrics_SayWhatTheNodeKnows(t *testing.T) {
	var got string
	synctest.Test(t, func(t *testing.T) { // no time passes, so ages are exact
		m := New(sources())
		m.Refreshed(Changed)
		m.Refreshed(Failed)
		m.Refreshed(Failed)
		m.Noticed("spot")
		m.HookFound("flowviz-terminate", "terminating")
		m.Beat("flowviz-terminate", "terminating", true)
		m.Beat("flowviz-terminate", "terminating", true)
		m.HookFound("logs", "terminating")
		m.Beat("logs", "terminating", false)
		m.Completed("flowviz-terminate", "terminating", "CONTINUE", "already over")
		m.NotifiesBy("webhook")
		m.Notified("webhook", notify.Delivered)
		got = scrape(t, m)
	})
	for _, want := range []string{
		`flowagent_build_info\{goversion="go[^"]+",version="1.2.3"\} 1`,
		`flowagent_node_ready 1`,
		`flowagent_notices_total\{kind="spot"\} 1`,
		`flowagent_notices_total\{kind="terminate"\} 0`,
		`flowagent_drain_step_duration_seconds\{step="services"\} 0.5`,
		`flowagent_drain_step_failed\{step="secrets"\} 1`,
		`flowagent_node_warning 1`,
		`flowagent_node_state\{state="ready"\} 1`,
		`flowagent_node_state\{state="draining"\} 0`,
		`flowagent_check_status\{check="database",kind="postgres",scope="shared",status="fail"\} 1`,
		`flowagent_check_status\{check="database",kind="postgres",scope="shared",status="pass"\} 0`,
		`flowagent_check_gates\{check="database"\} 0`,
		`flowagent_check_last_duration_seconds\{check="database"\} 0.003`,
		`flowagent_check_results_total\{check="disk",result="warn"\} 2`,
		`flowagent_check_abandoned_total\{check="database"\} 1`,
		`flowagent_check_value\{check="disk",unit="By"\} 1.5e\+09`,
		`flowagent_check_start_delay_seconds_bucket\{le="0.05"\} 0`,
		`flowagent_boot_ready_seconds 6`,
		`flowagent_boot_stage_duration_seconds\{stage="secrets"\} 2`,
		`flowagent_boot_stage_attempts\{stage="secrets"\} 2`,
		`flowagent_boot_stage_failed\{stage="secrets"\} 0`,
		`flowagent_boot_images\{origin="pulled"\} 1`,
		`flowagent_boot_images\{origin="present"\} 1`,
		`flowagent_boot_pulled_bytes 1000`,
		`flowagent_secret_age_seconds\{secret="db_password"\} 60`,
		`flowagent_secret_state\{secret="db_password",state="stale"\} 1`,
		`flowagent_secret_refreshes_total\{result="changed"\} 1`,
		`flowagent_secret_refreshes_total\{result="failed"\} 2`,
		`flowagent_secret_refreshes_total\{result="unchanged"\} 0`,
		`flowagent_service_recoveries_total\{result="recovered",service="api"\} 2`,
		`flowagent_service_recoveries_total\{result="failed",service="worker"\} 5`,
		`flowagent_service_given_up\{service="api"\} 0`,
		`flowagent_service_given_up\{service="worker"\} 1`,
		`flowagent_drain_state\{state="drained"\} 1`,
		`flowagent_drain_duration_seconds 1`,
		`flowagent_notifications_total\{result="delivered",sink="webhook"\} 1`,
		`flowagent_notifications_total\{result="failed",sink="webhook"\} 0`,
		`flowagent_notifications_total\{result="dropped",sink="webhook"\} 0`,
		`flowagent_drain_requests_left\{state="busy"\} 2`,
		`flowagent_drain_requests_left\{state="idle"\} 5`,
		`flowagent_drain_requests_left\{state="unknown"\} 0`,
		`flowagent_lifecycle_heartbeats_total\{hook="flowviz-terminate",result="sent",transition="terminating"\} 2`,
		`flowagent_lifecycle_heartbeats_total\{hook="flowviz-terminate",result="failed",transition="terminating"\} 0`,
		`flowagent_lifecycle_heartbeats_total\{hook="logs",result="failed",transition="terminating"\} 1`,
		`flowagent_lifecycle_actions_total\{hook="flowviz-terminate",outcome="already_over",result="CONTINUE",transition="terminating"\} 1`,
		`process_resident_memory_bytes .+`,
		`go_goroutines .+`,
	} {
		if !regexp.MustCompile(`(?m)^` + want + `$`).MatchString(got) {
			t.Errorf("no line matches %s in:\n%s", want, ours(got))
		}
	}
	for _, never := range []string{`flowagent_check_last_duration_seconds{check="late"}`, `flowagent_secret_age_seconds{secret="lost"}`} {
		if strings.Contains(got, never) {
			t.Errorf("%s is there, and it never happened", never)
		}
	}
}

// ours leaves Go's and the process's own metrics out.
func ours(text string) string {
	var lines []string
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, "flowagent_") {
			lines = append(lines, line)
		}
	}
	return strings.Join(lines, "")
}

// The linter is the one of `promtool check metrics`.
func TestMetrics_PassPrometheusOwnLinter(t *testing.T) {
	m := New(sources())
	m.Beat("terminate", "terminating", true)
	m.Completed("terminate", "terminating", "CONTINUE", "completed")
	m.NotifiesBy("webhook")
	problems, err := testutil.GatherAndLint(m.registry)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
}

func TestMetrics_AreThereBeforeTheBootKnowsAnything(t *testing.T) {
	got := scrape(t, New(Sources{Version: "1", Health: health.NewEndpoint().Snapshot}))
	for _, want := range []string{"flowagent_node_ready 0\n", `flowagent_node_state{state="starting"} 1` + "\n"} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in:\n%s", want, ours(got))
		}
	}
}

func TestMetrics_NoMoreSeriesThanTheConfigurationNames(t *testing.T) {
	count := func() int {
		families, err := prometheus.Gatherers{New(sources()).registry}.Gather()
		if err != nil {
			t.Fatal(err)
		}
		n := 0
		for _, f := range families {
			if strings.HasPrefix(f.GetName(), "flowagent_") {
				n += len(f.GetMetric())
			}
		}
		return n
	}
	// Three checks, two secrets, two stages, two services, and what every node has.
	if got := count(); got > 85 || got < 50 {
		t.Errorf("got %d series", got)
	}
}
