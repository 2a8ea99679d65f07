package main

import (
	"context"
	"fmt"
	"os"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/client"

	"github.com/flowviz/flowagent/test/lab"
)

// copyImages brings the plan's images from the machine's engine to the lab's where it lacks them or has older ones.
func copyImages(ctx context.Context, p plan, address string) error {
	inside, err := client.New(client.WithHost(address))
	if err != nil {
		return err
	}
	defer inside.Close()
	// The machine's /run is covered; its engine is reached through the descriptor that was opened before.
	outside, err := client.New(client.WithHost(fmt.Sprintf("unix:///proc/self/fd/%d", p.engineFile())))
	if err != nil {
		return err
	}
	defer outside.Close()
	for _, ref := range p.Images {
		if err := copyImage(ctx, outside, inside, ref); err != nil {
			return fmt.Errorf("image %s: %w", ref, err)
		}
	}
	return nil
}

func copyImage(ctx context.Context, outside, inside *client.Client, ref string) error {
	have, err := inside.ImageInspect(ctx, ref)
	if err != nil && !errdefs.IsNotFound(err) {
		return err
	}
	offered, err := outside.ImageInspect(ctx, ref)
	switch {
	case errdefs.IsNotFound(err) && have.ID != "":
		return nil // copied earlier, removed from the machine since
	case errdefs.IsNotFound(err):
		return fmt.Errorf("neither this machine's engine nor the lab's has it: build or pull it first")
	case err != nil:
		return fmt.Errorf("ask this machine's engine: %w", err)
	case have.ID == offered.ID:
		return nil
	}
	fmt.Fprintf(os.Stderr, "lab: copying image %s\n", ref)
	archive, err := outside.ImageSave(ctx, []string{ref})
	if err != nil {
		return fmt.Errorf("save: %w", err)
	}
	defer archive.Close()
	return lab.LoadImage(ctx, inside, archive)
}
