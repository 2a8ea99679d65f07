package main

import "github.com/spf13/cobra"

func newImageCommand(g *globals) *cobra.Command {
	return group("image", "Make a machine image", newImageInstallCommand(g))
}
