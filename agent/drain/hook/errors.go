package hook

import (
	"fmt"
	"strings"

	"github.com/flowviz/flowagent/agent/awserror"
)

// invalid is Auto Scaling's code for a request that it understood and won't do.
const invalid = "ValidationError"

// refused: the same call meets the same answer until a person has changed something.
func refused(err error) bool { return awserror.Denied(err) || awserror.Code(err) == invalid }

// inactive: nothing waits for this hook and instance. The API has no code for that, only these words.
func inactive(err error) bool {
	return awserror.Code(err) == invalid && strings.Contains(strings.ToLower(err.Error()), "no active lifecycle action found")
}

// explain says what a failed call means and what to do.
func explain(err error, action string) error {
	if awserror.Code(err) == invalid {
		return fmt.Errorf("%s: %s", action, awserror.Message(err))
	}
	return awserror.Call{Did: action, Service: "Auto Scaling", Allow: "autoscaling:" + action, Endpoint: "autoscaling"}.Explain(err)
}
