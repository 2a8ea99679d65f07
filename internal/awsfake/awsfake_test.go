package awsfake_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	sm "github.com/aws/aws-sdk-go-v2/service/secretsmanager"
	"github.com/aws/smithy-go"
	"github.com/aws/smithy-go/encoding/cbor"
	"github.com/google/go-cmp/cmp"

	"github.com/flowviz/flowagent/internal/awsfake"
	"github.com/flowviz/flowagent/test/lab"
)

func serve(t *testing.T, upstream string) (*awsfake.Server, string) {
	t.Helper()
	fake, err := awsfake.New(upstream)
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(fake)
	t.Cleanup(server.Close)
	return fake, server.URL
}

func secretsManager(endpoint string) *sm.Client {
	return sm.New(sm.Options{
		Region:       "us-east-1",
		BaseEndpoint: &endpoint,
		Credentials:  credentials.NewStaticCredentialsProvider("test", "test", ""),
		Retryer:      aws.NopRetryer{},
	})
}

func codeOf(err error) string {
	var api smithy.APIError
	if errors.As(err, &api) {
		return api.ErrorCode()
	}
	return ""
}

func TestCallsReachMotoUnlessAFaultIsInjected(t *testing.T) {
	fake, endpoint := serve(t, lab.Moto(t))
	client := secretsManager(endpoint)
	create := func(name string) error {
		_, err := client.CreateSecret(t.Context(), &sm.CreateSecretInput{Name: &name, SecretString: aws.String("value of " + name)})
		return err
	}
	get := func(ctx context.Context) (string, error) {
		out, err := client.GetSecretValue(ctx, &sm.GetSecretValueInput{SecretId: aws.String("a")})
		if err != nil {
			return "", err
		}
		return aws.ToString(out.SecretString), nil
	}
	for _, name := range []string{"a", "b"} {
		if err := create(name); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := get(t.Context()); got != "value of a" || err != nil {
		t.Fatalf("without faults: got %q, %v", got, err)
	}

	fake.Inject("GetSecretValue", 1, awsfake.AccessDenied())
	fake.Inject("GetSecretValue", 2, awsfake.Throttled())
	fake.Inject("GetSecretValue", 1, awsfake.Unavailable())
	for i, want := range []string{"AccessDeniedException", "ThrottlingException", "ThrottlingException", "ServiceUnavailable", ""} {
		if _, err := get(t.Context()); codeOf(err) != want {
			t.Errorf("call %d: got %v, want %q", i, err, want)
		}
	}
	if got, want := fake.Calls("GetSecretValue"), 6; got != want {
		t.Errorf("calls of GetSecretValue: got %d, want %d", got, want)
	}

	fake.Inject("GetSecretValue", awsfake.Always, awsfake.Hang())
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := get(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("hanging: got %v, want the deadline", err)
	}
	fake.Heal("GetSecretValue")

	release := make(chan struct{})
	fake.Inject("GetSecretValue", 1, awsfake.Hold(release))
	answered := make(chan error, 1)
	go func() { _, err := get(t.Context()); answered <- err }()
	select {
	case err := <-answered:
		t.Errorf("held: got an answer (%v) before the release", err)
	default:
	}
	close(release)
	if err := <-answered; err != nil {
		t.Errorf("released: got %v", err)
	}

	fake.Inject("CreateSecret", 1, awsfake.LoseReply())
	if err := create("lost"); err == nil || codeOf(err) != "" {
		t.Errorf("lost reply: got %v, want a broken connection", err)
	}
	if err := create("lost"); codeOf(err) != "ResourceExistsException" {
		t.Errorf("after the lost reply: got %v, want the first call to have had its effect", err)
	}

	fake.Inject("BatchGetSecretValue", awsfake.Always, awsfake.PartialBatch(map[string]string{"b": "AccessDeniedException"}))
	for _, c := range []struct{ ids, values, failures []string }{
		{[]string{"a", "b", "absent"}, []string{"a"}, []string{"absent ResourceNotFoundException", "b AccessDeniedException"}},
		{[]string{"b"}, nil, []string{"b AccessDeniedException"}},
	} {
		out, err := client.BatchGetSecretValue(t.Context(), &sm.BatchGetSecretValueInput{SecretIdList: c.ids})
		if err != nil {
			t.Fatal(err)
		}
		var values, failures []string
		for _, v := range out.SecretValues {
			values = append(values, *v.Name)
		}
		for _, f := range out.Errors {
			failures = append(failures, *f.SecretId+" "+*f.ErrorCode)
		}
		if diff := cmp.Diff(c.values, values); diff != "" {
			t.Errorf("values of %v (-want +got):\n%s", c.ids, diff)
		}
		if diff := cmp.Diff(c.failures, failures); diff != "" {
			t.Errorf("failures of %v (-want +got):\n%s", c.ids, diff)
		}
	}
}

func TestARegisteredHandlerAnswersForMoto(t *testing.T) {
	fake, endpoint := serve(t, "")
	var hooks []string
	fake.Handle("CompleteLifecycleAction", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := r.ParseForm(); err != nil {
			t.Error(err)
		}
		if r.Form.Get("LifecycleHookName") == "" {
			awsfake.WriteError(w, r, http.StatusBadRequest, "ValidationError", "No active Lifecycle Action found")
			return
		}
		hooks = append(hooks, r.Form.Get("LifecycleHookName"))
		_, _ = io.WriteString(w, "<CompleteLifecycleActionResponse/>")
	}))
	call := func(form url.Values) (int, string) {
		response, err := http.PostForm(endpoint, form)
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
	if status, body := call(url.Values{"Action": {"CompleteLifecycleAction"}, "LifecycleHookName": {"launch"}}); status != http.StatusOK {
		t.Errorf("got %d %s, want 200", status, body)
	}
	if diff := cmp.Diff([]string{"launch"}, hooks); diff != "" {
		t.Errorf("hooks (-want +got):\n%s", diff)
	}
	if status, body := call(url.Values{"Action": {"CompleteLifecycleAction"}}); status != http.StatusBadRequest || !strings.Contains(body, "<Code>ValidationError</Code>") {
		t.Errorf("got %d %s, want 400 ValidationError", status, body)
	}
	fake.Inject("CompleteLifecycleAction", 1, awsfake.AccessDenied())
	if status, body := call(url.Values{"Action": {"CompleteLifecycleAction"}, "LifecycleHookName": {"again"}}); status != http.StatusForbidden || len(hooks) != 1 {
		t.Errorf("denied: got %d %s and hooks %v, want 403 and no effect", status, body, hooks)
	}
	if status, body := call(url.Values{"Action": {"Unheard"}}); status != http.StatusBadRequest || !strings.Contains(body, "UnknownOperationException") {
		t.Errorf("unknown action: got %d %s", status, body)
	}
}

func TestErrorsSpeakTheProtocolOfTheRequest(t *testing.T) {
	request := func(change func(*http.Request), body string) *http.Request {
		r := httptest.NewRequest(http.MethodPost, "/", strings.NewReader(body))
		change(r)
		return r
	}
	form := func(r *http.Request) {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded; charset=utf-8")
	}
	for name, c := range map[string]struct {
		request *http.Request
		action  string
		code    func(body []byte) string
	}{
		"json": {request(func(r *http.Request) { r.Header.Set("X-Amz-Target", "AmazonSSM.GetParameters") }, "{}"), "GetParameters", func(body []byte) string {
			var e map[string]string
			if err := json.Unmarshal(body, &e); err != nil {
				t.Error(err)
			}
			return e["__type"]
		}},
		"query": {request(form, "Action=DescribeAutoScalingGroups&Version=2011-01-01"), "DescribeAutoScalingGroups", func(body []byte) string {
			return between(string(body), "<ErrorResponse><Error><Type>Sender</Type><Code>", "</Code>")
		}},
		"ec2": {request(form, "Action=DescribeInstances&Version=2016-11-15"), "DescribeInstances", func(body []byte) string {
			return between(string(body), "<Response><Errors><Error><Code>", "</Code>")
		}},
		"cbor": {request(func(r *http.Request) { r.URL.Path = "/service/GraniteServiceVersion20100801/operation/GetMetricData" }, ""), "GetMetricData", func(body []byte) string {
			v, err := cbor.Decode(body)
			if err != nil {
				t.Error(err)
			}
			m, _ := v.(cbor.Map)
			s, _ := m["__type"].(cbor.String)
			return strings.TrimPrefix(string(s), "com.amazonaws#")
		}},
	} {
		t.Run(name, func(t *testing.T) {
			if got := awsfake.Action(c.request); got != c.action {
				t.Errorf("action: got %q, want %q", got, c.action)
			}
			w := httptest.NewRecorder()
			awsfake.WriteError(w, c.request, http.StatusBadRequest, "Some<Code", "why & how")
			got := strings.ReplaceAll(c.code(w.Body.Bytes()), "&lt;", "<")
			if got != "Some<Code" || w.Code != http.StatusBadRequest {
				t.Errorf("got %d %q (%s), want 400 %q", w.Code, got, w.Body, "Some<Code")
			}
		})
	}
}

func between(text, before, after string) string {
	_, text, _ = strings.Cut(text, before)
	text, _, _ = strings.Cut(text, after)
	return text
}

func TestADelayedCallIsDroppedWhenTheClientGivesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		effects := 0
		delayed := awsfake.Delay(time.Minute)(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { effects++ }))
		call := func(patience time.Duration) (aborted bool) {
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			defer func() { aborted = recover() == http.ErrAbortHandler }()
			delayed.ServeHTTP(httptest.NewRecorder(), httptest.NewRequestWithContext(ctx, http.MethodPost, "/", nil))
			return false
		}
		if aborted := call(30 * time.Second); !aborted || effects != 0 {
			t.Errorf("impatient client: got aborted %v and %d effects, want an abort without one", aborted, effects)
		}
		if aborted := call(2 * time.Minute); aborted || effects != 1 {
			t.Errorf("patient client: got aborted %v and %d effects, want one effect", aborted, effects)
		}
	})
}

func TestAnUpstreamThatIsNoURLIsRefused(t *testing.T) {
	if _, err := awsfake.New("127.0.0.1"); err == nil {
		t.Error("got no error, want one")
	}
}

func TestADeadUpstreamIsABadGateway(t *testing.T) {
	_, endpoint := serve(t, "http://"+lab.DeafAddress(t))
	_, err := secretsManager(endpoint).GetSecretValue(t.Context(), &sm.GetSecretValueInput{SecretId: aws.String("a")})
	if codeOf(err) != "BadGateway" {
		t.Errorf("got %v, want BadGateway", err)
	}
}
