// Package launch counts the launches of an Auto Scaling group that failed one after the other, so that a broken release
// doesn't have instances replaced without end.
//
// What enters are a group's name and why a launch failed; what leaves is how many did in a row, and how long to wait before
// the next instance is given up. The count is kept in a parameter of Systems Manager, where a person finds it as well. It
// decides about no launch, and no secret goes through it.
package launch

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ssm"
	"github.com/aws/aws-sdk-go-v2/service/ssm/types"

	"github.com/flowviz/flowagent/agent/awserror"
)

const (
	// prefix begins the names of the parameters; the group's name follows.
	prefix = "/flowagent/launch-failures/"
	// callTimeout bounds one call, the SDK's three tries included. A launch can wait that long for a count.
	callTimeout = 15 * time.Second
	// forgotten is how old a failure may be to count: of the day before yesterday's release nothing follows.
	forgotten = 24 * time.Hour
	// longestReason leaves room beside it in a standard parameter, which holds 4 KiB.
	longestReason = 2000

	// firstDamping and longestDamping bound the wait. A launch that fails takes minutes by itself, which is enough once; with
	// half an hour between two, a group that never launches costs no more than a few instance-hours a day, and a cause that
	// went away is noticed within half an hour.
	firstDamping   = time.Minute
	longestDamping = 30 * time.Minute
)

// Damping is how long to wait before a launch is given up that is the count-th to fail in a row: nothing for the first, then
// a minute, and twice as long each time up to half an hour.
func Damping(count int) time.Duration {
	wait := time.Duration(0)
	for range count - 1 {
		wait = min(max(2*wait, firstDamping), longestDamping)
	}
	return wait
}

// API is what is needed of Systems Manager.
type API interface {
	GetParameter(context.Context, *ssm.GetParameterInput, ...func(*ssm.Options)) (*ssm.GetParameterOutput, error)
	PutParameter(context.Context, *ssm.PutParameterInput, ...func(*ssm.Options)) (*ssm.PutParameterOutput, error)
	DeleteParameter(context.Context, *ssm.DeleteParameterInput, ...func(*ssm.Options)) (*ssm.DeleteParameterOutput, error)
}

// Failures are the failed launches of one group, as seen by one instance of it.
type Failures struct {
	api            API
	name, instance string
	now            func() time.Time
}

// NewFailures calls nobody yet.
func NewFailures(api API, group, instance string) *Failures {
	return &Failures{api: api, name: Parameter(group), instance: instance, now: time.Now}
}

// unfit are the characters of a group's name that a parameter's name can't have (PutParameter, Name).
var unfit = regexp.MustCompile(`[^A-Za-z0-9_.-]`)

// Parameter is the name of the parameter for a group.
func Parameter(group string) string { return prefix + unfit.ReplaceAllString(group, "_") }

// record is the parameter's value, for people as well.
type record struct {
	Failures int       `json:"failures"` // in a row
	Last     time.Time `json:"last"`
	Instance string    `json:"instance"` // of the last one
	Reason   string    `json:"reason"`   // of the last one
}

// Add counts one more failure, and returns how many there are in a row with it. Instances that fail at the same moment may
// count as one. The error says what to allow; the count is then 1.
func (f *Failures) Add(ctx context.Context, reason string) (int, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	now := f.now().UTC().Truncate(time.Second)
	last, err := f.read(ctx)
	if err != nil {
		return 1, err
	}
	if now.Sub(last.Last) >= forgotten {
		last.Failures = 0
	}
	value, err := json.Marshal(record{Failures: last.Failures + 1, Last: now, Instance: f.instance, Reason: shorten(reason)})
	if err != nil {
		return 1, fmt.Errorf("write down a failed launch: %w", err)
	}
	_, err = f.api.PutParameter(ctx, &ssm.PutParameterInput{
		Name: &f.name, Value: aws.String(string(value)), Type: types.ParameterTypeString, Overwrite: aws.Bool(true),
	})
	if err != nil {
		return 1, f.explain("PutParameter", err)
	}
	return last.Failures + 1, nil
}

// Clear ends the row, after a launch that worked. Where there is none it changes nothing.
func (f *Failures) Clear(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	last, err := f.read(ctx)
	if err != nil || last.Failures == 0 {
		return err
	}
	_, err = f.api.DeleteParameter(ctx, &ssm.DeleteParameterInput{Name: &f.name})
	if missing(err) {
		return nil
	}
	if err != nil {
		return f.explain("DeleteParameter", err)
	}
	return nil
}

// read returns the zero record where there is none, or where what is there is not of this package: the next failure writes
// it anew.
func (f *Failures) read(ctx context.Context) (record, error) {
	out, err := f.api.GetParameter(ctx, &ssm.GetParameterInput{Name: &f.name})
	if missing(err) {
		return record{}, nil
	}
	if err != nil {
		return record{}, f.explain("GetParameter", err)
	}
	var last record
	if out.Parameter == nil || json.Unmarshal([]byte(aws.ToString(out.Parameter.Value)), &last) != nil || last.Failures < 0 {
		return record{}, nil
	}
	return last, nil
}

func missing(err error) bool {
	var none *types.ParameterNotFound
	return errors.As(err, &none)
}

func (f *Failures) explain(action string, err error) error {
	return awserror.Call{
		Did: action + " " + f.name, Service: "Systems Manager", Allow: "ssm:" + action + " on it", Endpoint: "ssm",
	}.Explain(err)
}

// shorten cuts a reason where it grows too long for a parameter, never in the middle of a character.
func shorten(reason string) string {
	if len(reason) <= longestReason {
		return reason
	}
	return strings.TrimSpace(strings.ToValidUTF8(reason[:longestReason], "")) + " …"
}
