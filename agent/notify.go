package agent

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/flowviz/flowagent/agent/drain"
	"github.com/flowviz/flowagent/agent/drain/hook"
	"github.com/flowviz/flowagent/agent/drain/notice"
	"github.com/flowviz/flowagent/agent/notify"
	"github.com/flowviz/flowagent/agent/report"
	"github.com/flowviz/flowagent/agent/secret"
)

// telling is what a node tells others, and to whom. The zero value tells nobody.
type telling struct {
	to       atomic.Pointer[notify.Notifier] // nil until the node is known
	newcomer atomic.Bool                     // this agent saw the node's first admission
}

func (t *telling) tell(kind notify.Type, detail notify.Detail) { t.to.Load().Tell(kind, detail) }

// tellOthers delivers what happens to the node, until servers ends, to those that the configuration names. Nothing that goes
// wrong with it is the node's trouble.
func (a *Agent) tellOthers(servers context.Context, group *errgroup.Group) {
	sinks := a.sinks(servers)
	if len(sinks) == 0 {
		return
	}
	p := a.parts()
	for _, sink := range sinks {
		a.metrics.NotifiesBy(sink.Name())
	}
	notifier := notify.New(notify.Options{
		Sinks: sinks,
		Origin: notify.Origin{Account: p.identity.AccountID, Region: p.identity.Region, Node: notify.Node{
			InstanceID: p.identity.InstanceID, Hostname: p.identity.Hostname, Environment: p.config.Node.Environment,
			Color: p.config.Node.Color, Release: p.config.Node.Release, AgentVersion: a.opts.Version,
		}},
		Log:   a.log,
		Count: a.metrics.Notified,
	})
	a.telling.to.Store(notifier)
	group.Go(func() error {
		notifier.Run(servers)
		return nil
	})
}

// sinks are those that the configuration names. One that can't work is left out, and the log says why.
func (a *Agent) sinks(ctx context.Context) []notify.Sink {
	p := a.parts()
	var sinks []notify.Sink
	if w := p.config.Notify.Webhook; w != nil {
		webhook, err := notify.NewWebhook(notify.WebhookOptions{
			URL: string(w.URL), TokenSecret: w.TokenSecret, SigningSecret: w.SigningSecret, Secret: a.secretValue,
			Timeout: time.Duration(w.Timeout), CAFile: w.CAFile, AgentVersion: a.opts.Version,
		})
		if err != nil {
			a.log.ErrorContext(ctx, "the webhook is told nothing: mend notify.webhook and restart the agent", "error", err)
		} else {
			sinks = append(sinks, webhook)
		}
	}
	if b := p.config.Notify.EventBridge; b != nil {
		region := b.Region
		if region == "" {
			region = notify.BusRegion(b.Bus)
		}
		cfg, err := a.aws.Config(ctx, region)
		if err != nil {
			a.log.ErrorContext(ctx, "EventBridge is told nothing: set notify.eventBridge.region and restart the agent", "error", err)
		} else {
			sinks = append(sinks, notify.NewEventBridge(notify.NewClient(cfg), b.Bus))
		}
	}
	return sinks
}

// secretValue finds a secret; false before the boot has fetched it.
func (a *Agent) secretValue(name string) (secret.Value, bool) {
	keeper := a.parts().keeper
	if keeper == nil {
		return secret.Value{}, false
	}
	return keeper.Value(name)
}

// tellReady says that the node serves, for the first time since it booted or was drained: not after a restart of the agent.
func (a *Agent) tellReady(elapsed time.Duration) {
	if a.telling.newcomer.Load() {
		a.telling.tell(notify.NodeReady, notify.Detail{Boot: &notify.Boot{Seconds: elapsed.Seconds()}})
	}
}

// tellBootFailed says why the agent ends, unless the node was on its way out anyway.
func (a *Agent) tellBootFailed(err error) {
	if err == nil || errors.Is(err, errLeaving) {
		return
	}
	a.telling.tell(notify.NodeBootFailed, notify.Detail{Boot: &notify.Boot{Seconds: time.Since(a.started).Seconds(), Error: err.Error()}})
}

// tellDrain says that a drain begins, or how it ended.
func (a *Agent) tellDrain(d *drain.Drain) {
	kind, detail := drainEvent(d.Status())
	a.telling.tell(kind, notify.Detail{Drain: &detail})
}

func drainEvent(s report.Drain) (notify.Type, notify.Drain) {
	detail := notify.Drain{Reason: s.Reason, Trigger: s.Trigger, Started: s.Started.UTC(), Deadline: s.Deadline.UTC()}
	if s.Ended.IsZero() {
		return notify.NodeDrainStarted, detail
	}
	detail.Seconds, detail.Result = s.Ended.Sub(s.Started).Seconds(), "done"
	switch {
	case s.TakenBack:
		detail.Result = "taken back"
		return notify.NodeDrainEnded, detail
	case s.Error != "":
		detail.Result = "failed"
	}
	for _, step := range s.Steps {
		if step.Error != "" {
			detail.FailedSteps = append(detail.FailedSteps, strings.TrimPrefix(step.Name, "drain."))
		}
	}
	return notify.NodeDrainEnded, detail
}

func (a *Agent) tellNotice(n notice.Notice) {
	a.telling.tell(notify.NodeNoticeReceived, notify.Detail{Notice: &notify.Notice{ID: n.ID, Kind: string(n.Kind), Text: n.Detail, At: n.At}})
}

func (a *Agent) tellCompleted(k *hook.Hook, result hook.Result, outcome hook.Outcome) {
	a.telling.tell(notify.LifecycleActionCompleted, notify.Detail{LifecycleAction: &notify.LifecycleAction{
		Hook: k.Name, Group: k.Group, Transition: transition(k), Result: string(result), Outcome: outcome.String(),
	}})
}
