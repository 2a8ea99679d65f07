package report

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/flowviz/flowagent/agent/drain/inflight"
	"github.com/flowviz/flowagent/agent/health"
	"github.com/flowviz/flowagent/agent/node"
	"github.com/flowviz/flowagent/agent/secret"
	"github.com/flowviz/flowagent/agent/workload"
)

// Status is all that a node tells about itself, at one moment.
type Status struct {
	// State is starting, ready, failing or draining, as /health sees it.
	State string `json:"state"`
	// Detail says what the node waits for, or what is wrong.
	Detail      string        `json:"detail"`
	Version     string        `json:"version"`
	Environment string        `json:"environment,omitempty"`
	Node        node.Identity `json:"node"`
	// Now is when this was told; Started when the agent started; Ready when the node first was, zero for never.
	Now     time.Time `json:"now"`
	Started time.Time `json:"started"`
	Ready   time.Time `json:"ready,omitzero"`
	// Stages are the boot's, in order of their start.
	Stages []Stage `json:"stages"`
	// Workload is empty until the Compose files were read.
	Workload workload.State  `json:"workload"`
	Secrets  []secret.Status `json:"secrets"`
	// Checks are what each health check found last.
	Checks []health.CheckStatus `json:"checks,omitempty"`
	// Drain is how far the node's drain is; nil while nobody wished one.
	Drain *Drain `json:"drain,omitempty"`
	// Hooks are the lifecycle hooks of the instance's Auto Scaling group that the agent had to do with, in that order.
	Hooks []Hook `json:"hooks,omitempty"`
	// Problems are what is wrong beside the state, and what could not be found out for this report.
	Problems []string `json:"problems,omitempty"`
}

// Drain is how a drain goes.
type Drain struct {
	// Reason and Trigger say why and because of whom.
	Reason  string `json:"reason"`
	Trigger string `json:"trigger,omitempty"`
	// Deadline is when the budget ends; Ended is zero while the drain is under way.
	Started  time.Time `json:"started"`
	Deadline time.Time `json:"deadline"`
	Ended    time.Time `json:"ended,omitzero"`
	// Waiting says what the step under way waits for; empty for nothing to speak of.
	Waiting string `json:"waiting,omitempty"`
	// Requests are those under way when they were counted last; nil before they were.
	Requests *inflight.Tally `json:"requests,omitempty"`
	// Steps in order of their start.
	Steps []Stage `json:"steps"`
	// TakenBack says that somebody ended it before services stopped: the node serves again.
	TakenBack bool `json:"takenBack,omitempty"`
	// Error is what failed, once it has ended.
	Error string `json:"error,omitempty"`
}

// Hook is one lifecycle hook, and how the instance's last action under it goes.
type Hook struct {
	Name  string `json:"name"`
	Group string `json:"group"`
	// Transition is launching or terminating.
	Transition string `json:"transition"`
	// Found is when the agent heard of it for this action; Ended when the action was completed or given up, zero before.
	Found time.Time `json:"found"`
	Ended time.Time `json:"ended,omitzero"`
	// Heartbeats were taken by Auto Scaling; HeartbeatsFailed were not.
	Heartbeats       int `json:"heartbeats"`
	HeartbeatsFailed int `json:"heartbeatsFailed"`
	// Result is what the agent asked for, CONTINUE or ABANDON, and Outcome what became of that: completed, already over or
	// gave up. Both are empty while the action is under way.
	Result  string `json:"result,omitempty"`
	Outcome string `json:"outcome,omitempty"`
}

// Reload is what a reload of the configuration did. Both lists hold paths of fields, such as health.checks[api].
type Reload struct {
	// Applied changed on the running node.
	Applied []string `json:"applied"`
	// Restart changed in the configuration, and takes a restart of the agent.
	Restart []string `json:"needsRestart"`
}

// Write prints the status as tables for people.
func Write(w io.Writer, s Status) error {
	out := &printer{w: w}
	out.printf("%s\n", Headline(s))
	name := s.Node.InstanceID
	if name == "" {
		name = s.Node.Hostname
	}
	facts := []string{name, string(s.Node.Provider), s.Node.Region, s.Environment, "flowagent " + s.Version, "up " + short(s.Now.Sub(s.Started))}
	out.printf("%s\n", joinPresent(facts, " · "))

	if len(s.Stages) > 0 {
		rows := out.table("\nSTAGE\tAT\tTOOK\tTRIES\tRESULT")
		for _, stage := range s.Stages {
			result := "done"
			switch {
			case stage.Error != "":
				result = oneLine(stage.Error)
			case stage.Ended.IsZero():
				result = "under way"
			}
			rows.printf("%s\t+%s\t%s\t%d\t%s\n", stage.Name, short(stage.Started.Sub(s.Started)), short(stage.Elapsed(s.Now)), stage.Attempts, result)
		}
		rows.flush()
	}
	if d := s.Drain; d != nil {
		left := "ended"
		switch {
		case d.Ended.IsZero():
			left = short(max(d.Deadline.Sub(s.Now), 0)) + " left"
		case d.TakenBack:
			left = "taken back"
		}
		rows := out.table(fmt.Sprintf("\nDRAIN (%s)\tAT\tTOOK\tRESULT", joinPresent([]string{d.Trigger, left}, ", ")))
		for _, step := range d.Steps {
			result := "done"
			switch {
			case step.Error != "":
				result = oneLine(step.Error)
			case step.Ended.IsZero():
				result = joinPresent([]string{"under way", d.Waiting}, ": ")
			}
			rows.printf("%s\t+%s\t%s\t%s\n", strings.TrimPrefix(step.Name, "drain."), short(step.Started.Sub(d.Started)), short(step.Elapsed(s.Now)), result)
		}
		rows.flush()
	}
	if len(s.Hooks) > 0 {
		rows := out.table("\nHOOK\tTRANSITION\tHEARTBEATS\tRESULT")
		for _, h := range s.Hooks {
			beats := fmt.Sprint(h.Heartbeats)
			if h.HeartbeatsFailed > 0 {
				beats += fmt.Sprintf(", %d failed", h.HeartbeatsFailed)
			}
			result := "under way"
			if h.Outcome != "" {
				result = h.Result + ": " + h.Outcome
			}
			rows.printf("%s\t%s\t%s\t%s\n", h.Name, h.Transition, beats, result)
		}
		rows.flush()
	}
	if len(s.Workload.Services) > 0 {
		rows := out.table("\nSERVICE\tPHASE\tSINCE\tRESTARTS\tIMAGE\tREASON")
		for _, service := range s.Workload.Services {
			since, restarts, image := "-", 0, "-"
			for _, c := range service.Containers {
				restarts += c.Restarts
				image = c.Image
				if at := c.StartedAt; !at.IsZero() {
					since = short(s.Now.Sub(at))
				}
			}
			rows.printf("%s\t%s\t%s\t%d\t%s\t%s\n", service.Name, service.Phase, since, restarts, shortImage(image), service.Reason)
		}
		rows.flush()
	}
	if len(s.Checks) > 0 {
		rows := out.table("\nCHECK\tKIND\tSCOPE\tSTATUS\tSINCE\tTOOK\tFOUND")
		for _, c := range s.Checks {
			rows.printf("%s\t%s\t%s\t%s\t%s\t%s\t%s\n", c.Name, c.Kind, c.Scope, c.Status, short(s.Now.Sub(c.Since)), short(c.Took), oneLine(c.Output))
		}
		rows.flush()
	}
	if len(s.Secrets) > 0 {
		out.printf("\n")
		if out.err == nil {
			out.err = WriteSecrets(w, s.Secrets)
		}
	}
	for _, problem := range s.Problems {
		out.printf("\nproblem: %s\n", problem)
	}
	return out.err
}

// Headline is the whole answer in one line: ready in 6.3 s; starting: images; failing: boot failed: …
func Headline(s Status) string {
	line, news := s.State, s.Detail != s.State
	if s.State == health.Ready.String() {
		line = fmt.Sprintf("ready in %.1f s", s.Ready.Sub(s.Started).Seconds())
	}
	if news {
		line += ": " + s.Detail
	}
	return line
}

// WriteSecrets prints the secrets' table; it has no values to print.
func WriteSecrets(w io.Writer, secrets []secret.Status) error {
	out := &printer{w: w}
	rows := out.table("SECRET\tSTATE\tVERSION\tFETCHED\tSOURCE\tPROBLEM")
	for _, s := range secrets {
		fetched := "never"
		if !s.FetchedAt.IsZero() {
			fetched = s.FetchedAt.Local().Format(time.DateTime)
		}
		version := s.Version
		if version == "" {
			version = "-"
		}
		rows.printf("%s\t%s\t%s\t%s\t%s\t%s\n", s.Name, s.State, version, fetched, s.Source, oneLine(s.Error))
	}
	rows.flush()
	return out.err
}

// printer keeps the first error, so that tables read as tables.
type printer struct {
	w    io.Writer
	tabs *tabwriter.Writer
	err  error
}

func (p *printer) printf(format string, args ...any) {
	if p.err == nil {
		_, p.err = fmt.Fprintf(p.w, format, args...)
	}
}

func (p *printer) table(header string) *printer {
	tabs := tabwriter.NewWriter(p.w, 0, 0, 2, ' ', 0)
	rows := &printer{w: tabs, tabs: tabs, err: p.err}
	rows.printf("%s\n", header)
	return rows
}

func (p *printer) flush() {
	if p.err == nil {
		p.err = p.tabs.Flush()
	}
}

// short prints a duration with as many digits as a person reads: 1.23s, 4m10s, 3h5m.
func short(d time.Duration) string {
	switch {
	case d < time.Minute:
		return d.Round(10 * time.Millisecond).String()
	case d < time.Hour:
		return d.Round(time.Second).String()
	}
	return strings.TrimSuffix(d.Round(time.Minute).String(), "0s")
}

// shortImage leaves 12 digits of a digest, as docker does.
func shortImage(ref string) string {
	name, digest, found := strings.Cut(ref, "@sha256:")
	if !found || len(digest) < 12 {
		return ref
	}
	return name + "@" + digest[:12]
}

func oneLine(text string) string {
	first, _, more := strings.Cut(text, "\n")
	if more {
		first += " …"
	}
	return first
}

func joinPresent(parts []string, separator string) string {
	var present []string
	for _, part := range parts {
		if part != "" {
			present = append(present, part)
		}
	}
	return strings.Join(present, separator)
}
