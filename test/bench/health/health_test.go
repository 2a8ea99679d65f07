package main

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/flowviz/flowagent/test/bench/command"
	"github.com/flowviz/flowagent/test/bench/process"
)

// asContestant is how a test's own process is told to be one.
const asContestant = "BENCH_HEALTH_CONTESTANT"

func TestMain(m *testing.M) {
	if contestant := os.Getenv(asContestant); contestant != "" {
		if err := run([]string{"-serve", contestant}); err != nil {
			panic(err)
		}
		return
	}
	os.Exit(m.Run())
}

// asked starts a contestant as the bench does, and asks it once.
func asked(t *testing.T, contestant string) (*http.Response, string) {
	t.Helper()
	p, err := process.Start(process.Command{Arguments: []string{os.Args[0]}, Env: []string{asContestant + "=" + contestant}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	url, err := address(t.Context(), p)
	if err != nil {
		t.Fatal(p.Blame(err))
	}
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response, string(body)
}

func TestContestants_AnswerAlike(t *testing.T) {
	bareResponse, bareBody := asked(t, bare)
	response, body := asked(t, flowagent)
	var got, want struct {
		Status string
		Checks map[string][]struct{ Status string }
	}
	for text, into := range map[string]any{body: &got, bareBody: &want} {
		if err := json.Unmarshal([]byte(text), into); err != nil {
			t.Fatalf("%v in %s", err, text)
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("answers (-bare +flowagent):\n%s", diff)
	}
	if got.Status != "warn" || len(got.Checks) != 10 {
		t.Errorf("got %s with %d checks, want warn with 10", got.Status, len(got.Checks))
	}
	if response.StatusCode != http.StatusOK || bareResponse.StatusCode != http.StatusOK {
		t.Errorf("got %d and, bare, %d, want 200", response.StatusCode, bareResponse.StatusCode)
	}
	for _, header := range []http.Header{response.Header, bareResponse.Header} {
		header.Del("Date")
		header.Del("Content-Length") // the times of the probes aren't the same length each time
	}
	if diff := cmp.Diff(bareResponse.Header, response.Header); diff != "" {
		t.Errorf("headers (-bare +flowagent):\n%s", diff)
	}
}

func TestParse_ReadsTheReportBehindWhatWrkSays(t *testing.T) {
	got, err := parse([]byte("Running 2s test @ http://127.0.0.1:1/health\n  1 threads and 1 connections\n" +
		`{"requests":30000,"micros":2000000,"failed":0,"p50":60,"p99":180}` + "\n"))
	if err != nil {
		t.Fatal(err)
	}
	if want := (load{rate: 15000, p50: 60 * time.Microsecond, p99: 180 * time.Microsecond}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	for _, output := range []string{
		"",
		"unable to connect to 127.0.0.1:1 Connection refused\n",
		`{"requests":30000,"micros":2000000,"failed":3,"p50":60,"p99":180}`,
		`{"requests":0,"micros":2000000,"failed":0,"p50":0,"p99":0}`,
	} {
		if got, err := parse([]byte(output)); err == nil {
			t.Errorf("%q: got %+v, want an error", output, got)
		}
	}
}

func TestResults_ShowMediansAndRatiosTakenWithinRounds(t *testing.T) {
	var r results
	for _, noise := range []float64{1, 2, 1} { // the second round had a noisy neighbour
		at := func(rate float64) map[int]load {
			l := load{rate: rate / noise, p50: 50 * time.Microsecond, p99: 90 * time.Microsecond}
			return map[int]load{1: l, 50: l}
		}
		r = append(r, round{bare: at(20000), flowagent: at(18000)})
	}
	var b strings.Builder
	if err := r.print(&b); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"/health, 1 kept connections  requests/s           p50            p99",
		"  flowagent                  18000 (9000–18000)   50 µs (50–50)  90 µs (90–90)",
		"/health, 50 kept connections",
		"flowagent ÷ bare net/http, 50 connections: p50 1.00 (1.00–1.00), requests/s 0.90 (0.90–0.90); at least 0.9: within",
	} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("got\n%s\nwant %q in it", b.String(), want)
		}
	}
}

func TestRun_RefusesWhatItCantDo(t *testing.T) {
	for _, arguments := range [][]string{{"-rounds", "0"}, {"-duration", "1500ms"}, {"more"}, {"-serve", "nobody"}, {"-no-such-flag"}} {
		if err := run(arguments); err == nil || !strings.Contains(err.Error(), command.ErrUsage.Error()) {
			t.Errorf("%q: got %v, want %v", arguments, err, command.ErrUsage)
		}
	}
}

func TestServe_EndsWhenItIsTold(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	out, in := io.Pipe()
	go func() { ended <- serve(ctx, flowagent, in) }()
	if _, err := out.Read(make([]byte, 100)); err != nil {
		t.Fatal(err)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
