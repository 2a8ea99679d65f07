package lab

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/moby/moby/client"
)

// EngineSpec describes a Docker Engine of one's own.
type EngineSpec struct {
	DataRoot     string // images, and what else dockerd keeps; on a disk, kept from one lab to the next
	RunDir       string // for the socket and everything that may go with the engine
	CertFile     string // PEM of every authority the engine trusts when it talks to registries
	CgroupParent string // absolute cgroup path of its containers, removed by the caller
	NoNetwork    bool   // its containers have none; such an engine may run beside another one
}

// EngineServer is a running dockerd.
type EngineServer struct {
	*Process
	Address string // unix:///path of its socket
	spec    EngineSpec
}

// StartEngine starts a dockerd with its own containerd. Unless it has no network, the caller has made a network and
// mount namespace for it, since every such dockerd rewrites the packet filter and the bridges of the one it runs in. The
// engine ignores this machine's /etc/docker/daemon.json, and no container, network or volume of an earlier run is left
// in it. ctx bounds the start only.
func StartEngine(ctx context.Context, spec EngineSpec) (*EngineServer, error) {
	e := &EngineServer{Address: "unix://" + filepath.Join(spec.RunDir, "docker.sock"), spec: spec}
	if err := e.start(ctx, true); err != nil {
		return nil, err
	}
	return e, nil
}

// Restart ends the engine, at once and with no chance to stop its containers if killed, and starts it again with all
// that it has. ctx bounds the start only.
func (e *EngineServer) Restart(ctx context.Context, killed bool) error {
	if killed {
		e.signal(syscall.SIGKILL)
	}
	e.Process.Stop()
	return e.start(ctx, false)
}

// start runs the program and waits until it answers; clean removes what an earlier run left.
func (e *EngineServer) start(ctx context.Context, clean bool) error {
	spec := e.spec
	path, err := systemProgram("dockerd")
	if err != nil {
		return err
	}
	type object = map[string]any
	settings := object{
		"data-root": spec.DataRoot,
		"exec-root": filepath.Join(spec.RunDir, "docker"),
		"pidfile":   filepath.Join(spec.RunDir, "docker.pid"),
		"hosts":     []string{e.Address},
		// The other driver asks systemd, which doesn't answer in a lab.
		"exec-opts":     []string{"native.cgroupdriver=cgroupfs"},
		"cgroup-parent": spec.CgroupParent,
		"log-level":     "warn",
	}
	if spec.NoNetwork {
		settings["bridge"], settings["iptables"], settings["ip-forward"] = "none", false, false
	}
	config, err := json.Marshal(settings)
	if err != nil {
		return err
	}
	file := filepath.Join(spec.RunDir, "daemon.json")
	if err := os.WriteFile(file, config, 0o600); err != nil {
		return err
	}
	cmd := exec.Command(path, "--config-file", file)
	cmd.Env = engineEnvironment(spec.CertFile)
	if e.Process, err = start("dockerd", cmd); err != nil {
		return err
	}
	if err := e.awaitReady(ctx, clean); err != nil {
		e.Process.Stop()
		return err
	}
	return nil
}

func (e *EngineServer) awaitReady(ctx context.Context, clean bool) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	var engine *client.Client
	err := e.await(ctx, func(ctx context.Context) (err error) {
		engine, err = engineClient(ctx, e.Address)
		return err
	})
	if err != nil {
		return err
	}
	defer engine.Close()
	if !clean {
		return nil
	}
	return empty(ctx, engine)
}

// Stop removes the containers, which would otherwise get ten seconds each to end, and ends the engine in good order, so
// that its images are intact the next time.
func (e *EngineServer) Stop() {
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	if engine, err := engineClient(ctx, e.Address); err == nil {
		_ = empty(ctx, engine) // what remains is removed at the next start
		_ = engine.Close()
	}
	e.Process.Stop()
}

// empty removes everything but images.
func empty(ctx context.Context, engine *client.Client) error {
	containers, err := engine.ContainerList(ctx, client.ContainerListOptions{All: true})
	if err != nil {
		return fmt.Errorf("list containers: %w", err)
	}
	for _, c := range containers.Items {
		if _, err := engine.ContainerRemove(ctx, c.ID, client.ContainerRemoveOptions{Force: true, RemoveVolumes: true}); err != nil {
			return fmt.Errorf("remove container %s: %w", c.ID, err)
		}
	}
	if _, err := engine.NetworkPrune(ctx, client.NetworkPruneOptions{}); err != nil {
		return fmt.Errorf("remove networks: %w", err)
	}
	volumes, err := engine.VolumeList(ctx, client.VolumeListOptions{})
	if err != nil {
		return fmt.Errorf("list volumes: %w", err)
	}
	for _, v := range volumes.Items {
		if _, err := engine.VolumeRemove(ctx, v.Name, client.VolumeRemoveOptions{Force: true}); err != nil {
			return fmt.Errorf("remove volume %s: %w", v.Name, err)
		}
	}
	return nil
}

// engineEnvironment adds what dockerd needs beside its configuration, and leaves out proxies, which don't know a lab's
// registries.
func engineEnvironment(certFile string) []string {
	return append(WithoutProxies(os.Environ()),
		"SSL_CERT_FILE="+certFile,
		// Where Debian puts iptables, which dockerd looks for.
		"PATH="+os.Getenv("PATH")+":/usr/sbin:/sbin",
	)
}

// WithoutProxies returns the environment without the variables that send HTTP requests through a proxy.
func WithoutProxies(environment []string) []string {
	var kept []string
	for _, entry := range environment {
		name, _, _ := strings.Cut(entry, "=")
		switch strings.ToLower(name) {
		case "http_proxy", "https_proxy", "all_proxy", "no_proxy":
		default:
			kept = append(kept, entry)
		}
	}
	return kept
}
