package faults

import (
	"net"
	"os"
	"os/exec"

	"github.com/godbus/dbus/v5"

	"github.com/flowviz/flowagent/test/lab"
)

// goingDown answers on a bus in the place of a systemd that shuts the machine down. Tests in test/systemd do that for real,
// which takes a machine for each of them.
type goingDown struct{}

// Get is org.freedesktop.DBus.Properties' method.
func (goingDown) Get(object, property string) (dbus.Variant, *dbus.Error) {
	if object != "org.freedesktop.systemd1.Manager" || property != "SystemState" {
		return dbus.Variant{}, dbus.MakeFailedError(os.ErrNotExist)
	}
	return dbus.MakeVariant("stopping"), nil
}

// systemd gives the node's agents a service manager: the variables by which they find it.
func (n *node) systemd() []string {
	n.t.Helper()
	notify, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: n.path("notify"), Net: "unixgram"})
	if err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(func() { _ = notify.Close() })
	go func() {
		for heard := make([]byte, 4096); ; {
			if _, err := notify.Read(heard); err != nil {
				return
			}
		}
	}()
	address := "unix:path=" + n.path("bus")
	out, in, err := os.Pipe()
	if err != nil {
		n.t.Fatal(err)
	}
	defer out.Close()
	daemon := exec.Command(lab.Program(n.t, "dbus-daemon"), "--session", "--nofork", "--nopidfile", "--address="+address, "--print-address=3")
	daemon.ExtraFiles = []*os.File{in}
	err = daemon.Start()
	_ = in.Close()
	if err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(func() {
		_ = daemon.Process.Kill()
		_ = daemon.Wait()
	})
	if _, err := out.Read(make([]byte, 256)); err != nil { // its address, once it listens
		n.t.Fatalf("the bus does not start: %v", err)
	}
	bus, err := dbus.Connect(address)
	if err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(func() { _ = bus.Close() })
	if err := bus.Export(goingDown{}, "/org/freedesktop/systemd1", "org.freedesktop.DBus.Properties"); err != nil {
		n.t.Fatal(err)
	}
	if _, err := bus.RequestName("org.freedesktop.systemd1", dbus.NameFlagDoNotQueue); err != nil {
		n.t.Fatal(err)
	}
	return []string{"NOTIFY_SOCKET=" + n.path("notify"), "DBUS_SYSTEM_BUS_ADDRESS=" + address}
}
