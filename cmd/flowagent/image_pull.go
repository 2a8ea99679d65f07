package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/flowviz/flowagent/agent"
	"github.com/flowviz/flowagent/agent/image"
	"github.com/flowviz/flowagent/agent/secret"
	"github.com/flowviz/flowagent/internal/eventlog"
)

// maxSecrets bounds what is read from standard input, in bytes: a thousand long tokens.
const maxSecrets = 1 << 20

func newImagePullCommand(g *globals) *cobra.Command {
	var fromStdin bool
	cmd := &cobra.Command{
		Use:   "pull",
		Short: "Load and pull the images of the configuration's Compose files",
		Long: `Loads and pulls the images of the active services into the engine, as 'flowagent run' does at the boot, and starts
nothing: a machine that becomes an image has them on its disk then.

Only passwords of registries are fetched. Where their source is out of reach, --secrets-stdin takes a JSON object from
standard input, {"NAME": "VALUE"}, with the secrets' names in the configuration.`,
		Example: `  flowagent image pull
  printf '{"registry_password": "…"}' | flowagent image pull --secrets-stdin`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			secrets, err := readSecrets(cmd.InOrStdin(), fromStdin)
			if err != nil {
				return usageError(err)
			}
			out := cmd.ErrOrStderr()
			var progress image.Progress
			format := eventlog.Text
			if width, terminal := terminalWidth(out); terminal {
				bars := image.NewBars(out, width)
				progress, out, format = bars, bars, eventlog.Terminal
			}
			log := eventlog.New(out, format)
			if progress == nil {
				progress = image.NewEvents(log)
			}
			images, err := agent.PullImages(cmd.Context(), agent.PullOptions{
				ConfigPath: g.configPath, RunDir: g.runDir, Secrets: secrets, Progress: progress, Log: log,
			})
			var wrong *agent.ConfigurationError
			switch {
			case errors.As(err, &wrong):
				return usageError(err)
			case err != nil:
				return err
			case g.output == "json":
				return printJSON(cmd.OutOrStdout(), pulledImages(images))
			}
			return writeImages(cmd.OutOrStdout(), images)
		},
	}
	cmd.Flags().BoolVar(&fromStdin, "secrets-stdin", false, "take passwords of registries from standard input, as a JSON object by name")
	return cmd
}

// readSecrets reads what stands in for secrets that can't be fetched. No error quotes it.
func readSecrets(stdin io.Reader, wanted bool) (map[string]secret.Value, error) {
	if !wanted {
		return nil, nil
	}
	document, err := io.ReadAll(io.LimitReader(stdin, maxSecrets+1))
	if err != nil {
		return nil, fmt.Errorf("read the secrets from standard input: %w", err)
	}
	texts := map[string]string{}
	if len(document) > maxSecrets || json.Unmarshal(document, &texts) != nil {
		return nil, fmt.Errorf(`--secrets-stdin: standard input is no JSON object of texts below %d bytes: write {"NAME": "VALUE"}`, maxSecrets)
	}
	values := map[string]secret.Value{}
	for name, text := range texts {
		values[name] = secret.NewValue([]byte(text))
	}
	return values, nil
}

// pulledImage is one line of `image pull --output json`.
type pulledImage struct {
	Image  string `json:"image"`            // as the Compose files name it
	Runs   string `json:"runs"`             // what the node will run for it
	Digest string `json:"digest,omitempty"` // of the manifest in the registry; none for an image of an archive
	Pulled bool   `json:"pulled"`           // just now
	Bytes  int64  `json:"bytes,omitempty"`  // as compressed by the registry
}

func pulledImages(images []image.Image) []pulledImage {
	list := []pulledImage{}
	for _, i := range images {
		list = append(list, pulledImage{i.Ref, i.Pinned, i.Digest, i.Pulled, i.Bytes})
	}
	return list
}

func writeImages(w io.Writer, images []image.Image) error {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "IMAGE\tRUNS\tPULLED")
	for _, i := range images {
		pulled := "was there"
		if i.Pulled {
			pulled = fmt.Sprintf("%d bytes", i.Bytes)
		}
		fmt.Fprintf(table, "%s\t%s\t%s\n", i.Ref, i.Pinned, pulled)
	}
	return table.Flush()
}
