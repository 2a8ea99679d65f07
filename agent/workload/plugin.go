package workload

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

const pluginName = "docker-compose"

// oldestPlugin is the first Compose with both merge tags, !reset and !override
// (https://docs.docker.com/reference/compose-file/merge/).
var oldestPlugin = [3]int{2, 24, 4}

// versionTimeout is far above the tenth of a second it takes, for a machine that reads the binary from a cold disk.
const versionTimeout = 30 * time.Second

// ErrNoPlugin says that no compose plugin was found.
var ErrNoPlugin = errors.New("no Docker Compose plugin")

// FindPlugin finds the machine's compose plugin as the docker command line does, in dirs or, without any, in the
// directories that it looks in, and asks for its version. The plugin is a program that runs by itself; the docker
// command line needs not be there.
//
// The error wraps [ErrNoPlugin] when there is none. A plugin that is too old, or isn't one, is another error.
func FindPlugin(ctx context.Context, dirs ...string) (path, version string, err error) {
	if len(dirs) == 0 {
		dirs = pluginDirectories()
	}
	for _, dir := range dirs {
		candidate := filepath.Join(dir, pluginName)
		info, err := os.Stat(candidate)
		if err != nil || !info.Mode().IsRegular() || info.Mode().Perm()&0o111 == 0 {
			continue
		}
		version, err := pluginVersion(ctx, candidate)
		if err != nil {
			return "", "", err
		}
		return candidate, version, nil
	}
	return "", "", fmt.Errorf("%w in %s: install the package docker-compose-plugin (docker-compose-v2 on Ubuntu)", ErrNoPlugin, strings.Join(dirs, ", "))
}

func pluginDirectories() []string {
	var dirs []string
	if dir := os.Getenv("DOCKER_CONFIG"); dir != "" {
		dirs = append(dirs, filepath.Join(dir, "cli-plugins"))
	}
	dirs = append(dirs,
		filepath.Join(homeDirectory(), ".docker/cli-plugins"),
		"/usr/local/lib/docker/cli-plugins",
		"/usr/local/libexec/docker/cli-plugins",
		"/usr/lib/docker/cli-plugins",
		"/usr/libexec/docker/cli-plugins",
	)
	return dirs
}

func pluginVersion(ctx context.Context, path string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, versionTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, "version", "--short")
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=/nonexistent", "DOCKER_CONFIG=/nonexistent"}
	cmd.WaitDelay = time.Second // for a program that leaves a child with its output open
	var stdout, stderr tail
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("%s version: %w: %s", path, err, strings.Join(stderr.lines(3), " "))
	}
	version := strings.TrimSpace(string(bytes.TrimPrefix(bytes.TrimSpace(stdout.buf), []byte("v"))))
	numbers, ok := parseVersion(version)
	if !ok {
		return "", fmt.Errorf("%s says it has the version %q: it is not a Docker Compose plugin", path, version)
	}
	if slices.Compare(numbers[:], oldestPlugin[:]) < 0 {
		return "", fmt.Errorf("%s is Docker Compose %s, which has no !reset: install %d.%d.%d or newer", path, version, oldestPlugin[0], oldestPlugin[1], oldestPlugin[2])
	}
	return version, nil
}

var versionPattern = regexp.MustCompile(`^(\d{1,6})\.(\d{1,6})\.(\d{1,6})([-+~].*)?$`)

func parseVersion(s string) (numbers [3]int, ok bool) {
	match := versionPattern.FindStringSubmatch(s)
	if match == nil {
		return numbers, false
	}
	for i := range numbers {
		numbers[i], _ = strconv.Atoi(match[i+1]) // at most six digits
	}
	return numbers, true
}
