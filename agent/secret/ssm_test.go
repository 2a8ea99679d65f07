package secret_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ssm"
	"github.com/aws/aws-sdk-go-v2/service/ssm/types"
	"github.com/google/go-cmp/cmp"

	"github.com/flowviz/flowagent/agent/config"
	"github.com/flowviz/flowagent/agent/secret"
	"github.com/flowviz/flowagent/internal/awsfake"
)

func (c *cloud) parameters() *ssm.Client {
	cfg, err := awsAt(c.endpoint)(c.t.Context(), "")
	if err != nil {
		c.t.Fatal(err)
	}
	return ssm.NewFromConfig(cfg)
}

func (c *cloud) putParameter(name, value string) {
	c.t.Helper()
	_, err := c.parameters().PutParameter(c.t.Context(), &ssm.PutParameterInput{
		Name: &name, Value: &value, Type: types.ParameterTypeSecureString, Overwrite: aws.Bool(true),
	})
	if err != nil {
		c.t.Fatal(err)
	}
}

func ssmItem(name, parameter, key string) config.Secret {
	return config.Secret{Name: name, From: config.Source{SSM: &config.SSMSource{Name: parameter, Key: key}}}
}

func TestParametersAreReadDecryptedInTens(t *testing.T) {
	c := newCloud(t)
	var cfg config.Secrets
	for i := range 23 {
		name := fmt.Sprintf("/flowviz/%02d", i)
		c.putParameter(name, fmt.Sprintf(`{"value": "v%02d"}`, i))
		cfg.Items = append(cfg.Items, ssmItem(fmt.Sprintf("p%02d", i), name, "value"), ssmItem(fmt.Sprintf("whole%02d", i), name, ""))
	}
	k := newKeeper(t, cfg, c.deps())
	refresh(t, k)
	for i := range 23 {
		mustHold(t, k, fmt.Sprintf("p%02d", i), fmt.Sprintf("v%02d", i))
		mustHold(t, k, fmt.Sprintf("whole%02d", i), fmt.Sprintf(`{"value": "v%02d"}`, i))
	}
	if got := c.Calls("GetParameters"); got != 3 {
		t.Errorf("calls: got %d, want 3", got)
	}
	if got := statusOf(t, k, "p00").Version; got != "1" {
		t.Errorf("version: got %q, want 1", got)
	}

	c.putParameter("/flowviz/05", `{"value": "rotated"}`)
	if diff := cmp.Diff([]string{"p05", "whole05"}, refresh(t, k)); diff != "" {
		t.Errorf("after a rotation (-want +got):\n%s", diff)
	}
	if got := statusOf(t, k, "p05").Version; got != "2" {
		t.Errorf("version after the rotation: got %q, want 2", got)
	}

	// A denial of the whole call is settled for each parameter alone.
	c.Inject("GetParameters", 1, awsfake.AccessDenied())
	refresh(t, k)
	mustBeIn(t, k, "p00", secret.Fresh)

	if _, err := c.parameters().DeleteParameter(t.Context(), &ssm.DeleteParameterInput{Name: aws.String("/flowviz/07")}); err != nil {
		t.Fatal(err)
	}
	changed, err := refuse(t, k)
	if diff := cmp.Diff([]string{"p07", "whole07"}, changed); diff != "" {
		t.Errorf("after a deletion (-want +got):\n%s", diff)
	}
	mustBeOnly(t, err, secret.ErrNotFound)
	mustSay(t, err, "secret p07 from ssm:/flowviz/07#value", "no such parameter")

	c.Inject("GetParameters", awsfake.Always, awsfake.Unavailable())
	_, err = refuse(t, k)
	mustBeOnly(t, err, secret.ErrUnavailable)
	mustHold(t, k, "p00", "v00")
	mustBeIn(t, k, "p00", secret.Stale)
	mustBeIn(t, k, "p07", secret.Withdrawn)
}

func TestParametersByVersionAndLabel(t *testing.T) {
	c := newCloud(t)
	for _, value := range []string{"one", "two", "three"} {
		c.putParameter("db", value)
	}
	if _, err := c.parameters().LabelParameterVersion(t.Context(), &ssm.LabelParameterVersionInput{Name: aws.String("db"), ParameterVersion: aws.Int64(2), Labels: []string{"stable"}}); err != nil {
		t.Fatal(err)
	}
	k := newKeeper(t, items(ssmItem("first", "db:1", ""), ssmItem("newest", "db", ""), ssmItem("stable", "db:stable", ""), ssmItem("third", "db:3", "")), c.deps())
	refresh(t, k)
	for name, want := range map[string][2]string{"first": {"one", "1"}, "stable": {"two", "2"}, "third": {"three", "3"}, "newest": {"three", "3"}} {
		mustHold(t, k, name, want[0])
		if got := statusOf(t, k, name).Version; got != want[1] {
			t.Errorf("version of %s: got %q, want %q", name, got, want[1])
		}
	}
	_, err := refuse(t, newKeeper(t, items(ssmItem("gone", "db:9", ""), ssmItem("unlabelled", "db:nowhere", ""), ssmItem("absent", "absent", "")), c.deps()))
	mustBeOnly(t, err, secret.ErrNotFound)
	mustSay(t, err, "secret gone", "secret unlabelled", "secret absent")
}

// answerLikeParameterStore gives moto the two things it lacks in GetParameters: names that are ARNs, and the selector in
// the answer. Both are in the API reference.
func answerLikeParameterStore(c *cloud) {
	c.Inject("GetParameters", awsfake.Always, func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			var in map[string]any
			if err := json.NewDecoder(r.Body).Decode(&in); err != nil {
				c.t.Error(err)
			}
			selectors := make(map[string]string)
			var names []string
			for _, given := range in["Names"].([]any) {
				name, _ := given.(string)
				if strings.HasPrefix(name, "arn:") {
					name = strings.SplitN(name, ":parameter", 2)[1]
				}
				base, selector, _ := strings.Cut(name, ":")
				selectors[base] = selector
				names = append(names, name)
			}
			in["Names"] = names
			body, err := json.Marshal(in)
			if err != nil {
				c.t.Error(err)
			}
			r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
			answer := record(next, r)
			var out map[string]any
			if err := json.Unmarshal(answer, &out); err != nil {
				c.t.Error(err)
			}
			for _, p := range out["Parameters"].([]any) {
				parameter, _ := p.(map[string]any)
				name, _ := parameter["Name"].(string)
				if selectors[name] != "" {
					parameter["Selector"] = ":" + selectors[name]
				}
			}
			w.Header().Set("Content-Type", "application/x-amz-json-1.1")
			if err := json.NewEncoder(w).Encode(out); err != nil {
				c.t.Error(err)
			}
		})
	})
}

func TestParametersByARN(t *testing.T) {
	c := newCloud(t)
	answerLikeParameterStore(c)
	for _, value := range []string{"one", "two"} {
		c.putParameter("/shared/db", value)
	}
	c.putParameter("/shared/cache", "three")
	const prefix = "arn:aws:ssm:us-east-1:123456789012:parameter/shared/"
	k := newKeeper(t, items(ssmItem("db", prefix+"db", ""), ssmItem("old", prefix+"db:1", ""), ssmItem("cache", prefix+"cache:1", "")), c.deps())
	refresh(t, k)
	mustHold(t, k, "db", "two")
	mustHold(t, k, "old", "one")
	mustHold(t, k, "cache", "three")
	if got, want := statusOf(t, k, "old").Source, "ssm:"+prefix+"db:1"; got != want {
		t.Errorf("source: got %q, want %q", got, want)
	}
	if got := c.Calls("GetParameters"); got != 2 {
		t.Errorf("calls: got %d, want 2: two versions of one parameter can't share one", got)
	}
}

func TestADeniedParameterIsWithdrawnAlone(t *testing.T) {
	c := newCloud(t)
	c.putParameter("mine", canary)
	c.putParameter("theirs", canary)
	k := newKeeper(t, items(ssmItem("mine", "mine", ""), ssmItem("theirs", "theirs", "")), c.deps())
	refresh(t, k)
	c.Inject("GetParameters", awsfake.Always, func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			body, err := io.ReadAll(r.Body)
			if err != nil {
				t.Error(err)
			}
			r.Body = io.NopCloser(bytes.NewReader(body))
			if bytes.Contains(body, []byte("theirs")) {
				awsfake.AccessDenied()(next).ServeHTTP(w, r)
				return
			}
			next.ServeHTTP(w, r)
		})
	})
	changed, err := refuse(t, k)
	if diff := cmp.Diff([]string{"theirs"}, changed); diff != "" {
		t.Errorf("changed (-want +got):\n%s", diff)
	}
	mustBeOnly(t, err, secret.ErrDenied)
	mustSay(t, err, "secret theirs", "allow ssm:GetParameters")
	mustHold(t, k, "mine", canary)
	mustHide(t, "error", err.Error())
}
