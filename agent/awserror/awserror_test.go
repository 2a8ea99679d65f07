package awserror_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/aws/smithy-go"

	"github.com/flowviz/flowagent/agent/awserror"
)

// session is what no error may hold.
const session = "IQoJb3JpZ2luX2VjE-the-session-token"

func api(code, message string) error {
	return &smithy.OperationError{
		ServiceID: "CloudWatch", OperationName: "PutMetricData", Err: &smithy.GenericAPIError{Code: code, Message: message},
	}
}

func operation(err error) error {
	return &smithy.OperationError{ServiceID: "CloudWatch", OperationName: "PutMetricData", Err: err}
}

func TestExplain_SaysWhatToDoAndQuotesNeitherRequestNorAnswer(t *testing.T) {
	t.Parallel()
	call := awserror.Call{Did: "put metric data", Service: "CloudWatch", Allow: "cloudwatch:PutMetricData here", Endpoint: "monitoring"}
	for name, c := range map[string]struct {
		err       error
		want      string
		cancelled bool
	}{
		"denied": {
			api("AccessDenied", "role/node may not"),
			"put metric data: role/node may not (AccessDenied): allow cloudwatch:PutMetricData here for the node's role", false,
		},
		"denied by EC2": {
			api("UnauthorizedOperation", "role/node may not"),
			"put metric data: role/node may not (UnauthorizedOperation): allow cloudwatch:PutMetricData here for the node's role", false,
		},
		"a signature that is quoted": {
			api("SignatureDoesNotMatch", "The Canonical String should have been 'POST\nx-amz-security-token:"+session),
			"put metric data: CloudWatch answered SignatureDoesNotMatch: where that stays, check the node's role, clock and quotas", false,
		},
		"an answer that is quoted": {
			operation(&smithy.DeserializationError{Err: errors.New("invalid character in " + session), Snapshot: []byte(session)}),
			"put metric data: the answer is not CloudWatch's: see whether a proxy stands in between", false,
		},
		"no answer": {
			operation(context.DeadlineExceeded),
			"put metric data: no answer in time: give the node a way to CloudWatch, a NAT gateway or a VPC endpoint for monitoring", false,
		},
		"given up": {
			operation(&smithy.CanceledError{Err: context.Canceled}),
			"put metric data: stopped before an answer came: context canceled", true,
		},
		"no way there": {
			operation(errors.New("dial tcp: no route to host")),
			"put metric data: dial tcp: no route to host: check that the node has a role and a way to CloudWatch, a NAT gateway or a VPC endpoint for monitoring", false,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := call.Explain(c.err)
			if got.Error() != c.want {
				t.Errorf("got  %q\nwant %q", got, c.want)
			}
			if strings.Contains(got.Error(), session) {
				t.Errorf("got %q, which holds the session's token", got)
			}
			if errors.Is(got, context.Canceled) != c.cancelled {
				t.Errorf("got a cancelled call: %v, want %v", !c.cancelled, c.cancelled)
			}
		})
	}
}

func TestCode_IsOfTheAPIAlone(t *testing.T) {
	t.Parallel()
	refused := api("ValidationError", "no such group")
	if awserror.Code(refused) != "ValidationError" || awserror.Message(refused) != "no such group" || awserror.Denied(refused) {
		t.Errorf("got %q, %q, denied %v", awserror.Code(refused), awserror.Message(refused), awserror.Denied(refused))
	}
	for _, err := range []error{nil, context.Canceled, operation(&smithy.DeserializationError{Err: context.Canceled})} {
		if awserror.Code(err) != "" || awserror.Message(err) != "" || awserror.Denied(err) {
			t.Errorf("%v: got %q, %q, denied %v, want none", err, awserror.Code(err), awserror.Message(err), awserror.Denied(err))
		}
	}
}
