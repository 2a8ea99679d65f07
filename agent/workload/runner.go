package workload

import (
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/moby/moby/client"

	"github.com/flowviz/flowagent/agent/secret"
)

// Options are what a project needs to run.
type Options struct {
	// Engine is the Docker Engine; required. It is not closed here.
	Engine *client.Client
	// Plugin gives the compose plugin's path, such as a [FindPlugin] that was begun earlier; required. It is called each
	// time that compose is run.
	Plugin func() (string, error)
	// Log takes events; nothing is logged when it is nil.
	Log *slog.Logger
	// Known gives the secrets that must not appear in an error; nil for none. It is called when an error is made.
	Known func() []secret.Value
}

// Runner runs one project on one engine. Its methods may be called at the same time.
type Runner struct {
	project *Project
	engine  *client.Client
	log     *slog.Logger
	known   func() []secret.Value
	plugin  func() (string, error)
	changes changes
	// cameUp is the time of the last event before the project was found to be up; nil for never, and after a
	// reconciliation.
	cameUp atomic.Pointer[time.Time]
}

// NewRunner prepares to run a project; it contacts nothing.
func NewRunner(p *Project, options Options) *Runner {
	r := &Runner{project: p, engine: options.Engine, plugin: options.Plugin, log: options.Log, known: options.Known}
	if r.log == nil {
		r.log = slog.New(slog.DiscardHandler)
	}
	return r
}

// Project is what is run.
func (r *Runner) Project() *Project { return r.project }

// scrubber knows every secret there is to know now: the configured ones and those of the Compose files.
func (r *Runner) scrubber() scrubber {
	var values []secret.Value
	if r.known != nil {
		values = append(values, r.known()...)
	}
	for _, use := range r.project.uses {
		if use.Item == "" {
			if value, err := use.Value(); err == nil {
				values = append(values, value)
			}
		}
	}
	return newScrubber(values)
}

// engineError says what to do about an engine that doesn't answer.
func (r *Runner) engineError(doing string, err error) error {
	if client.IsErrConnectionFailed(err) {
		return fmt.Errorf("%s: no Docker Engine answers at %s: start it (systemctl start docker), or correct workload.engine: %w",
			doing, r.engine.DaemonHost(), err)
	}
	return fmt.Errorf("%s: %w", doing, err)
}
