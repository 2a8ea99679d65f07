package image

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/moby/moby/client"

	"github.com/flowviz/flowagent/agent/config"
	"github.com/flowviz/flowagent/agent/secret"
)

func mustParse(t *testing.T, ref string) wanted {
	t.Helper()
	w, err := parseWanted(ref)
	if err != nil {
		t.Fatal(err)
	}
	return w
}

func TestATimeoutTellsWhatWasUnderWayAndWhatFailedJustBefore(t *testing.T) {
	late := func(d time.Duration) func(context.Context, string) (aws.Config, error) {
		return func(context.Context, string) (aws.Config, error) {
			time.Sleep(d)
			return aws.Config{}, errors.New("request canceled")
		}
	}
	locked := []config.Registry{{Host: "registry.example", Username: "u", PasswordSecret: "pw"}}
	for name, c := range map[string]struct {
		ref   string
		creds *Credentials
		begin time.Duration
		says  []string
	}{
		"nothing else is known": {
			virginia + "/x:1", NewCredentials(ecrRegistries(virginia), late(2*time.Second), nil, time.Now), 0,
			[]string{"ECR token for " + virginia, "totalTimeout"},
		},
		"a limit that passed before it": {
			virginia + "/x:1", NewCredentials(ecrRegistries(virginia), late(2*time.Second), nil, time.Now), 200 * time.Millisecond,
			[]string{"ECR token for " + virginia, "beginTimeout", "totalTimeout"},
		},
		"a login that can't work": {
			"registry.example/x:1", NewCredentials(locked, nil, func(string) (secret.Value, bool) {
				time.Sleep(2 * time.Second)
				return secret.Value{}, false
			}, time.Now), 0,
			[]string{"the secret pw", "totalTimeout"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				cfg := pulls()
				cfg.BeginTimeout, cfg.TotalTimeout = config.Duration(c.begin), config.Duration(time.Second)
				_, err := NewPuller(nil, cfg, c.creds, nil, nil).pull(t.Context(), t.Context(), mustParse(t, c.ref))
				if !errors.Is(err, ErrTimeout) {
					t.Fatalf("got %v, want ErrTimeout", err)
				}
				for _, part := range c.says {
					if !strings.Contains(err.Error(), part) {
						t.Errorf("got %q, want %q in it", err, part)
					}
				}
			})
		})
	}
}

// endOnMove ends a pull's context when the engine first tells of it.
type endOnMove struct {
	silent
	end func()
}

func (e endOnMove) Moved(string, State) { e.end() }

func TestAPullThatFailedJustBeforeItsEndTellsWhy(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		// Both at once, so that the second is there when the first ends the context.
		_, _ = io.WriteString(w, `{"status":"Pulling from x"}`+"\n"+`{"errorDetail":{"message":"dial tcp: connection refused"},"error":"dial tcp: connection refused"}`+"\n")
	}))
	defer server.Close()
	engine, err := client.New(client.WithHost("tcp://" + strings.TrimPrefix(server.URL, "http://")))
	if err != nil {
		t.Fatal(err)
	}
	defer engine.Close()
	ctx, cancel := context.WithCancelCause(t.Context())
	leaving := errors.New("the node leaves")
	progress := endOnMove{end: func() { cancel(leaving) }}
	puller := NewPuller(engine, pulls(), NewCredentials(nil, nil, nil, time.Now), progress, nil)
	_, err = puller.pull(ctx, ctx, mustParse(t, "registry.example/x:1"))
	if !errors.Is(err, leaving) || !strings.Contains(err.Error(), "connection refused") {
		t.Errorf("got %v, want that the node leaves, and that the registry refused the connection", err)
	}
}
