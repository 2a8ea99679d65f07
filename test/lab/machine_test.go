package lab_test

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/client"
	"golang.org/x/sys/unix"

	"github.com/flowviz/flowagent/test/lab"
)

// patience bounds what a booted machine takes some seconds for; the rest is for a loaded CI machine.
const patience = 90 * time.Second

// await looks at something until it is as wanted.
func await(t *testing.T, what string, look func() error) {
	t.Helper()
	end := time.NewTimer(patience)
	defer end.Stop()
	ticker := time.NewTicker(50 * time.Millisecond) // short against what is awaited, long against a look
	defer ticker.Stop()
	for {
		err := look()
		if err == nil {
			return
		}
		select {
		case <-ticker.C:
		case <-end.C:
			t.Fatalf("%s: %v", what, err)
		}
	}
}

func TestMachineHasASystemdOfItsOwn(t *testing.T) {
	t.Parallel()
	m := lab.Machine(t)
	if got := strings.TrimSpace(m.Run(t, "cat", "/proc/1/comm")); got != "systemd" {
		t.Errorf("process 1: got %q, want systemd", got)
	}
	if got := m.Run(t, "systemctl", "is-active", "docker.service", "dbus.service"); got != "active\nactive\n" {
		t.Errorf("engine and D-Bus: got %q, want both active", got)
	}
	// A process may end between the list and the look at it.
	if got := m.Run(t, "sh", "-c", "cat /proc/[0-9]*/comm 2>/dev/null; :"); !strings.Contains(got, "systemd\n") || strings.Contains(got, "systemd-nspawn") {
		t.Errorf("got processes %s, want systemd and none of the lab's", got)
	}
	if got, want := m.Run(t, "env"), "LANG=C.UTF-8\n"; !strings.Contains(got, want) || strings.Contains(got, "FLOWAGENT") {
		t.Errorf("environment: got %s, want %s and nothing of the test's", got, want)
	}
	if got, want := m.Run(t, "sh", "-c", "grep ^0:: /proc/self/cgroup; pwd"), "0::/init.scope\n/\n"; got != want {
		t.Errorf("cgroup and directory of a command: got %q, want %q", got, want)
	}
	if _, stderr, code := m.Try(t, "sh", "-c", "echo no >&2; exit 7"); code != 7 || stderr != "no\n" {
		t.Errorf("failing command: got code %d and %q, want 7 and its words", code, stderr)
	}
	const plugin = "/usr/libexec/docker/cli-plugins/docker-compose"
	if _, err := os.Stat(lab.ComposePlugin(t)); err != nil {
		t.Fatal(err)
	}
	m.Run(t, plugin, "version", "--short")
}

func TestMachineTakesFilesAndTellsItsJournal(t *testing.T) {
	t.Parallel()
	m := lab.Machine(t)
	m.Put(t, "/etc/systemd/system/greeter.service", []byte(`[Service]
Type=oneshot
ExecStart=/opt/greeter/greet
`), 0o644)
	m.Put(t, "/opt/greeter/greet", []byte("#!/bin/sh\necho old\n"), 0o755)
	m.Put(t, "/opt/greeter/greet", []byte("#!/bin/sh\necho \"good $(cat /run/greeter)\"\n"), 0o755)
	m.Put(t, "/run/greeter", []byte("morning"), 0o600) // a file system of its own
	m.Run(t, "systemctl", "daemon-reload")
	m.Run(t, "systemctl", "start", "greeter")
	var cursor string
	for _, entry := range m.Journal(t, "greeter") {
		if entry["SYSLOG_IDENTIFIER"] == "greet" {
			if entry["MESSAGE"] != "good morning" {
				t.Errorf("got %q, want good morning", entry["MESSAGE"])
			}
			cursor = entry["__CURSOR"]
		}
	}
	if cursor == "" {
		t.Fatal("got no entry of the unit")
	}
	m.Put(t, "/run/greeter", []byte("\x1b[1mevening"), 0o600) // journalctl writes control characters as numbers
	m.Run(t, "systemctl", "start", "greeter")
	var got []string
	for _, entry := range m.Journal(t, "greeter", "--after-cursor="+cursor) {
		if entry["SYSLOG_IDENTIFIER"] == "greet" {
			got = append(got, entry["MESSAGE"])
		}
	}
	if want := "good \x1b[1mevening"; len(got) != 1 || got[0] != want {
		t.Errorf("after the cursor: got %q, want %q alone", got, want)
	}
	if content, err := os.ReadFile(m.Path("/run/greeter")); err != nil || !strings.Contains(string(content), "evening") {
		t.Errorf("from outside: got %q and error %v, want the file's content", content, err)
	}
}

func TestTwoMachinesAreApart(t *testing.T) {
	t.Parallel()
	one, other := lab.Machine(t), lab.Machine(t)
	one.Put(t, "/etc/mark", []byte("one"), 0o644)
	if stdout, _, code := other.Try(t, "cat", "/etc/mark"); code == 0 {
		t.Errorf("the other machine: got %q of the first one's file, want none", stdout)
	}
	ids := []string{one.Run(t, "cat", "/etc/machine-id"), other.Run(t, "cat", "/etc/machine-id")}
	if len(strings.TrimSpace(ids[0])) != 32 || ids[0] == ids[1] {
		t.Errorf("got machine ids %q, want two different ones", ids)
	}
	listener := one.Listen(t, "127.0.0.1:9180")
	go func() {
		_ = http.Serve(listener, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "one") }))
	}()
	if status, body := get(t, one.Client(), request(t, http.MethodGet, "http://127.0.0.1:9180/")); status != http.StatusOK || body != "one" {
		t.Errorf("in the first machine: got status %d and %q, want its server's answer", status, body)
	}
	if conn, err := other.Dial(t.Context(), "tcp", "127.0.0.1:9180"); err == nil {
		_ = conn.Close()
		t.Error("the other machine reached the first one's port")
	}
	if conn, err := net.Dial("tcp", "127.0.0.1:9180"); err == nil {
		_ = conn.Close()
		t.Error("the lab reached the first machine's port")
	}
}

func TestMachineRunsContainersWithItsEngine(t *testing.T) {
	t.Parallel()
	m := lab.Machine(t)
	const ref = "lab/machine:1"
	m.AppImage(t, ref)
	engine := m.Engine(t)
	info, err := engine.Info(t.Context(), client.InfoOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if info.Info.Driver != "overlay2" || info.Info.CgroupDriver != "systemd" || info.Info.CgroupVersion != "2" {
		t.Errorf("engine: got %s, %s and %s, want overlay2 under systemd's cgroup version 2", info.Info.Driver, info.Info.CgroupDriver, info.Info.CgroupVersion)
	}
	port := network.MustParsePort("8080/tcp")
	created, err := engine.ContainerCreate(t.Context(), client.ContainerCreateOptions{
		Name:   "web",
		Config: &container.Config{Image: ref, Cmd: []string{"serve"}, ExposedPorts: network.PortSet{port: {}}},
		HostConfig: &container.HostConfig{
			PortBindings:  network.PortMap{port: {{HostIP: netip.MustParseAddr("127.0.0.1"), HostPort: "8081"}}},
			RestartPolicy: container.RestartPolicy{Name: container.RestartPolicyAlways},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := engine.ContainerStart(t.Context(), created.ID, client.ContainerStartOptions{}); err != nil {
		t.Fatal(err)
	}
	answers := func() error {
		response, err := m.Client().Get("http://127.0.0.1:8081/health")
		if err != nil {
			return err
		}
		defer response.Body.Close()
		if _, err := io.Copy(io.Discard, response.Body); err != nil || response.StatusCode != http.StatusOK {
			return fmt.Errorf("got status %d and error %v, want 200", response.StatusCode, err)
		}
		return nil
	}
	await(t, "the container's published port", answers)
	m.Reboot(t)
	m.AwaitBooted(t)
	await(t, "the container's published port after a reboot", answers)
}

func TestRebootEmptiesRunAndKeepsDisks(t *testing.T) {
	t.Parallel()
	m := lab.Machine(t)
	kept := []string{"/etc/mark", "/var/lib/docker/mark"}
	lost := []string{"/run/mark", "/tmp/mark"}
	for _, path := range append(kept, lost...) {
		m.Put(t, path, []byte("here"), 0o644)
	}
	identity := m.Run(t, "cat", "/etc/machine-id")
	boot := m.Run(t, "cat", "/proc/1/stat")
	m.Reboot(t)
	m.AwaitBooted(t)
	m.Run(t, "ls", kept[0], kept[1])
	for _, path := range lost {
		if _, _, code := m.Try(t, "test", "-e", path); code == 0 {
			t.Errorf("%s outlived the reboot", path)
		}
	}
	if got := m.Run(t, "cat", "/etc/machine-id"); got != identity {
		t.Errorf("machine id: got %s after the reboot, want %s as before", got, identity)
	}
	if got := m.Run(t, "cat", "/proc/1/stat"); got == boot {
		t.Error("process 1 is the same as before the reboot")
	}
	if got := strings.Count(m.Run(t, "journalctl", "--list-boots", "--quiet"), "\n"); got != 2 {
		t.Errorf("the journal knows %d boots, want 2", got)
	}
}

func TestNothingIsLeftOfAMachine(t *testing.T) {
	t.Parallel()
	var gone []func() []string
	t.Run("that was on at its end", func(t *testing.T) {
		m := lab.Machine(t)
		m.AppImage(t, "lab/left:1")
		look := traces(t, m)
		if got := look(); len(got) < 10 {
			t.Errorf("got only %q of a machine that is on", got)
		}
		gone = append(gone, look)
	})
	t.Run("that was powered off and on", func(t *testing.T) {
		m := lab.Machine(t)
		look := traces(t, m)
		m.Put(t, "/etc/mark", []byte("here"), 0o644)
		m.PowerOff(t)
		if content, err := os.ReadFile(m.Path("/etc/mark")); err != nil || string(content) != "here" {
			t.Errorf("disk of a machine that is off: got %q and error %v, want the file", content, err)
		}
		if err := m.Command(t.Context(), "true").Run(); err == nil {
			t.Error("a machine that is off ran a command")
		}
		if got, want := look(), []string{"disk", "mount"}; !slices.Equal(got, want) {
			t.Errorf("got %q of a machine that is off, want %q", got, want)
		}
		m.PowerOn(t)
		m.AwaitBooted(t)
		m.Run(t, "cat", "/etc/mark")
		m.PowerOff(t)
		gone = append(gone, look)
	})
	for _, look := range gone {
		if got := look(); len(got) > 0 {
			t.Errorf("got %q after the machine's test, want nothing", got)
		}
	}
}

// traces returns a function that lists what there is of a machine, whatever other machines do at the time.
func traces(t *testing.T, m *lab.MachineServer) func() []string {
	t.Helper()
	dir := filepath.Join(os.Getenv(lab.DiskVariable), m.Name)
	var stat unix.Stat_t
	if err := unix.Stat(filepath.Join(dir, "root"), &stat); err != nil {
		t.Fatal(err)
	}
	exists := func(path string) bool {
		_, err := os.Lstat(path)
		return err == nil
	}
	// Once the machine's disk is unmounted, another one's may get the same numbers, and so the same lock.
	others := func() bool {
		roots, err := filepath.Glob(filepath.Join(os.Getenv(lab.DiskVariable), "*", "root"))
		if err != nil {
			t.Fatal(err)
		}
		return slices.ContainsFunc(roots, func(root string) bool {
			var other unix.Stat_t
			return root != filepath.Join(dir, "root") && unix.Stat(root, &other) == nil && other.Dev == stat.Dev && other.Ino == stat.Ino
		})
	}
	lock := fmt.Sprintf("/run/systemd/nspawn/locks/inode-%d:%d", stat.Dev, stat.Ino)
	return func() (found []string) {
		if exists(dir) {
			found = append(found, "disk")
		}
		if exists(lock) && !others() && exists(lock) { // the other one may go between the first two looks
			found = append(found, "lock")
		}
		for _, pattern := range []string{"/run/systemd/nspawn/*/" + m.Name, "/sys/fs/cgroup" + os.Getenv(lab.CgroupVariable) + "/" + m.Name, "/sys/fs/cgroup/*" + os.Getenv(lab.CgroupVariable) + "/" + m.Name} {
			paths, err := filepath.Glob(pattern)
			if err != nil {
				t.Fatal(err)
			}
			found = append(found, paths...)
		}
		mounts, err := os.ReadFile("/proc/self/mountinfo")
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(mounts), m.Name) {
			found = append(found, "mount")
		}
		processes, err := filepath.Glob("/proc/[0-9]*/cgroup")
		if err != nil {
			t.Fatal(err)
		}
		for _, process := range processes {
			content, err := os.ReadFile(process) // it may have ended by now
			if err == nil && strings.Contains(string(content), m.Name) {
				found = append(found, process)
			}
		}
		slices.Sort(found)
		return found
	}
}
