package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/flowviz/flowagent/golden/seal"
	"github.com/flowviz/flowagent/golden/verify"
)

func newImageVerifyCommand(g *globals) *cobra.Command {
	var opts verify.Options
	var ports []string
	cmd := &cobra.Command{
		Use:   "verify",
		Short: "Prove that a system is fit to be cloned: complete, sealed, and without a credential",
		Long: `Checks that a node of this image would boot by itself, and that nothing of the builder is left: every file is searched for
private keys, tokens and logins. A check that can't be made has failed. --config is a path in that system.

Exit code 0 when every check passed, 1 when one failed.

Checks, for --skip: ` + strings.Join(verify.Checks(), ", ") + `.`,
		Example: `  flowagent image verify --allow-port 22 --allow-port 68/udp
  flowagent image verify --root /mnt/disk --output json`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if _, err := seal.IsRunning(opts.Root); err != nil {
				return usageError(fmt.Errorf("--root: %w", err))
			}
			opts.Config = g.configPath
			for _, text := range ports {
				port, err := verify.ParsePort(text)
				if err != nil {
					return usageError(fmt.Errorf("--allow-port: %w", err))
				}
				opts.AllowPorts = append(opts.AllowPorts, port)
			}
			report, err := verify.Verify(cmd.Context(), opts)
			switch {
			case errors.Is(err, verify.ErrUnknownCheck):
				return usageError(fmt.Errorf("--skip: %w", err))
			case errors.Is(err, verify.ErrPattern):
				return usageError(fmt.Errorf("--allow-file: %w", err))
			case errors.Is(err, seal.ErrUnknownKind):
				return usageError(fmt.Errorf("--keep: %w", err))
			case err != nil:
				return err
			}
			if g.output == "json" {
				err = printJSON(cmd.OutOrStdout(), report)
			} else {
				err = verify.Write(cmd.OutOrStdout(), report)
			}
			if err == nil && !report.OK {
				err = &exitError{code: exitFailed}
			}
			return err
		},
	}
	addRoot(cmd, &opts.Root)
	var builder []string
	for _, port := range verify.BuilderPorts() {
		builder = append(builder, port.String())
	}
	cmd.Flags().StringSliceVar(&ports, "allow-port", builder, "ports that may be listened on, beside that of health.listen")
	cmd.Flags().StringSliceVar(&opts.AllowFiles, "allow-file", nil, "patterns of files, in the system or in an image, in which credentials are known to be harmless")
	cmd.Flags().StringSliceVar(&opts.Keep, "keep", nil, "kinds that 'image seal' was told to keep")
	cmd.Flags().StringSliceVar(&opts.Skip, "skip", nil, "checks to leave out, separated by commas")
	return cmd
}
