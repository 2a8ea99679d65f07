package nodefiles

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/moby/moby/client"

	"github.com/flowviz/flowagent/test/lab"
)

// startEngine starts this machine's dockerd with the settings, in namespaces of its own, and ends it. It returns what dockerd
// said where it ended by itself, which is before it looks at networks or storage where a setting is wrong.
func startEngine(t *testing.T, settings map[string]any) string {
	t.Helper()
	lab.Root(t)
	disk := os.Getenv(lab.DiskVariable)
	if disk == "" {
		t.Skip("dockerd wants a disk of a lab: run the tests with `make test` or scripts/test.sh")
	}
	dir, err := os.MkdirTemp(disk, "engine-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	// Sockets' names are short.
	run, err := os.MkdirTemp("", "engine-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(run) })
	content, err := json.Marshal(settings)
	if err != nil {
		t.Fatal(err)
	}
	config := filepath.Join(dir, "daemon.json")
	if err := os.WriteFile(config, content, 0o600); err != nil {
		t.Fatal(err)
	}
	address := "unix://" + filepath.Join(run, "docker.sock")
	// With its process namespace all that it started ends. The script waits, so that it isn't dockerd that is process 1.
	cmd := exec.Command("unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--",
		"sh", "-c", `ip link set lo up && dockerd "$@"; exit $?`, "-",
		"--config-file", config, "--host", address, "--data-root", filepath.Join(dir, "data"),
		"--exec-root", filepath.Join(run, "exec"), "--pidfile", filepath.Join(run, "docker.pid"), "--exec-opt", "native.cgroupdriver=cgroupfs")
	cmd.Env = append(os.Environ(), "PATH="+os.Getenv("PATH")+":/usr/sbin:/sbin")
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	cmd.WaitDelay = 10 * time.Second // for a process that has the output open while it is being killed
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		_ = cmd.Wait()
		close(ended)
	}()
	defer func() {
		_ = cmd.Process.Kill()
		<-ended
	}()
	engine, err := client.New(client.WithHost(address))
	if err != nil {
		t.Fatal(err)
	}
	defer engine.Close()
	over := false
	eventually(t, "an engine that answers or ends", func() bool {
		select {
		case <-ended:
			over = true
			return true
		default:
		}
		_, err := engine.Ping(t.Context(), client.PingOptions{})
		return err == nil
	})
	if over {
		return "dockerd ended: " + said.String()
	}
	info, err := engine.Info(t.Context(), client.InfoOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if !info.Info.LiveRestoreEnabled || info.Info.LoggingDriver != "local" {
		t.Errorf("engine %s: got live restore %v and log driver %s, want what daemon.json says", info.Info.ServerVersion, info.Info.LiveRestoreEnabled, info.Info.LoggingDriver)
	}
	t.Logf("Docker Engine %s", info.Info.ServerVersion)
	return ""
}
