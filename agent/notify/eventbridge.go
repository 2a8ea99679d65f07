package notify

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	sdk "github.com/aws/aws-sdk-go-v2/service/eventbridge"
	"github.com/aws/aws-sdk-go-v2/service/eventbridge/types"
	"github.com/aws/smithy-go"
)

// callTimeout bounds one call: ten times what a slow region takes.
const callTimeout = 10 * time.Second

// API is what is needed of EventBridge.
type API interface {
	PutEvents(context.Context, *sdk.PutEventsInput, ...func(*sdk.Options)) (*sdk.PutEventsOutput, error)
}

// NewClient makes a client that tries each call once: how often and how long to try is decided here.
func NewClient(cfg aws.Config) *sdk.Client {
	return sdk.NewFromConfig(cfg, func(o *sdk.Options) { o.Retryer = aws.NopRetryer{} })
}

// EventBridge puts events on one bus.
type EventBridge struct {
	api API
	bus string
}

// NewEventBridge takes the bus's name or ARN.
func NewEventBridge(api API, bus string) *EventBridge { return &EventBridge{api, bus} }

// BusRegion is the region of a bus's ARN; "" for a name.
func BusRegion(bus string) string {
	if part := strings.SplitN(bus, ":", 5); len(part) == 5 && part[0] == "arn" {
		return part[3]
	}
	return ""
}

// Name implements [Sink].
func (*EventBridge) Name() string { return "eventbridge" }

// Send implements [Sink].
func (b *EventBridge) Send(ctx context.Context, e Event) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	out, err := b.api.PutEvents(ctx, &sdk.PutEventsInput{Entries: []types.PutEventsRequestEntry{{
		EventBusName: &b.bus,
		Source:       &e.Source,
		DetailType:   aws.String(string(e.Type)),
		Time:         &e.Time,
		Resources:    e.Resources,
		Detail:       aws.String(string(encode(e.Detail))),
	}}})
	if err != nil {
		return b.explain(err)
	}
	// A call that succeeds may still have failed: the answer has an error for each event.
	for _, entry := range out.Entries {
		if code := aws.ToString(entry.ErrorCode); code != "" {
			return b.entryError(code)
		}
	}
	if out.FailedEntryCount > 0 {
		return b.entryError("no reason")
	}
	return nil
}

// passing are the codes of an entry that may be taken the next time, from "PutEvents" and "Handling failures with PutEvents".
var passing = []string{"ThrottlingException", "InternalFailure", "InternalException", "no reason"}

func (b *EventBridge) entryError(code string) error {
	err := fmt.Errorf("put an event on bus %s: EventBridge answered %s", b.bus, code)
	if slices.Contains(passing, code) {
		return err
	}
	return &Refused{fmt.Errorf("%w: check the bus and its policy", err)}
}

// denials are the codes that mean "not with this role", in EventBridge's and IAM's words.
var denials = []string{"AccessDenied", "AccessDeniedException", "NotAuthorized"}

// explain says what a failed call means, and what to do. Of what the API says it keeps only what can't quote the request: the
// message about a wrong signature does, session token included. A denial is tried again: it may be a role that is about to
// be changed.
func (b *EventBridge) explain(err error) error {
	did := "put an event on bus " + b.bus
	var (
		api       smithy.APIError
		damaged   *smithy.DeserializationError
		operation *smithy.OperationError
	)
	switch {
	case errors.As(err, &api) && slices.Contains(denials, api.ErrorCode()):
		return fmt.Errorf("%s: %s (%s): allow events:PutEvents on this bus for the node's role", did, api.ErrorMessage(), api.ErrorCode())
	case errors.As(err, &api) && api.ErrorCode() == "ResourceNotFoundException":
		return &Refused{fmt.Errorf("%s: there is none of this name: create it, or correct notify.eventBridge.bus", did)}
	case errors.As(err, &api) && (api.ErrorCode() == "ValidationException" || api.ErrorCode() == "ValidationError"):
		return &Refused{fmt.Errorf("%s: EventBridge answered %s: check notify.eventBridge", did, api.ErrorCode())}
	case errors.As(err, &api):
		return fmt.Errorf("%s: EventBridge answered %s: where that stays, check the node's role, clock and quotas", did, api.ErrorCode())
	case errors.As(err, &damaged): // its text may quote the answer
		return fmt.Errorf("%s: the answer is not EventBridge's: see whether a proxy stands in between", did)
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("%s: no answer in time: give the node a way to EventBridge, a NAT gateway or a VPC endpoint for events", did)
	case errors.As(err, &operation):
		err = operation.Err
	}
	return fmt.Errorf("%s: %w: check that the node has a role and a way to EventBridge", did, err)
}
