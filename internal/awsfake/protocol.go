package awsfake

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"io"
	"net/http"
	"net/url"
	"strings"

	"github.com/aws/smithy-go/encoding/cbor"
)

// protocol is how a service spells requests and errors (smithy.io, "AWS Protocols").
type protocol int

const (
	jsonRPC protocol = iota // awsJson1_0 and 1_1: Secrets Manager, Systems Manager, ECR
	query                   // awsQuery: Auto Scaling, Elastic Load Balancing, STS
	ec2                     // ec2Query
	cborRPC                 // rpcv2Cbor: CloudWatch
)

// ec2Version is the API version in every EC2 request, by which its form of errors is told from awsQuery.
const ec2Version = "2016-11-15"

// requestID is in every answer: there is nothing to look up by it.
const requestID = "awsfake-0000"

// Action returns the name of the API action that a request calls, such as GetSecretValue; "" when it names none.
func Action(r *http.Request) string {
	action, _ := identify(r)
	return action
}

func identify(r *http.Request) (string, protocol) {
	if target := r.Header.Get("X-Amz-Target"); target != "" {
		_, action, _ := strings.Cut(target, ".")
		return action, jsonRPC
	}
	if _, action, found := strings.Cut(r.URL.Path, "/operation/"); found {
		return action, cborRPC
	}
	form := r.URL.Query()
	if strings.HasPrefix(r.Header.Get("Content-Type"), "application/x-www-form-urlencoded") {
		if posted, err := url.ParseQuery(string(peek(r))); err == nil {
			form = posted
		}
	}
	if form.Get("Version") == ec2Version {
		return form.Get("Action"), ec2
	}
	return form.Get("Action"), query
}

// peek reads the body and leaves it to be read again.
func peek(r *http.Request) []byte {
	if r.Body == nil {
		return nil
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return nil
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	return body
}

// WriteError refuses a request in the protocol it came in.
func WriteError(w http.ResponseWriter, r *http.Request, status int, code, message string) {
	fault := "Sender"
	if status >= http.StatusInternalServerError {
		fault = "Receiver"
	}
	header := w.Header()
	header.Set("X-Amzn-Requestid", requestID)
	var body []byte
	switch _, p := identify(r); p {
	case jsonRPC:
		header.Set("Content-Type", "application/x-amz-json-1.1")
		header.Set("X-Amzn-Errortype", code)
		body, _ = json.Marshal(map[string]string{"__type": code, "message": message}) // strings always encode
	case cborRPC:
		header.Set("Content-Type", "application/cbor")
		header.Set("Smithy-Protocol", "rpc-v2-cbor")
		body = cbor.Encode(cbor.Map{"__type": cbor.String("com.amazonaws#" + code), "message": cbor.String(message)})
	case ec2:
		header.Set("Content-Type", "text/xml")
		body = []byte("<Response><Errors><Error><Code>" + escape(code) + "</Code><Message>" + escape(message) +
			"</Message></Error></Errors><RequestID>" + requestID + "</RequestID></Response>")
	default:
		header.Set("Content-Type", "text/xml")
		body = []byte("<ErrorResponse><Error><Type>" + fault + "</Type><Code>" + escape(code) + "</Code><Message>" + escape(message) +
			"</Message></Error><RequestId>" + requestID + "</RequestId></ErrorResponse>")
	}
	w.WriteHeader(status)
	_, _ = w.Write(body) // a client that hung up needs no answer
}

func escape(text string) string {
	var b strings.Builder
	_ = xml.EscapeText(&b, []byte(text)) // a builder takes everything
	return b.String()
}
