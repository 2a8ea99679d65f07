package notify

import (
	"crypto/rand"
	"encoding/json"
	"fmt"
	"strings"
	"time"
)

// Type is what an event is about, as EventBridge's detail-type.
type Type string

// What happens to a node.
const (
	NodeReady                Type = "Flowagent Node Ready"                      // it serves for the first time
	NodeBootFailed           Type = "Flowagent Node Boot Failed"                // and the agent ended
	NodeDrainStarted         Type = "Flowagent Node Drain Started"              //
	NodeDrainEnded           Type = "Flowagent Node Drain Ended"                // well or not
	NodeNoticeReceived       Type = "Flowagent Node Notice Received"            // EC2 announced something
	LifecycleActionCompleted Type = "Flowagent Node Lifecycle Action Completed" // or given up
)

// source is what EventBridge calls the origin of an event. Names that begin with aws. are Amazon's.
const source = "flowagent"

// longestText is how many characters of an error are sent: enough for the reason and what to do. The rest is in the log.
const longestText = 1000

// Event is one thing that happened, in the shape that EventBridge gives events to their receivers. The webhook's body is this
// document; on EventBridge all but Detail, Type, Source, Time and Resources is the bus's own.
type Event struct {
	Version string `json:"version"` // of the shape: always 0
	// ID is made once: an event that is sent again has the same.
	ID      string    `json:"id"`
	Type    Type      `json:"detail-type"`
	Source  string    `json:"source"`
	Account string    `json:"account"` // "" outside EC2, as is Region
	Time    time.Time `json:"time"`    // in UTC, to the second, as EventBridge keeps it
	Region  string    `json:"region"`
	// Resources has the instance's ARN; empty outside EC2.
	Resources []string `json:"resources"`
	Detail    Detail   `json:"detail"`
}

// Detail is what an event says, beside that it happened. Of Boot, Drain, Notice and LifecycleAction one is there.
type Detail struct {
	// EventID is the event's own id. EventBridge gives each delivery another id, so this one tells what came twice.
	EventID         string           `json:"eventId"`
	Node            Node             `json:"node"`
	Boot            *Boot            `json:"boot,omitempty"`
	Drain           *Drain           `json:"drain,omitempty"`
	Notice          *Notice          `json:"notice,omitempty"`
	LifecycleAction *LifecycleAction `json:"lifecycleAction,omitempty"`
}

// Node is where it happened.
type Node struct {
	InstanceID  string `json:"instanceId,omitempty"`
	Hostname    string `json:"hostname,omitempty"`
	Environment string `json:"environment,omitempty"`
	Color       string `json:"color,omitempty"`
	Release     string `json:"release,omitempty"`
	// AgentVersion is flowagent's own.
	AgentVersion string `json:"agentVersion"`
}

// Boot is how a boot ended.
type Boot struct {
	// Seconds from the agent's start.
	Seconds float64 `json:"seconds"`
	// Error is why it failed; empty for a node that is ready.
	Error string `json:"error,omitempty"`
}

// Drain is a drain at its beginning, or at its end.
type Drain struct {
	Reason   string    `json:"reason"`
	Trigger  string    `json:"trigger"`
	Started  time.Time `json:"started"`
	Deadline time.Time `json:"deadline"`
	// Result is done, failed or taken back; empty at the beginning, as is what follows.
	Result  string  `json:"result,omitempty"`
	Seconds float64 `json:"seconds,omitempty"`
	// FailedSteps are their names. Why they failed is in the log and in 'flowagent status': it may quote an operator's program.
	FailedSteps []string `json:"failedSteps,omitempty"`
}

// Notice is what EC2 announced.
type Notice struct {
	// ID is the same for the same announcement, also to an agent that was started again.
	ID   string `json:"id"`
	Kind string `json:"kind"`
	// Text is the lifecycle state, the action, or the maintenance event's code and window.
	Text string `json:"text"`
	// At is when it takes effect; zero for unknown.
	At time.Time `json:"at,omitzero"`
}

// LifecycleAction is how the agent ended one of the Auto Scaling group's hooks for this instance.
type LifecycleAction struct {
	Hook  string `json:"hook"`
	Group string `json:"group"`
	// Transition is launching or terminating.
	Transition string `json:"transition"`
	// Result is what the agent asked for: CONTINUE or ABANDON.
	Result string `json:"result"`
	// Outcome is completed, already over or gave up.
	Outcome string `json:"outcome"`
}

// Origin is what all events of a node have in common.
type Origin struct {
	Node Node
	// Account and Region are AWS's; empty outside EC2, and then no ARN is made.
	Account, Region string
}

// event makes an event of what happened now.
func (o Origin) event(t Type, detail Detail) Event {
	detail.EventID, detail.Node = newID(), o.Node
	if b := detail.Boot; b != nil && len(b.Error) > longestText {
		cut := *b
		cut.Error = strings.ToValidUTF8(b.Error[:longestText], "") + " …"
		detail.Boot = &cut
	}
	return Event{
		Version: "0", ID: detail.EventID, Type: t, Source: source, Account: o.Account, Region: o.Region,
		Time: time.Now().UTC().Truncate(time.Second), Resources: o.resources(), Detail: detail,
	}
}

func (o Origin) resources() []string {
	if o.Account == "" || o.Region == "" || o.Node.InstanceID == "" {
		return []string{} // a list to whoever reads JSON
	}
	return []string{fmt.Sprintf("arn:%s:ec2:%s:%s:instance/%s", partition(o.Region), o.Region, o.Account, o.Node.InstanceID)}
}

// partition is the part of AWS that a region is in, by the table that the SDKs resolve endpoints with.
func partition(region string) string {
	for _, p := range []struct{ prefix, name string }{
		{"cn-", "aws-cn"}, {"us-gov-", "aws-us-gov"}, {"us-iso-", "aws-iso"}, {"us-isob-", "aws-iso-b"},
		{"us-isof-", "aws-iso-f"}, {"eu-isoe-", "aws-iso-e"}, {"eusc-", "aws-eusc"},
	} {
		if strings.HasPrefix(region, p.prefix) {
			return p.name
		}
	}
	return "aws"
}

// newID is a random UUID (RFC 9562, version 4), as EventBridge's own ids are.
func newID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

// encode can't fail: an event has nothing that JSON lacks.
func encode(v any) []byte {
	content, err := json.Marshal(v)
	if err != nil {
		panic("notify: " + err.Error())
	}
	return content
}
