package hook

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/aws/smithy-go"
)

// code is the API's name of an error; "" for one that didn't come from it.
func code(err error) string {
	var api smithy.APIError
	if errors.As(err, &api) {
		return api.ErrorCode()
	}
	return ""
}

// denied: IAM says no, in one of the codes of Auto Scaling's "Common error types".
func denied(err error) bool {
	return slices.Contains([]string{"AccessDenied", "AccessDeniedException", "NotAuthorized"}, code(err))
}

// refused: the same call meets the same answer until a person has changed something.
func refused(err error) bool { return denied(err) || code(err) == "ValidationError" }

// inactive: nothing waits for this hook and instance. The API has no code for that, only these words.
func inactive(err error) bool {
	return code(err) == "ValidationError" && strings.Contains(strings.ToLower(err.Error()), "no active lifecycle action found")
}

// explain says what a failed call means and what to do. Of what the API says it keeps only what can't quote the request: the
// message about a wrong signature does, session token included.
func explain(err error, action string) error {
	var api smithy.APIError
	if errors.As(err, &api) {
		switch {
		case denied(err):
			return fmt.Errorf("%s (%s): allow autoscaling:%s for the node's role", api.ErrorMessage(), api.ErrorCode(), action)
		case refused(err):
			return fmt.Errorf("%s: %s", action, api.ErrorMessage())
		}
		return fmt.Errorf("%s: Auto Scaling answered %s: where that stays, check the node's role, clock and quotas", action, api.ErrorCode())
	}
	switch {
	case errors.Is(err, context.Canceled):
		return fmt.Errorf("%s: %w", action, context.Canceled)
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("%s: no answer in time: give the node a way to Auto Scaling, a NAT gateway or a VPC endpoint", action)
	}
	var damaged *smithy.DeserializationError
	if errors.As(err, &damaged) { // its text may quote the answer
		return fmt.Errorf("%s: the answer is not Auto Scaling's: see whether a proxy stands in between", action)
	}
	var operation *smithy.OperationError
	if errors.As(err, &operation) {
		err = operation.Err
	}
	return fmt.Errorf("%s: %w: check that the node has a role and a way to Auto Scaling", action, err)
}
