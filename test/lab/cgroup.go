package lab

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

const cgroupRoot = "/sys/fs/cgroup"

// RemoveCgroups removes the empty cgroups under parent, and parent: under version 1 in the tree of each controller, under
// version 2 in the one tree, on hosts with both in all of them. A cgroup directory holds only more of them as far as
// rmdir(2) cares.
func RemoveCgroups(parent string) {
	trees, _ := filepath.Glob(filepath.Join(cgroupRoot, "*", parent)) // the pattern is fixed and correct
	for _, tree := range append(trees, filepath.Join(cgroupRoot, parent)) {
		var found []string
		_ = filepath.WalkDir(tree, func(path string, entry fs.DirEntry, err error) error {
			if err == nil && entry.IsDir() {
				found = append(found, path)
			}
			return nil
		})
		for i := len(found) - 1; i >= 0; i-- { // children before their parents
			_ = os.Remove(found[i])
		}
	}
}

// cgroup2 returns where version 2 is mounted: for everything, or beside version 1's controllers as systemd's hybrid
// layout has it.
func cgroup2() (string, error) {
	for _, dir := range []string{cgroupRoot, filepath.Join(cgroupRoot, "unified")} {
		var stat unix.Statfs_t
		if err := unix.Statfs(dir, &stat); err == nil && stat.Type == unix.CGROUP2_SUPER_MAGIC {
			return dir, nil
		}
	}
	return "", missing("cgroup version 2 under "+cgroupRoot, "boot this machine with systemd.unified_cgroup_hierarchy=1")
}

// makeCgroup makes a cgroup of version 2 and hands it every controller that its ancestors may pass on. It returns the
// cgroup's directory.
func makeCgroup(path string) (string, error) {
	root, err := cgroup2()
	if err != nil {
		return "", err
	}
	dir := filepath.Join(root, path)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", fmt.Errorf("make a cgroup: %w", err)
	}
	above := root
	for _, name := range strings.Split(strings.Trim(path, "/"), "/") { // from the top down
		passControllers(above)
		above = filepath.Join(above, name)
	}
	return dir, nil
}

// passControllers lets the children of a cgroup have its controllers. None is passed on where processes live in the
// cgroup and it isn't the real root (cgroups(7)): what is below does without limits of memory and CPU then, as on hosts
// where version 1 has the controllers.
func passControllers(dir string) {
	offered, _ := os.ReadFile(filepath.Join(dir, "cgroup.controllers"))
	for _, controller := range strings.Fields(string(offered)) {
		_ = os.WriteFile(filepath.Join(dir, "cgroup.subtree_control"), []byte("+"+controller), 0o644)
	}
}

// populated says whether a process lives in the cgroup of version 2 or below it.
func populated(dir string) (bool, error) {
	events, err := os.ReadFile(filepath.Join(dir, "cgroup.events"))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	return strings.Contains(string(events), "populated 1"), nil
}
