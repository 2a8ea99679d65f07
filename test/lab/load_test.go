package lab

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"
)

func TestALoadCallsEverythingFailedButTheStatusThatIsWanted(t *testing.T) {
	t.Parallel()
	const enough = 40
	var mu sync.Mutex
	served := map[string]int{}
	seen := make(chan struct{})
	total := 0
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		mu.Lock()
		served[r.Method+" "+r.URL.Path+" "+string(body)]++
		if total++; total == enough {
			close(seen)
		}
		mu.Unlock()
		switch r.URL.Path {
		case "/missing":
			w.WriteHeader(http.StatusNotFound)
		case "/busy":
			w.WriteHeader(http.StatusServiceUnavailable)
		case "/cut":
			w.Header().Set("Content-Length", "100")
			fmt.Fprint(w, "the begin")
		case "/mute":
			panic(http.ErrAbortHandler)
		}
	}))
	t.Cleanup(server.Close)
	load := Load(t, LoadSpec{Base: server.URL, Rate: 200, Clients: 4, Targets: []LoadTarget{
		{Method: http.MethodGet, Path: "/", Want: http.StatusOK},
		{Method: http.MethodPost, Path: "/new", Body: `{"a": 1}`, Want: http.StatusOK},
		{Method: http.MethodGet, Path: "/missing", Want: http.StatusNotFound},
		{Method: http.MethodGet, Path: "/busy", Want: http.StatusOK},
		{Method: http.MethodGet, Path: "/cut", Want: http.StatusOK},
		{Method: http.MethodPost, Path: "/mute", Want: http.StatusOK},
	}})
	ctx, cancel := context.WithTimeout(t.Context(), startTimeout)
	defer cancel()
	select {
	case <-seen:
	case <-ctx.Done():
		mu.Lock()
		defer mu.Unlock()
		t.Fatalf("the server saw %d requests, want %d", total, enough)
	}
	answers, err := load.End(ctx)
	if err != nil {
		t.Fatal(err)
	}
	type outcome struct {
		Code   int
		Failed bool
	}
	want := map[string]outcome{
		"GET /": {200, false}, "POST /new": {200, false}, "GET /missing": {404, false},
		"GET /busy": {503, true}, "GET /cut": {0, true}, "POST /mute": {0, true},
	}
	asked := map[string]int{}
	for _, a := range answers {
		what := a.Method + " " + a.URL[len(server.URL):]
		asked[what]++
		if got := (outcome{a.Code, a.Failed}); got != want[what] {
			t.Errorf("%s: got %+v, want %+v", what, got, want[what])
		}
		if a.Latency <= 0 || time.Since(a.Began) > startTimeout || a.Failed && a.Error == "" {
			t.Errorf("%s: got %+v, want a time, and a reason where it failed", what, a)
		}
	}
	mu.Lock()
	defer mu.Unlock()
	for what := range want {
		body := " "
		if what == "POST /new" {
			body = ` {"a": 1}`
		}
		if asked[what] == 0 || asked[what] != served[what+body] {
			t.Errorf("%s: %d answers for %d requests that the server saw, want as many", what, asked[what], served[what+body])
		}
	}
}
