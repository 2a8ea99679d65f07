package workload

import (
	"context"
	"errors"
	"time"

	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/client"

	"github.com/flowviz/flowagent/agent/config"
)

// confirmWait is how long the engine may take to answer a new connection, and the pause before it is asked again. An
// engine that works answers within milliseconds; one that shuts down under systemd never does, since the socket is
// systemd's and takes connections for it.
const confirmWait = time.Second

// settingsAge is how long changed settings may go unnoticed while nothing happens. Looking asks nobody.
const settingsAge = 10 * time.Second

// Reconciliation is how a project is kept up.
type Reconciliation struct {
	// Settings are asked for again and again, since they may change: what to bring back, and when it counts as ready.
	Settings func() (config.Reconcile, config.Ready)
	// Lock waits until nobody else changes containers. Its error ends the reconciliation.
	Lock func(ctx context.Context) (unlock func(), err error)
	// Report is told what happens; it must not block.
	Report func(Recovery)
	// Random gives numbers in [0, 1), such as rand.Float64.
	Random func() float64
}

// Reconcile brings back services that vanish, end without being restarted or stay unhealthy, until ctx ends or Lock
// fails; the error says which. It is driven by the engine's events and goes on after the engine was away. Services that
// somebody stopped are left alone until a container of theirs runs again.
//
// The project must have been brought up before, by this runner: what is missing then counts as vanished. What somebody
// stopped since is left alone, too; after an earlier reconciliation, only what is stopped from now on.
func (r *Runner) Reconcile(ctx context.Context, o Reconciliation) error {
	k := &keeper{r: r, o: o, policy: newPolicy(r.project, o.Random), intents: newIntents(r.changes.covers)}
	seen := time.Now()
	if up := r.cameUp.Load(); up != nil {
		seen = *up
	}
	defer r.cameUp.Store(nil)
	k.watcher = &watcher{r: r, seen: seen, also: []string{string(events.ActionKill), string(events.ActionStop)}, heard: k.heard, reopened: k.reopened}
	defer k.watcher.end()
	if err := k.watcher.open(ctx); err != nil {
		if err := k.watcher.reopen(ctx, err); err != nil {
			return err
		}
	}
	return k.run(ctx)
}

// keeper is one reconciliation at work.
type keeper struct {
	r       *Runner
	o       Reconciliation
	watcher *watcher
	policy  *policy
	intents *intents
}

// heard is called by the watcher for each event, in their order.
func (k *keeper) heard(m events.Message) {
	k.intents.heard(m, k.watcher.containers[m.Actor.ID].stopSignal)
}

// reopened is called by the watcher after a gap in the events.
func (k *keeper) reopened(before, after map[string]ContainerState) {
	now := time.Now()
	k.intents.reopened(before, after, now)
	k.policy.restarted(now)
}

func (k *keeper) run(ctx context.Context) error {
	var asking *question
	for {
		wake := k.look()
		if len(k.policy.due(time.Now())) > 0 {
			if err := k.act(ctx); err != nil {
				return err
			}
			continue
		}
		if asking == nil {
			asking = k.ask(ctx)
		}
		var answered <-chan struct{}
		if asking != nil {
			answered = asking.answered
		}
		if err := k.watcher.next(ctx, wake, answered); err != nil {
			return err
		}
		select {
		case <-answered:
			asking.confirm(k.intents.generation)
			asking = nil
		default:
		}
	}
}

// look has the policy see what is there, and returns when to look again without an event.
func (k *keeper) look() (wake time.Time) {
	now := time.Now()
	k.policy.cfg, k.policy.ready = k.o.Settings()
	k.intents.settle(k.watcher.containers)
	j := judge{project: k.r.project, now: now, settled: true, stableFor: time.Duration(k.policy.ready.StableFor)}
	state, stable := j.state(k.watcher.containers)
	events, decide := k.policy.observe(state, k.intents, now)
	k.report(events)
	unwelcome, tell := k.intents.news(now)
	for _, service := range unwelcome {
		if k.policy.keeps(service) {
			k.report([]Recovery{{Service: service, Step: RecoveryUnwelcome}})
		}
	}
	return earlier(earlier(earlier(stable, decide), tell), now.Add(settingsAge))
}

func (k *keeper) report(events []Recovery) {
	for _, event := range events {
		if event.Why != "" {
			event.Why = k.r.scrubber().scrub(event.Why)
		}
		k.o.Report(event)
	}
}

// act brings back what is still due once nobody else changes containers.
func (k *keeper) act(ctx context.Context) error {
	unlock, err := k.o.Lock(ctx)
	if err != nil {
		return err
	}
	err = k.actLocked(ctx)
	unlock()
	if err != nil && ctx.Err() == nil {
		err = k.watcher.reopen(ctx, err) // waits, with nothing locked, until the engine answers
	}
	return err
}

func (k *keeper) actLocked(ctx context.Context) error {
	// Whoever held the lock may have done it already, and the events of that may still be on their way.
	if err := k.watcher.refresh(ctx); err != nil {
		return err
	}
	k.look()
	for _, o := range k.policy.due(time.Now()) {
		k.report([]Recovery{k.policy.begin(o, time.Now())})
		err := k.r.bringBack(ctx, o)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		k.report(k.policy.carriedOut(o, err, time.Now()))
	}
	return k.watcher.refresh(ctx)
}

// bringBack carries out one order.
func (r *Runner) bringBack(ctx context.Context, o order) error {
	defer r.changes.begin(o.service)()
	if err := r.project.restoreOverride(); err != nil {
		return err
	}
	if len(o.restart) > 0 {
		return r.restart(ctx, o)
	}
	containers, err := r.containers(ctx)
	if err != nil {
		return err
	}
	for _, c := range containers {
		// The engine failed to remove it once; compose takes it for one that can be started.
		if c.Service == o.service && c.Status == "dead" {
			if _, err := r.engine.ContainerRemove(ctx, c.ID, client.ContainerRemoveOptions{Force: true}); err != nil {
				return r.engineError("remove the dead container "+c.Name, err)
			}
		}
	}
	return r.Up(ctx, o.service)
}

// restart has the engine restart containers, which keeps them and their log. Their own grace applies.
func (r *Runner) restart(ctx context.Context, o order) error {
	if s := r.project.model.Services[o.service]; len(s.PreStop) > 0 || len(s.PostStart) > 0 {
		// Only compose runs hooks, for all containers of a service.
		if err := r.stopService(ctx, o.restart[0], o.restart[0].grace()); err != nil {
			return err
		}
		return r.Up(ctx, o.service)
	}
	return all(o.restart, func(c ContainerState) error {
		if _, err := r.engine.ContainerRestart(ctx, c.ID, client.ContainerRestartOptions{}); err != nil {
			return r.engineError("restart container "+c.Name, err)
		}
		return nil
	})
}

// question is whether the engine still takes new connections.
type question struct {
	answered   chan struct{} // closed with the answer
	yes        bool
	about      []*hold
	generation int
}

// ask begins to ask about holds that are unconfirmed; nil when there are none.
func (k *keeper) ask(ctx context.Context) *question {
	about := k.intents.unconfirmed()
	if len(about) == 0 {
		return nil
	}
	q := &question{answered: make(chan struct{}), about: about, generation: k.intents.generation}
	go func() {
		defer close(q.answered)
		if q.yes = k.r.engineTakesConnections(ctx); !q.yes {
			_ = pause(ctx, confirmWait) // whoever asks next sees that ctx ended
		}
	}()
	return q
}

// confirm takes the answer, unless the events had a gap since: then it may be another engine's.
func (q *question) confirm(generation int) {
	if !q.yes || generation != q.generation {
		return
	}
	for _, h := range q.about {
		h.confirmed = true
	}
}

// engineTakesConnections asks on a connection of its own: an engine that shuts down still answers on those it has.
func (r *Runner) engineTakesConnections(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, confirmWait)
	defer cancel()
	engine, err := client.New(client.WithHost(r.engine.DaemonHost()))
	if err != nil {
		return false
	}
	_, err = engine.Ping(ctx, client.PingOptions{})
	return errors.Join(err, engine.Close()) == nil
}
