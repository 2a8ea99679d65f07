package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"

	"github.com/moby/moby/client"
	"golang.org/x/sys/unix"

	"github.com/flowviz/flowagent/agent/report"
	"github.com/flowviz/flowagent/test/bench/process"
)

const (
	appURL   = "http://127.0.0.1:8080"        // as project/compose.yaml publishes it
	runDir   = "/run/flowagent"               // the agent's default, on the lab's own tmpfs
	nodeURL  = "http://127.0.0.1:9180/health" // the agent's default
	registry = "123456789012.dkr.ecr.us-east-1.amazonaws.com"
	secretID = "bench/app"
	variable = "APP_PASSWORD" // in the secret's JSON, and in the environment of the script's containers
	profile  = "node"
)

// composePull is the pull and nothing else: the engine's command line is logged in already.
func composePull(b *bench, _ string) (boot, error) {
	return boot{command: b.compose("pull", "--quiet"), env: b.composeEnvironment()}, nil
}

// composeUp is the start and nothing else: images and password are there already.
func composeUp(b *bench, _ string) (boot, error) {
	return boot{
		command: b.compose("up", "--detach", "--quiet-pull"),
		env:     b.composeEnvironment(),
		app:     appURL + "/health",
		opening: b.opening,
	}, nil
}

func (b *bench) compose(arguments ...string) []string {
	return append([]string{"docker", "compose", "--env-file", b.envFile(), "-f", b.composeFile(), "--profile", profile}, arguments...)
}

func (b *bench) composeEnvironment() []string {
	return []string{"DOCKER_CONFIG=" + b.loggedIn(), "REGISTRY=" + registry}
}

// userData is the script, on a machine whose docker command has the plugin and has never logged in. pulls is its PULL.
func userData(pulls string) func(b *bench, dir string) (boot, error) {
	return func(b *bench, dir string) (boot, error) {
		if err := b.dockerConfig(dir); err != nil {
			return boot{}, err
		}
		return boot{
			command: []string{b.script},
			env: []string{
				"DOCKER_CONFIG=" + dir, "SECRET_ID=" + secretID, "REGISTRY=" + registry, "COMPOSE_FILE=" + b.composeFile(),
				"PROFILE=" + profile, "HEALTH_URL=" + appURL + "/health", "PULL=" + pulls,
				"AWS_DEFAULT_REGION=" + os.Getenv("AWS_REGION"), // the one name that both versions of the AWS CLI know
			},
			app:     appURL + "/health",
			opening: b.opening,
		}, nil
	}
}

// flowagent is the agent's first start on its machine.
func flowagent(b *bench, dir string) (boot, error) {
	config := filepath.Join(dir, "docker")
	if err := b.dockerConfig(config); err != nil {
		return boot{}, err
	}
	stateDir := filepath.Join(dir, "state")
	return boot{
		command: []string{b.agent, "run", "--config", filepath.Join(b.project, "config.yaml"), "--state-dir", stateDir},
		dir:     b.project,
		env:     []string{"DOCKER_CONFIG=" + config},
		app:     appURL + "/health",
		opening: b.opening,
		node:    nodeURL,
		record: func() (report.Record, error) {
			return report.ReadRecord(filepath.Join(stateDir, "boot.json"))
		},
		tidyUp: func() error {
			// The workload outlives the agent, and so do its secrets. Containers may still have them mounted.
			err := unix.Unmount(filepath.Join(runDir, "secrets"), unix.MNT_DETACH)
			if err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) { // it may not have got that far
				return fmt.Errorf("unmount the agent's secrets: %w", err)
			}
			return os.RemoveAll(runDir)
		},
	}, nil
}

// opening begins to look for the start of the service that answers for the application, which is the last to start.
//
// To ask before would make everybody 0.8 s slower: the engine opens a published port before the container has its
// network, and a connection through it then leaves the kernel without the container's address (ARP). It asks again only
// after a second, and all later connections wait for that.
func (b *bench) opening(ctx context.Context) opened {
	filters := make(client.Filters).Add("type", "container").Add("event", "start").
		Add("label", "com.docker.compose.project=bench", "com.docker.compose.service=web")
	stream := b.engine.Events(ctx, client.EventsListOptions{Filters: filters})
	return func() error {
		select {
		case <-stream.Messages:
			return nil
		case err := <-stream.Err:
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			return fmt.Errorf("watch the engine: %w", err)
		}
	}
}

// inEnvironment tells whether the application has the password where the script puts it.
func inEnvironment(ctx context.Context, password string) error {
	return holds(ctx, appURL+"/env/"+variable, password)
}

// inFile tells whether the application has the password where flowagent puts it, and not in its environment.
func inFile(ctx context.Context, password string) error {
	if inEnvironment(ctx, password) == nil {
		return errors.New("the application's password is in its environment")
	}
	return holds(ctx, appURL+"/file/run/secrets/app_password", password)
}

func holds(ctx context.Context, url, want string) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	response, err := process.Asker.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return err
	}
	if response.StatusCode != http.StatusOK || string(body) != want {
		return fmt.Errorf("the application did not get its password: GET %s answers %d without it", url, response.StatusCode)
	}
	return nil
}

// dockerConfig makes a directory for the docker command that holds the compose plugin and nothing else.
func (b *bench) dockerConfig(dir string) error {
	plugins := filepath.Join(dir, "cli-plugins")
	if err := os.MkdirAll(plugins, 0o700); err != nil {
		return err
	}
	return os.Symlink(b.plugin, filepath.Join(plugins, "docker-compose"))
}
