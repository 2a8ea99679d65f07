package nodefiles

import (
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"

	"github.com/flowviz/flowagent/test/lab"
)

// inspect returns the one container of a service.
func inspect(t *testing.T, m *lab.MachineServer, service string) container.InspectResponse {
	t.Helper()
	engine := m.Engine(t)
	list, err := engine.ContainerList(t.Context(), client.ContainerListOptions{All: true, Filters: make(client.Filters).Add("label", "com.docker.compose.service="+service)})
	if err != nil {
		t.Fatal(err)
	}
	if len(list.Items) != 1 {
		t.Fatalf("got %d containers of %s, want one", len(list.Items), service)
	}
	c, err := engine.ContainerInspect(t.Context(), list.Items[0].ID, client.ContainerInspectOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return c.Container
}

func TestANodeBootsWithAllOfIt(t *testing.T) {
	t.Parallel()
	m := node(t)
	n := withNeighbours(t, m)

	t.Run("a key that was copied by hand is root's alone", func(t *testing.T) {
		if got := strings.TrimSpace(m.Run(t, "stat", "--format=%a %U", "/etc/flowagent/age.key")); got != "400 root" {
			t.Errorf("got %s, want 400 root", got)
		}
	})

	t.Run("the distribution's units are as the drop-ins have them", func(t *testing.T) {
		for unit, want := range map[string]string{
			"docker.service":  "StartLimitIntervalUSec=0", // the unit has its own limit in an older place
			"apt-daily.timer": "Persistent=no", "apt-daily-upgrade.timer": "Persistent=no",
		} {
			m.Run(t, "systemctl", "unmask", "--quiet", unit) // the lab masks the timers
			property, _, _ := strings.Cut(want, "=")
			if got := strings.TrimSpace(m.Run(t, "systemctl", "show", "--property="+property, unit)); got != want {
				t.Errorf("%s: got %s, want %s", unit, got, want)
			}
		}
	})

	t.Run("the packet filter lets in what it names", func(t *testing.T) {
		listener := m.Listen(t, "0.0.0.0:9999")
		go func() {
			for {
				conn, err := listener.Accept()
				if err != nil {
					return
				}
				conn.Close()
			}
		}()
		address := containerAddress(t, m, "web")
		inner := containerAddress(t, m, "inner")
		for _, c := range []struct {
			from, to string
			want     int
			why      string
		}{
			{"near", "10.99.0.1:9180", connected, "health"},
			{"far", "203.0.113.1:9180", connected, "health"},
			{"near", "10.99.0.1:22", connected, "SSH from a private network"},
			{"far", "203.0.113.1:22", unheard, "SSH from a public address"},
			{"near", "10.99.0.1:8000", connected, "a published port that is named"},
			{"far", "203.0.113.1:8000", connected, "a published port that is named"},
			{"near", "10.99.0.1:8080", unheard, "a published port that isn't named"},
			{"near", "10.99.0.1:8081", unheard, "a port that is published on the loopback"},
			{"near", "10.99.0.1:9999", unheard, "a program of the node that isn't named"},
			{"near", address + ":8080", unheard, "a container's own address"},
			{"near", inner + ":8080", unheard, "the own address of a container whose port is on the loopback"},
		} {
			n.reach(t, c.why, c.from, c.to, c.want)
		}
		// Without the filter each of them is open, so it was the filter that was silent.
		m.Run(t, "systemctl", "stop", "flowagent-firewall.service")
		for _, address := range []string{"10.99.0.1:8080", "10.99.0.1:9999", address + ":8080", inner + ":8080"} {
			n.reach(t, "without the filter", "near", address, connected)
		}
		m.Run(t, "systemctl", "start", "flowagent-firewall.service")
		// The node itself reaches each of them.
		for _, address := range []string{"127.0.0.1:8000", "127.0.0.1:8080", "127.0.0.1:8081", "127.0.0.1:9999"} {
			conn, err := m.Dial(t.Context(), "tcp", address)
			if err != nil {
				t.Errorf("from the node itself: %v", err)
				continue
			}
			conn.Close()
		}
		if t.Failed() {
			t.Log(m.Run(t, "nft", "list", "ruleset"))
		}
	})

	t.Run("the site's own rules come with a reload, and Docker's stay", func(t *testing.T) {
		docker := m.Run(t, "nft", "--stateless", "list", "table", "ip", "nat")
		if !strings.Contains(docker, "8000") {
			t.Fatalf("Docker's rules for port 8000 are not where this looks:\n%s", docker)
		}
		m.Put(t, "/etc/flowagent/firewall.d/site.nft", []byte("flush chain inet flowagent published\nadd rule inet flowagent published meta l4proto tcp ct original proto-dst 8080 accept\n"+
			"add rule inet flowagent published ip saddr 10.99.0.2 meta l4proto tcp ct original proto-dst 8000 accept\n"+
			"add rule inet flowagent node ip saddr 10.99.0.2 tcp dport 9998 accept\n"), 0o644)
		m.Run(t, "systemctl", "reload", "flowagent-firewall.service")
		for address, want := range map[string]int{"10.99.0.1:8080": connected, "10.99.0.1:8000": connected, "10.99.0.1:9998": refused} {
			n.reach(t, "a port of the site's rules", "near", address, want)
		}
		n.reach(t, "a port for another neighbour", "far", "203.0.113.1:8000", unheard)

		// A mistake: the rules before stay in force.
		m.Put(t, "/etc/flowagent/firewall.d/site.nft", []byte("add rule inet flowagent node tcp dort 1 accept\n"), 0o644)
		if _, _, code := m.Try(t, "systemctl", "reload", "flowagent-firewall.service"); code == 0 {
			t.Error("a reload with a mistake in the site's rules succeeded")
		}
		n.reach(t, "after a reload that failed", "near", "10.99.0.1:8080", connected)
		// At the boot there are none before: ours alone, and a failed unit.
		if _, _, code := m.Try(t, "systemctl", "restart", "flowagent-firewall.service"); code == 0 {
			t.Error("a start with a mistake in the site's rules succeeded")
		}
		n.reach(t, "after a start that failed", "near", "10.99.0.1:8080", unheard)
		n.reach(t, "SSH after a start that failed", "near", "10.99.0.1:22", connected)
		m.Run(t, "rm", "/etc/flowagent/firewall.d/site.nft")
		m.Run(t, "systemctl", "restart", "flowagent-firewall.service")
		if now := m.Run(t, "nft", "--stateless", "list", "table", "ip", "nat"); now != docker {
			t.Errorf("Docker's rules were\n%s\nand are\n%s", docker, now)
		}
	})

	t.Run("the engine is as daemon.json has it", func(t *testing.T) {
		info, err := m.Engine(t).Info(t.Context(), client.InfoOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if !info.Info.LiveRestoreEnabled || info.Info.LoggingDriver != "local" {
			t.Errorf("got live restore %v and log driver %s, want true and local", info.Info.LiveRestoreEnabled, info.Info.LoggingDriver)
		}
		if out, _, code := m.Try(t, "pgrep", "--list-full", "docker-proxy"); code != 1 {
			t.Errorf("the userland proxy runs: %s", out)
		}
		c := inspect(t, m, "web")
		if got := c.HostConfig.LogConfig; got.Type != "local" || got.Config["max-size"] != "20m" {
			t.Errorf("a container's log: got %v, want the local driver with 20m", got)
		}
		if got := containerAddress(t, m, "web"); !strings.HasPrefix(got, "172.30.") {
			t.Errorf("a container's address: got %s, want one of 172.30.0.0/16", got)
		}
		status := m.Run(t, "cat", fmt.Sprintf("/proc/%d/status", c.State.Pid))
		if !strings.Contains(status, "NoNewPrivs:\t1\n") {
			t.Errorf("a container may get new privileges:\n%s", status)
		}
		// What the agent says of a service that fails is read by the engine's API, from this driver as from any.
		logs, err := m.Engine(t).ContainerLogs(t.Context(), c.ID, client.ContainerLogsOptions{ShowStdout: true})
		if err != nil {
			t.Fatal(err)
		}
		defer logs.Close()
		if out, err := io.ReadAll(logs); err != nil || !strings.Contains(string(out), "listening on") {
			t.Errorf("a container's log by the API: got %q, %v", out, err)
		}
	})

	t.Run("the engine's restart touches no container", func(t *testing.T) {
		before := inspect(t, m, "web")
		m.Run(t, "systemctl", "restart", "docker.service")
		eventually(t, "the node passing again", func() bool {
			_, _, code := m.Try(t, "curl", "--silent", "--fail", "--output", "/dev/null", "http://127.0.0.1:9180/readyz")
			return code == 0
		})
		after := inspect(t, m, "web")
		if after.ID != before.ID || after.State.StartedAt != before.State.StartedAt {
			t.Errorf("the container was %s of %s and is %s of %s", before.ID, before.State.StartedAt, after.ID, after.State.StartedAt)
		}
		n.reach(t, "a published port", "near", "10.99.0.1:8000", connected)
	})

	t.Run("a drain waits for a neighbour's request", func(t *testing.T) {
		// Each request has a port of its own, and there may be several: one can be over before it is seen.
		var answer strings.Builder
		ended := make(chan error, 1)
		port := 20000
		ask := func() {
			answer.Reset()
			port++
			request := n.from(t.Context(), "near", "curl", "--silent", "--fail", "--max-time", "60", "--local-port", fmt.Sprint(port), "http://10.99.0.1:8000/slow/4s")
			request.Stdout = &answer
			if err := request.Start(); err != nil {
				t.Fatal(err)
			}
			go func() { ended <- request.Wait() }()
		}
		answered := func(err error) {
			if err != nil || answer.String() != "done\n" {
				t.Fatalf("the request that was under way: got %q, %v; want its answer", answer.String(), err)
			}
		}
		ask()
		eventually(t, "the request under way", func() bool {
			out := m.Run(t, "cat", "/proc/net/nf_conntrack")
			for line := range strings.Lines(out) {
				if strings.Contains(line, "ESTABLISHED src=10.99.0.2") && strings.Contains(line, fmt.Sprintf("sport=%d dport=8000", port)) {
					return true
				}
			}
			select {
			case err := <-ended:
				answered(err)
				ask()
			default:
			}
			return false
		})
		m.Run(t, "flowagent", "drain", "--timeout", "60s")
		answered(<-ended)
	})
}

func TestAShutdownDrainsAlsoWhereContainersOutliveTheEngine(t *testing.T) {
	t.Parallel()
	m := node(t)
	m.PowerOff(t)
	m.PowerOn(t)
	m.AwaitBooted(t)
	var told []string
	for _, entry := range m.Journal(t, "flowagent.service", "--boot=-1") {
		told = append(told, entry["FLOWAGENT_EVENT"])
	}
	log := strings.Join(told, "\n") + "\n"
	for event, want := range map[string]int{"drain started": 1, "container stopped": 3, "drain done": 1} {
		if got := strings.Count(log, event+"\n"); got != want {
			t.Errorf("the events of the boot before have %q %d times, want %d:\n%s", event, got, want, log)
		}
	}
	m.Run(t, "flowagent", "status", "--wait", patience.String())
	if c := inspect(t, m, "web"); !c.State.Running {
		t.Errorf("after the next boot web is %s, want running", c.State.Status)
	}
}
