package agent

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/moby/moby/client"
	"golang.org/x/sync/errgroup"

	"github.com/flowviz/flowagent/agent/config"
	"github.com/flowviz/flowagent/agent/health"
	"github.com/flowviz/flowagent/agent/image"
	"github.com/flowviz/flowagent/agent/node"
	"github.com/flowviz/flowagent/agent/report"
	"github.com/flowviz/flowagent/agent/secret"
	"github.com/flowviz/flowagent/agent/workload"
)

const (
	// engineLimit is how long a Docker Engine that starts beside the agent may take; with a large image store it needs
	// some seconds to come up.
	engineLimit = 30 * time.Second
	// secretsLimit is how long sources may be unavailable before the boot fails and systemd starts it again.
	secretsLimit = 2 * time.Minute
)

// parts are what the stages of a boot produce, in their order. A field is nil or zero until its stage has ended.
type parts struct {
	config     config.Config
	userData   []byte // that is a layer of the configuration; nil for none
	identity   node.Identity
	membership *membership // nil outside EC2
	engine     *client.Client
	keeper     *secret.Keeper
	store      *secret.Store
	runner     *workload.Runner
	images     []image.Image
	delivery   *delivery
	checks     []health.Check
	monitor    *health.Monitor
}

// boot goes through the stages until the workload is up. The health listener it opens is served until servers ends.
func (a *Agent) boot(ctx context.Context, group *errgroup.Group, servers context.Context) error {
	// Asking the plugin for its version takes longer than all that comes before it is needed.
	go func() { _, _ = a.plugin() }()
	if err := a.stage(ctx, "node", a.discover); err != nil {
		return err
	}
	a.tellOthers(servers, group)
	a.beginLaunch(ctx)
	a.heed(ctx, group, servers)
	listeners, held, err := a.listenHealth(ctx, a.parts().config.Health.Listen)
	if err != nil {
		return err
	}
	group.Go(func() error {
		if held && a.wasAdmitted() {
			a.awaitSettled(servers)
		}
		serve(servers, group, health.NewServer(a.endpoint, a.log), lastAnswers, listeners...)
		return nil
	})

	if err := a.stage(ctx, "project", a.readProject); err != nil {
		return err
	}
	if err := a.stage(ctx, "engine", a.connect); err != nil {
		return err
	}
	request, found, err := a.cutOff()
	if err != nil {
		return err
	}
	if found {
		a.log.WarnContext(ctx, "an earlier agent was cut off in a drain, which goes on", "reason", request.Reason)
		a.giveUpBoot(request)
	}
	// From here on the boot is given up for a node that is to leave.
	life := ctx
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(a.parting.Leaving(), func() { cancel(errLeaving) })()
	if err := a.waitInPool(ctx, life); err != nil {
		return err
	}
	if err := a.gather(ctx); err != nil {
		return err
	}
	if err := a.checkLeaks(ctx); err != nil {
		return err
	}
	if err := a.stage(ctx, "workload", a.startWorkload); err != nil {
		return err
	}
	// Not before: a request to a port that is published for a container without a network yet makes the kernel wait a
	// second before it looks for the container again.
	a.update(func(p *parts) {
		p.monitor = health.NewMonitor(a.endpoint, p.checks, health.Options{
			Admitted:   a.wasAdmitted(),
			OnAdmitted: func() { a.markAdmitted(ctx) },
			Log:        a.log,
		})
	})
	return nil
}

// stage runs one stage and shows in /health what the node is at: with stages that overlap, whatever isn't over.
func (a *Agent) stage(ctx context.Context, name string, run func(ctx context.Context, span *report.Span) error) error {
	a.atStages(func(names []string) []string { return append(names, name) })
	err := a.recorder.Do(ctx, name, run)
	a.atStages(func(names []string) []string {
		return slices.DeleteFunc(names, func(other string) bool { return other == name })
	})
	return err
}

func (a *Agent) atStages(change func(names []string) []string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.stages = change(a.stages)
	if len(a.stages) > 0 {
		a.endpoint.Set(health.Starting, strings.Join(a.stages, ", "))
	}
}

// findPlugin looks for the operator's compose plugin.
func (a *Agent) findPlugin(ctx context.Context) (string, error) {
	path, version, err := workload.FindPlugin(ctx)
	if err != nil {
		return "", err
	}
	a.log.InfoContext(ctx, "compose plugin found", "path", path, "version", version)
	return path, nil
}

func (a *Agent) loadConfig(_ context.Context, span *report.Span) error {
	loaded, err := config.Load(a.opts.ConfigPath)
	if err != nil {
		return &ConfigurationError{err}
	}
	span.Note("layers", len(loaded.Layers))
	a.update(func(p *parts) { p.config = loaded.Config })
	return nil
}

// discover finds out what the machine is, and reads what its user data adds to the configuration.
func (a *Agent) discover(ctx context.Context, span *report.Span) error {
	identity, metadata, err := node.Discover(ctx, a.parts().config.Node, node.Options{Log: a.log})
	if err != nil {
		return err
	}
	a.aws = newAWS(identity.Region, metadata)
	a.update(func(p *parts) { p.identity = identity })
	span.Note("provider", identity.Provider)
	if metadata == nil {
		return nil
	}
	member, err := a.join(ctx, metadata)
	if err != nil {
		return err
	}
	a.update(func(p *parts) { p.membership = member })
	a.lookAtPlace(ctx)
	data, err := metadata.UserData(ctx)
	if err != nil {
		return fmt.Errorf("read user data: %w", err)
	}
	if !config.IsDocument(data) {
		return nil
	}
	loaded, err := a.readConfig(data)
	if err != nil {
		return &ConfigurationError{err}
	}
	span.Note("userData", "merged")
	a.update(func(p *parts) { p.config, p.userData = loaded.Config, data })
	return nil
}

// readConfig reads the files, and the user data over them unless it is nil.
func (a *Agent) readConfig(userData []byte) (*config.Loaded, error) {
	layers, err := config.ReadLayers(a.opts.ConfigPath)
	if err != nil {
		return nil, err
	}
	if userData != nil {
		layers = append(layers, config.Layer{Name: "user-data", Data: userData})
	}
	return config.Parse(layers...)
}

// readProject reads the Compose files before anything is fetched.
func (a *Agent) readProject(ctx context.Context, span *report.Span) error {
	p := a.parts()
	project, err := a.loadProject(ctx, p.config)
	if err != nil {
		return &ConfigurationError{err}
	}
	engine, err := client.New(client.WithHost(string(p.config.Workload.Engine)))
	if err != nil {
		return fmt.Errorf("use the Docker Engine at %s: %w: correct workload.engine", p.config.Workload.Engine, err)
	}
	keeper, err := secret.NewKeeper(p.config.Secrets, secret.Deps{
		AWS:                  a.aws.Config,
		CredentialsDirectory: os.Getenv("CREDENTIALS_DIRECTORY"), // where systemd put this unit's credentials
		Log:                  a.log,
	})
	if err != nil {
		return &ConfigurationError{err}
	}
	runner := workload.NewRunner(project, workload.Options{Engine: engine, Plugin: a.plugin, Log: a.log, Known: func() []secret.Value {
		return slices.Collect(maps.Values(keeper.Values()))
	}})
	span.Note("services", len(project.Services()))
	a.update(func(p *parts) { p.engine, p.keeper, p.runner = engine, keeper, runner })
	checks, err := a.makeChecks(p.config)
	if err != nil {
		return &ConfigurationError{err}
	}
	a.update(func(p *parts) { p.checks = checks })
	return nil
}

// loadProject reads the Compose files and holds them against the configuration.
func (a *Agent) loadProject(ctx context.Context, cfg config.Config) (*workload.Project, error) {
	project, err := workload.Load(ctx, cfg.Workload, a.opts.RunDir, a.secretsDir())
	if err != nil {
		return nil, err
	}
	for _, warning := range project.Warnings {
		a.log.WarnContext(ctx, "compose file", "warning", warning)
	}
	return project, errors.Join(
		project.CheckServices("drain.order", cfg.Drain.Order),
		project.CheckServices("workload.reconcile.leave", cfg.Workload.Reconcile.Leave),
		project.CheckItems(cfg.Secrets.Items),
		image.Check(project.Images(), cfg.Workload.Pull.Pin),
	)
}

// makeChecks makes the checks that cfg has, with the running agent's secrets and engine.
func (a *Agent) makeChecks(cfg config.Config) ([]health.Check, error) {
	p := a.parts()
	return health.Checks(cfg.Health.Checks, health.Deps{Secret: p.keeper.Value, Engine: p.engine, Project: p.runner.Project().Name()})
}

func (a *Agent) connect(ctx context.Context, span *report.Span) error {
	p := a.parts()
	return retry(ctx, span, engineLimit, func(error) bool { return false }, func(ctx context.Context) error {
		ping, err := p.engine.Ping(ctx, client.PingOptions{NegotiateAPIVersion: true})
		if err != nil {
			return fmt.Errorf("no Docker Engine answers at %s: start it ('systemctl start docker'), or correct workload.engine: %w", p.config.Workload.Engine, err)
		}
		span.Note("api", ping.APIVersion)
		return nil
	})
}

// pulls are the images of a project. Only those of a registry whose password is one of the secrets wait for them.
type pulls struct {
	puller        *image.Puller
	free, waiting []string
}

func (a *Agent) planPulls(p parts) (*pulls, error) {
	credentials := image.NewCredentials(p.config.Registries, a.aws.Config, p.keeper.Value, time.Now)
	planned := &pulls{puller: image.NewPuller(p.engine, p.config.Workload.Pull, credentials, a.opts.Progress, a.log)}
	for _, ref := range p.runner.Project().Images() {
		host, err := image.Host(ref)
		if err != nil {
			return nil, &ConfigurationError{err}
		}
		if _, needed := credentials.NeedsSecret(host); needed {
			planned.waiting = append(planned.waiting, ref)
		} else {
			planned.free = append(planned.free, ref)
		}
	}
	return planned, nil
}

// ensure has all images in the engine, those that wait for secrets once fetched is closed.
func (p *pulls) ensure(ctx context.Context, fetched <-chan struct{}) ([]image.Image, error) {
	if _, err := p.puller.LoadArchives(ctx, slices.Concat(p.free, p.waiting)); err != nil {
		return nil, err
	}
	group, ctx := errgroup.WithContext(ctx)
	var early, late []image.Image
	group.Go(func() (err error) {
		early, err = p.puller.Ensure(ctx, p.free)
		return err
	})
	group.Go(func() (err error) {
		select {
		case <-fetched:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		late, err = p.puller.Ensure(ctx, p.waiting)
		return err
	})
	if err := group.Wait(); err != nil {
		return nil, err
	}
	return append(early, late...), nil
}

// errBeside ends a stage that is of no use any more.
var errBeside = errors.New("given up: what is done beside it failed")

// gather fetches secrets and images at the same time, and sees that there is a compose plugin.
func (a *Agent) gather(ctx context.Context) error {
	planned, err := a.planPulls(a.parts())
	if err != nil {
		return err
	}
	group, together := errgroup.WithContext(ctx)
	group.Go(func() error {
		_, err := a.plugin()
		return err
	})
	// own keeps a stage from reporting the failure of the one beside it, which ended it, as its own.
	own := func(err error) error {
		if cause := context.Cause(together); cause != nil && ctx.Err() == nil && errors.Is(err, cause) {
			return errBeside
		}
		return err
	}
	fetched := make(chan struct{})
	group.Go(func() error {
		return a.stage(together, "secrets", func(ctx context.Context, span *report.Span) error {
			if err := a.fetchSecrets(ctx, span); err != nil {
				return own(err)
			}
			close(fetched)
			return nil
		})
	})
	group.Go(func() error {
		return a.stage(together, "images", func(ctx context.Context, span *report.Span) error {
			images, err := planned.ensure(ctx, fetched)
			if err != nil {
				return own(err)
			}
			pulled := 0
			for _, i := range images {
				if i.Pulled {
					pulled++
				}
			}
			span.Note("images", len(images))
			span.Note("pulled", pulled)
			a.update(func(p *parts) { p.images = images })
			return nil
		})
	})
	return group.Wait()
}

// refreshSecrets fetches every secret, for as long as their sources may be unavailable.
func refreshSecrets(ctx context.Context, span *report.Span, keeper *secret.Keeper) error {
	final := func(err error) bool { return errors.Is(err, secret.ErrDenied) || errors.Is(err, secret.ErrNotFound) }
	return retry(ctx, span, secretsLimit, final, func(ctx context.Context) error {
		_, err := keeper.Refresh(ctx)
		return err
	})
}

// fetchSecrets gets every secret once and puts them on the tmpfs.
func (a *Agent) fetchSecrets(ctx context.Context, span *report.Span) error {
	p := a.parts()
	store, err := secret.OpenStore(a.secretsDir())
	if err != nil {
		return err
	}
	fingerprints, err := secret.OpenFingerprinter(filepath.Join(a.opts.StateDir, "fingerprint.key"))
	if err != nil {
		return err
	}
	if err := refreshSecrets(ctx, span, p.keeper); err != nil {
		return err
	}
	delivery := newDelivery(p.config.Secrets, p.runner.Project(), p.keeper, store, fingerprints)
	if _, err := delivery.write(); err != nil {
		return err
	}
	span.Note("secrets", len(p.config.Secrets.Items))
	a.update(func(p *parts) { p.store, p.delivery = store, delivery })
	return nil
}

// checkLeaks refuses a Compose file that gives a secret away, before anything is started with it.
func (a *Agent) checkLeaks(ctx context.Context) error {
	p := a.parts()
	leaks, warnings := p.runner.Project().Leaks(p.keeper.Values())
	for _, warning := range warnings {
		a.log.WarnContext(ctx, "possible secret in a compose file", "place", warning.String())
	}
	var refused []error
	for _, leak := range leaks {
		refused = append(refused, errors.New(leak.String()))
	}
	if len(refused) > 0 {
		return &ConfigurationError{errors.Join(refused...)}
	}
	return nil
}

// startWorkload makes the containers what the files, images and secrets say, and waits until they are ready.
func (a *Agent) startWorkload(ctx context.Context, _ *report.Span) error {
	p := a.parts()
	if _, err := p.runner.Project().WriteOverride(p.pinned(), p.delivery.labels()); err != nil {
		return err
	}
	left, err := p.runner.StopLeft(ctx)
	if err != nil {
		return err
	}
	for _, container := range left {
		a.log.InfoContext(ctx, "container of an inactive service removed", "container", container.Name, "service", container.Service)
	}
	err = p.runner.Start(ctx, p.config.Workload.Ready, func(state workload.State) {
		a.endpoint.Set(health.Starting, "workload: "+state.String())
	})
	if err != nil {
		return err
	}
	// What runs since before this boot may have missed a rotation. A workload that is up isn't failed for either: what
	// remains to be done is tried again at the next delivery.
	err = errors.Join(p.delivery.prune(), a.signal(ctx, a.started, nil))
	if err != nil && ctx.Err() == nil {
		a.log.ErrorContext(ctx, "secrets not delivered", "error", err)
		a.noteDelivery(err)
	}
	return nil
}

// pinned maps each image to the digest that was verified, where there is one.
func (p parts) pinned() map[string]string {
	pins := map[string]string{}
	for _, i := range p.images {
		if i.Pinned != "" {
			pins[i.Ref] = i.Pinned
		}
	}
	return pins
}

func (a *Agent) secretsDir() string { return filepath.Join(a.opts.RunDir, "secrets") }

// parts is what the stages produced up to now.
func (a *Agent) parts() parts {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.produced
}

func (a *Agent) update(change func(*parts)) {
	a.mu.Lock()
	defer a.mu.Unlock()
	change(&a.produced)
}
