package node

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/flowviz/flowagent/agent/config"
	"github.com/flowviz/flowagent/test/lab"
)

var onEC2 = config.Node{Provider: config.ProviderEC2}

// service is a metadata service that demands tokens, as version 2 does, and can be told to misbehave.
type service struct {
	answers map[string]string // by path; others get 404

	mu        sync.Mutex
	tokens    int      // handed out; the newest is the only one that is accepted
	questions []string // paths asked for, token requests apart
	intercept func(w http.ResponseWriter, r *http.Request) bool
}

func (s *service) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	if r.Method == http.MethodGet {
		s.questions = append(s.questions, r.URL.Path)
	}
	intercept := s.intercept
	s.mu.Unlock()
	if intercept != nil && intercept(w, r) {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if r.Method == http.MethodPut && r.URL.Path == "/latest/api/token" {
		life := r.Header.Get("X-aws-ec2-metadata-token-ttl-seconds")
		if life == "" {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		s.tokens++
		w.Header().Set("X-aws-ec2-metadata-token-ttl-seconds", life)
		fmt.Fprintf(w, "token-%d", s.tokens)
		return
	}
	if r.Header.Get("X-aws-ec2-metadata-token") != fmt.Sprintf("token-%d", s.tokens) {
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	answer, found := s.answers[r.URL.Path]
	if !found {
		w.WriteHeader(http.StatusNotFound)
		return
	}
	_, _ = io.WriteString(w, answer)
}

// revoke makes every token so far invalid before its time.
func (s *service) revoke() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tokens++
}

func (s *service) asked() (tokens int, questions []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.tokens, s.questions
}

// memory is a network without a kernel, so that a test's time stands still while a server and its client talk.
type memory struct {
	conns chan net.Conn
	down  func() bool // while true, connections are refused
	dials atomic.Int32
}

func (n *memory) Accept() (net.Conn, error) {
	conn, open := <-n.conns
	if !open {
		return nil, net.ErrClosed
	}
	return conn, nil
}
func (n *memory) Close() error   { return nil }
func (n *memory) Addr() net.Addr { return &net.UnixAddr{Name: "memory"} }

func (n *memory) dial(ctx context.Context, network, address string) (net.Conn, error) {
	n.dials.Add(1)
	if n.down != nil && n.down() {
		return nil, &net.OpError{Op: "dial", Net: network, Err: os.NewSyscallError("connect", syscall.ECONNREFUSED)}
	}
	ours, theirs := net.Pipe()
	select {
	case n.conns <- theirs:
		return ours, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// serve runs handler inside a synctest bubble until the test ends, and returns options that lead to it alone.
func serve(t *testing.T, handler http.Handler) (*memory, Options) {
	t.Helper()
	network := &memory{conns: make(chan net.Conn)}
	server := &http.Server{Handler: handler}
	var serving sync.WaitGroup
	serving.Go(func() { _ = server.Serve(network) })
	t.Cleanup(func() {
		close(network.conns)
		_ = server.Close()
		serving.Wait()
	})
	return network, Options{
		SysRoot:          t.TempDir(),
		MetadataEndpoint: "http://169.254.169.254",
		dial:             network.dial,
		random:           func() float64 { return 0.5 },
	}
}

const document = `{"accountId": "012345678901", "imageId": "ami-0123", "availabilityZone": "eu-central-1a", "instanceId": "i-0123",
	"instanceType": "m7g.large", "region": "eu-central-1", "pendingTime": "2026-11-23T18:00:00Z"}`

func instance() *service {
	return &service{answers: map[string]string{
		"/latest/dynamic/instance-identity/document": document,
		"/latest/meta-data/local-hostname":           "ip-10-0-0-1.eu-central-1.compute.internal",
		"/latest/user-data":                          "kind: Node\n",
	}}
}

var wantInstance = Identity{
	Provider: config.ProviderEC2, InstanceID: "i-0123", Hostname: "ip-10-0-0-1.eu-central-1.compute.internal", Region: "eu-central-1",
	AvailabilityZone: "eu-central-1a", AccountID: "012345678901", InstanceType: "m7g.large", ImageID: "ami-0123",
}

// wantIdentity discovers and expects the instance that instance serves.
func wantIdentity(t *testing.T, o Options) *Metadata {
	t.Helper()
	got, metadata, err := Discover(t.Context(), onEC2, o)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(wantInstance, got); diff != "" {
		t.Errorf("identity (-want +got):\n%s", diff)
	}
	return metadata
}

func TestEC2IsAskedThroughTheMetadataMock(t *testing.T) {
	userData := "apiVersion: flowagent/v1\nkind: Node\n"
	endpoint := lab.MetadataMock(t, `{
		"metadata": {"values": {"instance-life-cycle": "spot"}},
		"dynamic": {"values": {"instance-identity-document": {"accountId": "123456789012", "availabilityZone": "eu-west-1b",
			"instanceId": "i-0fedcba9876543210", "region": "eu-west-1", "instanceType": "m7i.large", "imageId": "ami-0a"}}},
		"userdata": {"values": {"userdata": "`+base64.StdEncoding.EncodeToString([]byte(userData))+`"}}}`)
	got, metadata, err := Discover(t.Context(), config.Node{Provider: config.ProviderAuto}, Options{
		SysRoot: sysRoot(t, nitro), MetadataEndpoint: endpoint,
	})
	if err != nil {
		t.Fatal(err)
	}
	want := Identity{
		Provider: config.ProviderEC2, InstanceID: "i-0fedcba9876543210", Hostname: "ip-172-16-34-43.ec2.internal", Region: "eu-west-1",
		AvailabilityZone: "eu-west-1b", AccountID: "123456789012", InstanceType: "m7i.large", ImageID: "ami-0a",
		Vendor: "Amazon EC2", Product: "m7i.large",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("identity (-want +got):\n%s", diff)
	}
	if data, err := metadata.UserData(t.Context()); err != nil || string(data) != userData {
		t.Errorf("user data = %q, %v; want %q", data, err, userData)
	}
	for path, want := range map[string]string{
		"instance-life-cycle":                "spot",
		"autoscaling/target-lifecycle-state": "Terminated", // the mock fires everything it knows at once
	} {
		if value, found, err := metadata.Get(t.Context(), path); value != want || !found || err != nil {
			t.Errorf("%s = %q, %v, %v; want %q", path, value, found, err, want)
		}
	}
	if value, found, err := metadata.Get(t.Context(), "no/such/thing"); value != "" || found || err != nil {
		t.Errorf("a path that isn't there = %q, %v, %v; want not found and no error", value, found, err)
	}
}

func TestTheEndpointOfTheSDKsVariableIsUsed(t *testing.T) {
	server := httptest.NewServer(instance())
	defer server.Close()
	t.Setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", server.URL)
	wantIdentity(t, Options{SysRoot: t.TempDir()})
}

func TestAutoOutsideEC2MakesNoConnection(t *testing.T) {
	for name, files := range map[string]map[string]string{"QEMU": qemu, "VMware": vmware, "no firmware": nil} {
		t.Run(name, func(t *testing.T) {
			listener, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			var connections, dials atomic.Int32
			var accepting sync.WaitGroup
			accepting.Go(func() {
				for {
					conn, err := listener.Accept()
					if err != nil {
						return
					}
					connections.Add(1)
					_ = conn.Close()
				}
			})
			t.Setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", "http://"+listener.Addr().String())
			id, metadata, err := Discover(t.Context(), config.Node{Provider: config.ProviderAuto}, Options{
				SysRoot: sysRoot(t, files),
				dial: func(ctx context.Context, network, address string) (net.Conn, error) {
					dials.Add(1)
					return (&net.Dialer{}).DialContext(ctx, network, address)
				},
			})
			if err != nil || metadata != nil || id.Provider != config.ProviderLocal {
				t.Errorf("Discover = %+v, %v, %v; want a local identity without a client", id, metadata, err)
			}
			_ = listener.Close()
			accepting.Wait()
			if connections.Load() != 0 || dials.Load() != 0 {
				t.Errorf("%d connections and %d dials, want none", connections.Load(), dials.Load())
			}
		})
	}
}

func TestAPortThatOpensLateIsWaitedFor(t *testing.T) {
	const refusals = 4
	var refused atomic.Int32
	server := &http.Server{Handler: instance()}
	defer server.Close()
	wantIdentity(t, Options{
		SysRoot:          t.TempDir(),
		MetadataEndpoint: "http://" + lab.DeafAddress(t),
		random:           func() float64 { return 0 },
		dial: func(ctx context.Context, network, address string) (net.Conn, error) {
			conn, err := (&net.Dialer{}).DialContext(ctx, network, address)
			if errors.Is(err, syscall.ECONNREFUSED) && refused.Add(1) == refusals {
				late, err := net.Listen(network, address)
				if err != nil {
					return nil, err
				}
				go func() { _ = server.Serve(late) }()
			}
			return conn, err
		},
	})
	if got := refused.Load(); got != refusals {
		t.Errorf("refused tries = %d, want %d", got, refusals)
	}
}

func TestANetworkThatIsMinutesLateIsWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		network, o := serve(t, instance())
		network.down = func() bool { return time.Since(start) < 110*time.Second }
		var log bytes.Buffer
		o.Log = slog.New(slog.NewJSONHandler(&log, nil))
		wantIdentity(t, o)
		if waited := time.Since(start); waited < 110*time.Second || waited > 110*time.Second+longestPause {
			t.Errorf("answered after %s, want at most %s after the network came", waited, longestPause)
		}
		if got, want := strings.Count(log.String(), `"phase":"node"`), int(network.dials.Load())-1; got != want {
			t.Errorf("%d events, want one for each of %d failed tries:\n%s", got, want, &log)
		}
	})
}

func TestANetworkThatNeverComesIsGivenUpInTime(t *testing.T) {
	for _, wait := range []time.Duration{0, 30 * time.Second} {
		synctest.Test(t, func(t *testing.T) {
			start := time.Now()
			network, o := serve(t, instance())
			network.down = func() bool { return true }
			o.Wait = wait
			_, metadata, err := Discover(t.Context(), onEC2, o)
			if !errors.Is(err, ErrUnavailable) || metadata != nil {
				t.Fatalf("Discover = %v, %v; want ErrUnavailable and no client", metadata, err)
			}
			want := wait
			if want == 0 {
				want = DefaultWait
			}
			if got := time.Since(start); got != want {
				t.Errorf("gave up after %s, want %s", got, want)
			}
			for _, part := range []string{"connection refused", "169.254.169.254", "node.provider: local"} {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("error %q: want %q in it", err, part)
				}
			}
		})
	}
}

func TestPausesAreFullyJitteredAndBounded(t *testing.T) {
	for _, tt := range []struct {
		try    int
		random float64
		want   time.Duration
	}{
		{1, 0, 0},
		{1, 0.5, 50 * time.Millisecond},
		{3, 0.5, 200 * time.Millisecond},
		{7, 0.5, 2500 * time.Millisecond},
		{1000, 0.5, 2500 * time.Millisecond},
	} {
		m := &Metadata{random: func() float64 { return tt.random }}
		if got := m.pause(tt.try); got != tt.want {
			t.Errorf("pause after try %d at %.1f = %s, want %s", tt.try, tt.random, got, tt.want)
		}
	}
}

func Test404EverywhereLeavesFieldsUnknown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &service{}
		_, o := serve(t, s)
		o.SysRoot = sysRoot(t, nitro)
		got, metadata, err := Discover(t.Context(), onEC2, o)
		if err != nil {
			t.Fatal(err)
		}
		want := Identity{Provider: config.ProviderEC2, InstanceID: "i-0a1b2c3d4e5f60718", Vendor: "Amazon EC2", Product: "m7i.large"}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("identity (-want +got):\n%s", diff)
		}
		if data, err := metadata.UserData(t.Context()); data != nil || err != nil {
			t.Errorf("user data = %q, %v; want nil, nil", data, err)
		}
		if tokens, _ := s.asked(); tokens != 1 {
			t.Errorf("tokens = %d, want 1 for all questions", tokens)
		}
	})
}

func TestSinglePathsServeWhereTheDocumentIsMissing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, o := serve(t, &service{answers: map[string]string{
			"/latest/meta-data/instance-id":                 "i-0123\n",
			"/latest/meta-data/placement/region":            "eu-central-1",
			"/latest/meta-data/placement/availability-zone": "eu-central-1a",
			"/latest/meta-data/instance-type":               "m7g.large",
			"/latest/meta-data/ami-id":                      "ami-0123",
			"/latest/meta-data/local-hostname":              "ip-10-0-0-1",
		}})
		got, _, err := Discover(t.Context(), onEC2, o)
		if err != nil {
			t.Fatal(err)
		}
		want := wantInstance
		want.AccountID, want.Hostname = "", "ip-10-0-0-1"
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("identity (-want +got):\n%s", diff)
		}
	})
}

func TestTheKernelsHostnameWins(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := instance()
		_, o := serve(t, s)
		o.SysRoot = sysRoot(t, map[string]string{"proc/sys/kernel/hostname": "wms-1"})
		got, _, err := Discover(t.Context(), onEC2, o)
		if err != nil || got.Hostname != "wms-1" {
			t.Errorf("hostname = %q, %v; want wms-1", got.Hostname, err)
		}
		if _, questions := s.asked(); len(questions) != 1 {
			t.Errorf("questions = %q, want the document alone", questions)
		}
	})
}

func TestAServiceOfVersion1IsRefusedAtOnce(t *testing.T) {
	for _, tt := range []struct {
		name  string
		token http.HandlerFunc
	}{
		{"token path unknown", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNotFound) }},
		{"PUT not allowed", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusMethodNotAllowed) }},
		{"PUT bad", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusBadRequest) }},
		{"turned off", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusForbidden) }},
		{"PUT taken for GET", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "latest") }},
		{"redirect", func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "http://elsewhere.example/latest/api/token", http.StatusTemporaryRedirect)
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				start := time.Now()
				var puts, gets atomic.Int32
				network, o := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					if r.Method == http.MethodPut {
						puts.Add(1)
						tt.token(w, r)
						return
					}
					gets.Add(1)
					_, _ = io.WriteString(w, document)
				}))
				id, metadata, err := Discover(t.Context(), onEC2, o)
				if !errors.Is(err, ErrNoIMDSv2) || metadata != nil || id != (Identity{}) {
					t.Errorf("Discover = %+v, %v, %v; want ErrNoIMDSv2", id, metadata, err)
				} else if !strings.Contains(err.Error(), "node.provider: local") {
					t.Errorf("error %q doesn't say what to do", err)
				}
				if puts.Load() != 1 || gets.Load() != 0 || network.dials.Load() != 1 {
					t.Errorf("%d token requests, %d questions, %d connections; want 1, 0 and 1", puts.Load(), gets.Load(), network.dials.Load())
				}
				if waited := time.Since(start); waited != 0 {
					t.Errorf("refused after %s, want at once", waited)
				}
			})
		})
	}
}

func TestAnAnswerThatPassesIsTriedAgain(t *testing.T) {
	for _, tt := range []struct {
		name   string
		method string
		answer http.HandlerFunc
	}{
		{"token 500", http.MethodPut, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusInternalServerError) }},
		{"token 503", http.MethodPut, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusServiceUnavailable) }},
		{"token 429", http.MethodPut, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusTooManyRequests) }},
		{"token after the limit of a try", http.MethodPut, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }},
		{"document 500", http.MethodGet, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusInternalServerError) }},
		{"document 429", http.MethodGet, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusTooManyRequests) }},
		{"connection lost", http.MethodGet, func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }},
		{"connection lost in the middle", http.MethodGet, func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, document[:20])
			_ = http.NewResponseController(w).Flush()
			panic(http.ErrAbortHandler)
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := instance()
				var failed atomic.Int32
				s.intercept = func(w http.ResponseWriter, r *http.Request) bool {
					if r.Method != tt.method || failed.Add(1) > 3 {
						return false
					}
					tt.answer(w, r)
					return true
				}
				_, o := serve(t, s)
				wantIdentity(t, o)
				if failed.Load() <= 3 {
					t.Errorf("only %d requests reached the failure, want more than 3", failed.Load())
				}
			})
		})
	}
}

func TestASlowTokenIsWaitedForWithinOneTry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		s := instance()
		s.intercept = func(_ http.ResponseWriter, r *http.Request) bool {
			if r.Method == http.MethodPut {
				<-time.After(tryTimeout - time.Second)
			}
			return false
		}
		_, o := serve(t, s)
		wantIdentity(t, o)
		if tokens, _ := s.asked(); tokens != 1 || time.Since(start) != tryTimeout-time.Second {
			t.Errorf("%d tokens in %s, want 1 in %s", tokens, time.Since(start), tryTimeout-time.Second)
		}
	})
}

func TestOneTokenServesUntilItExpiresOrIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := instance()
		network, o := serve(t, s)
		metadata := wantIdentity(t, o)
		ask := func(wantTokens int) {
			t.Helper()
			value, found, err := metadata.Get(t.Context(), "local-hostname")
			if value != wantInstance.Hostname || !found || err != nil {
				t.Errorf("Get = %q, %v, %v; want %q", value, found, err, wantInstance.Hostname)
			}
			if tokens, _ := s.asked(); tokens != wantTokens {
				t.Errorf("tokens = %d, want %d", tokens, wantTokens)
			}
		}
		for range 20 {
			ask(1)
		}
		if got := network.dials.Load(); got != 1 {
			t.Errorf("connections = %d, want 1", got)
		}
		s.revoke()
		ask(3) // the second was never handed out
		<-time.After(6 * time.Minute)
		ask(4)
	})
}

func TestATokenThatIsNeverAcceptedIsUnavailableToAPoller(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := instance()
		_, o := serve(t, s)
		metadata := wantIdentity(t, o)
		s.mu.Lock()
		s.intercept = func(w http.ResponseWriter, r *http.Request) bool {
			if r.Method == http.MethodGet {
				w.WriteHeader(http.StatusUnauthorized)
			}
			return r.Method == http.MethodGet
		}
		s.mu.Unlock()
		if _, found, err := metadata.Get(t.Context(), "local-hostname"); found || !errors.Is(err, ErrUnavailable) {
			t.Errorf("Get = %v, %v; want ErrUnavailable", found, err)
		}
	})
}

func TestAPollerIsToldAtOnceAndGoesOnLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := instance()
		network, o := serve(t, s)
		metadata := wantIdentity(t, o)
		for _, status := range []int{http.StatusInternalServerError, http.StatusServiceUnavailable} {
			s.mu.Lock()
			s.intercept = func(w http.ResponseWriter, _ *http.Request) bool { w.WriteHeader(status); return true }
			s.mu.Unlock()
			start := time.Now()
			if _, found, err := metadata.Get(t.Context(), "local-hostname"); found || !errors.Is(err, ErrUnavailable) {
				t.Errorf("Get on %d = %v, %v; want ErrUnavailable", status, found, err)
			}
			if took := time.Since(start); took != 0 {
				t.Errorf("Get on %d took %s, want one try", status, took)
			}
		}
		s.mu.Lock()
		s.intercept = nil
		s.mu.Unlock()
		if value, found, err := metadata.Get(t.Context(), "/local-hostname"); value != wantInstance.Hostname || !found || err != nil {
			t.Errorf("Get afterwards = %q, %v, %v; want %q", value, found, err, wantInstance.Hostname)
		}
		network.down = func() bool { return true }
		metadata.client = mustMetadata(t, o).client // without a connection
		if _, found, err := metadata.Get(t.Context(), "local-hostname"); found || !errors.Is(err, ErrUnavailable) {
			t.Errorf("Get without a network = %v, %v; want ErrUnavailable", found, err)
		}
	})
}

func TestATokenThatIsSlowerThanAPollerStillServesIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := instance()
		_, o := serve(t, s)
		metadata := wantIdentity(t, o)
		<-time.After(6 * time.Minute) // the token's life
		s.mu.Lock()
		s.intercept = func(_ http.ResponseWriter, r *http.Request) bool {
			if r.Method == http.MethodPut {
				<-time.After(3 * time.Second)
			}
			return false
		}
		s.mu.Unlock()
		poll := func() error {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			_, _, err := metadata.Get(ctx, "local-hostname")
			return err
		}
		if err := poll(); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("the first question: got %v, want %v", err, context.DeadlineExceeded)
		}
		start := time.Now()
		if err := poll(); !errors.Is(err, ErrUnavailable) || time.Since(start) != 0 {
			t.Errorf("a question before the token is there: got %v after %v, want %v at once", err, time.Since(start), ErrUnavailable)
		}
		<-time.After(3 * time.Second)
		synctest.Wait()
		start = time.Now()
		if err := poll(); err != nil || time.Since(start) != 0 {
			t.Errorf("a question with the token: got %v after %v, want an answer at once", err, time.Since(start))
		}
	})
}

func mustMetadata(t *testing.T, o Options) *Metadata {
	t.Helper()
	m, err := newMetadata(o.withDefaults())
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestOtherRefusalsAreReportedAtOnce(t *testing.T) {
	for _, tt := range []struct {
		name   string
		answer http.HandlerFunc
	}{
		{"400", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusBadRequest) }},
		{"403", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusForbidden) }},
		{"redirect", func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "http://elsewhere.example/", http.StatusFound)
		}},
		{"a document that is none", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "<html>") }},
		{"too large", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(bytes.Repeat([]byte(" "), maxAnswer+1)) }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				start := time.Now()
				s := instance()
				s.intercept = func(w http.ResponseWriter, r *http.Request) bool {
					if r.Method == http.MethodGet {
						tt.answer(w, r)
					}
					return r.Method == http.MethodGet
				}
				network, o := serve(t, s)
				_, _, err := Discover(t.Context(), onEC2, o)
				if err == nil || errors.Is(err, ErrUnavailable) || errors.Is(err, ErrNoIMDSv2) {
					t.Errorf("Discover = %v, want an error that is neither", err)
				}
				_, questions := s.asked()
				if len(questions) != 1 || network.dials.Load() != 1 || time.Since(start) != 0 {
					t.Errorf("%d questions on %d connections in %s, want 1 on 1 at once", len(questions), network.dials.Load(), time.Since(start))
				}
			})
		})
	}
}

func TestCancellationEndsTheWait(t *testing.T) {
	stop := errors.New("the host shuts down")
	for _, tt := range []struct {
		name string
		down bool
	}{{"between tries", true}, {"during a try", false}} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				start := time.Now()
				s := instance()
				s.intercept = func(_ http.ResponseWriter, r *http.Request) bool { <-r.Context().Done(); return true }
				network, o := serve(t, s)
				network.down = func() bool { return tt.down }
				ctx, cancel := context.WithCancelCause(t.Context())
				after := 3*time.Second + 7*time.Millisecond
				time.AfterFunc(after, func() { cancel(stop) })
				_, _, err := Discover(ctx, onEC2, o)
				if !errors.Is(err, stop) {
					t.Errorf("Discover = %v, want the cause of the cancellation", err)
				}
				if got := time.Since(start); got != after {
					t.Errorf("returned after %s, want %s", got, after)
				}
			})
		})
	}
}

func TestUserDataIsUnpackedAndBounded(t *testing.T) {
	pack := func(data []byte) string {
		var b bytes.Buffer
		w := gzip.NewWriter(&b)
		_, _ = w.Write(data)
		_ = w.Close()
		return b.String()
	}
	random := strings.Repeat("x", maxAnswer)
	for _, tt := range []struct {
		name string
		data string
		want string // "" for an error
	}{
		{"plain", "kind: Node\n", "kind: Node\n"},
		{"binary", "\x00\xff", "\x00\xff"},
		{"gzip", pack([]byte("kind: Node\n")), "kind: Node\n"},
		{"as large as may be", random, random},
		{"too large", random + "x", ""},
		{"a gzip bomb", pack(make([]byte, maxUserData+1)), ""},
		{"gzip cut off", pack([]byte("canary"))[:12], ""},
		{"gzip in name only", "\x1f\x8bcanary", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := instance()
				s.answers["/latest/user-data"] = tt.data
				_, o := serve(t, s)
				got, err := mustMetadata(t, o).UserData(t.Context())
				switch {
				case tt.want == "" && (err == nil || got != nil):
					t.Errorf("user data of %d bytes, want an error", len(got))
				case tt.want == "" && strings.Contains(err.Error(), "canary"):
					t.Errorf("the error shows the data: %v", err)
				case tt.want != "" && (err != nil || string(got) != tt.want):
					t.Errorf("user data = %.40q, %v; want %.40q", got, err, tt.want)
				}
			})
		})
	}
}

func TestUserDataWaitsForALateNetwork(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		network, o := serve(t, instance())
		network.down = func() bool { return time.Since(start) < time.Minute }
		got, err := mustMetadata(t, o).UserData(t.Context())
		if err != nil || string(got) != "kind: Node\n" {
			t.Errorf("user data = %q, %v", got, err)
		}
	})
}

func TestTheSDKsSwitchTurnsTheServiceOff(t *testing.T) {
	t.Setenv("AWS_EC2_METADATA_DISABLED", "true")
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		network, o := serve(t, instance())
		_, _, err := Discover(t.Context(), onEC2, o)
		if err == nil || !strings.Contains(err.Error(), "AWS_EC2_METADATA_DISABLED") {
			t.Errorf("Discover = %v, want an error that names the variable", err)
		}
		if network.dials.Load() != 0 || time.Since(start) != 0 {
			t.Errorf("%d connections in %s, want none, at once", network.dials.Load(), time.Since(start))
		}
	})
}

func TestTheIPv6EndpointIsUsedWhereTheSDKsWouldUseIt(t *testing.T) {
	t.Setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", "")
	for mode, want := range map[string]string{"": "169.254.169.254:80", "IPv4": "169.254.169.254:80", "IPv6": "[fd00:ec2::254]:80"} {
		t.Setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE", mode)
		if got := firstDial(t); got != want {
			t.Errorf("mode %q: dialled %q, want %q", mode, got, want)
		}
	}
}

// firstDial returns where a client of default options connects to, without letting it.
func firstDial(t *testing.T) string {
	t.Helper()
	var address string
	m := mustMetadata(t, Options{dial: func(_ context.Context, _, to string) (net.Conn, error) {
		address = to
		return nil, syscall.ENETUNREACH
	}})
	if _, _, err := m.Get(t.Context(), "instance-id"); !errors.Is(err, ErrUnavailable) {
		t.Errorf("Get = %v, want ErrUnavailable", err)
	}
	return address
}

// In a process of its own, since Go reads the proxy variables once.
func TestAProxyIsNeverUsed(t *testing.T) {
	const variable = "FLOWAGENT_TEST_PROXIED"
	if os.Getenv(variable) != "" {
		if got, want := firstDial(t), "169.254.169.254:80"; got != want {
			t.Errorf("dialled %q, want %q", got, want)
		}
		return
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+t.Name()+"$")
	cmd.Env = append(os.Environ(), variable+"=1", "AWS_EC2_METADATA_SERVICE_ENDPOINT=", "AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE=",
		"HTTP_PROXY=http://127.0.0.1:9", "http_proxy=http://127.0.0.1:9", "NO_PROXY=", "no_proxy=")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

func TestAnEndpointThatIsNoURLIsRefusedWithoutShowingIt(t *testing.T) {
	for _, endpoint := range []string{"169.254.169.254", "ftp://host", "http://", "http://user:canary@host", "http://[canary"} {
		_, _, err := Discover(t.Context(), onEC2, Options{SysRoot: t.TempDir(), MetadataEndpoint: endpoint})
		if err == nil || strings.Contains(err.Error(), "canary") {
			t.Errorf("endpoint %q: %v, want an error without it", endpoint, err)
		}
	}
}

func TestAnUnknownProviderIsRefused(t *testing.T) {
	if _, _, err := Discover(t.Context(), config.Node{Provider: "azure"}, Options{SysRoot: t.TempDir()}); err == nil {
		t.Error("Discover with provider azure succeeded")
	}
}

func TestAnIdentityIsJSONWithoutTheUnknown(t *testing.T) {
	got, err := json.Marshal(Identity{Provider: config.ProviderLocal, Hostname: "wms-1"})
	if err != nil {
		t.Fatal(err)
	}
	if want := `{"provider":"local","hostname":"wms-1"}`; string(got) != want {
		t.Errorf("JSON = %s, want %s", got, want)
	}
}
