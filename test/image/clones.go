package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"time"
)

// identity is what tells one machine from another.
type identity struct {
	machine  string   // /etc/machine-id
	hostKeys []string // fingerprints, sorted
}

// container is one as the engine knows it; its Pid is 0 when it doesn't run.
type container struct {
	Name    string
	ID      string
	Started string
	Pid     int
}

// askContainers prints them as JSON. Python is there for cloud-init; the docker command need not be.
const askContainers = `python3 - <<'EOF'
import http.client, json, socket

def get(path):
    connection = http.client.HTTPConnection("localhost")
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.connect("/run/docker.sock")
    connection.request("GET", path)
    return json.load(connection.getresponse())

containers = [get("/containers/%s/json" % c["Id"]) for c in get("/containers/json?all=1")]
print(json.dumps(sorted(
    ({"Name": c["Name"], "ID": c["Id"], "Started": c["State"]["StartedAt"], "Pid": c["State"]["Pid"]} for c in containers),
    key=lambda c: c["Name"])))
EOF`

// containers are all of them, one-shots that have ended included.
func (m *machine) containers(ctx context.Context) ([]container, error) {
	out, err := m.sudo(ctx, askContainers)
	if err != nil {
		return nil, err
	}
	var found []container
	if err := json.Unmarshal([]byte(out), &found); err != nil {
		return nil, fmt.Errorf("the engine's containers: %w", err)
	}
	if !slices.ContainsFunc(found, func(c container) bool { return c.Pid != 0 }) {
		return nil, errors.New("the engine runs no container")
	}
	return found, nil
}

func (m *machine) askIdentity(ctx context.Context) (identity, error) {
	out, err := m.sudo(ctx, "cat /etc/machine-id\nfor key in /etc/ssh/ssh_host_*_key.pub; do ssh-keygen -l -f $key; done | cut -d ' ' -f 2 | sort")
	if err != nil {
		return identity{}, err
	}
	lines := strings.Fields(out)
	if len(lines) < 2 || len(lines[0]) != 32 {
		return identity{}, fmt.Errorf("machine %s has no machine-id, or no host key: %q", m.name, out)
	}
	return identity{machine: lines[0], hostKeys: lines[1:]}, nil
}

// boots makes a clone, switches it on and waits until it is fit to serve. The timeline is that of its boot.
func (p *proof) boots(ctx context.Context, c *clone) (timeline, bool) {
	var boot timeline
	ok := p.show(ctx, c.name+" boots, and answers 200 from outside", func(ctx context.Context) (string, error) {
		if err := p.newClone(ctx, c); err != nil {
			return "", err
		}
		if err := c.powerOn(ctx); err != nil {
			return "", err
		}
		answers, err := c.awaitHealthy(ctx, apiPort)
		if err != nil {
			return "", errors.Join(err, c.explain(ctx))
		}
		ready, err := c.awaitHealthy(ctx, healthPort)
		if err != nil {
			return "", errors.Join(err, c.explain(ctx))
		}
		began := c.console.kernelBegan()
		boot.answers, boot.marks = answers.Sub(began), []mark{{"flowagent's /health is 200 from outside", ready.Sub(began)}}
		return fmt.Sprintf("the application %.1f s after its kernel began, flowagent after %.1f s", boot.answers.Seconds(), ready.Sub(began).Seconds()), nil
	}) && p.show(ctx, c.name+" is ready under systemd, with no failed unit", func(ctx context.Context) (string, error) {
		return c.checkUnits(ctx)
	}) && p.show(ctx, c.name+" has a machine-id and host keys", func(ctx context.Context) (string, error) {
		var err error
		if c.identity, err = c.askIdentity(ctx); err != nil {
			return "", err
		}
		return fmt.Sprintf("%s…, %d keys", c.identity.machine[:8], len(c.identity.hostKeys)), nil
	})
	return boot, ok
}

// explain collects from a node that doesn't become ready what it says about that.
func (c *clone) explain(ctx context.Context) error {
	if c.running() != nil {
		return nil
	}
	ctx, cancel := within(ctx, 2*time.Minute, "asking "+c.name+" what is wrong")
	defer cancel()
	out, err := c.sudo(ctx, "flowagent status || true; systemctl --no-pager --failed || true; journalctl --no-pager --boot --priority=warning --lines=60; cloud-init status --long || true")
	if err != nil {
		return err
	}
	path := filepath.Join(c.dir, "explanation.log")
	if err := os.WriteFile(path, []byte(out), 0o644); err != nil {
		return err
	}
	return fmt.Errorf("see %s", path)
}

// checkUnits waits for the end of the boot: Type=notify makes the service active when it has said READY=1.
func (c *clone) checkUnits(ctx context.Context) (string, error) {
	ctx, cancel := within(ctx, bootLimit, "the end of the boot of "+c.name)
	defer cancel()
	out, err := c.sudo(ctx, "systemctl is-system-running --wait || true; systemctl --failed --plain --no-legend; systemctl show flowagent.service --property=Type,ActiveState,NRestarts,StatusText,UnitFileState; echo socket $(systemctl is-enabled flowagent.socket)")
	if err != nil {
		return "", err
	}
	// A first boot that takes the machine for a new one enables every unit that a preset doesn't forbid: the optional socket shows it.
	for _, want := range []string{"running", "Type=notify", "ActiveState=active", "NRestarts=0", "StatusText=ready", "UnitFileState=enabled", "socket disabled"} {
		if !strings.Contains("\n"+out+"\n", "\n"+want+"\n") {
			return "", fmt.Errorf("systemd doesn't say %q, but:\n%s", want, out)
		}
	}
	return "", nil
}

// serves takes a batch of food through the application, from outside.
func (p *proof) serves(ctx context.Context, c *clone) {
	p.show(ctx, "the WMS on "+c.name+" passes its smoke test", func(ctx context.Context) (string, error) {
		return p.smoke(ctx, c.machine, "smoke")
	})
}

func (p *proof) smoke(ctx context.Context, m *machine, log string) (string, error) {
	ctx, cancel := within(ctx, 5*time.Minute, "the smoke test")
	defer cancel()
	out, err := p.run(ctx, m.name+"/"+log, nil, "examples/wms/smoke.sh", m.url(apiPort, ""))
	if err == nil && !strings.HasSuffix(out, "smoke test passed") {
		err = fmt.Errorf("it didn't end as it should: %s", lastLines(out, 3))
	}
	return "", err
}

// survivesRestarts restarts the agent as an upgrade does.
func (p *proof) survivesRestarts(ctx context.Context, c *clone) {
	p.show(ctx, "systemctl restart flowagent touches no container of "+c.name, func(ctx context.Context) (string, error) {
		before, err := c.containers(ctx)
		if err != nil {
			return "", err
		}
		out, err := c.sudo(ctx, "systemctl show flowagent --property=MainPID --value; systemctl restart flowagent; systemctl show flowagent --property=MainPID --value")
		if err != nil {
			return "", err
		}
		if pids := strings.Fields(out); len(pids) != 2 || pids[0] == pids[1] {
			return "", fmt.Errorf("the agent's process was not another one: %s", out)
		}
		if _, err := c.awaitHealthy(ctx, healthPort); err != nil {
			return "", err
		}
		after, err := c.containers(ctx)
		if err != nil {
			return "", err
		}
		if !reflect.DeepEqual(before, after) {
			return "", fmt.Errorf("the containers were\n%v\nand are\n%v", before, after)
		}
		return fmt.Sprintf("%d of them", len(after)), nil
	})
}

// drainsAndReturns reboots, and reads in the journal what happened on the way down.
func (p *proof) drainsAndReturns(ctx context.Context, c *clone) bool {
	return p.show(ctx, c.name+" comes back ready from a reboot, as the same machine", func(ctx context.Context) (string, error) {
		began := c.console.kernelBegan()
		if err := c.order(ctx, "systemctl reboot"); err != nil {
			return "", err
		}
		limited, cancel := within(ctx, offLimit, "the way down of "+c.name)
		defer cancel()
		err := poll(limited, time.Second, func(context.Context) error {
			if now := c.console.kernelBegan(); now.IsZero() || !now.After(began.Add(time.Second)) {
				return errors.New("no other kernel has begun")
			}
			return nil
		})
		if err != nil {
			return "", err
		}
		c.disconnect()
		healthy, err := c.awaitHealthy(ctx, healthPort)
		if err != nil {
			return "", errors.Join(err, c.explain(ctx))
		}
		if _, err := c.checkUnits(ctx); err != nil {
			return "", err
		}
		now, err := c.askIdentity(ctx)
		if err != nil {
			return "", err
		}
		if !reflect.DeepEqual(now, c.identity) {
			return "", fmt.Errorf("it was %v and is %v", c.identity, now)
		}
		return fmt.Sprintf("%.1f s after its kernel began", healthy.Sub(c.console.kernelBegan()).Seconds()), nil
	}) && p.show(ctx, "on the way down it drained: services in order, before the engine stopped", func(ctx context.Context) (string, error) {
		out, err := c.sudo(ctx, "journalctl --boot=-1 --output=json --no-pager")
		if err != nil {
			return "", err
		}
		if err := os.WriteFile(filepath.Join(c.dir, "journal-before-reboot.json"), []byte(out), 0o644); err != nil {
			return "", err
		}
		return judgeShutdown(strings.NewReader(out))
	}) && p.show(ctx, "the WMS on "+c.name+" passes its smoke test again", func(ctx context.Context) (string, error) {
		return p.smoke(ctx, c.machine, "smoke-again")
	})
}

// isAnother compares two clones of one image.
func (p *proof) isAnother(ctx context.Context, a, b *clone) {
	p.show(ctx, a.name+" and "+b.name+" are two machines", func(context.Context) (string, error) {
		if a.identity.machine == b.identity.machine {
			return "", fmt.Errorf("both have the machine-id %s", a.identity.machine)
		}
		for _, one := range a.identity.hostKeys {
			for _, other := range b.identity.hostKeys {
				if one == other {
					return "", fmt.Errorf("both have the host key %s", one)
				}
			}
		}
		return "neither machine-id nor host keys in common", nil
	})
}

// leavesNothing switches the clone off and looks for its secrets on its disk.
func (p *proof) leavesNothing(ctx context.Context, c *clone) {
	var inJournal []string
	wanted := append([]needle{c.marker}, c.secrets...)
	p.show(ctx, "the journal of "+c.name+" has none of its secrets", func(ctx context.Context) (string, error) {
		// Searched as text as well, because on the disk long entries are compressed.
		out, err := c.sudo(ctx, "logger --tag proof <<<\"$(cat /var/lib/proof-marker)\"\njournalctl --sync\njournalctl --merge --output=export --no-pager")
		if err != nil {
			return "", err
		}
		inJournal, err = search(strings.NewReader(out), wanted...)
		if err != nil {
			return "", err
		}
		return fmt.Sprintf("%d KiB read", len(out)>>10), c.checkFound(inJournal)
	})
	raw := filepath.Join(c.dir, "disk.raw")
	p.show(ctx, "the disk of "+c.name+", switched off, has none of its secrets", func(ctx context.Context) (string, error) {
		if err := c.checkHealthy(ctx, healthPort); err != nil {
			return "", fmt.Errorf("before it is switched off: %w", err)
		}
		if err := c.powerOff(ctx); err != nil {
			return "", err
		}
		if _, err := p.run(ctx, c.name+"/raw", nil, "qemu-img", "convert", "-O", "raw", c.disk, raw); err != nil {
			return "", err
		}
		found, size, err := searchDisk(ctx, raw, wanted...)
		if err != nil {
			return "", err
		}
		return fmt.Sprintf("%d MiB read, journal and swap among them", size>>20), errors.Join(c.checkFound(found), os.Remove(raw))
	})
}

// checkFound wants the marker, without which the search was none, and nothing else.
func (c *clone) checkFound(found []string) error {
	var secrets []string
	marked := false
	for _, name := range found {
		if name == c.marker.name {
			marked = true
			continue
		}
		secrets = append(secrets, name)
	}
	switch {
	case len(secrets) > 0:
		return fmt.Errorf("found: %s", strings.Join(secrets, ", "))
	case !marked:
		return errors.New("the search didn't find the marker, which is there: it proves nothing")
	}
	return nil
}
