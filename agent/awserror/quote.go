package awserror

import (
	"context"
	"errors"
	"strings"

	"github.com/aws/smithy-go"
	"github.com/aws/smithy-go/middleware"
)

// WithoutQuotes is an option of an SDK configuration (APIOptions): it keeps out of every call's error what AWS says of a
// signature that it refuses. That quotes the request, session token included, and logs are kept for years.
func WithoutQuotes(stack *middleware.Stack) error {
	return stack.Initialize.Add(middleware.InitializeMiddlewareFunc("WithoutQuotes", func(
		ctx context.Context, in middleware.InitializeInput, next middleware.InitializeHandler,
	) (middleware.InitializeOutput, middleware.Metadata, error) {
		out, metadata, err := next.HandleInitialize(ctx, in)
		var api smithy.APIError
		if errors.As(err, &api) && strings.Contains(api.ErrorCode(), "Signature") {
			err = &smithy.GenericAPIError{
				Code: api.ErrorCode(), Message: "AWS refuses the signature: check this machine's clock and its credentials", Fault: api.ErrorFault(),
			}
		}
		return out, metadata, err
	}), middleware.Before)
}
