package agent

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ssm"
)

func TestNoCallToAWSQuotesTheSessionsToken(t *testing.T) {
	const session = "IQoJb3JpZ2luX2VjE"
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if got := r.Header.Get("X-Amz-Security-Token"); got != session {
			t.Errorf("the request's token: got %q, want the session's", got)
		}
		w.WriteHeader(http.StatusBadRequest)
		_, _ = io.WriteString(w, `{"__type": "InvalidSignatureException", "message": "should have been x-amz-security-token:`+session+`"}`)
	}))
	defer server.Close()
	t.Setenv("AWS_ACCESS_KEY_ID", "test")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "test")
	t.Setenv("AWS_SESSION_TOKEN", session)
	t.Setenv("AWS_ENDPOINT_URL", server.URL)
	cfg, err := newAWS("us-east-1", nil).Config(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	_, err = ssm.NewFromConfig(cfg).GetParameter(t.Context(), &ssm.GetParameterInput{Name: aws.String("/node")})
	if err == nil || !strings.Contains(err.Error(), "InvalidSignatureException: AWS refuses the signature") || strings.Contains(err.Error(), session) {
		t.Errorf("got %v, want the code, and what to check instead of the request", err)
	}
}
