// Package target is a system as the commands for golden images see it: its root directory, the configuration that its agent
// will read at boot, and the images that its Docker Engine has.
//
// What enters is a root directory, of the running system or of a disk; what leaves are the node's configuration, its Compose
// project and the digests of images. Symbolic links are followed within the root directory only. It changes nothing.
package target

import (
	"context"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/flowviz/flowagent/agent/config"
	"github.com/flowviz/flowagent/agent/workload"
	"github.com/flowviz/flowagent/golden/seal"
)

// Target is one system.
type Target struct {
	// Root is the open root directory, and Path where it is: absolute, without symbolic links.
	Root *os.Root
	Path string
	// Running: it is the running system's.
	Running bool
}

// Open opens a root directory. Close the target's Root when done.
func Open(root string) (*Target, error) {
	t := &Target{}
	var err error
	if t.Path, err = filepath.Abs(root); err != nil {
		return nil, err
	}
	if t.Path, err = filepath.EvalSymlinks(t.Path); err != nil {
		return nil, err
	}
	if t.Running, err = seal.IsRunning(t.Path); err != nil {
		return nil, err
	}
	if t.Root, err = os.OpenRoot(t.Path); err != nil {
		return nil, err
	}
	if _, err := t.Root.Stat("etc"); err != nil {
		_ = t.Root.Close()
		return nil, fmt.Errorf("it is not the root directory of a system: %w; give the directory where its disk is mounted", err)
	}
	return t, nil
}

// Node is what the system is configured to be.
type Node struct {
	*config.Loaded
	// Project is nil when its Compose files can't be read.
	Project *workload.Project
}

// Load reads the configuration at a path of the system, and its Compose files, as the agent will at boot. With an error the
// configuration may be there without its project; it is nil when it can't be read.
func (t *Target) Load(ctx context.Context, file string) (*Node, error) {
	main := t.Inside(file)
	// The root decides whether a link on the way leads out of it.
	if _, err := t.Root.Stat(main); err != nil {
		return nil, fmt.Errorf("the configuration can't be read: %w; write it, or name it with --config", err)
	}
	loaded, err := config.Load(filepath.Join(t.Path, main))
	if err != nil {
		return nil, err
	}
	wl := loaded.Config.Workload
	wl.Files = slices.Clone(wl.Files)
	for i, file := range wl.Files {
		file = t.Inside(file)
		if _, err := t.Root.Stat(file); err != nil {
			return &Node{Loaded: loaded}, fmt.Errorf("workload.files: %w; install it, or correct the path", err)
		}
		wl.Files[i] = filepath.Join(t.Path, file)
	}
	project, err := workload.Load(ctx, wl, filepath.Join(t.Path, "run/flowagent"), filepath.Join(t.Path, "run/flowagent/secrets"))
	return &Node{loaded, project}, err
}

// Inside is a path of the system as a path from its root directory. A path that was resolved beside the configuration
// begins with the root directory already.
func (t *Target) Inside(name string) string {
	if rel, err := filepath.Rel(t.Path, name); err == nil && filepath.IsLocal(rel) && t.Path != "/" {
		return rel
	}
	return strings.TrimPrefix(path.Clean("/"+filepath.ToSlash(name)), "/")
}
