package ami_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ssm"

	"github.com/flowviz/flowagent/packer/plugin/internal/ami"
)

func TestLoad_SaysThatASignatureIsRefusedWithoutWhatAWSQuotes(t *testing.T) {
	const session = "IQoJb3JpZ2luX2VjE"
	for name, c := range map[string]struct{ code, message, want string }{
		"a wrong signature": {"InvalidSignatureException", "should have been 'POST x-amz-security-token:" + session, "check this machine's clock"},
		"another refusal":   {"AccessDeniedException", "role/builder may not", "role/builder may not"},
	} {
		t.Run(name, func(t *testing.T) {
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Type", "application/x-amz-json-1.1")
				w.WriteHeader(http.StatusBadRequest)
				fmt.Fprintf(w, `{"__type": %q, "message": %q}`, c.code, c.message)
			}))
			defer server.Close()
			for name, value := range map[string]string{
				"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_SESSION_TOKEN": session, "AWS_ENDPOINT_URL": server.URL,
			} {
				t.Setenv(name, value)
			}
			cfg, err := ami.Load(t.Context(), "", "us-east-1")
			if err != nil {
				t.Fatal(err)
			}
			_, err = ssm.NewFromConfig(cfg).GetParameter(t.Context(), &ssm.GetParameterInput{Name: aws.String("/images/node")})
			if err == nil {
				t.Fatal("got no error")
			}
			for _, part := range []string{"GetParameter", c.code, c.want} {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("got %q, want %q in it", err, part)
				}
			}
			if strings.Contains(err.Error(), session) {
				t.Errorf("got %q, which holds the session's token", err)
			}
		})
	}
}
