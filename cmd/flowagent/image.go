package main

import (
	"github.com/spf13/cobra"
)

// newImageCommand groups what makes a machine's disk an image that others boot from.
func newImageCommand(g *globals) *cobra.Command {
	return group("image", "Make a machine's disk an image that others boot from, and prove that it is one",
		newImageInstallCommand(g), newImagePullCommand(g), newImageSealCommand(g), newImageVerifyCommand(g), newImageSBOMCommand(g),
	)
}

// addRoot adds the flag that says which system a command is about.
func addRoot(cmd *cobra.Command, root *string) {
	cmd.Flags().StringVar(root, "root", "/", "root directory of the system: this machine's, or where a disk is mounted")
}
