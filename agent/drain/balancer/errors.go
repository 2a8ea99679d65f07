package balancer

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/aws/smithy-go"
)

// What a caller decides on: after either, only waiting out the configured deregisterDelay is left.
var (
	// ErrDenied: the node's role may not make a call that is needed.
	ErrDenied = errors.New("access denied")
	// ErrUnsupported: requests come on a way that can't be asked here, such as a Classic Load Balancer.
	ErrUnsupported = errors.New("unsupported traffic source")
)

// denials are the codes that mean "not with this role": "Common errors" of both API references, and IAM's own.
var denials = []string{"AccessDenied", "AccessDeniedException", "NotAuthorized", "UnauthorizedOperation"}

// Codes of Elastic Load Balancing ("Errors" of DescribeTargetHealth and DeregisterTargets), and one of all query services.
const (
	noSuchGroup  = "TargetGroupNotFound"
	noSuchTarget = "InvalidTarget"
	badRequest   = "ValidationError"
)

// failure is a call that failed, with what that means.
type failure struct {
	error
	permanent bool
}

func (f *failure) Unwrap() error { return f.error }

// permanent tells an error that no other try changes. Throttling, a 5xx, a timeout, the network, credentials that just
// expired: all the rest may pass.
func permanent(err error) bool {
	var f *failure
	return errors.As(err, &f) && f.permanent
}

func codeOf(err error) string {
	var api smithy.APIError
	if errors.As(err, &api) {
		return api.ErrorCode()
	}
	return ""
}

// explain says what a failed call means, and what to do. action is IAM's name of the call.
func explain(action string, err error) error {
	var (
		api     smithy.APIError
		damaged *smithy.DeserializationError
	)
	switch {
	case errors.As(err, &api) && slices.Contains(denials, api.ErrorCode()):
		return &failure{fmt.Errorf("%w: %s (%s): allow %s for the node's role", ErrDenied, api.ErrorMessage(), api.ErrorCode(), action), true}
	case codeOf(err) == badRequest:
		// Its message names the argument, which is an id or an ARN of the node's own.
		return &failure{fmt.Errorf("%s: %s: see that the configuration names target groups of the node's own region, and instances by their ids", action, api.ErrorMessage()), true}
	case api != nil:
		// Not its message: the one about a wrong signature quotes the request, session token included.
		return &failure{fmt.Errorf("%s: AWS answered %s: where it goes on, check the node's role, clock and quotas", action, api.ErrorCode()), false}
	case errors.As(err, &damaged):
		// Its text may quote the answer.
		return &failure{fmt.Errorf("%s: the answer is not AWS's: see whether a proxy stands in between", action), false}
	case errors.Is(err, context.Canceled):
		return &failure{fmt.Errorf("%s: stopped before an answer came", action), false}
	case errors.Is(err, context.DeadlineExceeded):
		return &failure{fmt.Errorf("%s: no answer in time: give the node a way there, a NAT gateway or a VPC endpoint", action), false}
	}
	var operation *smithy.OperationError
	if errors.As(err, &operation) {
		err = operation.Err
	}
	return &failure{fmt.Errorf("%s: %w: check that the node has a role and a way there, a NAT gateway or a VPC endpoint", action, err), false}
}
