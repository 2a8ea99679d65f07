// Package flowagent is the provisioner that makes the machine it is connected to a flowagent node.
//
// What enters is a template's settings with the files they name, and a connection to a running machine; what leaves is
// that machine with Docker Engine, the agent, its configuration and its images, without any identity, and on the
// builder the software bills of materials. What is to be installed is checked before a machine starts, and the machine
// before anything is changed on it. The uploaded binary does the work there (`flowagent image install`, `pull`, `sbom`,
// `seal`, `verify`); this package only carries it out in order. It never leaves a process behind on the machine, and no
// secret is in an argument list, in a file or in its output.
package flowagent

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"

	"github.com/hashicorp/hcl/v2/hcldec"
	packersdk "github.com/hashicorp/packer-plugin-sdk/packer"
	"github.com/hashicorp/packer-plugin-sdk/template/config"
	"github.com/hashicorp/packer-plugin-sdk/template/interpolate"
)

// Provisioner is what Packer calls.
type Provisioner struct {
	config Config
	plan   *plan
}

var _ packersdk.Provisioner = (*Provisioner)(nil)

// ConfigSpec is the settings' layout in HCL.
func (p *Provisioner) ConfigSpec() hcldec.ObjectSpec { return p.config.FlatMapstructure().HCL2Spec() }

// Prepare reads the settings and checks everything that can be checked without the target. Packer calls it before it
// starts a machine, and again before Provision.
func (p *Provisioner) Prepare(raws ...any) error {
	err := config.Decode(&p.config, &config.DecodeOpts{
		PluginType:         "flowagent",
		Interpolate:        true,
		InterpolateContext: &p.config.ctx,
		InterpolateFilter:  &interpolate.RenderFilter{},
	}, raws...)
	if err != nil {
		return err
	}
	p.config.guard()
	p.config.setDefaults()
	if err := p.config.check(); err != nil {
		return err
	}
	p.plan, err = makePlan(context.Background(), &p.config) // reads a few files
	return err
}

// Provision bakes the node into the machine behind comm.
func (p *Provisioner) Provision(ctx context.Context, ui packersdk.Ui, comm packersdk.Communicator, _ map[string]any) error {
	b := &bake{
		remote: remote{comm: comm, ui: ui, environment: p.config.Environment, token: rand.Text()[:8]},
		config: &p.config,
		plan:   p.plan,
	}
	err := b.all(ctx)
	if errors.Is(err, context.Canceled) {
		err = fmt.Errorf("%w: the build was cancelled; what the target was doing has been ended", err)
	}
	return err
}
