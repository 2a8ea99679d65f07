package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"embed"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/client"
	"golang.org/x/sys/unix"

	"github.com/flowviz/flowagent/internal/awsfake"
	"github.com/flowviz/flowagent/test/bench/process"
	"github.com/flowviz/flowagent/test/lab"
)

//go:embed node
var files embed.FS

const (
	appImage  = "bench/drain:1" // as node/compose.yaml has it, and the next three
	project   = "bench-drain"
	services  = 2
	webURL    = "http://127.0.0.1:8080"
	healthURL = "http://127.0.0.1:9180/health"

	instance    = "i-1234567890abcdef0" // the metadata mock's own
	group       = "bench"
	hook        = "bench-terminate"
	target      = "arn:aws:elasticloadbalancing:us-east-1:123456789012:targetgroup/bench/0123456789abcdef"
	terminating = "autoscaling:EC2_INSTANCE_TERMINATING"

	// requestTakes is the answer that is under way when the node hears of its end: longer than that and the edge take.
	requestTakes = 5 * time.Second
	// lookEvery is how exactly the 503 is timed.
	lookEvery = 2 * time.Millisecond
	// roundLimit is far above any round, which takes ten seconds on a quiet machine.
	roundLimit = 3 * time.Minute
)

// node is a machine that boots and drains again and again, with its group around it.
type node struct {
	agent     string
	dir       string
	engine    *client.Client
	mock      *lab.MetadataServer
	metadata  *metadata
	aws       *awsfake.Server
	scaling   *awsfake.Lifecycle
	balancing *awsfake.Targets
	completed chan time.Time // when the hook's completion was called for
	env       []string
}

func newNode(ctx context.Context, agent string) (_ *node, err error) {
	if os.Getenv(lab.DirectoryVariable) == "" {
		return nil, errors.New("this boots a node, which is for a lab: run test/bench/run.sh drain")
	}
	n := &node{agent: agent, completed: make(chan time.Time, 1)}
	defer func() {
		if err != nil {
			n.close()
		}
	}()
	if n.dir, err = os.MkdirTemp("", "drain"); err != nil {
		return nil, err
	}
	if n.engine, err = client.New(client.WithHost(os.Getenv(lab.EngineVariable))); err != nil {
		return nil, err
	}
	archive, err := lab.AppArchive(appImage, nil)
	if err != nil {
		return nil, err
	}
	if err := lab.LoadImage(ctx, n.engine, bytes.NewReader(archive)); err != nil {
		return nil, err
	}
	for _, name := range []string{"config.yaml", "compose.yaml"} {
		content, err := files.ReadFile("node/" + name)
		if err != nil {
			return nil, err
		}
		text := strings.NewReplacer("@DIR@", n.dir, "@ENGINE@", os.Getenv(lab.EngineVariable)).Replace(string(content))
		if err := os.WriteFile(n.path(name), []byte(text), 0o600); err != nil {
			return nil, err
		}
	}
	if err := os.WriteFile(n.path("key"), []byte(rand.Text()), 0o600); err != nil {
		return nil, err
	}
	return n, n.surround(ctx)
}

func (n *node) path(name string) string { return filepath.Join(n.dir, name) }

// surround starts instance metadata and AWS.
func (n *node) surround(ctx context.Context) (err error) {
	if n.mock, err = lab.StartMetadataMock(ctx, n.dir, ""); err != nil {
		return err
	}
	if n.metadata, err = newMetadata(n.mock.URL); err != nil {
		return err
	}
	metadataURL, err := serve(n.metadata)
	if err != nil {
		return err
	}
	if n.aws, err = awsfake.New(""); err != nil {
		return err
	}
	n.scaling = awsfake.NewLifecycle(nil)
	n.scaling.Serve(n.aws)
	n.scaling.Add(awsfake.LifecycleHook{Group: group, Name: hook, Transition: terminating, Timeout: 2 * time.Minute, Default: "CONTINUE"})
	n.balancing = n.aws.Targets(time.Now, time.Hour)
	n.balancing.Add(target, 8080)
	n.aws.Handle("DescribeAutoScalingGroups", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(w, `<DescribeAutoScalingGroupsResponse><DescribeAutoScalingGroupsResult><AutoScalingGroups><member><AutoScalingGroupName>%s</AutoScalingGroupName>
			<TargetGroupARNs><member>%s</member></TargetGroupARNs></member></AutoScalingGroups></DescribeAutoScalingGroupsResult></DescribeAutoScalingGroupsResponse>`, group, target)
	}))
	n.aws.Inject("CompleteLifecycleAction", awsfake.Always, func(next http.Handler) http.Handler {
		at := time.Now()
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			select {
			case n.completed <- at:
			default: // a second call, which nobody waits for
			}
			next.ServeHTTP(w, r)
		})
	})
	awsURL, err := serve(n.aws)
	n.env = []string{"AWS_ENDPOINT_URL=" + awsURL, "AWS_EC2_METADATA_SERVICE_ENDPOINT=" + metadataURL}
	return err
}

// round boots the node, leaves it alone for a while, and has it terminated.
func (n *node) round(ctx context.Context, wait time.Duration) (r round, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, roundLimit, fmt.Errorf("not over after %v", roundLimit))
	defer cancel()
	select {
	case <-n.completed: // a second one of the round before
	default:
	}
	n.metadata.state.Store("InService")
	n.scaling.Place(instance, group, "InService")
	n.balancing.Register(target, instance, 8080, "healthy")
	agent, err := process.Start(process.Command{
		Arguments: []string{n.agent, "run", "--config", n.path("config.yaml"), "--run-dir", n.path("run"), "--state-dir", n.path("state")},
		Env:       n.env,
	})
	if err != nil {
		return r, err
	}
	defer func() {
		if err != nil {
			err = agent.Blame(err)
		}
		agent.Close()
		err = errors.Join(err, n.clean(context.WithoutCancel(ctx)))
	}()
	if _, err := process.Poll(ctx, healthURL, agent.Started); err != nil {
		return r, err
	}
	asked, since := n.metadata.questions.Load(), time.Now()
	if err := rest(ctx, wait); err != nil {
		return r, err
	}
	r.questions = float64(n.metadata.questions.Load()-asked) / time.Since(since).Seconds()

	stopped := n.watchStops(ctx)
	answered := make(chan error, 1)
	go func() { answered <- request(ctx) }()
	n.balancing.Deregister(target, instance, 8080)
	n.scaling.Begin(instance, terminating)
	changed := time.Now()
	n.metadata.state.Store("Terminated")
	if r.noticed, err = awaitDraining(ctx, changed); err != nil {
		return r, err
	}
	if err := <-answered; err != nil {
		return r, fmt.Errorf("the request under way: %w", err)
	}
	ended := time.Now()
	select {
	case at := <-n.completed:
		r.completed = at.Sub(ended)
	case <-ctx.Done():
		return r, fmt.Errorf("the hook's completion: %w", context.Cause(ctx))
	}
	stops := <-stopped
	if stops.err != nil {
		return r, stops.err
	}
	for _, s := range stops.spans {
		if s.from.Before(ended) {
			return r, errors.New("a container was stopped before the request was answered: the machine is too busy")
		}
	}
	r.stopping = together(stops.spans)
	return r, nil
}

// request asks for an answer that takes its time, on a connection of its own.
func request(ctx context.Context) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("%s/slow/%s", webURL, requestTakes), nil)
	if err != nil {
		return err
	}
	r.Close = true
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	_, err = io.Copy(io.Discard, response.Body)
	return err
}

// awaitDraining asks for /health until it answers 503.
func awaitDraining(ctx context.Context, since time.Time) (time.Duration, error) {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, healthURL, nil)
		if err != nil {
			return 0, err
		}
		response, err := http.DefaultClient.Do(r)
		if err != nil {
			return 0, fmt.Errorf("ask for /health: %w", err)
		}
		_, err = io.Copy(io.Discard, response.Body)
		_ = response.Body.Close()
		if err == nil && response.StatusCode == http.StatusServiceUnavailable {
			return time.Since(since), nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return 0, fmt.Errorf("/health's 503: %w", context.Cause(ctx))
		}
	}
}

// stops are the containers' own: what the engine says of their signals and ends.
type stops struct {
	spans []span
	err   error
}

// watchStops returns at once, and tells of the stops when every service has had one.
func (n *node) watchStops(ctx context.Context) <-chan stops {
	stream := n.engine.Events(ctx, client.EventsListOptions{Filters: make(client.Filters).
		Add("type", string(events.ContainerEventType)).Add("event", "kill", "die").Add("label", "com.docker.compose.project="+project)})
	told := make(chan stops, 1)
	go func() {
		signalled := make(map[string]time.Time)
		var seen stops
		for len(seen.spans) < services {
			select {
			case e := <-stream.Messages:
				at := time.Unix(0, e.TimeNano)
				if _, known := signalled[e.Actor.ID]; !known {
					signalled[e.Actor.ID] = at
				}
				if e.Action == events.ActionDie {
					seen.spans = append(seen.spans, span{signalled[e.Actor.ID], at})
				}
			case err := <-stream.Err:
				told <- stops{err: fmt.Errorf("the engine's events: %w", err)}
				return
			}
		}
		told <- seen
	}()
	return told
}

// rest waits.
func rest(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// clean removes what a round left.
func (n *node) clean(ctx context.Context) error {
	list, err := n.engine.ContainerList(ctx, client.ContainerListOptions{All: true, Filters: make(client.Filters).Add("label", "com.docker.compose.project="+project)})
	errs := []error{err}
	for _, c := range list.Items {
		_, err := n.engine.ContainerRemove(ctx, c.ID, client.ContainerRemoveOptions{Force: true})
		errs = append(errs, err)
	}
	if err := unix.Unmount(n.path("run/secrets"), unix.MNT_DETACH); err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
		errs = append(errs, err)
	}
	return errors.Join(append(errs, os.RemoveAll(n.path("run")), os.RemoveAll(n.path("state")))...)
}

// close removes the node, as far as there is one.
func (n *node) close() {
	var errs []error
	if n.mock != nil {
		n.mock.Stop()
	}
	if n.engine != nil {
		errs = append(errs, n.engine.Close())
	}
	if err := errors.Join(append(errs, os.RemoveAll(n.dir))...); err != nil {
		fmt.Fprintln(os.Stderr, "bench: clean up:", err)
	}
}
