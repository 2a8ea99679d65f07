package faults

import (
	"context"
	"embed"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/client"
	"golang.org/x/sys/unix"

	"github.com/flowviz/flowagent/agent/control"
	"github.com/flowviz/flowagent/internal/awsfake"
	"github.com/flowviz/flowagent/test/lab"
)

//go:embed node
var nodeFiles embed.FS

const (
	image       = "faults/app:1"
	instance    = "i-1234567890abcdef0" // the metadata mock's own
	scaling     = "faults-group"
	hookName    = "faults-terminate"
	terminating = "autoscaling:EC2_INSTANCE_TERMINATING"
	target      = "arn:aws:elasticloadbalancing:us-east-1:123456789012:targetgroup/faults/0123456789abcdef"
	// hookTimeout is the shortest that Auto Scaling takes (PutLifecycleHook): heartbeats come every ten seconds.
	hookTimeout = 30 * time.Second
	// lookEvery is how often the node is asked for its health.
	lookEvery = 50 * time.Millisecond
)

// settings are what a fault needs of its node.
type settings struct {
	budget time.Duration // of the drain; a minute if zero, which no cell without a fault needs
	worker string        // the command of a service; it lingers for a moment if empty
	grace  time.Duration // of that service; ten seconds if zero
	hooks  string        // drain.hooks, in YAML
}

// node is one instance with all that surrounds it.
type node struct {
	t        *testing.T
	dir      string
	project  string
	host     string // an address of its own
	port     int    // of the application, its own as well: all applications share a network
	engine   *client.Client
	relay    *relay
	aws      *awsfake.Server
	group    *awsfake.Lifecycle
	targets  *awsfake.Targets
	metadata *lab.MetadataServer
	door     *door
	env      []string
	agents   []*agent
	watched  *watched

	trigger  trigger      // what makes it drain
	held     *held        // a call of AWS that waits
	unlock   func()       // of the store
	answered <-chan error // what became of a request that must be answered; nil for none
}

var nodes atomic.Int64

// newNode makes an instance in service, whose metadata nobody can ask yet. It is gone after the test.
func newNode(t *testing.T, s settings) *node {
	t.Helper()
	lab.Root(t)
	plugin, address := lab.ComposePlugin(t), lab.Engine(t)
	lab.AppImage(t, image)
	engine, err := client.New(client.WithHost(address))
	if err != nil {
		t.Fatal(err)
	}
	// Not t.TempDir: a socket's path has at most 107 bytes (unix(7)).
	dir, err := os.MkdirTemp("", "faults-")
	if err != nil {
		t.Fatal(err)
	}
	number := int(nodes.Add(1))
	n := &node{
		t: t, dir: dir, engine: engine, project: filepath.Base(dir), port: 20000 + number,
		// Package e2e, which may run beside this one, has the addresses up to 127.125.255.255.
		host: fmt.Sprintf("127.%d.%d.%d", 126+os.Getpid()%125, number/250, 1+number%250),
	}
	t.Cleanup(func() { _ = engine.Close() })
	t.Cleanup(n.clean)
	n.relay = newRelay(t, n.path("engine.sock"), strings.TrimPrefix(address, "unix://"))
	n.surround()
	n.write(s)
	for _, sub := range []string{"docker/cli-plugins", "tmp"} {
		if err := os.MkdirAll(n.path(sub), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(plugin, n.path("docker/cli-plugins/docker-compose")); err != nil {
		t.Fatal(err)
	}
	n.env = append(n.env,
		"PATH="+os.Getenv("PATH"), "HOME="+n.dir, "TMPDIR="+n.path("tmp"), "DOCKER_CONFIG="+n.path("docker"),
		"GORACE=atexit_sleep_ms=0", // else every end comes a second late
	)
	return n
}

func (n *node) path(name string) string { return filepath.Join(n.dir, name) }
func (n *node) store() string           { return n.path("run/secrets") }

// surround makes the instance's group, its target group and its metadata.
func (n *node) surround() {
	n.t.Helper()
	aws, err := awsfake.New("")
	if err != nil {
		n.t.Fatal(err)
	}
	n.aws, n.group = aws, awsfake.NewLifecycle(nil)
	n.group.Serve(aws)
	n.group.Add(awsfake.LifecycleHook{Group: scaling, Name: hookName, Transition: terminating, Timeout: hookTimeout, Default: "ABANDON"})
	n.group.Place(instance, scaling, "InService")
	n.targets = aws.Targets(time.Now, time.Hour)
	n.targets.Add(target, n.port)
	n.targets.Register(target, instance, n.port, "healthy")
	aws.Handle("DescribeAutoScalingGroups", answering(`<DescribeAutoScalingGroupsResponse><DescribeAutoScalingGroupsResult><AutoScalingGroups><member>
		<AutoScalingGroupName>`+scaling+`</AutoScalingGroupName><TargetGroupARNs><member>`+target+`</member></TargetGroupARNs>
		</member></AutoScalingGroups></DescribeAutoScalingGroupsResult></DescribeAutoScalingGroupsResponse>`))
	aws.Handle("DescribeTargetGroupAttributes", answering(`<DescribeTargetGroupAttributesResponse><DescribeTargetGroupAttributesResult><Attributes><member>
		<Key>deregistration_delay.timeout_seconds</Key><Value>300</Value>
		</member></Attributes></DescribeTargetGroupAttributesResult></DescribeTargetGroupAttributesResponse>`))
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		n.t.Fatal(err)
	}
	serve(n.t, listener, aws)
	n.metadata = lab.MetadataService(n.t, n.announcements(announced{state: "InService"}))
	n.door = newDoor(n.t, n.host+":1338", n.metadata.URL)
	n.env = []string{"AWS_ENDPOINT_URL=http://" + listener.Addr().String(), "AWS_EC2_METADATA_SERVICE_ENDPOINT=http://" + n.door.address}
}

func answering(body string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, body) })
}

// announced is what EC2 says to the instance; empty for nothing.
type announced struct {
	state     string // target lifecycle state
	spot      string // instance action, as JSON
	rebalance string // recommendation, as JSON
}

// announce changes what EC2 says.
func (n *node) announce(a announced) {
	n.t.Helper()
	if err := n.metadata.Configure(n.announcements(a)); err != nil {
		n.t.Fatal(err)
	}
}

// announcements has the mock serve values of its own at the paths of announcements, since its own are always there.
func (n *node) announcements(a announced) string {
	n.t.Helper()
	const unused = announcementPath + "unused/"
	config, err := json.Marshal(map[string]any{
		"userdata": map[string]any{"values": map[string]any{"userdata": base64.StdEncoding.EncodeToString([]byte("# not flowagent's"))}},
		"metadata": map[string]any{
			"paths": map[string]any{
				"target-lifecycle-state": unused + "1", "spot": unused + "2", "rebalance-rec-time": unused + "3", "events": unused + "4",
				"kernel-id":     announcementPath + "autoscaling/target-lifecycle-state",
				"ramdisk-id":    announcementPath + "spot/instance-action",
				"product-codes": announcementPath + "events/recommendations/rebalance",
			},
			"values": map[string]any{"kernel-id": a.state, "ramdisk-id": a.spot, "product-codes": a.rebalance, "instance-life-cycle": "spot"},
		},
	})
	if err != nil {
		n.t.Fatal(err)
	}
	return string(config)
}

// write makes the node's files.
func (n *node) write(s settings) {
	n.t.Helper()
	if s.budget == 0 {
		s.budget = time.Minute
	}
	if s.worker == "" {
		s.worker = "trap -linger 200ms"
	}
	if s.grace == 0 {
		s.grace = 10 * time.Second
	}
	if s.hooks == "" {
		s.hooks = "[{name: noted, argv: [/usr/bin/touch, " + n.path("hooked") + "]}]"
	}
	places := strings.NewReplacer("@DIR@", n.dir, "@PROJECT@", n.project, "@ENGINE@", n.path("engine.sock"), "@APP@", image,
		"@WEB@", n.web(), "@PORT@", fmt.Sprint(n.port), "@WORKER@", s.worker, "@GRACE@", s.grace.String(),
		"@HEALTH@", n.host+":9180", "@BUDGET@", s.budget.String(), "@HOOKS@", s.hooks)
	for _, name := range []string{"config.yaml", "compose.yaml"} {
		content, err := nodeFiles.ReadFile("node/" + name)
		if err != nil {
			n.t.Fatal(err)
		}
		if err := os.WriteFile(n.path(name), []byte(places.Replace(string(content))), 0o600); err != nil {
			n.t.Fatal(err)
		}
	}
	if err := os.WriteFile(n.path("key"), []byte("key-number-one"), 0o600); err != nil {
		n.t.Fatal(err)
	}
}

func (n *node) web() string { return fmt.Sprintf("%s:%d", n.host, n.port) }

// start runs an agent, as systemd starts one again that was killed.
func (n *node) start(environment []string, arguments ...string) *agent {
	n.t.Helper()
	a := startAgent(n.t, n.dir, append(n.env, environment...), arguments...)
	n.agents = append(n.agents, a)
	return a
}

// agent is the one that was started last.
func (n *node) agent() *agent { return n.agents[len(n.agents)-1] }

// awaitReady waits until /health says so, and watches it from then on.
func (n *node) awaitReady() {
	n.t.Helper()
	eventually(n.t, "the node is ready", func() bool {
		select {
		case <-n.agent().ended:
			n.t.Fatalf("the agent ended with %d in its boot", n.agent().code)
		default:
		}
		code, _, err := n.health()
		return err == nil && code == http.StatusOK
	})
	n.watched = watch(n)
}

// health is what /health answers.
func (n *node) health() (code int, state string, err error) {
	// A connection for each question, as after a restart of the agent; and an answer that takes longer is none.
	asker := http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 10 * time.Second}
	response, err := asker.Get("http://" + n.host + ":9180/health")
	if err != nil {
		return 0, "", err
	}
	defer response.Body.Close()
	var answer struct{ State string }
	err = json.NewDecoder(response.Body).Decode(&answer)
	return response.StatusCode, answer.State, err
}

// ask opens a request that the application answers after so long, and returns what becomes of it.
func (n *node) ask(d time.Duration) <-chan error {
	n.t.Helper()
	answered := make(chan error, 1)
	begun := make(chan struct{})
	transport := &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
		defer close(begun)
		return (&net.Dialer{}).DialContext(ctx, network, address)
	}}
	n.t.Cleanup(transport.CloseIdleConnections)
	go func() {
		response, err := (&http.Client{Transport: transport}).Get(fmt.Sprintf("http://%s/slow/%s", n.web(), d))
		if err == nil {
			var body []byte
			body, err = io.ReadAll(response.Body)
			_ = response.Body.Close()
			if err == nil && string(body) != "done\n" {
				err = fmt.Errorf("got %q", body)
			}
		}
		answered <- err
	}()
	<-begun
	return answered
}

// drain is what `flowagent drain` does.
func (n *node) drain(ctx context.Context) error {
	return control.NewClient(n.path("run/agent.sock")).Drain(ctx, operatorsWish)
}

// running are the services of which a container runs.
func (n *node) running() []string {
	n.t.Helper()
	list, err := n.engine.ContainerList(n.t.Context(), client.ContainerListOptions{Filters: n.filter()})
	if err != nil {
		n.t.Fatal(err)
	}
	var services []string
	for _, c := range list.Items {
		services = append(services, c.Labels["com.docker.compose.service"])
	}
	return services
}

func (n *node) filter() client.Filters {
	return make(client.Filters).Add("label", "com.docker.compose.project="+n.project)
}

// secrets are the files left in the store.
func (n *node) secrets() []string {
	n.t.Helper()
	var files []string
	err := filepath.WalkDir(n.store(), func(path string, _ fs.DirEntry, err error) error {
		if path != n.store() && err == nil {
			files = append(files, path)
		}
		return err
	})
	if err != nil {
		n.t.Fatal(err)
	}
	return files
}

// clean removes all of the node.
func (n *node) clean() {
	for _, a := range n.agents {
		a.signal(syscall.SIGKILL)
		<-a.ended
		if n.t.Failed() {
			n.t.Logf("an agent, which ended with %d:\n%s", a.code, a.log())
		}
	}
	if n.watched != nil {
		n.watched.stop()
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience) // the test's own is done
	defer cancel()
	list, err := n.engine.ContainerList(ctx, client.ContainerListOptions{All: true, Filters: n.filter()})
	if err != nil {
		n.t.Error(err)
	}
	for _, c := range list.Items {
		if _, err := n.engine.ContainerRemove(ctx, c.ID, client.ContainerRemoveOptions{Force: true}); err != nil && !errdefs.IsNotFound(err) {
			n.t.Error(err)
		}
	}
	if err := unix.Unmount(n.store(), unix.MNT_DETACH); err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
		n.t.Error(err)
	}
	if err := os.RemoveAll(n.dir); err != nil {
		n.t.Error(err)
	}
}

// watched is what /health said from the moment that the node was ready.
type watched struct {
	cancel   context.CancelFunc
	done     chan struct{}
	drained  atomic.Bool // it said 503 and draining
	returned atomic.Bool // and later 200
}

// watch asks for /health until it is stopped. An agent that is not there says nothing.
func watch(n *node) *watched {
	ctx, cancel := context.WithCancel(context.Background())
	w := &watched{cancel: cancel, done: make(chan struct{})}
	go func() {
		defer close(w.done)
		tick := time.NewTicker(lookEvery)
		defer tick.Stop()
		for ctx.Err() == nil {
			code, state, err := n.health()
			switch {
			case err != nil:
			case code == http.StatusServiceUnavailable && state == "draining":
				w.drained.Store(true)
			case code == http.StatusOK && w.drained.Load():
				w.returned.Store(true)
			}
			select {
			case <-tick.C:
			case <-ctx.Done():
			}
		}
	}()
	return w
}

// stop may be called more than once.
func (w *watched) stop() {
	w.cancel()
	<-w.done
}

// eventually polls until holds does.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	late := time.Now().Add(patience)
	for !holds() {
		if time.Now().After(late) {
			t.Fatalf("not in %v: %s", patience, what)
		}
		time.Sleep(lookEvery)
	}
}
