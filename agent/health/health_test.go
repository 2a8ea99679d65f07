package health

import (
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
)

func serve(t *testing.T, e *Endpoint) string {
	t.Helper()
	server := NewServer(e, slog.New(slog.DiscardHandler))
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- server.Serve(listener) }()
	t.Cleanup(func() {
		_ = server.Close()
		if err := <-done; err != http.ErrServerClosed {
			t.Errorf("Serve: %v", err)
		}
	})
	return "http://" + listener.Addr().String()
}

func request(t *testing.T, method, url string) (*http.Response, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, string(body)
}

func TestHealth_Answers200OnlyWhenReady(t *testing.T) {
	e := NewEndpoint()
	url := serve(t, e) + "/health"
	for _, tc := range []struct {
		state  State
		code   int
		status string
	}{
		{Starting, 503, "fail"}, {Ready, 200, "pass"}, {Failing, 503, "fail"}, {Draining, 503, "fail"}, {Ready, 200, "pass"},
	} {
		e.Set(tc.state, "detail of "+tc.state.String())
		resp, body := request(t, http.MethodGet, url)
		var got struct{ Status, Output string }
		if err := json.Unmarshal([]byte(body), &got); err != nil {
			t.Fatalf("%v: %v in %q", tc.state, err, body)
		}
		if resp.StatusCode != tc.code || got.Status != tc.status || got.Output != "detail of "+tc.state.String() {
			t.Errorf("%v: got %d %+v, want %d %s", tc.state, resp.StatusCode, got, tc.code, tc.status)
		}
		if got, want := resp.Header.Get("Content-Type"), "application/health+json"; got != want {
			t.Errorf("%v: Content-Type %q, want %q", tc.state, got, want)
		}
	}
}

func TestHealth_ANewEndpointIsStarting(t *testing.T) {
	resp, body := request(t, http.MethodGet, serve(t, NewEndpoint())+"/health")
	if resp.StatusCode != 503 || !strings.Contains(body, "starting") {
		t.Errorf("got %d %q, want 503 starting", resp.StatusCode, body)
	}
}

func TestHealth_HeadHasTheSameHeadersAndNoBody(t *testing.T) {
	e := NewEndpoint()
	e.Set(Ready, "ready")
	url := serve(t, e) + "/health"
	get, body := request(t, http.MethodGet, url)
	head, empty := request(t, http.MethodHead, url)
	if head.StatusCode != get.StatusCode || empty != "" || head.ContentLength != int64(len(body)) {
		t.Errorf("HEAD: got %d, body %q, length %d; want %d, none, %d", head.StatusCode, empty, head.ContentLength, get.StatusCode, len(body))
	}
}

func TestHealth_TheTCPPortChangesNothing(t *testing.T) {
	url := serve(t, NewEndpoint())
	for _, method := range []string{http.MethodPost, http.MethodPut, http.MethodDelete} {
		if resp, _ := request(t, method, url+"/health"); resp.StatusCode != http.StatusMethodNotAllowed {
			t.Errorf("%s /health: got %d, want 405", method, resp.StatusCode)
		}
	}
	if resp, _ := request(t, http.MethodGet, url+"/v1/drain"); resp.StatusCode != http.StatusNotFound {
		t.Errorf("GET /v1/drain: got %d, want 404", resp.StatusCode)
	}
	if resp, _ := request(t, http.MethodGet, url+"/livez"); resp.StatusCode != http.StatusOK {
		t.Errorf("GET /livez while starting: got %d, want 200", resp.StatusCode)
	}
}

func TestHealth_EveryAnswerIsWholeWhileTheStateChanges(t *testing.T) {
	e := NewEndpoint()
	var writers sync.WaitGroup
	writers.Go(func() {
		for i := range 2000 {
			if i%2 == 0 {
				e.Set(Ready, "ready")
			} else {
				e.Set(Draining, "draining because somebody asked for it")
			}
		}
	})
	for range 2000 {
		recorder := httptest.NewRecorder()
		e.ServeHTTP(recorder, httptest.NewRequest(http.MethodGet, "/health", nil))
		var got struct{ Status string }
		if err := json.Unmarshal(recorder.Body.Bytes(), &got); err != nil {
			t.Fatalf("%v in %q", err, recorder.Body)
		}
		if (recorder.Code == 200) != (got.Status == "pass") {
			t.Fatalf("code %d with status %q", recorder.Code, got.Status)
		}
	}
	writers.Wait()
}

type discardWriter struct{ header http.Header }

func (w discardWriter) Header() http.Header       { return w.header }
func (discardWriter) Write(b []byte) (int, error) { return len(b), nil }
func (discardWriter) WriteHeader(int)             {}
