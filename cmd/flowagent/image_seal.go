package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/flowviz/flowagent/golden/seal"
)

func newImageSealCommand(g *globals) *cobra.Command {
	var opts seal.Options
	var yes bool
	cmd := &cobra.Command{
		Use:   "seal",
		Short: "Remove identity, history and caches, so that every clone gets its own",
		Long: `Removes what belongs to this one machine: its ids, keys, logs, leases, histories, swap and caches. Sealing again does
nothing. SSH sessions go on; new ones are refused once the keys are gone.

It can't be undone: this machine's own root is sealed with --yes only, and never while flowagent runs on it.

Exit code 0 when the system is sealed (or was only looked at), 1 when something could not be done, 3 when nothing was
tried because the system is in use.

Kinds, for --keep: ` + strings.Join(seal.Kinds(), ", ") + `.`,
		Example: `  flowagent image seal --dry-run
  flowagent image seal --yes
  flowagent image seal --root /mnt/disk --keep authorized-keys`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			running, err := seal.IsRunning(opts.Root)
			if err != nil {
				return usageError(fmt.Errorf("--root: %w", err))
			}
			if running && !yes && !opts.DryRun {
				return usageError(errors.New("this would take this machine's identity, and nothing brings it back: say --yes where it is being made an image, or look with --dry-run"))
			}
			report, err := seal.Seal(cmd.Context(), opts)
			switch {
			case errors.Is(err, seal.ErrServing):
				return unreachableError(err)
			case errors.Is(err, seal.ErrUnknownKind):
				return usageError(fmt.Errorf("--keep: %w", err))
			}
			if g.output == "json" {
				err = errors.Join(printJSON(cmd.OutOrStdout(), report), err)
			} else {
				err = errors.Join(seal.Write(cmd.OutOrStdout(), report), err)
			}
			return err
		},
	}
	addRoot(cmd, &opts.Root)
	cmd.Flags().BoolVar(&yes, "yes", false, "seal the running system: this machine's identity is lost")
	cmd.Flags().BoolVar(&opts.DryRun, "dry-run", false, "say what there is to do, and do nothing")
	cmd.Flags().BoolVar(&opts.FirstBoot, "first-boot", false, "have systemd take the next boot for the first one, and enable every unit that its presets name")
	cmd.Flags().StringSliceVar(&opts.Keep, "keep", nil, "kinds to leave alone, separated by commas")
	return cmd
}
