package iam

import (
	"encoding/json"
	"encoding/xml"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/flowviz/flowagent/test/lab"
)

// ask calls one action of IAM's query API. No client of the SDK is linked for it: the agent never calls IAM.
func ask(t *testing.T, endpoint string, form url.Values) (status int, body []byte) {
	t.Helper()
	form.Set("Version", "2010-05-08")
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, endpoint, strings.NewReader(form.Encode()))
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	// By the credential's scope moto knows which service is meant; it checks no signature.
	request.Header.Set("Authorization", "AWS4-HMAC-SHA256 Credential=test/20261124/us-east-1/iam/aws4_request, SignedHeaders=host, Signature=0")
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if body, err = io.ReadAll(response.Body); err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, body
}

func document(t *testing.T, d Document) string {
	t.Helper()
	text, err := json.Marshal(d)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// moto checks a policy's grammar as IAM does: Sids, ARNs, operators, what a statement may have. What it keeps allows the same.
func TestIAMTakesThePolicy(t *testing.T) {
	endpoint := lab.Moto(t)
	needed := everything(t)
	status, body := ask(t, endpoint, url.Values{"Action": {"CreatePolicy"}, "PolicyName": {"node"}, "PolicyDocument": {document(t, needed.Document)}})
	var created struct {
		ARN string `xml:"CreatePolicyResult>Policy>Arn"`
	}
	if err := xml.Unmarshal(body, &created); status != http.StatusOK || err != nil || created.ARN == "" {
		t.Fatalf("create the policy: got %d, %v: %s", status, err, body)
	}
	status, body = ask(t, endpoint, url.Values{"Action": {"GetPolicyVersion"}, "PolicyArn": {created.ARN}, "VersionId": {"v1"}})
	var version struct {
		Document string `xml:"GetPolicyVersionResult>PolicyVersion>Document"`
	}
	if err := xml.Unmarshal(body, &version); status != http.StatusOK || err != nil {
		t.Fatalf("read the policy: got %d, %v: %s", status, err, body)
	}
	text, err := url.QueryUnescape(version.Document)
	if err != nil {
		t.Fatal(err)
	}
	granted, err := Parse([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	if differences := Compare(needed.Document, granted); len(differences) > 0 {
		t.Errorf("the policy that IAM keeps differs: %q", differences)
	}

	// The same check refuses what it should, or it would say nothing of the policy above.
	for name, spoil := range map[string]func(*Statement){
		"a Sid that is there twice": func(s *Statement) { s.Sid = needed.Statement[1].Sid },
		"a resource that is no ARN": func(s *Statement) { s.Resource = List{"shop/app"} },
		"an action without service": func(s *Statement) { s.Action = List{"GetSecretValue"} },
		"an unknown operator":       func(s *Statement) { s.Condition = Conditions{"StringIs": {"aws:RequestedRegion": {"x"}}} },
	} {
		spoiled := everything(t).Document
		spoil(&spoiled.Statement[0])
		status, body := ask(t, endpoint, url.Values{"Action": {"CreatePolicy"}, "PolicyName": {strings.ReplaceAll(name, " ", "-")}, "PolicyDocument": {document(t, spoiled)}})
		if status != http.StatusBadRequest || !strings.Contains(string(body), "MalformedPolicyDocument") {
			t.Errorf("%s: got %d: %s, want it refused", name, status, body)
		}
	}
}
