package agent

import (
	"errors"
	"log/slog"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/ssm"

	"github.com/flowviz/flowagent/agent/drain/hook"
	"github.com/flowviz/flowagent/agent/launch"
	"github.com/flowviz/flowagent/internal/awsfake"
	"github.com/flowviz/flowagent/test/lab"
)

func TestANodeThatTurnsReadyAfterAllIsLetIn(t *testing.T) {
	fake, err := awsfake.New(lab.MotoParameters(t))
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(fake)
	t.Cleanup(server.Close)
	failures := launch.NewFailures(ssm.New(ssm.Options{
		Region: "us-east-1", BaseEndpoint: &server.URL, Credentials: credentials.NewStaticCredentialsProvider("testing", "testing", ""),
	}), "flowviz", "i-1")
	a := &Agent{log: slog.New(slog.DiscardHandler), opts: Options{RunDir: t.TempDir()}}
	l := newLaunching()
	// The first failure waits for nothing, and so is given up; the second would for a minute.
	if result, over := a.damp(t.Context(), newLaunching(), &launchNote{}, failures, errors.New("no such image")); result != hook.Abandon || over {
		t.Fatalf("the first: got %q and over %t, want ABANDON", result, over)
	}
	l.ready()
	note := launchNote{Place: "InService"}
	if result, over := a.damp(t.Context(), l, &note, failures, errors.New("not ready in time")); result != hook.Continue || over {
		t.Errorf("the second, which turned ready: got %q and over %t, want CONTINUE", result, over)
	}
	for range 20 {
		late := launchNote{GiveUp: time.Now()}
		if result, over := a.damp(t.Context(), l, &late, failures, errors.New("not ready in time")); result != hook.Continue || over {
			t.Fatalf("one that turned ready as its time was up: got %q and over %t, want CONTINUE", result, over)
		}
	}
	// An agent that is started again in the meantime finds what was noted, and counts nothing.
	note = a.readLaunch(t.Context(), "")
	before := fake.Calls("PutParameter")
	if _, over := a.damp(t.Context(), l, &note, failures, errors.New("not ready in time")); over || fake.Calls("PutParameter") != before {
		t.Errorf("once more: got over %t and %d further counts, want none", over, fake.Calls("PutParameter")-before)
	}
}
