package probe

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"

	"github.com/flowviz/flowagent/agent/secret"
)

func TestHTTP_StatusAndBodyDecide(t *testing.T) {
	mux := http.NewServeMux()
	mux.HandleFunc("/ok", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, `{"status":"up"}`) })
	mux.HandleFunc("/nothing", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) })
	mux.HandleFunc("/moved", func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "/ok?token=hunter2", http.StatusFound)
	})
	mux.HandleFunc("/broken", func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, "password hunter2", http.StatusServiceUnavailable)
	})
	mux.HandleFunc("/odd", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(299) })
	mux.HandleFunc("/early", func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusEarlyHints)
		w.WriteHeader(http.StatusProcessing)
		fmt.Fprint(w, "ready")
	})
	mux.HandleFunc("/long", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, strings.Repeat("x", httpBodyLimit-4), "last", "beyond")
	})
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	tests := map[string]struct {
		path     string
		statuses []int
		match    string
		status   Status
		output   string
	}{
		"200":                         {path: "/ok", status: Pass, output: "answers 200 OK"},
		"204":                         {path: "/nothing", status: Pass, output: "answers 204 No Content"},
		"a code without a name":       {path: "/odd", status: Pass, output: "answers 299"},
		"hints before the answer":     {path: "/early", match: "ready", status: Pass, output: "answers 200 OK and what is expected"},
		"a redirect is not followed":  {path: "/moved", output: "answers 302 Found"},
		"a redirect that is expected": {path: "/moved", statuses: []int{302}, status: Pass, output: "answers 302 Found"},
		"503":                         {path: "/broken", output: "answers 503 Service Unavailable"},
		"a code that isn't expected":  {path: "/ok", statuses: []int{204, 301}, output: "answers 200 OK"},
		"404":                         {path: "/none", output: "answers 404 Not Found"},
		"the body matches":            {path: "/ok", match: `"status":"(up|warn)"`, status: Pass, output: "and what is expected"},
		"the body doesn't match":      {path: "/ok", match: "down", output: `its body doesn't match "down"`},
		"a match at the limit":        {path: "/long", match: "last$", status: Pass, output: "and what is expected"},
		"a match beyond the limit":    {path: "/long", match: "beyond", output: "doesn't match"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			p := &HTTP{URL: server.URL + test.path + "?token=hunter2", Statuses: test.statuses}
			if test.match != "" {
				p.Match = regexp.MustCompile(test.match)
			}
			got := p.Probe(t.Context())
			expect(t, got, test.status, test.output)
			if strings.Contains(got.Output, "hunter2") {
				t.Errorf("the output shows what is nobody's business: %q", got.Output)
			}
		})
	}
}

func TestHTTP_SendsHeadersAndClosesTheConnection(t *testing.T) {
	var got *http.Request
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { got = r }))
	t.Cleanup(server.Close)
	t.Setenv("HTTP_PROXY", "http://127.0.0.1:1")
	p := &HTTP{
		URL: server.URL + "/health?deep=1", Headers: map[string]string{"Host": "shop.example", "X-Probe": "flowagent"},
		SecretHeaders: map[string]func() secret.Value{"Authorization": password("Bearer hunter2\n")},
	}
	expect(t, p.Probe(t.Context()), Pass, "answers 200 OK")
	want := map[string]string{
		"method": "GET", "uri": "/health?deep=1", "host": "shop.example", "probe": "flowagent", "authorization": "Bearer hunter2",
		"agent": "flowagent", "close": "true",
	}
	have := map[string]string{
		"method": got.Method, "uri": got.RequestURI, "host": got.Host, "probe": got.Header.Get("X-Probe"),
		"authorization": got.Header.Get("Authorization"), "agent": got.UserAgent(), "close": fmt.Sprint(got.Close),
	}
	for key := range want {
		if have[key] != want[key] {
			t.Errorf("%s: got %q, want %q", key, have[key], want[key])
		}
	}
}

func TestHTTP_ASecretHeaderMustBeThereAndOneLine(t *testing.T) {
	p := &HTTP{URL: "http://127.0.0.1:1/", SecretHeaders: map[string]func() secret.Value{"X-Key": func() secret.Value { return secret.Value{} }}}
	expect(t, p.Probe(t.Context()), Fail, "the secret for header X-Key isn't there yet")
	p.SecretHeaders["X-Key"] = password("a\r\nX-Other: b")
	got := p.Probe(t.Context())
	expect(t, got, Fail, "the secret for header X-Key has more than one line")
}

func TestHTTP_TLSIsVerified(t *testing.T) {
	a := newAuthority(t)
	certificate, err := tls.LoadX509KeyPair(a.issue(t, issued{}))
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	server.TLS = &tls.Config{Certificates: []tls.Certificate{certificate}}
	server.Config.ErrorLog = log.New(io.Discard, "", 0) // it would tell of each refusal
	server.StartTLS()
	t.Cleanup(server.Close)
	expect(t, (&HTTP{URL: server.URL, TLS: &ClientTLS{CAFile: a.file}}).Probe(t.Context()), Pass, "answers 200 OK")
	expect(t, (&HTTP{URL: server.URL}).Probe(t.Context()), Fail, "TLS: the certificate is signed by an authority that is not trusted here")
	expect(t, (&HTTP{URL: server.URL, TLS: &ClientTLS{CAFile: a.file, ServerName: "api"}}).Probe(t.Context()), Fail, "not for api")
	expect(t, (&HTTP{URL: strings.Replace(server.URL, "https", "http", 1)}).Probe(t.Context()), Fail, "answers 400 Bad Request")
}

func TestHTTP_AnswersThatAreNoneFail(t *testing.T) {
	for name, test := range map[string]struct{ answer, output string }{
		"another protocol":     {"-ERR hunter2\r\n", "what answers is not HTTP/1.1"},
		"a broken header":      {"HTTP/1.1 200 OK\r\nhunter2\r\n\r\n", "what answers is not HTTP/1.1"},
		"a broken length":      {"HTTP/1.1 200 OK\r\nContent-Length: hunter2\r\n\r\n", "what answers is not HTTP/1.1"},
		"nothing":              {"", "the server closed the connection"},
		"half a head":          {"HTTP/1.1 200 OK\r\nX-Half: ", "the server closed the connection"},
		"half a body":          {"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf", "its body breaks off: the server closed the connection"},
		"hints without end":    {strings.Repeat("HTTP/1.1 103 Early Hints\r\n\r\n", httpInterim), "it never comes to an answer"},
		"headers without end":  {"HTTP/1.1 200 OK\r\n" + strings.Repeat("X-Name: value\r\n", httpHeadLimit/10), "bytes of headers"},
		"one line without end": {"HTTP/1.1 200 OK\r\nX: " + strings.Repeat("x", 2*httpHeadLimit), "bytes of headers"},
	} {
		t.Run(name, func(t *testing.T) {
			p := &HTTP{URL: "http://" + say(t, test.answer), Match: regexp.MustCompile("whole")}
			got := p.Probe(t.Context())
			expect(t, got, Fail, test.output)
			if strings.Contains(got.Output, "hunter2") {
				t.Errorf("the output repeats what came: %q", got.Output)
			}
		})
	}
}

func TestHTTP_URLsThatMakeNoSenseFailWithoutBeingRepeated(t *testing.T) {
	for url, want := range map[string]string{
		"":                              "not an http or https URL",
		"ftp://hunter2/":                "not an http or https URL",
		"http://":                       "not an http or https URL",
		"http://host:hunter2/":          "not an http or https URL",
		"http://user:hunter2@127.0.0.1": "the URL holds credentials: send a secret header instead",
	} {
		got := (&HTTP{URL: url}).Probe(t.Context())
		expect(t, got, Fail, want)
		if strings.Contains(got.Output, "hunter2") {
			t.Errorf("%q is repeated: %q", url, got.Output)
		}
	}
}

// FuzzHTTPResponse holds the reading of a head against any bytes: it ends, and its error repeats nothing.
func FuzzHTTPResponse(f *testing.F) {
	for _, seed := range []string{"HTTP/1.1 200 OK\r\n\r\n", "HTTP/1.1 103 \r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx",
		"HTTP/1.0 200\nTransfer-Encoding: chunked\n\n1\nx\n0\n\n", "HTTP/1.1 101 x\r\n\r\n", "HTTP/9.9 999 x\r\n\r\n"} {
		f.Add([]byte(seed))
	}
	request, err := http.NewRequest(http.MethodGet, "http://127.0.0.1/", nil)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		response, err := (&HTTP{}).response(strings.NewReader(string(raw)), request)
		if err != nil {
			return
		}
		if response.StatusCode < 101 {
			t.Fatalf("%q ends with status %d", raw, response.StatusCode)
		}
		_, _ = bufio.NewReader(response.Body).ReadString(0)
	})
}
