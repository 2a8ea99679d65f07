package health

import (
	"fmt"
	"slices"
	"strings"

	"github.com/flowviz/flowagent/agent/health/probe"
)

// verdict is what the node answers.
type verdict struct {
	state  State
	status probe.Status
	detail string
}

// situation is all that a verdict depends on.
type situation struct {
	// own and detail are what the agent says of itself.
	own    State
	detail string
	// admitted: every check that admits was up at one moment, in this boot of the machine.
	admitted bool
	// served: the node was ready before, in this process.
	served bool
	checks []CheckStatus
}

// without leaves checks out.
func (s situation) without(names []string) situation {
	s.checks = slices.DeleteFunc(slices.Clone(s.checks), func(c CheckStatus) bool { return slices.Contains(names, c.Name) })
	return s
}

// decide composes the agent's own state and the checks'.
//
// A node's own checks gate it always. What it shares with others (a database, a cache) keeps it from serving for the
// first time and then no more: else the failure of one database would take every node out of service, and an Auto
// Scaling group that believes /health would terminate them all.
func decide(s situation) verdict {
	if s.own != Ready {
		return verdict{s.own, probe.Fail, s.detail}
	}
	var waiting, broken, warnings []string
	for _, c := range s.checks {
		switch {
		case !s.admitted && c.Admits && c.phase != up:
			waiting = append(waiting, mention(c))
		case c.phase == pending && c.Gates && !s.served:
			// A restarted agent knows nothing yet. On a node that serves, a check that was just added waits its turn.
			waiting = append(waiting, mention(c))
		case c.phase == down && c.Gates:
			broken = append(broken, mention(c))
		case c.phase == down, c.phase == up && c.status == probe.Warn:
			warnings = append(warnings, mention(c))
		}
	}
	switch {
	case len(broken) > 0:
		return verdict{Failing, probe.Fail, list(broken)}
	case len(waiting) > 0:
		return verdict{Starting, probe.Fail, "waiting for " + list(waiting)}
	case len(warnings) > 0:
		return verdict{Ready, probe.Warn, list(warnings)}
	}
	return verdict{Ready, probe.Pass, s.detail}
}

func mention(c CheckStatus) string { return join(c.Name, c.Output) }

// longestList is how many checks one line names; the rest is in the list of checks beside it.
const longestList = 5

func list(mentions []string) string {
	if more := len(mentions) - longestList; more > 0 {
		mentions = append(mentions[:longestList:longestList], fmt.Sprintf("and %d more", more))
	}
	return strings.Join(mentions, "; ")
}
