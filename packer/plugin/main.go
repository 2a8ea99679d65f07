// Command packer-plugin-flowagent bakes flowagent nodes into images: a provisioner that makes a machine a node, a
// post-processor that publishes the image, and a data source that finds the newest one. Packer starts it, and talks to
// it over a socket.
package main

import (
	"fmt"
	"os"

	"github.com/hashicorp/packer-plugin-sdk/plugin"

	"github.com/flowviz/flowagent/packer/plugin/datasource/ami"
	"github.com/flowviz/flowagent/packer/plugin/post-processor/publish"
	"github.com/flowviz/flowagent/packer/plugin/provisioner/flowagent"
	"github.com/flowviz/flowagent/packer/plugin/version"
)

func main() {
	set := plugin.NewSet()
	set.RegisterProvisioner(plugin.DEFAULT_NAME, new(flowagent.Provisioner))
	set.RegisterPostProcessor("publish", new(publish.PostProcessor))
	set.RegisterDatasource("ami", new(ami.Datasource))
	set.SetVersion(version.Plugin)
	if err := set.Run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
