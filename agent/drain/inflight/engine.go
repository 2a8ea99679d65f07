package inflight

import (
	"context"
	"fmt"
	"slices"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/client"
)

// Engine is what is asked of the Docker Engine.
type Engine interface {
	ContainerList(ctx context.Context, options client.ContainerListOptions) (client.ContainerListResult, error)
	ContainerInspect(ctx context.Context, id string, options client.ContainerInspectOptions) (client.ContainerInspectResult, error)
}

// Project is the running containers of one compose project, on an engine of this machine.
type Project struct {
	Engine Engine
	Name   string
}

// Running implements [Containers].
func (p Project) Running(ctx context.Context) ([]Container, error) {
	// Those of `compose run` are the operator's own affair.
	filters := make(client.Filters).Add("label", "com.docker.compose.project="+p.Name, "com.docker.compose.oneoff=False")
	list, err := p.Engine.ContainerList(ctx, client.ContainerListOptions{Filters: filters}) // running and paused ones
	if err != nil {
		return nil, fmt.Errorf("list the running containers of project %s: %w", p.Name, err)
	}
	var running []Container
	for _, item := range list.Items {
		result, err := p.Engine.ContainerInspect(ctx, item.ID, client.ContainerInspectOptions{})
		if errdefs.IsNotFound(err) {
			continue // it has ended in between
		}
		if err != nil {
			return nil, fmt.Errorf("inspect container %s: %w", item.ID[:min(12, len(item.ID))], err)
		}
		if c := result.Container; c.State != nil && c.State.Pid > 0 {
			running = append(running, Container{
				ID: item.ID, Service: item.Labels["com.docker.compose.service"], PID: c.State.Pid, Ports: tcpPorts(c),
			})
		}
	}
	return running, nil
}

// tcpPorts are the container's ports that lead out of the node: what is published or, in the host's network, where
// nothing has to be, what the image or the Compose file exposes. Sorted.
func tcpPorts(c container.InspectResponse) []uint16 {
	var ports []uint16
	add := func(p network.Port) {
		if p.Proto() == network.TCP && !slices.Contains(ports, p.Num()) {
			ports = append(ports, p.Num())
		}
	}
	if c.NetworkSettings != nil {
		for port, bindings := range c.NetworkSettings.Ports {
			if len(bindings) > 0 { // the others are exposed only
				add(port)
			}
		}
	}
	if c.HostConfig != nil && c.HostConfig.NetworkMode.IsHost() {
		for port := range c.HostConfig.PortBindings { // which the engine doesn't act on there
			add(port)
		}
		if c.Config != nil {
			for port := range c.Config.ExposedPorts {
				add(port)
			}
		}
	}
	slices.Sort(ports)
	return ports
}
