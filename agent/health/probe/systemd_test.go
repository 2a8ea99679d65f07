package probe

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	systemd "github.com/coreos/go-systemd/v22/dbus"
	"github.com/godbus/dbus/v5"

	"github.com/flowviz/flowagent/test/lab"
)

// manager answers on a bus in systemd's place, in which the tests of the service itself run a real one.
type manager map[string]systemd.UnitStatus

func (m manager) ListUnitsByNames(names []string) ([]systemd.UnitStatus, *dbus.Error) {
	var found []systemd.UnitStatus
	for _, name := range names {
		unit, ok := m[name]
		if !ok { // as systemd does
			unit = systemd.UnitStatus{LoadState: "not-found", ActiveState: "inactive", SubState: "dead"}
		}
		unit.Name, unit.Path, unit.JobPath = name, "/org/freedesktop/systemd1/unit/x", "/"
		found = append(found, unit)
	}
	return found, nil
}

// startBus starts a dbus-daemon, lets the probe take it for the system's bus, and returns its address.
func startBus(t *testing.T) string {
	t.Helper()
	address := "unix:path=" + filepath.Join(shortDir(t), "bus")
	out, in, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	cmd := exec.Command(lab.Program(t, "dbus-daemon"), "--session", "--nofork", "--nopidfile", "--address="+address, "--print-address=3")
	cmd.ExtraFiles = []*os.File{in}
	err = cmd.Start()
	_ = in.Close()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	if _, err := out.Read(make([]byte, 256)); err != nil { // its address, once it listens
		t.Fatalf("the bus does not start: %v", err)
	}
	t.Setenv("DBUS_SYSTEM_BUS_ADDRESS", address)
	return address
}

func (m manager) serve(t *testing.T, address string) {
	t.Helper()
	bus, err := dbus.Connect(address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = bus.Close() })
	if err := bus.Export(m, "/org/freedesktop/systemd1", "org.freedesktop.systemd1.Manager"); err != nil {
		t.Fatal(err)
	}
	if _, err := bus.RequestName("org.freedesktop.systemd1", dbus.NameFlagDoNotQueue); err != nil {
		t.Fatal(err)
	}
}

func TestSystemd_TheUnitsStateDecides(t *testing.T) {
	unit := func(load, active, sub string) systemd.UnitStatus {
		return systemd.UnitStatus{LoadState: load, ActiveState: active, SubState: sub}
	}
	manager{
		"nginx.service":   unit("loaded", "active", "running"),
		"data.mount":      unit("loaded", "active", "mounted"),
		"reload.service":  unit("loaded", "reloading", "reload"),
		"start.service":   unit("loaded", "activating", "start"),
		"loop.service":    unit("loaded", "activating", "auto-restart"),
		"stop.service":    unit("loaded", "deactivating", "stop-sigterm"),
		"off.service":     unit("loaded", "inactive", "dead"),
		"broken.service":  unit("loaded", "failed", "failed"),
		"masked.service":  unit("masked", "inactive", "dead"),
		"bad.service":     unit("bad-setting", "inactive", "dead"),
		"removed.service": unit("not-found", "active", "running"), // its file is gone, and it runs on
	}.serve(t, startBus(t))
	for name, want := range map[string]Result{
		"nginx.service":   {Status: Pass, Output: "nginx.service is active (running)"},
		"data.mount":      {Status: Pass, Output: "data.mount is active (mounted)"},
		"reload.service":  {Status: Warn, Output: "reload.service is reloading (reload)"},
		"start.service":   {Status: Warn, Output: "start.service is activating (start)"},
		"loop.service":    {Output: "loop.service is activating (auto-restart): see systemctl status loop.service"},
		"stop.service":    {Output: "stop.service is deactivating (stop-sigterm): see systemctl status stop.service"},
		"off.service":     {Output: "off.service is inactive (dead): see systemctl status off.service"},
		"broken.service":  {Output: "broken.service is failed: see systemctl status broken.service"},
		"masked.service":  {Output: "masked.service is inactive: it is masked"},
		"bad.service":     {Output: "bad.service is inactive: its unit file has a bad setting"},
		"removed.service": {Status: Pass, Output: "removed.service is active (running)"},
		"none.service":    {Output: "none.service is inactive: there is no such unit"},
	} {
		t.Run(name, func(t *testing.T) {
			if got := (&Systemd{Unit: name}).Probe(t.Context()); got != want {
				t.Errorf("got %+v, want %+v", got, want)
			}
		})
	}
}

func TestSystemd_LeavesNoConnectionBehind(t *testing.T) {
	address := startBus(t)
	manager{"x.service": {LoadState: "loaded", ActiveState: "active"}}.serve(t, address)
	bus, err := dbus.Connect(address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = bus.Close() })
	clients := func() int {
		var names []string
		if err := bus.BusObject().Call("org.freedesktop.DBus.ListNames", 0).Store(&names); err != nil {
			t.Fatal(err)
		}
		return len(slices.DeleteFunc(names, func(name string) bool { return !strings.HasPrefix(name, ":") }))
	}
	before := clients()
	for range 10 {
		expect(t, (&Systemd{Unit: "x.service"}).Probe(t.Context()), Pass, "x.service is active")
	}
	settle(t, "clients", before, clients)
}

func TestSystemd_WithoutABusOrSystemdFails(t *testing.T) {
	t.Setenv("DBUS_SYSTEM_BUS_ADDRESS", "unix:path=/nonexistent/bus")
	expect(t, (&Systemd{Unit: "x.service"}).Probe(t.Context()), Fail, "connect to the system bus: no such file or directory")
	startBus(t)
	expect(t, (&Systemd{Unit: "x.service"}).Probe(t.Context()), Fail, "ask systemd for x.service: ")
}

func TestSystemd_ABusThatSpeaksNonsenseFails(t *testing.T) {
	s := newSilent(t) // for its socket's directory only
	for i, answer := range []string{"HTTP/1.1 400\r\n\r\n", "REJECTED\r\n", "OK\r\n", "\x00\x00\r\n", strings.Repeat("x", 1<<16)} {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			socket := fmt.Sprint(s.socket, i)
			sayOn(t, listenOn(t, "unix", socket), answer)
			t.Setenv("DBUS_SYSTEM_BUS_ADDRESS", "unix:path="+socket)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			expect(t, (&Systemd{Unit: "x.service"}).Probe(ctx), Fail, "connect to the system bus: ")
		})
	}
}
