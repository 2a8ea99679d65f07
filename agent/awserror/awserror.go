// Package awserror says what a failed call to AWS means for a node and what to do about it. An error of the SDK may quote the
// request, session token included, or the answer with all that is secret in it; what is made of it here never does.
package awserror

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/aws/smithy-go"
)

// denials are the codes that mean "not with this role": "Common error types" in the API references, EC2's and IAM's own.
var denials = []string{"AccessDenied", "AccessDeniedException", "NotAuthorized", "UnauthorizedOperation"}

// Code is the API's name of an error; "" for one that didn't come from it.
func Code(err error) string {
	var api smithy.APIError
	if errors.As(err, &api) {
		return api.ErrorCode()
	}
	return ""
}

// Message is what the API says to an error, and only for a code whose message the caller knows not to quote the request;
// "" for an error that didn't come from it. The message about a wrong signature does quote it.
func Message(err error) string {
	var api smithy.APIError
	if errors.As(err, &api) {
		return api.ErrorMessage()
	}
	return ""
}

// Denied tells that the caller's role is known and may not make this call.
func Denied(err error) bool { return slices.Contains(denials, Code(err)) }

// Damaged tells an answer that is not the service's, such as a proxy's page.
func Damaged(err error) bool {
	var damaged *smithy.DeserializationError
	return errors.As(err, &damaged)
}

// Call is one call, in the words of its error. All fields are needed.
type Call struct {
	// Did is what was tried, such as "put metric data".
	Did string
	// Service is its name, such as "CloudWatch".
	Service string
	// Allow is what a role needs for it: an IAM action, and on what, such as "cloudwatch:PutMetricData in this namespace".
	Allow string
	// Endpoint is the service's part of a VPC endpoint's name, such as "monitoring".
	Endpoint string
}

// Explain makes of err, which is not nil, an error that can be shown. A call that was given up is still a
// [context.Canceled]; everything of the API's own is told apart by [Code] before.
func (c Call) Explain(err error) error {
	switch code := Code(err); {
	case Denied(err):
		return fmt.Errorf("%s: %s (%s): allow %s for the node's role", c.Did, Message(err), code, c.Allow)
	case code != "":
		return fmt.Errorf("%s: %s answered %s: where that stays, check the node's role, clock and quotas", c.Did, c.Service, code)
	case Damaged(err):
		return fmt.Errorf("%s: the answer is not %s's: see whether a proxy stands in between", c.Did, c.Service)
	case errors.Is(err, context.Canceled):
		return fmt.Errorf("%s: stopped before an answer came: %w", c.Did, context.Canceled)
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("%s: no answer in time: give the node a way to %s, a NAT gateway or a VPC endpoint for %s", c.Did, c.Service, c.Endpoint)
	}
	var operation *smithy.OperationError
	if errors.As(err, &operation) {
		err = operation.Err
	}
	return fmt.Errorf("%s: %w: check that the node has a role and a way to %s, a NAT gateway or a VPC endpoint for %s", c.Did, err, c.Service, c.Endpoint)
}
