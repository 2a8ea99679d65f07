package lab_test

import (
	"io"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/flowviz/flowagent/test/lab"
)

func get(t *testing.T, client *http.Client, request *http.Request) (int, string) {
	t.Helper()
	response, err := client.Do(request.WithContext(t.Context()))
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

func request(t *testing.T, method, url string) *http.Request {
	t.Helper()
	r, err := http.NewRequest(method, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestMotoHandsOutTheECRTokenThatTheRegistryTakes(t *testing.T) {
	t.Parallel()
	endpoint := lab.Moto(t)
	r := request(t, http.MethodPost, endpoint)
	r.Header.Set("X-Amz-Target", "AmazonEC2ContainerRegistry_V20150921.GetAuthorizationToken")
	r.Header.Set("Content-Type", "application/x-amz-json-1.1")
	r.Header.Set("Authorization", "AWS4-HMAC-SHA256 Credential=testing/20260101/us-east-1/ecr/aws4_request, SignedHeaders=host, Signature=0")
	r.Body = io.NopCloser(strings.NewReader("{}"))
	status, body := get(t, http.DefaultClient, r)
	const token = "QVdTOjEyMzQ1Njc4OTAxMi1hdXRoLXRva2Vu" // base64 of AWS:123456789012-auth-token
	if status != http.StatusOK || !strings.Contains(body, token) {
		t.Errorf("got status %d and %s, want 200 and a token %s", status, body, token)
	}
}

func TestMetadataMockWantsASessionToken(t *testing.T) {
	t.Parallel()
	endpoint := lab.MetadataMock(t, `{"metadata": {"values": {"instance-id": "i-0123456789abcdef0"}}}`)
	path := endpoint + "/latest/meta-data/instance-id"
	if status, body := get(t, http.DefaultClient, request(t, http.MethodGet, path)); status != http.StatusUnauthorized {
		t.Errorf("without a token: got status %d and %q, want 401", status, body)
	}
	r := request(t, http.MethodPut, endpoint+"/latest/api/token")
	r.Header.Set("X-aws-ec2-metadata-token-ttl-seconds", "60")
	status, token := get(t, http.DefaultClient, r)
	if status != http.StatusOK || token == "" {
		t.Fatalf("token: got status %d and %q, want 200 and a token", status, token)
	}
	r = request(t, http.MethodGet, path)
	r.Header.Set("X-aws-ec2-metadata-token", token)
	status, body := get(t, http.DefaultClient, r)
	if status != http.StatusOK || body != "i-0123456789abcdef0" {
		t.Errorf("with a token: got status %d and %q, want 200 and the configured instance id", status, body)
	}
}

func TestEngineAnswers(t *testing.T) {
	if address := lab.Engine(t); !strings.HasPrefix(address, "unix:///") {
		t.Errorf("got %s, want unix:///path", address)
	}
}

func TestMissingPartIsSkipAtHomeAndFailureUnderCI(t *testing.T) {
	t.Parallel()
	for ci, want := range map[string]string{"": "--- SKIP", "true": "--- FAIL"} {
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestEngineAnswers$", "-test.v")
		cmd.Env = append(os.Environ(), "CI="+ci, lab.EngineVariable+"=")
		out, err := cmd.CombinedOutput()
		if (err != nil) != (ci != "") || !strings.Contains(string(out), want) || !strings.Contains(string(out), "a Docker Engine for tests: missing") {
			t.Errorf("CI=%q: got error %v, want %s and the reason in\n%s", ci, err, want, out)
		}
	}
}

func TestStandInsEndWithTheirTest(t *testing.T) {
	t.Parallel()
	var endpoint string
	t.Run("started", func(t *testing.T) { endpoint = lab.MetadataMock(t, "") })
	if response, err := http.DefaultClient.Do(request(t, http.MethodGet, endpoint).WithContext(t.Context())); err == nil {
		_ = response.Body.Close()
		t.Errorf("GET %s: got status %d, want no answer", endpoint, response.StatusCode)
	}
}

func TestProgramThatEndsAtOnceIsReportedWithItsLog(t *testing.T) {
	t.Setenv(lab.MetadataVariable, "/bin/false")
	_, err := lab.StartMetadataMock(t.Context(), t.TempDir(), "")
	if err == nil || !strings.Contains(err.Error(), "ended before it was ready: exit status 1") {
		t.Errorf("got error %v, want one that says it ended", err)
	}
}
