package health

import (
	"time"

	"github.com/flowviz/flowagent/agent/config"
	"github.com/flowviz/flowagent/agent/health/probe"
)

// Check is a probe and what its results mean for the node. The numbers are positive.
type Check struct {
	// Name is unique among a node's checks.
	Name string
	// Kind is the configuration's word for what is asked: postgres, http, disk.
	Kind  string
	Probe probe.Probe
	// Scope says whose fitness it tells of, Gate whether it can keep the node from serving.
	Scope config.Scope
	Gate  config.Gate
	// Interval is the time from one start to the next, Timeout how long one probe may take.
	Interval, Timeout time.Duration
	// Rise is how many results in a row bring the check up, Fall how many bring it down.
	Rise, Fall int
}

// admits tells whether a node waits for the check before it serves for the first time.
func (c Check) admits() bool { return c.Gate != config.GateNever }

// gates tells whether a node stops serving while the check is down.
func (c Check) gates() bool {
	return c.Gate == config.GateAlways || c.Gate != config.GateNever && c.Scope != config.ScopeShared
}

// staleAfter is the silence after which a check counts as down: three results are missing, or, where a probe may take
// that long, the one that started last of all is overdue.
func (c Check) staleAfter() time.Duration {
	latestStart := time.Duration((1 + jitter) * float64(c.Interval))
	return max(3*c.Interval, latestStart+c.Timeout+grace)
}

// CheckStatus is one check at one moment, for people and programs.
type CheckStatus struct {
	Name  string `json:"name"`
	Kind  string `json:"kind"`
	Scope string `json:"scope"`
	// Gates tells whether the node stops serving while the check is down; Admits whether it waits for it before it
	// serves for the first time.
	Gates  bool `json:"gates"`
	Admits bool `json:"admits"`
	// Phase is pending (not decided yet), up or down; Status is pass, warn or fail.
	Phase  string `json:"phase"`
	Status string `json:"status"`
	// Output says what was found, in one line; never a secret.
	Output string `json:"output"`
	// Value is the number behind it, where there is one, in Unit.
	Value *float64 `json:"value,omitempty"`
	Unit  string   `json:"unit,omitempty"`
	// Since is when the phase began; Probed when the last probe ended, zero for never; Took how long it took.
	Since  time.Time     `json:"since"`
	Probed time.Time     `json:"probed,omitzero"`
	Took   time.Duration `json:"took"`
	// Passed, Warned and Failed count the results; Abandoned the probes that outlived their deadline, which count as
	// failed, too.
	Passed    uint64 `json:"passed"`
	Warned    uint64 `json:"warned"`
	Failed    uint64 `json:"failed"`
	Abandoned uint64 `json:"abandoned"`

	phase  phase
	status probe.Status
}
