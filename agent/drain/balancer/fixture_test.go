package balancer_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"

	"github.com/flowviz/flowagent/agent/drain/balancer"
	"github.com/flowviz/flowagent/internal/awsfake"
)

const (
	instance = "i-0123456789abcdef0"
	other    = "i-0fedcba9876543210" // in the same groups, and to be left alone
	drains   = 5 * time.Minute       // AWS's own default
)

func arnOf(name string) string {
	return "arn:aws:elasticloadbalancing:us-east-1:123456789012:targetgroup/" + name + "/0123456789abcdef"
}

// caller carries calls to a handler without a network, so that they can be made in a bubble of synctest.
type caller struct{ handler http.Handler }

func (c caller) Do(r *http.Request) (*http.Response, error) {
	type result struct {
		response *http.Response
		err      error
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, err
	}
	r = r.Clone(r.Context()) // a client that gave up goes on to change its own
	r.Body = io.NopCloser(bytes.NewReader(body))
	answered := make(chan result, 1)
	go func() {
		w := httptest.NewRecorder()
		defer func() {
			if recover() != nil {
				answered <- result{err: io.ErrUnexpectedEOF} // as from a connection that broke
				return
			}
			answered <- result{response: w.Result()}
		}()
		c.handler.ServeHTTP(w, r)
	}()
	select {
	case a := <-answered:
		return a.response, a.err
	case <-r.Context().Done():
		return nil, r.Context().Err()
	}
}

// journal takes a log from several goroutines.
type journal struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (j *journal) Write(p []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.b.Write(p)
}

// events are the lines with all of the words.
func (j *journal) events(words ...string) []string {
	j.mu.Lock()
	defer j.mu.Unlock()
	var found []string
	for line := range strings.Lines(j.b.String()) {
		missing := false
		for _, word := range words {
			missing = missing || !strings.Contains(line, word)
		}
		if !missing {
			found = append(found, line)
		}
	}
	return found
}

// cloud is AWS for one instance, with nothing in it yet.
type cloud struct {
	*awsfake.Server
	targets *awsfake.Targets
	log     journal
	options balancer.Options
}

func newCloud(t *testing.T) *cloud {
	t.Helper()
	fake, err := awsfake.New("")
	if err != nil {
		t.Fatal(err)
	}
	c := &cloud{Server: fake, targets: fake.Targets(time.Now, drains)}
	c.options = balancer.Options{
		Instance: instance, Log: slog.New(slog.NewTextHandler(&c.log, nil)), Random: func() float64 { return 0.5 },
	}
	c.options.LoadBalancing, c.options.Scaling = balancer.NewClients(aws.Config{
		Region: "us-east-1", BaseEndpoint: aws.String("http://aws"), HTTPClient: caller{fake},
		Credentials: credentials.NewStaticCredentialsProvider("test", "test", ""),
	})
	return c
}

// group adds a target group that holds the other instance, and this one in a state.
func (c *cloud) group(name, state string) balancer.Group {
	c.targets.Add(arnOf(name), 80)
	c.targets.Register(arnOf(name), other, 80, "healthy")
	c.targets.Register(arnOf(name), instance, 80, state)
	return balancer.Group{ARN: arnOf(name)}
}

func (c *cloud) state(g balancer.Group) string { return c.targets.State(g.ARN, instance, 80) }

// leave has the node leave within a time.
func (c *cloud) leave(t *testing.T, limit time.Duration, groups ...balancer.Group) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	return balancer.New(c.options).Leave(ctx, groups)
}

// says checks that an error holds all of the words.
func says(t *testing.T, err error, words ...string) {
	t.Helper()
	if err == nil {
		t.Errorf("got no error, want one with %q", words)
		return
	}
	for _, word := range words {
		if !strings.Contains(err.Error(), word) {
			t.Errorf("got the error %q, want %q in it", err, word)
		}
	}
}

// only applies a fault to calls about one group.
func only(group balancer.Group, fault awsfake.Fault) awsfake.Fault {
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			body, err := io.ReadAll(r.Body)
			if err != nil {
				awsfake.WriteError(w, r, http.StatusBadRequest, "MalformedQueryString", err.Error())
				return
			}
			r.Body = io.NopCloser(bytes.NewReader(body))
			if strings.Contains(string(body), url.QueryEscape(group.ARN)) {
				fault(next).ServeHTTP(w, r)
				return
			}
			next.ServeHTTP(w, r)
		})
	}
}

// replyTo makes a fault of a whole answer in the query protocol, without effect.
func replyTo(action, result string) awsfake.Fault {
	return func(http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/xml")
			_, _ = fmt.Fprintf(w, "<%[1]sResponse><%[1]sResult>%[2]s</%[1]sResult></%[1]sResponse>", action, result)
		})
	}
}
