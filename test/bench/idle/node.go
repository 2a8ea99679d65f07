package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	awsconfig "github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"
	"github.com/moby/moby/client"
	"golang.org/x/sys/unix"

	"github.com/flowviz/flowagent/test/bench/process"
	"github.com/flowviz/flowagent/test/lab"
)

const (
	appImage  = "bench/idle:1" // as node/compose.yaml has it
	secretID  = "bench/idle"   // as node/config.yaml has it, and the next two
	project   = "idle"
	healthURL = "http://127.0.0.1:9180/health"
	runDir    = "/run/flowagent" // the agent's default, on the lab's own tmpfs
	place     = "@POSTGRES@"     // in node/config.yaml, where the server's port goes
	// readyLimit is far above any boot, which takes seconds on a busy machine.
	readyLimit = 2 * time.Minute
)

// node is a booted node, with what it watches.
type node struct {
	engine   *client.Client
	database *lab.PostgresServer
	dir      string
	agent    *process.Process
}

// newNode boots a node and waits until it is ready.
func newNode(ctx context.Context, agent string) (_ *node, err error) {
	if os.Getenv(lab.DirectoryVariable) == "" || os.Getenv("AWS_ENDPOINT_URL") == "" {
		return nil, errors.New("this boots a node, which is for a lab: run test/bench/run.sh idle")
	}
	ctx, cancel := context.WithTimeoutCause(ctx, readyLimit, fmt.Errorf("not ready after %v", readyLimit))
	defer cancel()
	n := &node{}
	defer func() {
		if err != nil {
			n.close()
		}
	}()
	if n.dir, err = os.MkdirTemp("", "idle"); err != nil {
		return nil, err
	}
	if err := n.surround(ctx); err != nil {
		return nil, err
	}
	if err := n.configure(); err != nil {
		return nil, err
	}
	n.agent, err = process.Start(process.Command{
		Arguments: []string{agent, "run", "--config", n.path("config.yaml"), "--state-dir", n.path("state")},
	})
	if err != nil {
		return nil, err
	}
	return n, n.ready(ctx)
}

func (n *node) path(name string) string { return filepath.Join(n.dir, name) }

// surround starts what the node is made of and watches: an engine with the image, a secret, a database.
func (n *node) surround(ctx context.Context) (err error) {
	if n.engine, err = client.New(client.WithHost(os.Getenv(lab.EngineVariable))); err != nil {
		return err
	}
	archive, err := lab.AppArchive(appImage, nil)
	if err != nil {
		return err
	}
	if err := lab.LoadImage(ctx, n.engine, bytes.NewReader(archive)); err != nil {
		return err
	}
	cfg, err := awsconfig.LoadDefaultConfig(ctx)
	if err != nil {
		return err
	}
	name, text := secretID, rand.Text()
	_, err = secretsmanager.NewFromConfig(cfg).CreateSecret(ctx, &secretsmanager.CreateSecretInput{Name: &name, SecretString: &text})
	if err != nil {
		return fmt.Errorf("store the secret: %w", err)
	}
	// Its user is another than the one who made this directory.
	if err := os.Chmod(n.dir, 0o755); err != nil {
		return err
	}
	database := n.path("pg")
	if err := os.Mkdir(database, 0o755); err != nil {
		return err
	}
	n.database, err = lab.StartPostgres(ctx, database, lab.PostgresConfig{})
	return err
}

// configure writes the node's files.
func (n *node) configure() error {
	root, err := lab.ProjectDir()
	if err != nil {
		return err
	}
	for _, name := range []string{"config.yaml", "compose.yaml"} {
		content, err := os.ReadFile(filepath.Join(root, "test/bench/idle/node", name))
		if err != nil {
			return err
		}
		text := strings.ReplaceAll(string(content), place, strconv.Itoa(n.database.Port))
		if err := os.WriteFile(n.path(name), []byte(text), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// ready waits until every check passed.
func (n *node) ready(ctx context.Context) error {
	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	go func() {
		select {
		case <-n.agent.Ended():
			fail(n.agent.Early())
		case <-ctx.Done():
		}
	}()
	if _, err := process.Poll(ctx, healthURL, n.agent.Started); err != nil {
		return n.agent.Blame(err)
	}
	return nil
}

// measure waits until the boot is long over, and then looks at the agent without asking it anything.
func (n *node) measure(ctx context.Context, settle, window time.Duration) (cost, error) {
	if err := n.rest(ctx, settle); err != nil {
		return cost{}, err
	}
	samples := make([]sample, 0, parts+1)
	for i := range parts + 1 {
		if i > 0 {
			if err := n.rest(ctx, window/parts); err != nil {
				return cost{}, err
			}
		}
		s, err := n.look()
		if err != nil {
			return cost{}, err
		}
		samples = append(samples, s)
	}
	// An agent whose checks fail does other work than one that has nothing to do.
	if err := n.ready(ctx); err != nil {
		return cost{}, err
	}
	return costOf(samples), nil
}

func (n *node) look() (sample, error) {
	used, err := processorTime(n.agent.ID())
	if err != nil {
		return sample{}, err
	}
	at := time.Now()
	m, err := memoryOf(fmt.Sprintf("/proc/%d", n.agent.ID()))
	return sample{at: at, used: used, memory: m}, err
}

// rest waits, unless the agent ends.
func (n *node) rest(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-n.agent.Ended():
		return n.agent.Blame(n.agent.Early())
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// close ends the node and removes what it left, as far as it got.
func (n *node) close() {
	ctx := context.Background() // also after an interrupt
	var errs []error
	if n.agent != nil {
		n.agent.Close()
	}
	if n.database != nil {
		n.database.Signal(syscall.SIGQUIT) // the polite end waits for sessions
		n.database.Stop()
	}
	if n.engine != nil {
		errs = append(errs, n.removeContainers(ctx), n.engine.Close())
	}
	// Containers may still have them mounted.
	if err := unix.Unmount(filepath.Join(runDir, "secrets"), unix.MNT_DETACH); err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
		errs = append(errs, fmt.Errorf("unmount the agent's secrets: %w", err))
	}
	errs = append(errs, os.RemoveAll(runDir), os.RemoveAll(n.dir))
	if err := errors.Join(errs...); err != nil {
		fmt.Fprintln(os.Stderr, "bench: clean up:", err)
	}
}

func (n *node) removeContainers(ctx context.Context) error {
	filters := make(client.Filters).Add("label", "com.docker.compose.project="+project)
	containers, err := n.engine.ContainerList(ctx, client.ContainerListOptions{All: true, Filters: filters})
	if err != nil {
		return err
	}
	var errs []error
	for _, c := range containers.Items {
		_, err := n.engine.ContainerRemove(ctx, c.ID, client.ContainerRemoveOptions{Force: true, RemoveVolumes: true})
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}
