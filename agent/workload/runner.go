package workload

import (
	"context"
	"fmt"
	"log/slog"
	"sync"

	"github.com/moby/moby/client"

	"github.com/flowviz/flowagent/agent/secret"
)

// Options are what a project needs to run.
type Options struct {
	// Engine is the Docker Engine; required. It is not closed here.
	Engine *client.Client
	// Plugin is the compose plugin's path; found with FindPlugin when empty.
	Plugin string
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

	mu     sync.Mutex
	plugin string
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

// Prepare finds the compose plugin, which takes the time of starting it once. Calling it is optional; beside other work
// it saves that time, and tells early that there is no plugin.
func (r *Runner) Prepare(ctx context.Context) error {
	_, err := r.findPlugin(ctx)
	return err
}

func (r *Runner) findPlugin(ctx context.Context) (string, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.plugin != "" {
		return r.plugin, nil
	}
	path, version, err := FindPlugin(ctx)
	if err != nil {
		return "", err
	}
	r.log.Info("compose plugin found", "path", path, "version", version)
	r.plugin = path
	return path, nil
}

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
