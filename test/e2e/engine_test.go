package e2e

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/google/go-cmp/cmp"
	"github.com/moby/moby/api/pkg/stdcopy"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"
)

// box is what tells that nobody touched a container: it would be another one, or have another start.
type box struct {
	ID, StartedAt string
	Restarts      int
}

func (n *node) filter() client.Filters {
	return make(client.Filters).Add("label", "com.docker.compose.project="+n.project)
}

// inspect returns the project's containers by name, those that ended included.
func (n *node) inspect() map[string]client.ContainerInspectResult {
	n.t.Helper()
	list, err := n.engine.ContainerList(n.t.Context(), client.ContainerListOptions{All: true, Filters: n.filter()})
	if err != nil {
		n.t.Fatal(err)
	}
	found := map[string]client.ContainerInspectResult{}
	for _, item := range list.Items {
		c, err := n.engine.ContainerInspect(n.t.Context(), item.ID, client.ContainerInspectOptions{})
		if err != nil {
			n.t.Fatal(err)
		}
		found[strings.TrimPrefix(c.Container.Name, "/")] = c
	}
	return found
}

// boxes are the project's containers by service, which has one.
func (n *node) boxes() map[string]box {
	n.t.Helper()
	found := map[string]box{}
	for name, c := range n.inspect() {
		service := c.Container.Config.Labels["com.docker.compose.service"]
		if _, twice := found[service]; twice {
			n.t.Errorf("service %s has more than one container, %s among them", service, name)
		}
		found[service] = box{c.Container.ID, c.Container.State.StartedAt, c.Container.RestartCount}
	}
	return found
}

// container inspects a service's only container.
func (n *node) container(service string) container.InspectResponse {
	n.t.Helper()
	for _, c := range n.inspect() {
		if c.Container.Config.Labels["com.docker.compose.service"] == service {
			return c.Container
		}
	}
	n.t.Fatalf("service %s has no container", service)
	return container.InspectResponse{}
}

// checkUntouched fails when a container of before is gone, is another one or was started again.
func (n *node) checkUntouched(before map[string]box, services ...string) {
	n.t.Helper()
	now := n.boxes()
	if len(services) == 0 {
		if diff := cmp.Diff(before, now); diff != "" {
			n.t.Errorf("containers were touched (-before +now):\n%s", diff)
		}
		return
	}
	for _, service := range services {
		if diff := cmp.Diff(before[service], now[service]); diff != "" {
			n.t.Errorf("the container of %s was touched (-before +now):\n%s", service, diff)
		}
	}
}

// inside runs the app's program in a service's container and returns what it printed.
func (n *node) inside(service string, arguments ...string) (string, error) {
	n.t.Helper()
	c := n.container(service)
	created, err := n.engine.ExecCreate(n.t.Context(), c.ID, client.ExecCreateOptions{
		Cmd: append([]string{"/app"}, arguments...), AttachStdout: true, AttachStderr: true,
	})
	if err != nil {
		return "", err
	}
	attached, err := n.engine.ExecAttach(n.t.Context(), created.ID, client.ExecAttachOptions{})
	if err != nil {
		return "", err
	}
	defer attached.Close()
	var stdout, stderr bytes.Buffer
	if _, err := stdcopy.StdCopy(&stdout, &stderr, attached.Reader); err != nil {
		return "", err
	}
	ended, err := n.engine.ExecInspect(n.t.Context(), created.ID, client.ExecInspectOptions{})
	if err != nil {
		return "", err
	}
	if ended.ExitCode != 0 {
		return stdout.String(), &insideError{ended.ExitCode, strings.TrimSpace(stderr.String())}
	}
	return stdout.String(), nil
}

// insideError is a program in a container that failed.
type insideError struct {
	code int
	said string
}

func (e *insideError) Error() string { return "exit code " + strconv.Itoa(e.code) + ": " + e.said }

// checkReads fails unless the service's container reads exactly this.
func (n *node) checkReads(service, path, want string) {
	n.t.Helper()
	got, err := n.inside(service, "cat", path)
	if err != nil {
		n.t.Errorf("%s reads %s: %v", service, path, err)
	} else if got != want {
		n.t.Errorf("%s reads %s: got %q, want %q", service, path, got, want)
	}
}

// logs is what a service's container wrote.
func (n *node) logs(service string) string {
	n.t.Helper()
	stream, err := n.engine.ContainerLogs(n.t.Context(), n.container(service).ID, client.ContainerLogsOptions{ShowStdout: true, ShowStderr: true})
	if err != nil {
		n.t.Fatal(err)
	}
	defer stream.Close()
	var out bytes.Buffer
	if _, err := stdcopy.StdCopy(&out, &out, stream); err != nil {
		n.t.Fatal(err)
	}
	return out.String()
}

// awaitLog waits until a service's container has written text.
func (n *node) awaitLog(service, text string) {
	n.t.Helper()
	ctx, cancel := context.WithTimeout(n.t.Context(), patience)
	defer cancel()
	stream, err := n.engine.ContainerLogs(ctx, n.container(service).ID, client.ContainerLogsOptions{ShowStdout: true, ShowStderr: true, Follow: true})
	if err != nil {
		n.t.Fatal(err)
	}
	defer stream.Close()
	want := &until{text: text, found: cancel}
	_, _ = stdcopy.StdCopy(want, want, stream) // ends with ctx
	if !strings.Contains(want.seen.String(), text) {
		n.t.Errorf("%s wrote %q, want %q in it", service, want.seen.String(), text)
	}
}

// until calls found when text was written.
type until struct {
	text  string
	found func()
	seen  strings.Builder
}

func (u *until) Write(p []byte) (int, error) {
	u.seen.Write(p)
	if strings.Contains(u.seen.String(), u.text) {
		u.found()
	}
	return len(p), nil
}

// removeContainers takes away the project's containers and networks, and the images of its registry.
func (n *node) removeContainers(ctx context.Context) {
	report := func(err error) {
		if err != nil && !errdefs.IsNotFound(err) {
			n.t.Error(err)
		}
	}
	containers, err := n.engine.ContainerList(ctx, client.ContainerListOptions{All: true, Filters: n.filter()})
	report(err)
	for _, c := range containers.Items {
		_, err := n.engine.ContainerRemove(ctx, c.ID, client.ContainerRemoveOptions{Force: true, RemoveVolumes: true})
		report(err)
	}
	networks, err := n.engine.NetworkList(ctx, client.NetworkListOptions{Filters: n.filter()})
	report(err)
	for _, network := range networks.Items {
		_, err := n.engine.NetworkRemove(ctx, network.ID, client.NetworkRemoveOptions{})
		report(err)
	}
	images, err := n.engine.ImageList(ctx, client.ImageListOptions{})
	report(err)
	for _, image := range images.Items {
		for _, ref := range append(image.RepoTags, image.RepoDigests...) {
			if strings.Contains(ref, "/"+n.project+"/") {
				_, err := n.engine.ImageRemove(ctx, ref, client.ImageRemoveOptions{})
				report(err)
			}
		}
	}
}

// running is one process of this machine.
type running struct {
	pid              int
	cmdline, environ string // arguments and variables, each ended by a NUL
}

// processes are all that can be seen from here: those of containers as well.
func processes(t *testing.T) []running {
	t.Helper()
	dirs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		t.Fatal(err)
	}
	var all []running
	for _, dir := range dirs {
		// A process may end in between, and the kernel's own have neither.
		cmdline, _ := os.ReadFile(filepath.Join(dir, "cmdline"))
		environ, _ := os.ReadFile(filepath.Join(dir, "environ"))
		if len(cmdline) == 0 {
			continue
		}
		pid, err := strconv.Atoi(filepath.Base(dir))
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, running{pid, string(cmdline), string(environ)})
	}
	return all
}
