package lab

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// behind is a node behind an edge.
type behind struct {
	EdgeNode
	server *httptest.Server
	out    atomic.Bool // /health says so
}

func newBehind(t *testing.T, name string, serve http.HandlerFunc) *behind {
	t.Helper()
	b := &behind{}
	mux := http.NewServeMux()
	mux.HandleFunc("/", serve)
	mux.HandleFunc("/health", func(w http.ResponseWriter, _ *http.Request) {
		if b.out.Load() {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	})
	b.server = httptest.NewServer(mux)
	t.Cleanup(b.server.Close)
	b.EdgeNode = EdgeNode{Name: name, API: strings.TrimPrefix(b.server.URL, "http://"), Health: b.server.URL + "/health"}
	return b
}

func saying(text string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, text) }
}

// ask returns the status and the body of one answer.
func ask(t *testing.T, method, url string) (int, string) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), method, url, nil)
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
	return response.StatusCode, string(body)
}

// awaitAnswers asks until as many answers in a row as there are nodes are these, in any order.
func awaitAnswers(t *testing.T, url string, want ...string) {
	t.Helper()
	deadline := time.Now().Add(startTimeout)
	var got map[string]bool
	for time.Now().Before(deadline) {
		got = map[string]bool{}
		for range 2 {
			code, body := ask(t, http.MethodGet, url)
			if code != http.StatusOK {
				body = http.StatusText(code)
			}
			got[body] = true
		}
		wanted := map[string]bool{}
		for _, w := range want {
			wanted[w] = true
		}
		if cmp.Equal(got, wanted) {
			return
		}
	}
	t.Fatalf("the edge's last answers: got %v, want %v", got, want)
}

func TestAnEdgeSendsRequestsToTheNodesThatAreHealthy(t *testing.T) {
	t.Parallel()
	left, right := newBehind(t, "left", saying("left")), newBehind(t, "right", saying("right"))
	left.out.Store(true)
	right.out.Store(true)
	edge := Edge(t, left.EdgeNode, right.EdgeNode)
	awaitAnswers(t, edge.URL, "Service Unavailable")
	left.out.Store(false)
	awaitAnswers(t, edge.URL, "left")
	right.out.Store(false)
	awaitAnswers(t, edge.URL, "left", "right")
	if err := edge.Await(t.Context(), "left"); err != nil {
		t.Fatal(err)
	}
	left.out.Store(true)
	awaitAnswers(t, edge.URL, "right")
	right.server.Close()
	awaitAnswers(t, edge.URL, "Service Unavailable")
}

func TestANodeIsOutAfterItsFirstBadAnswerAndAfterSeveralMissingOnes(t *testing.T) {
	const missing = 0
	for name, c := range map[string]struct {
		answers []int
		want    bool
	}{
		"nothing heard":              {nil, false},
		"good":                       {[]int{503, 200}, true},
		"bad":                        {[]int{200, 503}, false},
		"one missing":                {[]int{200, missing}, true},
		"two missing":                {[]int{200, missing, missing}, true},
		"three missing":              {[]int{200, missing, missing, missing}, false},
		"three missing, not in line": {[]int{200, missing, missing, 200, missing}, true},
		"missing after a bad one":    {[]int{200, 503, missing}, false},
		"missing before a good one":  {[]int{missing, 200}, true},
	} {
		t.Run(name, func(t *testing.T) {
			var s standing
			for _, status := range c.answers {
				var err error
				if status == missing {
					err = http.ErrHandlerTimeout
				}
				s.hear(status, err)
			}
			if s.in != c.want {
				t.Errorf("after %v: got in %t, want %t", c.answers, s.in, c.want)
			}
		})
	}
}

func TestAnEdgeDoesNotHideThatANodeGivesNoAnswer(t *testing.T) {
	t.Parallel()
	var asked atomic.Int32
	mute := newBehind(t, "left", func(http.ResponseWriter, *http.Request) {
		asked.Add(1)
		panic(http.ErrAbortHandler)
	})
	well := newBehind(t, "right", saying("right"))
	well.out.Store(true)
	edge := Edge(t, mute.EdgeNode, well.EdgeNode)
	awaitAnswers(t, edge.URL, "Bad Gateway")
	well.out.Store(false)
	awaitAnswers(t, edge.URL, "Bad Gateway", "right")

	before := asked.Load()
	for range 10 {
		ask(t, http.MethodGet, edge.URL+"/last")
	}
	edge.Stop()
	requests, err := edge.Requests()
	if err != nil {
		t.Fatal(err)
	}
	if count, err := edge.Count(); err != nil || count != len(requests) {
		t.Errorf("Count: got %d and %v, want %d", count, err, len(requests))
	}
	failed := 0
	for _, r := range requests {
		if r.Path != "/last" {
			continue
		}
		if r.Method != http.MethodGet || r.Ended.Before(r.Began) || time.Since(r.Ended) > startTimeout {
			t.Errorf("got %+v, want a GET of just now", r)
		}
		switch {
		case r.Node == mute.API && r.Status == http.StatusBadGateway:
			failed++
		case r.Node == well.API && r.Status == http.StatusOK && r.NodeStatus == "200":
		default:
			t.Errorf("got %+v, want 502 for one node and 200 for the other", r)
		}
	}
	if failed == 0 || failed != int(asked.Load()-before) {
		t.Errorf("%d requests failed of the %d that the mute node was asked, want all of them", failed, asked.Load()-before)
	}
}

func TestAnEdgeHasAPoolForEachSetOfNodes(t *testing.T) {
	var got []string
	for _, p := range pools([]EdgeNode{{Name: "a"}, {Name: "b"}, {Name: "c"}}) {
		got = append(got, fmt.Sprint(p.Name, " ", len(p.Nodes)))
	}
	want := []string{"in-a 1", "in-b 1", "in-a-b 2", "in-c 1", "in-a-c 2", "in-b-c 2", "in-a-b-c 3"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("pools (-want +got):\n%s", diff)
	}
}

func TestALineOfNginxThatCannotBeReadIsAnError(t *testing.T) {
	for _, line := range []string{"", "1764000000.123|0.001|200|-|-|GET", "soon|0.001|200|-|-|GET|/", "1764000000.123|0.001|fine|-|-|GET|/"} {
		if r, err := parseEdgeRequest(line); err == nil {
			t.Errorf("%q: got %+v, want an error", line, r)
		}
	}
}
