package notify

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	sdk "github.com/aws/aws-sdk-go-v2/service/eventbridge"
	"github.com/aws/aws-sdk-go-v2/service/eventbridge/types"

	"github.com/flowviz/flowagent/agent/awserror"
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

// explain says what a failed call means, and what to do. A denial is tried again: it may be a role that is about to be
// changed.
func (b *EventBridge) explain(err error) error {
	did := "put an event on bus " + b.bus
	switch code := awserror.Code(err); code {
	case "ResourceNotFoundException":
		return &Refused{fmt.Errorf("%s: there is none of this name: create it, or correct notify.eventBridge.bus", did)}
	case "ValidationException", "ValidationError":
		return &Refused{fmt.Errorf("%s: EventBridge answered %s: check notify.eventBridge", did, code)}
	}
	return awserror.Call{Did: did, Service: "EventBridge", Allow: "events:PutEvents on this bus", Endpoint: "events"}.Explain(err)
}
