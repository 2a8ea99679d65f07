package balancer

import (
	"errors"
	"fmt"
	"strings"

	"github.com/flowviz/flowagent/agent/awserror"
)

// What a caller decides on: after either, only waiting out the configured deregisterDelay is left.
var (
	// ErrDenied: the node's role may not make a call that is needed.
	ErrDenied = errors.New("access denied")
	// ErrUnsupported: requests come on a way that can't be asked here, such as a Classic Load Balancer.
	ErrUnsupported = errors.New("unsupported traffic source")
)

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

// explain says what a failed call means, and what to do. action is IAM's name of the call.
func explain(action string, err error) error {
	if awserror.Code(err) == badRequest {
		// Its message names the argument, which is an id or an ARN of the node's own.
		return &failure{fmt.Errorf("%s: %s: see that the configuration names target groups of the node's own region, and instances by their ids", action, awserror.Message(err)), true}
	}
	service, _, _ := strings.Cut(action, ":")
	explained := awserror.Call{Did: action, Service: services[service], Allow: action, Endpoint: service}.Explain(err)
	if awserror.Denied(err) {
		return &failure{fmt.Errorf("%w: %w", ErrDenied, explained), true}
	}
	return &failure{explained, false}
}

// services are named by the prefix of their actions, which is that of their VPC endpoints, too.
var services = map[string]string{"autoscaling": "Auto Scaling", "elasticloadbalancing": "Elastic Load Balancing"}
