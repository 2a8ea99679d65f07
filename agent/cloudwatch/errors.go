package cloudwatch

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/aws/smithy-go"
)

// denials are the codes that mean "not with this role": CloudWatch's "Common error types", and IAM's own for its protocol.
var denials = []string{"AccessDenied", "AccessDeniedException", "NotAuthorized"}

// explain says what a failed call means, and what to do.
func explain(err error) error {
	var (
		api     smithy.APIError
		damaged *smithy.DeserializationError
	)
	switch {
	case errors.As(err, &api) && slices.Contains(denials, api.ErrorCode()):
		return fmt.Errorf("put metric data: %s (%s): allow cloudwatch:PutMetricData in this namespace for the node's role", api.ErrorMessage(), api.ErrorCode())
	case errors.As(err, &api):
		// Not its message: the one about a wrong signature quotes the request, session token included.
		return fmt.Errorf("put metric data: CloudWatch answered %s: it is tried again every minute; where that doesn't help, check the node's role, clock and quotas", api.ErrorCode())
	case errors.As(err, &damaged):
		// Its text may quote the answer.
		return errors.New("put metric data: the answer is not CloudWatch's: see whether a proxy stands in between")
	case errors.Is(err, context.DeadlineExceeded):
		return errors.New("put metric data: no answer in time: give the node a way to CloudWatch, a NAT gateway or a VPC endpoint for monitoring")
	}
	var operation *smithy.OperationError
	if errors.As(err, &operation) {
		err = operation.Err
	}
	return fmt.Errorf("put metric data: %w: check that the node has a role and a way to CloudWatch, a NAT gateway or a VPC endpoint for monitoring", err)
}
