package probe

import (
	"context"
	"errors"
	"fmt"

	systemd "github.com/coreos/go-systemd/v22/dbus"
)

// Systemd passes when a unit of the system's systemd (230 or later) is active.
type Systemd struct {
	// Unit is its full name, such as nginx.service.
	Unit string
}

// Probe asks over the system bus, whose address DBUS_SYSTEM_BUS_ADDRESS may change. A unit that is reloading, or on
// its way up, is a warning: it was or will be active, and systemd itself limits how long that may take.
func (p *Systemd) Probe(ctx context.Context) Result {
	// The connection is for this call: one kept for all probes would have to survive restarts of the bus.
	bus, err := systemd.NewSystemConnectionContext(ctx)
	if err != nil {
		return failed("connect to the system bus: %v", plain(ctx, err))
	}
	defer bus.Close()
	units, err := bus.ListUnitsByNamesContext(ctx, []string{p.Unit})
	if err != nil {
		return failed("ask systemd for %s: %v", p.Unit, plain(ctx, err))
	}
	if len(units) != 1 {
		return failed("ask systemd for %s: %v", p.Unit, errors.New("it knows no such unit"))
	}
	return p.judge(units[0])
}

// judge goes by ActiveState, whose values are in org.freedesktop.systemd1(5).
func (p *Systemd) judge(unit systemd.UnitStatus) Result {
	text := fmt.Sprintf("%s is %s", p.Unit, unit.ActiveState)
	if unit.SubState != "" && unit.SubState != unit.ActiveState {
		text += " (" + unit.SubState + ")"
	}
	switch {
	case unit.ActiveState == "active":
		return passed("%s", text)
	case unit.LoadState != "loaded":
		return failed("%s is %s: %s", p.Unit, unit.ActiveState, loadStates[unit.LoadState])
	case unit.ActiveState == "reloading" || unit.ActiveState == "refreshing" || unit.ActiveState == "activating" && unit.SubState != "auto-restart":
		return warned("%s", text)
	}
	return failed("%s: see systemctl status %s", text, p.Unit)
}

var loadStates = map[string]string{
	"not-found":   "there is no such unit",
	"bad-setting": "its unit file has a bad setting",
	"error":       "its unit file can't be read",
	"masked":      "it is masked",
}
