package seal

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/moby/moby/client"
)

// Uninitialized is the machine id of a system that has never been booted (machine-id(5)).
const Uninitialized = "uninitialized\n"

// resetMachineID empties /etc/machine-id: systemd makes a new one, and the boot is like any other. It is never left missing:
// systemd could not make one on a root that is mounted read-only.
func resetMachineID(s *sealer) {
	if s.first {
		s.replace("etc/machine-id", []byte(Uninitialized), 0o444, "set to uninitialized")
	} else {
		s.replace("etc/machine-id", nil, 0o444, "emptied")
	}
	// D-Bus reads systemd's where this is a link, as on all that Debian and Ubuntu install today.
	s.expand("var/lib/dbus/machine-id", false, func(p place) {
		if p.info.Mode()&fs.ModeSymlink != 0 {
			return
		}
		if !s.dry {
			err := p.dir.Remove(p.name)
			if err == nil {
				err = p.dir.Symlink("/etc/machine-id", p.name)
			}
			if err != nil {
				s.problem(p.path, err)
				return
			}
		}
		s.did(p.path, "replaced by a link to /etc/machine-id", tally{})
	})
}

// replace makes a file say something, whatever is there under its name.
func (s *sealer) replace(name string, content []byte, mode fs.FileMode, did string) {
	info, err := s.root.Lstat(name)
	switch {
	case err == nil && info.Mode().IsRegular():
		if was, err := s.root.ReadFile(name); err == nil && bytes.Equal(was, content) {
			return
		}
	case err == nil && info.IsDir():
		s.problem(name, errors.New("it is a directory: remove it"))
		return
	case err == nil && !s.dry:
		if err := s.root.Remove(name); err != nil { // a link is not written through
			s.problem(name, err)
			return
		}
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		s.problem(name, err)
		return
	}
	if !s.dry {
		// Written in place: systemd may have mounted another file over it, which can't be renamed away.
		if err := s.root.WriteFile(name, content, mode); err != nil {
			s.problem(name, err)
			return
		}
		if err := s.root.Chmod(name, mode); err != nil {
			s.problem(name, err)
			return
		}
	}
	s.did(name, did, tally{})
}

// resetISCSI has the initiator make a name when it starts, as its packages do.
func resetISCSI(s *sealer) {
	const name = "etc/iscsi/initiatorname.iscsi"
	content, err := s.root.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		return
	}
	if err != nil {
		s.problem(name, err)
		return
	}
	if bytes.Contains(content, []byte("InitiatorName=")) {
		s.replace(name, []byte("GenerateName=yes\n"), 0o600, "set to be generated")
	}
}

// programTimeout is far above what cloud-init and swapoff take: the first is a Python program, the second may read a
// gigabyte back from a slow disk.
const programTimeout = 5 * time.Minute

// run runs a program of the running system. Its last lines of output are part of the error.
func (s *sealer) run(program string, arguments ...string) ([]byte, error) {
	cmd := exec.CommandContext(s.ctx, program, arguments...)
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C.UTF-8", "HOME=/root"}
	cmd.WaitDelay = time.Second
	timer := time.AfterFunc(programTimeout, func() { _ = cmd.Cancel() })
	defer timer.Stop()
	out, err := cmd.CombinedOutput()
	if err != nil {
		lines := strings.Split(strings.TrimSpace(string(out)), "\n")
		return out, fmt.Errorf("%s: %w: %s", strings.Join(cmd.Args, " "), err, strings.Join(lines[max(0, len(lines)-3):], "; "))
	}
	return out, nil
}

// cleanCloudInit calls cloud-init's own cleaning, which also runs what packages have put into /etc/cloud/clean.d.
func cleanCloudInit(s *sealer) {
	if !s.running {
		return
	}
	program, err := exec.LookPath("/usr/bin/cloud-init")
	if err != nil {
		return // the rules do what there is to do
	}
	cloud, err := listAt(s.root, "var/lib/cloud")
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		s.problem("var/lib/cloud", err)
		return
	}
	if len(cloud) == 0 {
		return // sealed already
	}
	help, err := s.run(program, "clean", "--help")
	if err != nil {
		s.problem("usr/bin/cloud-init", err)
		return
	}
	arguments := cloudInitArguments(string(help))
	if !s.dry {
		if _, err := s.run(program, arguments...); err != nil {
			s.problem("usr/bin/cloud-init", err)
			return
		}
	}
	s.did("usr/bin/cloud-init", "called: cloud-init "+strings.Join(arguments, " "), tally{})
}

// cloudInitArguments are those of `cloud-init clean` that the installed version has: --machine-id came with 22.3 and
// --configs with 23.2.
func cloudInitArguments(help string) []string {
	arguments := []string{"clean"}
	for _, flag := range [][]string{{"--logs"}, {"--seed"}, {"--machine-id"}, {"--configs", "all"}} {
		if strings.Contains(help, flag[0]) {
			arguments = append(arguments, flag...)
		}
	}
	return arguments
}

func listAt(root *os.Root, name string) ([]string, error) {
	dir, err := root.OpenRoot(name)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	return list(dir)
}

// removeSwap turns swap off where it is on, and removes the files that it was in with their lines of fstab(5): a missing
// file would be a failed unit at every boot.
func removeSwap(s *sealer) {
	files := map[string]bool{"swapfile": true, "swap.img": true}
	table, err := s.root.ReadFile("etc/fstab")
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		s.problem("etc/fstab", err)
	}
	for line := range strings.Lines(string(table)) {
		if name, ok := swapFile(line); ok {
			files[name] = true
		}
	}
	if s.running && !s.inContainer() {
		for _, name := range s.swapOff() {
			files[name] = true
		}
	}
	gone := map[string]bool{}
	for _, name := range slices.Sorted(maps.Keys(files)) {
		s.expand(name, false, func(p place) {
			if !p.info.Mode().IsRegular() {
				return
			}
			before := len(s.problems)
			remove(s, p)
			gone[name] = len(s.problems) == before
		})
	}
	var kept strings.Builder
	for line := range strings.Lines(string(table)) {
		if name, ok := swapFile(line); !ok || !gone[name] {
			kept.WriteString(line)
		}
	}
	if kept.Len() < len(table) {
		s.replace("etc/fstab", []byte(kept.String()), 0o644, "rewritten without the swap files")
	}
}

// inContainer tells whether the running system is a container: then what the kernel says of swap is about its host's.
// systemd says so there (https://systemd.io/CONTAINER_INTERFACE).
func (s *sealer) inContainer() bool {
	_, err := s.root.Lstat("run/systemd/container")
	return err == nil
}

// swapFile reads the file's name from a line of fstab(5) that is about a swap file.
func swapFile(line string) (string, bool) {
	fields := strings.Fields(line)
	if len(fields) < 3 || strings.HasPrefix(fields[0], "#") || fields[2] != "swap" || !strings.HasPrefix(fields[0], "/") || strings.HasPrefix(fields[0], "/dev/") {
		return "", false
	}
	name := strings.TrimPrefix(path.Clean(fields[0]), "/")
	return name, filepath.IsLocal(name)
}

// swapOff turns the running system's swap off and returns the files that it was in.
func (s *sealer) swapOff() []string {
	table, err := os.ReadFile("/proc/swaps")
	if errors.Is(err, fs.ErrNotExist) {
		return nil // a kernel without swap
	}
	if err != nil {
		s.problem("proc/swaps", err)
		return nil
	}
	var files []string
	for i, line := range strings.Split(strings.TrimSpace(string(table)), "\n") {
		fields := strings.Fields(line)
		if i == 0 || len(fields) < 2 {
			continue
		}
		name := strings.TrimPrefix(unescape(fields[0]), "/")
		if strings.HasPrefix(name, "dev/zram") {
			continue // compressed memory, and no part of the disk
		}
		if !s.dry {
			if _, err := s.run("swapoff", "/"+name); err != nil {
				s.problem(name, err)
				continue
			}
		}
		s.did(name, "turned off", tally{})
		if fields[1] == "partition" {
			s.problem(name, errors.New("the partition may still hold the builder's memory: build without one, or discard it with blkdiscard and mkswap"))
			continue
		}
		files = append(files, name)
	}
	return files
}

// removeContainers removes every container through the engine where it runs. Where it doesn't, containers are a problem:
// their files are tied to the images' layers, and only the engine knows how.
func removeContainers(s *sealer) {
	if s.answers("run/docker.sock") {
		s.askEngine()
	} else if ids, err := listAt(s.root, "var/lib/docker/containers"); err == nil && len(ids) > 0 {
		s.problem("var/lib/docker/containers", fmt.Errorf("there are %d containers and the Docker Engine doesn't run: start it, remove them with docker rm, and seal again", len(ids)))
	}
	volumes, err := listAt(s.root, "var/lib/docker/volumes")
	if err != nil {
		return // no engine has ever run here
	}
	for _, name := range volumes {
		at := path.Join("var/lib/docker/volumes", name)
		if info, err := s.root.Lstat(at); err == nil && info.IsDir() {
			s.problem(at, errors.New("a volume holds the data of this machine's containers: remove it with docker volume rm, or keep it with --keep containers"))
		}
	}
}

func (s *sealer) askEngine() {
	engine, err := client.New(client.WithHost("unix://" + filepath.Join(s.path, "run/docker.sock")))
	if err != nil {
		s.problem("run/docker.sock", err)
		return
	}
	defer engine.Close()
	found, err := engine.ContainerList(s.ctx, client.ContainerListOptions{All: true})
	if err != nil {
		s.problem("run/docker.sock", err)
		return
	}
	for _, container := range found.Items {
		at := path.Join("var/lib/docker/containers", container.ID)
		if !s.dry {
			// Anonymous volumes go with their container: nobody could find them any more.
			_, err := engine.ContainerRemove(s.ctx, container.ID, client.ContainerRemoveOptions{Force: true, RemoveVolumes: true})
			if err != nil {
				s.problem(at, err)
				continue
			}
		}
		s.did(at, "removed: the container "+strings.TrimPrefix(strings.Join(container.Names, ", "), "/"), tally{})
	}
}
