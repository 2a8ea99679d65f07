package agent

import (
	"context"

	"golang.org/x/sync/errgroup"

	"github.com/flowviz/flowagent/agent/cloudwatch"
	"github.com/flowviz/flowagent/agent/config"
)

// sendMetrics sends what a rollout decides on to CloudWatch until servers ends, where the configuration asks for it. It goes
// on during a drain, which is when a rollout looks. Nothing that goes wrong with it is the node's trouble.
func (a *Agent) sendMetrics(servers context.Context, group *errgroup.Group) {
	p := a.parts()
	section := p.config.CloudWatch
	if section == nil {
		return
	}
	if p.identity.Provider != config.ProviderEC2 {
		a.log.InfoContext(servers, "no metrics are sent to CloudWatch: this node is not on EC2", "namespace", section.Namespace)
		return
	}
	group.Go(func() error {
		cfg, err := a.aws.Config(servers, section.Region)
		if err != nil {
			a.log.ErrorContext(servers, "no metrics are sent to CloudWatch: set cloudWatch.region and restart the agent", "error", err)
			return nil
		}
		cloudwatch.New(cloudwatch.Options{
			API:       cloudwatch.NewClient(cfg),
			Namespace: section.Namespace,
			Color:     p.config.Node.Color,
			Release:   p.config.Node.Release,
			Health:    a.endpoint.Snapshot,
			Log:       a.log,
		}).Run(servers)
		return nil
	})
}
