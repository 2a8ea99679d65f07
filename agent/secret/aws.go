package secret

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/arn"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	"github.com/aws/smithy-go"

	"github.com/flowviz/flowagent/agent/awserror"
)

const (
	// awsAttempts is how often the SDK tries a call within callTimeout. Few, since the keeper backs off by itself.
	awsAttempts = 3
	// awsBackoff bounds the SDK's own wait between two tries; its default of 20 s would outlast callTimeout.
	awsBackoff = time.Second
	// awsParallel is how many calls run at once in a region: well below the 100 batches a second that Secrets Manager
	// and the 40 reads a second that Parameter Store grant an account.
	awsParallel = 4
)

// regional makes and keeps one client of type C for each region.
type regional[C any] struct {
	config  func(ctx context.Context, region string) (aws.Config, error)
	build   func(aws.Config) C
	clients map[string]C
}

// client returns the region's client; "" is the node's own region. A failure is not kept.
func (r *regional[C]) client(ctx context.Context, region string) (C, error) {
	if c, made := r.clients[region]; made {
		return c, nil
	}
	cfg, err := r.config(ctx, region)
	if err != nil {
		var none C
		return none, because(ErrUnavailable, "AWS is not set up: %s", printable(err.Error()))
	}
	cfg = cfg.Copy()
	cfg.Retryer = func() aws.Retryer {
		return retry.NewStandard(func(o *retry.StandardOptions) {
			o.MaxAttempts = awsAttempts
			o.MaxBackoff = awsBackoff
		})
	}
	c := r.build(cfg)
	if r.clients == nil {
		r.clients = make(map[string]C)
	}
	r.clients[region] = c
	return c, nil
}

// regionOf prefers what the configuration says, then what an ARN says, then the node's own region.
func regionOf(configured, id string) string {
	if configured != "" {
		return configured
	}
	if parsed, err := arn.Parse(id); err == nil {
		return parsed.Region
	}
	return ""
}

// awsKinds sorts the error codes that are clear answers. A code that is not here (throttling, a 5xx, an expired token, a
// skewed clock) says nothing about the secret and counts as ErrUnavailable. Sources: "Errors" of GetSecretValue,
// BatchGetSecretValue and GetParameters in the API references, and "Common error types".
var awsKinds = map[string]error{
	"AccessDenied":                ErrDenied,
	"AccessDeniedException":       ErrDenied,
	"NotAuthorized":               ErrDenied,
	"UnauthorizedOperation":       ErrDenied,
	"UnrecognizedClientException": ErrDenied, // the access key was deleted or disabled
	"InvalidClientTokenId":        ErrDenied,
	"DecryptionFailure":           ErrDenied, // the KMS key is disabled or not for this role
	"InvalidKeyId":                ErrDenied, // the same, as Parameter Store says it

	"ResourceNotFoundException": ErrNotFound,
	"ParameterNotFound":         ErrNotFound,
	"ParameterVersionNotFound":  ErrNotFound,
	"InvalidRequestException":   ErrNotFound, // the secret is marked for deletion
	"InvalidParameterException": ErrNotFound, // nothing can exist under such a reference
	"ValidationException":       ErrNotFound,
}

// awsError turns an error of the SDK into one of the three kinds. hint says what to do about a denial.
func awsError(err error, hint string) error {
	if code := awserror.Code(err); code != "" {
		return awsCode(code, awserror.Message(err), hint)
	}
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return because(ErrUnavailable, "no answer within %s", callTimeout)
	case awserror.Damaged(err):
		// Its text may quote the answer.
		return because(ErrUnavailable, "the answer is not what the service sends: a proxy may stand in between")
	}
	var operation *smithy.OperationError
	if errors.As(err, &operation) {
		err = operation.Err
	}
	return because(ErrUnavailable, "%s", printable(err.Error()))
}

// awsCode is awsError for a code and message, which batches carry for each entry.
func awsCode(code, message, hint string) error {
	kind, known := awsKinds[code]
	if !known {
		// Not its message: the one about a wrong signature quotes the request, session token included.
		return because(ErrUnavailable, "AWS answered %s: where that stays, check the node's role, clock and quotas", code)
	}
	text := code
	if message = printable(message); message != "" {
		text = fmt.Sprintf("%s (%s)", message, code)
	}
	if kind == ErrDenied {
		return because(kind, "%s: %s", text, hint)
	}
	return because(kind, "%s: create it, or correct where the configuration looks for it", text)
}

// byRegion groups locators, keeping their order.
func byRegion[L any](locators []L, region func(L) string) map[string][]L {
	groups := make(map[string][]L)
	for _, l := range locators {
		r := region(l)
		groups[r] = append(groups[r], l)
	}
	return groups
}
