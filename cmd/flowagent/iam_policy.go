package main

import (
	"context"
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/flowviz/flowagent/agent/config"
	"github.com/flowviz/flowagent/agent/iam"
	"github.com/flowviz/flowagent/agent/workload"
)

func newIAMPolicyCommand(g *globals) *cobra.Command {
	var place iam.Place
	cmd := &cobra.Command{
		Use:   "iam-policy [FILE...]",
		Short: "Print the IAM policy that a configuration's node needs, and why",
		Long: `Prints what the node's role has to be allowed for the configuration that --config names, with the drop-ins beside it, or
for the given files, merged in their order. With --output json that is the policy itself, and what was left out is said on
standard error. No AWS account is asked, and what a node is told in its user data isn't seen.

Nothing is allowed that wasn't named. Secrets, the bus and the namespace of metrics are named by the configuration, images by
its Compose files, and the rest by flags.`,
		Example: `  flowagent iam-policy --account 123456789012 --region eu-central-1 --group shop-blue --group shop-green
  flowagent iam-policy config.yaml --output json … > policy.json`,
		RunE: func(cmd *cobra.Command, files []string) error {
			loaded, err := readConfig(g, files)
			if err != nil {
				return err
			}
			if !cmd.Flags().Changed("image") {
				if place.Images, err = composeImages(cmd.Context(), g, loaded.Config); err != nil {
					return usageError(err)
				}
			}
			policy, err := iam.Needed(loaded.Config, place)
			if err != nil {
				return usageError(err)
			}
			if g.output == "json" {
				for _, note := range policy.Notes {
					fmt.Fprintln(cmd.ErrOrStderr(), "flowagent:", note)
				}
				return printJSON(cmd.OutOrStdout(), policy.Document)
			}
			return writePolicy(cmd.OutOrStdout(), policy)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&place.Account, "account", "", "the node's AWS account, twelve digits")
	flags.StringVar(&place.Region, "region", "", "the node's region, such as eu-central-1")
	flags.StringVar(&place.Partition, "partition", "", "aws, aws-cn, aws-us-gov and so on; without it, the region's")
	flags.StringArrayVar(&place.Groups, "group", nil, "Auto Scaling group that launches such nodes, by name or ARN; repeat it for each")
	flags.BoolVar(&place.Standalone, "no-group", false, "no Auto Scaling group launches such nodes")
	flags.StringArrayVar(&place.TargetGroups, "target-group", nil, "target group that a node takes itself out of, by name or ARN; repeat it for each")
	flags.StringArrayVar(&place.Keys, "kms-key", nil, "KMS key of your own that secrets or parameters are encrypted with, by id or ARN; repeat it for each")
	flags.StringArrayVar(&place.Images, "image", nil, "image that the node runs, in place of reading the Compose files; repeat it for each")
	flags.StringToStringVar(&place.Tags, "tag", nil, "KEY=VALUE that groups and target groups must be tagged with; repeat it for each")
	return cmd
}

// composeImages are the images of the active services; none are looked for where no ECR registry is configured.
func composeImages(ctx context.Context, g *globals, cfg config.Config) ([]string, error) {
	for _, registry := range cfg.Registries {
		if registry.ECR == nil {
			continue
		}
		project, err := workload.Load(ctx, cfg.Workload, g.runDir, g.runDir)
		if err != nil {
			return nil, fmt.Errorf("see which images of %s the node runs: %w\nWhere the Compose files aren't on this machine, name each image with --image", registry.Host, err)
		}
		return project.Images(), nil
	}
	return nil, nil
}

// writePolicy prints two columns, a statement below the other, and then what was left out.
func writePolicy(w io.Writer, policy iam.Policy) error {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, s := range policy.Statement {
		var reason []string
		if s.Wildcard != "" {
			reason = []string{s.Wildcard}
		}
		for _, part := range []struct {
			name  string
			lines []string
		}{{s.Sid, []string{s.Purpose}}, {"  allows", s.Action}, {"  on", s.Resource}, {"  if", s.Condition.Clauses()}, {"  wildcard", reason}} {
			for i, line := range part.lines {
				if i > 0 {
					part.name = ""
				}
				fmt.Fprintf(table, "%s\t%s\n", part.name, line)
			}
		}
	}
	if len(policy.Statement) == 0 {
		fmt.Fprintln(table, "This configuration asks AWS for nothing: its node needs no policy.")
	}
	for _, note := range policy.Notes {
		fmt.Fprintf(table, "\n%s\n", note)
	}
	return table.Flush()
}
