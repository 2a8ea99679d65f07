package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	ansiblefree "github.com/flowviz/flowagent/ansible-free"
	"github.com/flowviz/flowagent/golden/install"
)

func newImageInstallCommand(g *globals) *cobra.Command {
	var root string
	var profiles []string
	var dryRun, overwrite, enable bool
	cmd := &cobra.Command{
		Use:   "install",
		Short: "Install this program, its units and a node's settings, here or on a mounted disk",
		Long: `Installs this program as /usr/bin/flowagent with its units and group, and the settings of the profiles:

  base       Docker Engine, journal, names, clock, unattended security updates, cloud-init
  ec2        EC2's time service
  hardening  packet filter, SSH, kernel

Nothing is started or reloaded. A file below /etc that a person changed is kept, with the new version beside it as
NAME.flowagent-new; files below /usr are replaced. Run it again at any time: what is right already is left alone.`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			chosen, err := ansiblefree.ParseProfiles(profiles)
			if err != nil {
				return usageError(err)
			}
			if root, err = filepath.Abs(root); err != nil {
				return err
			}
			if info, err := os.Stat(root); errors.Is(err, fs.ErrNotExist) || err == nil && !info.IsDir() {
				return usageError(fmt.Errorf("--root %s is no directory: mount the image's disk, and name where", root))
			}
			self, err := os.Executable()
			if err != nil {
				return err
			}
			result, err := install.Install(cmd.Context(), install.Options{
				Root: root, Profiles: chosen, Binary: self, Enable: enable, Overwrite: overwrite, DryRun: dryRun,
			})
			// Also of one that failed: how far it came.
			if g.output == "json" {
				return errors.Join(printJSON(cmd.OutOrStdout(), result), err)
			}
			return errors.Join(result.WriteTable(cmd.OutOrStdout()), err)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&root, "root", "/", "directory that is the machine's /")
	flags.StringSliceVar(&profiles, "profile", []string{"base"}, "settings to install: agent (nothing but the agent), base, ec2, hardening")
	flags.BoolVar(&enable, "enable", true, "make the group and directories, and have the units start at boot")
	flags.BoolVar(&overwrite, "overwrite", false, "replace files below /etc that a person changed, too")
	flags.BoolVar(&dryRun, "dry-run", false, "say what would be done, and change nothing")
	return cmd
}
