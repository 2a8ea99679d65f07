package main

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/flowviz/flowagent/golden/sbom"
	"github.com/flowviz/flowagent/golden/seal"
	"github.com/flowviz/flowagent/internal/atomicfile"
)

func newImageSBOMCommand(g *globals) *cobra.Command {
	var root, dir, timestamp string
	var formats []string
	cmd := &cobra.Command{
		Use:   "sbom",
		Short: "Write down what a system is made of: packages, the agent's modules, images",
		Long: `Lists the distribution's packages, the agent with the Go modules in it, and the images of the configuration's Compose files
by digest. --config is a path in that system. What is inside the images is not listed.

One document goes to the standard output, or all formats to files below --output-dir. The same system with the same
--timestamp, or SOURCE_DATE_EPOCH in the environment, gives the same bytes.`,
		Example: `  flowagent image sbom --format cyclonedx-json
  flowagent image sbom --output-dir /usr/share/flowagent`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			wanted, err := sbomFormats(formats, dir)
			if err != nil {
				return usageError(err)
			}
			at, err := sbom.Timestamp(timestamp, time.Now())
			if err != nil {
				return usageError(fmt.Errorf("--timestamp: %w", err))
			}
			if _, err := seal.IsRunning(root); err != nil {
				return usageError(fmt.Errorf("--root: %w", err))
			}
			inventory, err := sbom.Take(cmd.Context(), root, g.configPath, version)
			if err != nil {
				return fmt.Errorf("list what %s is made of: %w", root, err)
			}
			var written []sbomFile
			for _, format := range wanted {
				document, err := inventory.Document(format, version, at)
				if err != nil {
					return fmt.Errorf("write %s: %w", format, err)
				}
				if dir == "" {
					_, err := cmd.OutOrStdout().Write(document)
					return err
				}
				file, err := writeSBOM(dir, format, document)
				if err != nil {
					return err
				}
				written = append(written, file)
			}
			if g.output == "json" {
				return printJSON(cmd.OutOrStdout(), map[string]any{
					"files": written, "packages": len(inventory.Packages), "modules": len(inventory.Agent.Modules), "images": len(inventory.Images),
				})
			}
			for _, file := range written {
				if _, err := fmt.Fprintf(cmd.OutOrStdout(), "wrote %s (sha256:%s)\n", file.Path, file.SHA256); err != nil {
					return err
				}
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s, %s, %s\n", counted(len(inventory.Packages), "package"), counted(len(inventory.Agent.Modules), "module"), counted(len(inventory.Images), "image"))
			return err
		},
	}
	addRoot(cmd, &root)
	cmd.Flags().StringSliceVar(&formats, "format", nil, "spdx-json or cyclonedx-json; with --output-dir both without it")
	cmd.Flags().StringVar(&dir, "output-dir", "", "directory for the files, which is made where it is missing; empty for the standard output")
	cmd.Flags().StringVar(&timestamp, "timestamp", "", "moment that the documents name, such as 2026-11-24T08:00:00Z; without it, SOURCE_DATE_EPOCH or now")
	return cmd
}

// sbomFile is one document that was written.
type sbomFile struct {
	Path   string      `json:"path"`
	Format sbom.Format `json:"format"`
	SHA256 string      `json:"sha256"`
}

// writeSBOM writes a document that anybody may read.
func writeSBOM(dir string, format sbom.Format, document []byte) (sbomFile, error) {
	sum := sha256.Sum256(document)
	file := sbomFile{filepath.Join(dir, format.FileName()), format, hex.EncodeToString(sum[:])}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return file, fmt.Errorf("write %s: %w", format, err)
	}
	if err := atomicfile.Write(file.Path, document, 0o644); err != nil {
		return file, fmt.Errorf("write %s: %w", format, err)
	}
	return file, nil
}

// sbomFormats are the formats to write: two can't both be the standard output.
func sbomFormats(names []string, dir string) ([]sbom.Format, error) {
	if len(names) == 0 && dir != "" {
		return sbom.Formats(), nil
	}
	var formats []sbom.Format
	for _, name := range names {
		format := sbom.Format(name)
		if !slices.Contains(sbom.Formats(), format) {
			return nil, fmt.Errorf("--format %q is unknown: use %s or %s", name, sbom.SPDX, sbom.CycloneDX)
		}
		formats = append(formats, format)
	}
	slices.Sort(formats)
	formats = slices.Compact(formats)
	if dir == "" && len(formats) != 1 {
		return nil, errors.New("say which document goes to the standard output with --format " + strings.Join([]string{string(sbom.SPDX), string(sbom.CycloneDX)}, " or ") + ", or where all go with --output-dir")
	}
	return formats, nil
}
