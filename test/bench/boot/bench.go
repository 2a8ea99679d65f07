package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	mathrand "math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	awsconfig "github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"
	"github.com/containerd/errdefs"
	"github.com/moby/moby/client"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/flowviz/flowagent/test/bench/figures"
	"github.com/flowviz/flowagent/test/lab"
)

// services are those of project/compose.yaml; each has an image of its name.
var services = []string{"web", "api", "worker", "scheduler", "cache"}

// payloadSize is what each image has in bytes that don't compress. Five of these take the engine about as long to pull
// and unpack as a small real application.
const payloadSize = 20 << 20

// bench is the machine that everyone boots, with all they need.
type bench struct {
	engine   *client.Client
	dir      string // temporary
	project  string // directory of the Compose files
	script   string
	agent    string
	plugin   string
	password string
}

func newBench(agent string) (*bench, error) {
	if os.Getenv(lab.DirectoryVariable) == "" || os.Getenv("AWS_ENDPOINT_URL") == "" {
		return nil, errors.New("this boots a node again and again, which is for a lab: run test/bench/run.sh")
	}
	root, err := lab.ProjectDir()
	if err != nil {
		return nil, err
	}
	plugin, err := lab.ComposePath()
	if err != nil {
		return nil, err
	}
	if agent, err = filepath.Abs(agent); err != nil {
		return nil, err
	}
	engine, err := client.New(client.WithHost(os.Getenv(lab.EngineVariable)))
	if err != nil {
		return nil, err
	}
	// Not on the lab's tmpfs, where the script's files and the agent's state would be faster than on a node.
	build, err := lab.BuildDir()
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp(build, "bench-")
	if err != nil {
		return nil, err
	}
	return &bench{
		engine: engine, dir: dir, agent: agent, plugin: plugin, password: rand.Text(),
		project: filepath.Join(root, "test/bench/project"),
		script:  filepath.Join(root, "test/bench/user-data.sh"),
	}, nil
}

func (b *bench) composeFile() string { return filepath.Join(b.project, "compose.yaml") }

// envFile is what the script would write, for the contestants that are handed everything.
func (b *bench) envFile() string { return filepath.Join(b.dir, "env") }

// loggedIn is the configuration of a docker command that has logged in.
func (b *bench) loggedIn() string { return filepath.Join(b.dir, "docker") }

// close removes what the bench made. The lab ends the rest, but keeps its engine's images for the next one.
func (b *bench) close() {
	ctx := context.Background() // also after an interrupt
	if err := errors.Join(b.clean(ctx, true), b.engine.Close(), os.RemoveAll(b.dir)); err != nil {
		fmt.Fprintln(os.Stderr, "bench: clean up:", err)
	}
}

// prepare puts the secret into Secrets Manager and the images into the registry.
func (b *bench) prepare(ctx context.Context) error {
	if _, err := b.engine.Ping(ctx, client.PingOptions{NegotiateAPIVersion: true}); err != nil {
		return err
	}
	if err := b.storeSecret(ctx); err != nil {
		return fmt.Errorf("store the secret: %w", err)
	}
	if err := os.WriteFile(b.envFile(), []byte(variable+"="+b.password+"\n"), 0o600); err != nil {
		return err
	}
	if err := b.dockerConfig(b.loggedIn()); err != nil {
		return err
	}
	if err := b.login(ctx); err != nil {
		return fmt.Errorf("log in to the registry: %w", err)
	}
	for i, name := range services {
		if err := b.publish(ctx, imageOf(name), uint64(i)); err != nil {
			return fmt.Errorf("put image %s into the registry: %w", name, err)
		}
	}
	return nil
}

func imageOf(service string) string { return registry + "/bench/" + service + ":1" }

func (b *bench) storeSecret(ctx context.Context) error {
	cfg, err := awsconfig.LoadDefaultConfig(ctx)
	if err != nil {
		return err
	}
	value, err := json.Marshal(map[string]string{variable: b.password})
	if err != nil {
		return err
	}
	name, text := secretID, string(value)
	_, err = secretsmanager.NewFromConfig(cfg).CreateSecret(ctx, &secretsmanager.CreateSecretInput{Name: &name, SecretString: &text})
	return err
}

func (b *bench) login(ctx context.Context) error {
	password, err := os.Open(filepath.Join(os.Getenv(lab.DirectoryVariable), "registries", registry, "password"))
	if err != nil {
		return err
	}
	defer password.Close()
	return b.docker(ctx, password, "login", "--username", "AWS", "--password-stdin", registry)
}

func (b *bench) publish(ctx context.Context, ref string, seed uint64) error {
	payload := make([]byte, payloadSize)
	_, _ = mathrand.NewChaCha8([32]byte{byte(seed)}).Read(payload) // it never fails
	archive, err := lab.AppArchive(ref, map[string][]byte{"/payload": payload})
	if err != nil {
		return err
	}
	if err := lab.LoadImage(ctx, b.engine, bytes.NewReader(archive)); err != nil {
		return err
	}
	return b.docker(ctx, nil, "push", "--quiet", ref)
}

// docker runs the docker command that has logged in.
func (b *bench) docker(ctx context.Context, stdin io.Reader, arguments ...string) error {
	cmd := exec.CommandContext(ctx, "docker", arguments...)
	cmd.Env = append(os.Environ(), "DOCKER_CONFIG="+b.loggedIn())
	cmd.Stdin = stdin
	if output, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("docker %s: %w: %s", arguments[0], err, bytes.TrimSpace(output))
	}
	return nil
}

// clean takes the machine back to before a boot: no container and no network of the project and, for a cold boot, none
// of its images; else all of them. It ends when the disk has come to rest, so that nobody pays for who was before.
func (b *bench) clean(ctx context.Context, cold bool) error {
	ofProject := make(client.Filters).Add("label", "com.docker.compose.project=bench")
	containers, err := b.engine.ContainerList(ctx, client.ContainerListOptions{All: true, Filters: ofProject})
	if err != nil {
		return err
	}
	var removals errgroup.Group
	for _, c := range containers.Items {
		removals.Go(func() error {
			_, err := b.engine.ContainerRemove(ctx, c.ID, client.ContainerRemoveOptions{Force: true, RemoveVolumes: true})
			return err
		})
	}
	if err := removals.Wait(); err != nil {
		return err
	}
	networks, err := b.engine.NetworkList(ctx, client.NetworkListOptions{Filters: ofProject})
	if err != nil {
		return err
	}
	for _, n := range networks.Items {
		if _, err := b.engine.NetworkRemove(ctx, n.Network.ID, client.NetworkRemoveOptions{}); err != nil {
			return err
		}
	}
	for _, name := range services {
		if err := b.place(ctx, imageOf(name), cold); err != nil {
			return err
		}
	}
	return b.settle(ctx)
}

// place removes an image from the engine, or pulls it if it isn't there.
func (b *bench) place(ctx context.Context, ref string, remove bool) error {
	if remove {
		_, err := b.engine.ImageRemove(ctx, ref, client.ImageRemoveOptions{Force: true, PruneChildren: true})
		if errdefs.IsNotFound(err) {
			return nil
		}
		return err
	}
	_, err := b.engine.ImageInspect(ctx, ref)
	if errdefs.IsNotFound(err) {
		return b.docker(ctx, nil, "pull", "--quiet", ref)
	}
	return err
}

// settleTime is what the kernel and containerd need to take apart the networks and supervisors of removed containers,
// which they do after the engine has answered. Without it the next contestant boots beside that.
const settleTime = 500 * time.Millisecond

// settle brings the machine to rest.
func (b *bench) settle(ctx context.Context) error {
	dir, err := os.Open(b.dir)
	if err != nil {
		return err
	}
	defer dir.Close()
	if err := unix.Syncfs(int(dir.Fd())); err != nil { // that of the engine, too
		return err
	}
	timer := time.NewTimer(settleTime)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// about is what the figures depend on, in one line.
func (b *bench) about(ctx context.Context) (string, error) {
	engine, err := b.engine.ServerVersion(ctx, client.ServerVersionOptions{})
	if err != nil {
		return "", err
	}
	compose, err := exec.CommandContext(ctx, b.plugin, "version", "--short").Output()
	if err != nil {
		return "", fmt.Errorf("ask %s for its version: %w", b.plugin, err)
	}
	machine, err := figures.Machine()
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("Engine %s, Compose %s, %s, %d images with %d MB each over a common base",
		engine.Version, bytes.TrimSpace(compose), machine, len(services), payloadSize>>20), nil
}
