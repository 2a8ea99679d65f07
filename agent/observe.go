package agent

import (
	"slices"

	"github.com/flowviz/flowagent/agent/health"
	"github.com/flowviz/flowagent/agent/health/metrics"
	"github.com/flowviz/flowagent/agent/report"
	"github.com/flowviz/flowagent/agent/secret"
)

// delays are the monitor's; nil before there is one.
func (a *Agent) delays() *health.Delays {
	if m := a.parts().monitor; m != nil {
		return m.Delays()
	}
	return nil
}

func (a *Agent) secretsStatus() []secret.Status {
	if k := a.parts().keeper; k != nil {
		return k.Status()
	}
	return nil
}

func (a *Agent) bootMetrics() metrics.Boot {
	a.mu.Lock()
	defer a.mu.Unlock()
	return metrics.Boot{Started: a.started, Ready: a.readyAt, Stages: a.recorder.Stages(), Images: a.produced.images}
}

func (a *Agent) drainStatus() *report.Drain {
	a.mu.Lock()
	d := a.draining
	a.mu.Unlock()
	if d == nil {
		return nil
	}
	status := d.Status()
	return &status
}

// countRefresh counts one refresh of the secrets by how it ended.
func (a *Agent) countRefresh(changed []string) {
	result := metrics.Unchanged
	switch {
	case slices.ContainsFunc(a.secretsStatus(), func(s secret.Status) bool { return s.Error != "" }):
		result = metrics.Failed
	case len(changed) > 0:
		result = metrics.Changed
	}
	a.metrics.Refreshed(result)
}
