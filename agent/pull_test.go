package agent_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/moby/moby/api/pkg/authconfig"
	"github.com/moby/moby/api/types/registry"
	"github.com/moby/moby/client"

	"github.com/flowviz/flowagent/agent"
	"github.com/flowviz/flowagent/agent/secret"
	"github.com/flowviz/flowagent/test/lab"
)

// kitchen is where an image is made: an engine, and a registry that wants the password of the secret "registry".
type kitchen struct {
	t        *testing.T
	engine   *client.Client
	address  string
	registry *lab.RegistryServer
	dir      string
}

func newKitchen(t *testing.T) *kitchen {
	t.Helper()
	k := &kitchen{t: t, address: lab.Engine(t), registry: lab.Registry(t), dir: t.TempDir()}
	var err error
	if k.engine, err = client.New(client.WithHost(k.address)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = k.engine.Close() })
	return k
}

// publish puts an image into the registry alone, and returns its reference by digest.
func (k *kitchen) publish(name string) string {
	k.t.Helper()
	ctx, ref := k.t.Context(), k.registry.Host+"/"+name+":1"
	lab.AppImage(k.t, ref)
	auth, err := authconfig.Encode(registry.AuthConfig{Username: k.registry.Username, Password: k.registry.Password, ServerAddress: k.registry.Host})
	if err != nil {
		k.t.Fatal(err)
	}
	pushed, err := k.engine.ImagePush(ctx, ref, client.ImagePushOptions{RegistryAuth: auth})
	if err != nil {
		k.t.Fatal(err)
	}
	defer pushed.Close()
	if err := pushed.Wait(ctx); err != nil {
		k.t.Fatal(err)
	}
	found, err := k.engine.ImageInspect(ctx, ref)
	if err != nil {
		k.t.Fatal(err)
	}
	// Other tests' registries may have the same image.
	own := slices.IndexFunc(found.RepoDigests, func(digest string) bool { return strings.HasPrefix(digest, k.registry.Host+"/") })
	if own < 0 {
		k.t.Fatalf("the pushed image has the digests %v, none of %s", found.RepoDigests, k.registry.Host)
	}
	digest := found.RepoDigests[own]
	if _, err := k.engine.ImageRemove(ctx, ref, client.ImageRemoveOptions{PruneChildren: true}); err != nil {
		k.t.Fatal(err)
	}
	k.t.Cleanup(func() { k.remove(digest) })
	return digest
}

// remove is for after the test, whose own context is done by then.
func (k *kitchen) remove(ref string) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if _, err := k.engine.ImageRemove(ctx, ref, client.ImageRemoveOptions{PruneChildren: true}); err != nil && !cerrdefs.IsNotFound(err) {
		k.t.Errorf("remove image %s: %v", ref, err)
	}
}

// options writes a configuration whose one service has the image.
func (k *kitchen) options(image, pull string) agent.PullOptions {
	k.t.Helper()
	config := filepath.Join(k.dir, "config.yaml")
	for name, content := range map[string]string{
		"config.yaml": fmt.Sprintf(`apiVersion: flowagent/v1
kind: Node
node: {provider: local}
secrets: {items: [{name: registry, from: {file: {path: /nowhere/password}}}, {name: other, from: {file: {path: /nowhere/other}}}]}
registries: [{host: %q, username: %s, passwordSecret: registry}]
workload: {project: kitchen, files: [compose.yaml], engine: %q, pull: {%s}}
`, k.registry.Host, k.registry.Username, k.address, pull),
		"compose.yaml": fmt.Sprintf("services: {web: {image: %q}}\n", image),
	} {
		if err := os.WriteFile(filepath.Join(k.dir, name), []byte(content), 0o644); err != nil {
			k.t.Fatal(err)
		}
	}
	return agent.PullOptions{ConfigPath: config, RunDir: filepath.Join(k.dir, "run"), Log: slog.New(slog.NewTextHandler(io.Discard, nil))}
}

func TestPullImagesByDigestWithAPasswordFromOutside(t *testing.T) {
	k := newKitchen(t)
	ref := k.publish("kitchen/app")
	options := k.options(ref, "pin: digest, policy: never") // which is for nodes
	options.Secrets = map[string]secret.Value{"registry": secret.NewValue([]byte(k.registry.Password))}
	images, err := agent.PullImages(t.Context(), options)
	if err != nil {
		t.Fatal(err)
	}
	if len(images) != 1 || !images[0].Pulled || images[0].Pinned != ref {
		t.Errorf("got %+v, want %s, just pulled", images, ref)
	}
	if again, err := agent.PullImages(t.Context(), options); err != nil || len(again) != 1 || again[0].Pulled {
		t.Errorf("a second time: got %+v and %v, want the image that is there", again, err)
	}
	if _, err := os.Stat(options.RunDir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the run directory was made: %v", err)
	}
}

func TestPullImagesSaysWhichPasswordIsMissing(t *testing.T) {
	k := newKitchen(t)
	options := k.options(k.registry.Host+"/kitchen/none:1", "")
	_, err := agent.PullImages(t.Context(), options)
	if err == nil || !strings.Contains(err.Error(), "/nowhere/password") || !strings.Contains(err.Error(), "give the passwords on standard input") {
		t.Errorf("got %v, want the file that isn't there, and what to do", err)
	}
	if err != nil && strings.Contains(err.Error(), "/nowhere/other") {
		t.Errorf("a secret that no registry needs was fetched: %v", err)
	}
	const wrong = "wrong-password"
	options.Secrets = map[string]secret.Value{"registry": secret.NewValue([]byte(wrong))}
	if _, err := agent.PullImages(t.Context(), options); err == nil || strings.Contains(err.Error(), wrong) {
		t.Errorf("with a wrong password: got %v, want an error without it", err)
	}
}

func TestPullImagesLoadsArchives(t *testing.T) {
	k := newKitchen(t)
	const ref = "kitchen.local/archived:1"
	archive, err := lab.AppArchive(ref, map[string][]byte{"/archived": []byte("1")})
	if err != nil {
		t.Fatal(err)
	}
	archives := filepath.Join(k.dir, "archives")
	if err := os.Mkdir(archives, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(archives, "app.tar"), archive, 0o644); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { k.remove(ref) })
	images, err := agent.PullImages(t.Context(), k.options(ref, "archives: archives"))
	if err != nil || len(images) != 1 || images[0].Pulled || images[0].ID == "" {
		t.Errorf("got %+v and %v, want the archive's image", images, err)
	}
}
