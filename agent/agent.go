// Package agent is a node's life: it wires the stages below it, in the order config, node, secrets, images, workload,
// health, serve, drain.
//
// Stages are idempotent: an agent that was killed and starts again finds what is already true and goes on without
// touching healthy containers. No stage imports this package.
package agent

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/flowviz/flowagent/agent/control"
	"github.com/flowviz/flowagent/agent/drain"
	"github.com/flowviz/flowagent/agent/health"
	"github.com/flowviz/flowagent/agent/health/metrics"
	"github.com/flowviz/flowagent/agent/image"
	"github.com/flowviz/flowagent/agent/report"
	"github.com/flowviz/flowagent/agent/systemd"
)

// Options is how one agent runs.
type Options struct {
	// ConfigPath is the main configuration file; its drop-ins are in config.d beside it.
	ConfigPath string
	// RunDir holds what a reboot empties, StateDir what survives one. Both are made when missing.
	RunDir, StateDir string
	// Version is the agent's own, for status and events.
	Version string
	// DrainOnStop drains the workload when the agent is asked to stop; otherwise it is left running, which is what an
	// upgrade of the agent wants.
	DrainOnStop bool
	// Listeners are what systemd holds for health.listen; the agent opens its own where there is none.
	Listeners []systemd.Listener
	// Reload asks for a reload of the configuration each time that something comes; nil for never.
	Reload <-chan os.Signal
	// Progress shows image pulls.
	Progress image.Progress
	Log      *slog.Logger
}

// ConfigurationError says that what the operator wrote can't work: the configuration or the Compose files. Trying
// again changes nothing.
type ConfigurationError struct{ Err error }

func (e *ConfigurationError) Error() string { return e.Err.Error() }
func (e *ConfigurationError) Unwrap() error { return e.Err }

// Is makes it the control interface's word for the same.
func (e *ConfigurationError) Is(target error) bool { return target == control.ErrConfiguration }

// Agent is one running agent. [Run] makes it.
type Agent struct {
	opts     Options
	log      *slog.Logger
	recorder *report.Recorder
	endpoint *health.Endpoint
	metrics  *metrics.Metrics
	started  time.Time
	plugin   func() (string, error) // the compose plugin's path, looked for once
	aws      *awsConfigs            // set by the node stage, before anything uses it

	supervisor supervised
	hooks      hooksSeen
	telling    telling

	// mu guards what the stages produce and Status shows.
	mu          sync.Mutex
	produced    parts
	stages      []string            // those of the boot that are under way
	up          bool                // the workload came up
	readyAt     time.Time           // when /health first said so; zero for not yet
	undelivered error               // what the last delivery of secrets failed with
	draining    *drain.Drain        // the last one; nil for none yet
	departure   *drain.Request      // why the boot is given up; nil for no reason
	mustLeave   *drain.Request      // why the node leaves for good; nil while it could still stay
	outside     error               // why load balancers don't know a node whose drain was taken back
	launching   *launching          // the launch by an Auto Scaling group; nil for none
	woken       time.Time           // when the instance left a warm pool; zero for never
	unapplied   []string            // what the last reload left for a restart
	recovered   map[string]recovery // what became of services that had to be brought back

	// changing is held while containers or secrets are changed after the boot.
	changing  sync.Mutex
	unsettled []string // services whose recreation failed and that have not been ready since

	reloading sync.Mutex // held during a reload

	parting *parting // begins with a drain
	place   place    // where Auto Scaling wants the instance
	anew    atomic.Bool
	// startAnew ends the agent without a word to the workload: systemd starts the next one.
	startAnew context.CancelFunc
	// gone ends, by departed, when a node that gave up its boot for a drain is drained, or the agent ends.
	gone     context.Context
	departed context.CancelFunc
}

// Run boots the node and serves until ctx ends. It returns nil when it was asked to stop, a *[ConfigurationError] for
// what only the operator can mend, and any other error when the boot failed for good.
func Run(ctx context.Context, o Options) error {
	a := &Agent{
		opts:     o,
		log:      o.Log,
		recorder: report.NewRecorder(o.Log),
		endpoint: health.NewEndpoint(),
		started:  time.Now(),
		parting:  newParting(),
	}
	a.hooks.agent = a
	a.supervisor.notifier = systemd.NewNotifier(o.Log)
	a.metrics = metrics.New(metrics.Sources{
		Version: o.Version,
		Health:  a.endpoint.Snapshot,
		Delays:  a.delays,
		Boot:    a.bootMetrics,
		Secrets: a.secretsStatus,
		Drain:   a.drainStatus,
		Notices: noticeKinds(),

		Recoveries: a.recoveries,
	})
	a.endpoint.Handle("/metrics", a.metrics.Handler(o.Log))
	a.plugin = sync.OnceValues(func() (string, error) { return a.findPlugin(ctx) })
	a.gone, a.departed = context.WithCancel(context.WithoutCancel(ctx))
	defer a.departed()

	// The servers outlive the boot and the drain: both are when people look.
	servers, stopServers := context.WithCancel(context.WithoutCancel(ctx))
	defer stopServers()
	group, servers := errgroup.WithContext(servers)
	group.Go(func() error {
		a.supervise(ctx, servers)
		return nil
	})
	err := a.run(ctx, group, servers)
	if err != nil && ctx.Err() == nil {
		a.endpoint.Set(health.Failing, "boot failed: "+err.Error())
	}
	stopServers()
	if serveErr := group.Wait(); err == nil {
		err = serveErr
	}
	return err
}

// run reads the configuration, opens the control socket and lives behind it.
func (a *Agent) run(ctx context.Context, group *errgroup.Group, servers context.Context) error {
	a.log.InfoContext(ctx, "agent started", "version", a.opts.Version, "config", a.opts.ConfigPath)
	if err := makeDirs(a.opts); err != nil {
		return err
	}
	if err := a.stage(ctx, "config", a.loadConfig); err != nil {
		a.launchFailed(ctx, err)
		return err
	}
	socket, err := control.Listen(filepath.Join(a.opts.RunDir, "agent.sock"))
	if err != nil {
		return err
	}
	serve(servers, group, control.NewServer(a, a.log), lastAnswers, socket)
	// Nor does a node go on that nobody can ask any more.
	ctx, stop := context.WithCancel(ctx)
	defer context.AfterFunc(servers, stop)()
	defer stop()
	a.startAnew = func() {
		a.anew.Store(true)
		stop()
	}
	group.Go(func() error {
		a.reloadOn(ctx, a.opts.Reload)
		return nil
	})
	return a.live(ctx, group, servers)
}

// live is everything between the control socket's opening and its closing.
func (a *Agent) live(ctx context.Context, group *errgroup.Group, servers context.Context) error {
	defer a.departed()
	err := a.boot(ctx, group, servers)
	if err == nil {
		err = a.serve(ctx, group, servers)
	}
	failed := err != nil && ctx.Err() == nil && a.departing() == nil
	if failed {
		a.writeRecord(ctx, err)
		a.tellBootFailed(err)
		a.launchFailed(ctx, err)
	}
	if departure := a.departing(); departure != nil && ctx.Err() == nil && a.parts().runner != nil { // else there is nothing yet that could be stopped
		return a.leaveInstead(ctx, *departure)
	}
	switch {
	case failed, ctx.Err() == nil:
		return err
	case a.anew.Load():
		return nil
	case a.parts().store == nil: // before there are secrets, nothing was started either
	case a.opts.DrainOnStop:
		return a.drainNode(context.WithoutCancel(ctx), drain.Request{Reason: "the agent was asked to stop", Trigger: "stop"})
	case a.supervisor.notifier.MachineStops(context.WithoutCancel(ctx)):
		return a.drainNode(context.WithoutCancel(ctx), drain.Request{Reason: "the machine shuts down", Trigger: "shutdown"})
	}
	left := "agent stopped"
	if a.isUp() && a.parting.Leaving().Err() == nil {
		left += "; the workload is left as it is"
	}
	a.log.InfoContext(ctx, left)
	return nil
}

func makeDirs(o Options) error {
	// The run directory is traversed by members of the group that may open the control socket.
	if err := os.MkdirAll(o.RunDir, 0o755); err != nil {
		return fmt.Errorf("make the run directory: %w: run as root, or choose another with --run-dir", err)
	}
	if err := os.MkdirAll(o.StateDir, 0o700); err != nil {
		return fmt.Errorf("make the state directory: %w: run as root, or choose another with --state-dir", err)
	}
	return nil
}
