package agent

import (
	"context"
	"os"
	"reflect"
	"slices"
	"strings"

	"github.com/flowviz/flowagent/agent/config"
	"github.com/flowviz/flowagent/agent/report"
)

// composeFiles is how a reload names what the Compose files say, as opposed to which files they are.
const composeFiles = "what the Compose files say"

// takeLive takes over what may change while the node runs. All else is what containers, secrets or the port were made
// with: a restart of the agent brings the node to it.
func takeLive(to *config.Config, from config.Config) {
	to.Node.Environment = from.Node.Environment
	to.Workload.Ready = from.Workload.Ready
	to.Workload.Reconcile = from.Workload.Reconcile
	to.Health.Checks = from.Health.Checks
	to.Drain = from.Drain
}

// reloadOn reloads each time that something is asked for, until ctx ends.
func (a *Agent) reloadOn(ctx context.Context, asked <-chan os.Signal) {
	for {
		select {
		case <-asked:
			if _, err := a.Reload(ctx); err != nil {
				a.log.ErrorContext(ctx, "configuration not reloaded: all stays as it is", "error", err)
			}
		case <-ctx.Done():
			return
		}
	}
}

// Reload implements [control.Agent]. It reads the configuration and the Compose files again, and changes nothing unless
// all of it is right. Then it applies what can change on a running node, and names what needs a restart.
func (a *Agent) Reload(ctx context.Context) (report.Reload, error) {
	if !a.isUp() {
		return report.Reload{}, errBooting
	}
	a.reloading.Lock()
	defer a.reloading.Unlock()
	a.supervisor.notifier.Reloading()
	defer a.supervisor.notifier.Ready()

	p := a.parts()
	loaded, err := a.readConfig(p.userData)
	if err != nil {
		return report.Reload{}, &ConfigurationError{err}
	}
	project, err := a.loadProject(ctx, loaded.Config)
	if err != nil {
		return report.Reload{}, &ConfigurationError{err}
	}
	next := p.config
	takeLive(&next, loaded.Config)
	// What only fits what a restart brings waits for it as a whole.
	if p.runner.Project().CheckServices("drain.order", next.Drain.Order) != nil {
		next.Drain = p.config.Drain
	}
	if slices.ContainsFunc(next.Health.Checks, func(c config.Check) bool { return needsOtherSecrets(c, p.config.Secrets, loaded.Config.Secrets) }) {
		next.Health.Checks = p.config.Health.Checks
	}
	outcome := report.Reload{ // never nil: they are lists to whoever reads JSON
		Applied: append([]string{}, config.Changes(p.config, next)...),
		Restart: append([]string{}, config.Changes(next, loaded.Config)...),
	}
	if !project.Same(p.runner.Project()) {
		outcome.Restart = append(outcome.Restart, composeFiles)
	}
	checks, err := a.makeChecks(next)
	if err != nil {
		return report.Reload{}, &ConfigurationError{err}
	}
	a.update(func(p *parts) { p.config, p.checks = next, checks })
	if slices.ContainsFunc(outcome.Applied, isCheck) {
		p.monitor.Replace(checks)
	}
	a.mu.Lock()
	a.unapplied = outcome.Restart
	a.mu.Unlock()
	a.log.InfoContext(ctx, "configuration reloaded", "applied", outcome.Applied, "needsRestart", outcome.Restart)
	return outcome, nil
}

func isCheck(path string) bool { return strings.HasPrefix(path, "health.checks") }

// needsOtherSecrets tells whether a check uses a secret that the running agent doesn't fetch, or fetches from elsewhere.
func needsOtherSecrets(c config.Check, running, wanted config.Secrets) bool {
	find := func(items []config.Secret, name string) config.Secret {
		i := slices.IndexFunc(items, func(s config.Secret) bool { return s.Name == name })
		if i < 0 {
			return config.Secret{}
		}
		return items[i]
	}
	return slices.ContainsFunc(c.Secrets(), func(name string) bool {
		return !reflect.DeepEqual(find(running.Items, name), find(wanted.Items, name))
	})
}
