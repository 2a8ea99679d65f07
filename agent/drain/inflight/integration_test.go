package inflight

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/client"
	"golang.org/x/sys/unix"

	"github.com/flowviz/flowagent/test/lab"
)

const testImage = "inflight-test/app:1"

// site is a compose project's containers on the lab's engine, gone after the test.
type site struct {
	t       *testing.T
	engine  *client.Client
	name    string
	network string
}

func newSite(t *testing.T) *site {
	t.Helper()
	address := lab.Engine(t)
	lab.AppImage(t, testImage)
	engine, err := client.New(client.WithHost(address))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = engine.Close() })
	name := fmt.Sprintf("inflight-%d-%s", os.Getpid(), strings.ToLower(t.Name()))
	// Compose makes one for each project, too.
	if _, err := engine.NetworkCreate(t.Context(), name, client.NetworkCreateOptions{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		// The test's own context is done by then.
		if _, err := engine.NetworkRemove(context.Background(), name, client.NetworkRemoveOptions{}); err != nil {
			t.Error(err)
		}
	})
	return &site{t: t, engine: engine, name: name, network: name}
}

// running is a container of the site.
type running struct {
	id   string
	port string // on the machine, of its port 8080
}

// start runs the app's HTTP server on port, which is published unless mode is the network of something else. It has a
// user of its own, as services should.
func (s *site) start(service string, mode container.NetworkMode, port uint16) running {
	s.t.Helper()
	inside, _ := network.PortFrom(port, network.TCP)
	config := &container.Config{
		Image: testImage, User: "1000", Cmd: []string{"serve", "-addr", ":" + strconv.Itoa(int(port))},
		Labels: map[string]string{"com.docker.compose.project": s.name, "com.docker.compose.service": service, "com.docker.compose.oneoff": "False"},
	}
	host := &container.HostConfig{NetworkMode: mode}
	if mode == "" {
		host.NetworkMode = container.NetworkMode(s.network)
		host.PortBindings = network.PortMap{inside: {{HostIP: netip.MustParseAddr("0.0.0.0")}}}
	}
	if !mode.IsContainer() { // the engine refuses it there
		config.ExposedPorts = network.PortSet{inside: {}}
	}
	created, err := s.engine.ContainerCreate(s.t.Context(), client.ContainerCreateOptions{Config: config, HostConfig: host})
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { s.remove(created.ID) })
	if _, err := s.engine.ContainerStart(s.t.Context(), created.ID, client.ContainerStartOptions{}); err != nil {
		s.t.Fatal(err)
	}
	r := running{id: created.ID, port: strconv.Itoa(int(port))}
	if mode == "" {
		inspected, err := s.engine.ContainerInspect(s.t.Context(), created.ID, client.ContainerInspectOptions{})
		if err != nil {
			s.t.Fatal(err)
		}
		r.port = inspected.Container.NetworkSettings.Ports[inside][0].HostPort
	}
	return r
}

// remove kills a container, too; one that is gone already is no failure.
func (s *site) remove(id string) {
	_, _ = s.engine.ContainerRemove(context.Background(), id, client.ContainerRemoveOptions{Force: true})
}

func (s *site) counter(idleAfter time.Duration) *Counter {
	return New(Options{Containers: Project{s.engine, s.name}, IdleAfter: idleAfter})
}

func (s *site) count(c *Counter) string {
	s.t.Helper()
	counts, err := c.Count(s.t.Context())
	if err != nil {
		s.t.Fatal(err)
	}
	return counts.String()
}

// wait waits for the end of the work, at most a minute on a busy machine, and returns the last counts.
func (s *site) wait(c *Counter) string {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), time.Minute)
	defer cancel()
	counts, err := c.Wait(ctx, 0, nil)
	if err != nil {
		s.t.Fatalf("%v; last counts: %v", err, counts)
	}
	return counts.String()
}

// ask opens a connection and asks for path on it, again until something answers there.
func (s *site) ask(address, path string) net.Conn {
	s.t.Helper()
	for {
		// Without probes of its own, like a load balancer.
		conn, err := (&net.Dialer{KeepAlive: -1}).DialContext(s.t.Context(), "tcp", address)
		if err == nil {
			// docker-proxy accepts before the service listens, and the lab's own address is where it is asked.
			if _, err = answer(conn, "/health"); err == nil {
				s.t.Cleanup(func() { _ = conn.Close() })
				if _, err = fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: test\r\n\r\n", path); err != nil {
					s.t.Fatal(err)
				}
				return conn
			}
			_ = conn.Close()
		}
		select {
		case <-s.t.Context().Done():
			s.t.Fatalf("ask %s: %v", address, err)
		case <-time.After(20 * time.Millisecond): // a container starts in some hundred
		}
	}
}

// answer asks for a path and reads the answer to its end.
func answer(conn net.Conn, path string) (string, error) {
	if _, err := fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: test\r\n\r\n", path); err != nil {
		return "", err
	}
	return read(conn)
}

func read(conn net.Conn) (string, error) {
	response, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	return string(body), err
}

// bridge is the machine's own address in the site's network: the packet filter leads what comes there to published
// ports, and docker-proxy what comes to loopback.
func (s *site) bridge() string {
	s.t.Helper()
	inspected, err := s.engine.NetworkInspect(s.t.Context(), s.network, client.NetworkInspectOptions{})
	if err != nil {
		s.t.Fatal(err)
	}
	return inspected.Network.IPAM.Config[0].Gateway.String()
}

// far is an idle time that no connection of a test reaches.
const far = time.Hour

func TestARequestUnderWayIsWaitedFor(t *testing.T) {
	s := newSite(t)
	web := s.start("web", "", 8080)
	for name, address := range map[string]string{"packet filter": s.bridge(), "docker-proxy": "127.0.0.1"} {
		conn := s.ask(net.JoinHostPort(address, web.port), "/slow/1h")
		counter := s.counter(far)
		if got, want := s.count(counter), "web: 1 busy"; got != want {
			t.Errorf("%s: under way: got %q, want %q", name, got, want)
		}
		seen := make(chan struct{}, 1)
		go func() {
			<-seen
			_ = conn.Close()
		}()
		counts, err := counter.Wait(t.Context(), 0, func(Counts) {
			select {
			case seen <- struct{}{}:
			default:
			}
		})
		if err != nil || counts.String() != "none" {
			t.Errorf("%s: given up: got %q and error %v, want none", name, counts, err)
		}
	}
}

func TestAnAnsweredRequestsConnectionIsDoneWhenItIsIdle(t *testing.T) {
	s := newSite(t)
	web := s.start("web", "", 8080)
	for name, address := range map[string]string{"packet filter": s.bridge(), "docker-proxy": "127.0.0.1"} {
		conn := s.ask(net.JoinHostPort(address, web.port), "/slow/1s")
		if got, want := s.wait(s.counter(2*time.Second)), "web: 1 idle"; got != want {
			t.Errorf("%s: got %q, want %q", name, got, want)
		}
		if got, err := read(conn); err != nil || got != "done\n" {
			t.Errorf("%s: got answer %q and error %v, want done", name, got, err)
		}
		_ = conn.Close()
		if got, want := s.wait(s.counter(far)), "none"; got != want {
			t.Errorf("%s: closed: got %q, want %q", name, got, want)
		}
	}
}

// The app's server probes every 15 s, as each of Go's does, and this test takes longer than that: whether the kernel shows
// probes as expected can't be seen sooner.
func TestTheServersProbesAreNoWork(t *testing.T) {
	const moreThanInterval = 18 * time.Second
	s := newSite(t)
	web := s.start("web", "", 8080)
	for range 3 {
		if _, err := read(s.ask(net.JoinHostPort(s.bridge(), web.port), "/health")); err != nil {
			t.Fatal(err)
		}
	}
	if got, want := s.wait(s.counter(moreThanInterval)), "web: 3 idle"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestAHalfClosedRequestIsBusy(t *testing.T) {
	s := newSite(t)
	web := s.start("web", "", 8080)
	conn := s.ask(net.JoinHostPort(s.bridge(), web.port), "/slow/1h")
	// The app's server gives a request up when its client half-closes, but not before it has read what came first.
	if _, err := io.WriteString(conn, strings.Repeat("x", 1<<16)); err != nil {
		t.Fatal(err)
	}
	if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if got, want := s.count(s.counter(time.Nanosecond)), "web: 1 busy"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestContainersThatShareANetworkAreCountedOnce(t *testing.T) {
	s := newSite(t)
	web := s.start("web", "", 8080)
	s.ask(net.JoinHostPort(s.bridge(), web.port), "/slow/1h")
	s.start("sidecar", container.NetworkMode("container:"+web.id), 9090)
	if got, want := s.count(s.counter(far)), "web: 1 busy"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestTheHostsNetworkIsCountedByExposedPorts(t *testing.T) {
	s := newSite(t)
	address := netip.MustParseAddrPort(lab.DeafAddress(t)) // until the app listens there
	s.start("web", "host", address.Port())
	s.ask(address.String(), "/slow/1h")
	if got, want := s.count(s.counter(far)), "web: 1 busy"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestAContainerThatIsGoneHasNothingUnderWay(t *testing.T) {
	s := newSite(t)
	web := s.start("web", "", 8080)
	s.ask(net.JoinHostPort(s.bridge(), web.port), "/slow/1h")
	before, err := Project{s.engine, s.name}.Running(t.Context())
	if err != nil || len(before) != 1 || !slices.Equal(before[0].Ports, []uint16{8080}) {
		t.Fatalf("got %+v and error %v, want one container with port 8080", before, err)
	}
	counter := s.counter(far)
	removed := false
	counts, err := counter.Wait(t.Context(), 0, func(Counts) {
		if !removed {
			removed = true
			s.remove(web.id)
		}
	})
	if err != nil || counts.String() != "none" {
		t.Errorf("got %q and error %v, want none", counts, err)
	}
	// Whoever still believes that it runs.
	if got, want := s.count(New(Options{Containers: listed(before)})), "none"; got != want {
		t.Errorf("by its old process: got %q, want %q", got, want)
	}
}

// The unit's capabilities, in the low half of the sets: nobody's processes may be traced, root's included.
const unitCapabilities = 1<<unix.CAP_CHOWN | 1<<unix.CAP_FOWNER | 1<<unix.CAP_DAC_READ_SEARCH

func TestTheUnitsCapabilitiesAreEnough(t *testing.T) {
	s := newSite(t)
	web := s.start("web", "", 8080)
	s.ask(net.JoinHostPort(s.bridge(), web.port), "/slow/1h")
	done := make(chan string)
	go func() {
		defer close(done)
		runtime.LockOSThread() // and never unlocked: the thread ends with this function
		header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		var data [2]unix.CapUserData
		data[0].Effective, data[0].Permitted = unitCapabilities, unitCapabilities
		if err := unix.Capset(&header, &data[0]); err != nil {
			done <- err.Error()
			return
		}
		counts, err := s.counter(far).Count(t.Context())
		if err != nil {
			done <- err.Error()
			return
		}
		done <- counts.String()
	}()
	// Known to be busy, and not unknown: conntrack may be read as well.
	if got, want := <-done, "web: 1 busy"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
