package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"slices"
	"time"

	"github.com/moby/moby/client"

	"github.com/flowviz/flowagent/agent/config"
	"github.com/flowviz/flowagent/agent/image"
	"github.com/flowviz/flowagent/agent/node"
	"github.com/flowviz/flowagent/agent/secret"
)

// PullOptions is how images are put into the engine without a node being booted.
type PullOptions struct {
	// ConfigPath and RunDir are as in [Options]; nothing is written to the latter.
	ConfigPath, RunDir string
	// Secrets are used in place of fetching the secrets of these names: an image is made where the node's own sources may
	// be out of reach. Nil for none.
	Secrets map[string]secret.Value
	// Progress shows image pulls; nil for nobody.
	Progress image.Progress
	Log      *slog.Logger
}

// PullImages loads and pulls the images of the configuration's active services, as the boot would, and starts nothing.
// The instance's user data is left out: what one machine is told is not for an image. A pull policy of never is for
// nodes; here it counts as missing.
//
// Of the secrets only passwords of registries that are needed are fetched, once each. The error is a
// *[ConfigurationError] for what only the operator can mend.
func PullImages(ctx context.Context, o PullOptions) ([]image.Image, error) {
	a := &Agent{opts: Options{ConfigPath: o.ConfigPath, RunDir: o.RunDir}, log: o.Log}
	loaded, err := a.readConfig(nil)
	if err != nil {
		return nil, &ConfigurationError{err}
	}
	cfg := loaded.Config
	project, err := a.loadProject(ctx, cfg)
	if err != nil {
		return nil, &ConfigurationError{err}
	}
	engine, err := client.New(client.WithHost(string(cfg.Workload.Engine)))
	if err != nil {
		return nil, fmt.Errorf("use the Docker Engine at %s: %w: correct workload.engine", cfg.Workload.Engine, err)
	}
	defer engine.Close()
	identity, metadata, err := node.Discover(ctx, cfg.Node, node.Options{Log: o.Log})
	if err != nil {
		return nil, err
	}
	a.aws = newAWS(identity.Region, metadata)

	passwords := maps.Clone(o.Secrets)
	if passwords == nil {
		passwords = map[string]secret.Value{}
	}
	credentials := image.NewCredentials(cfg.Registries, a.aws.Config, func(name string) (secret.Value, bool) {
		value, found := passwords[name]
		return value, found
	}, time.Now)
	if err := a.fetchPasswords(ctx, cfg.Secrets, project.Images(), credentials, passwords); err != nil {
		return nil, err
	}
	pull := cfg.Workload.Pull
	if pull.Policy == config.PullNever {
		pull.Policy = config.PullMissing
	}
	puller := image.NewPuller(engine, pull, credentials, o.Progress, o.Log)
	if _, err := puller.LoadArchives(ctx, project.Images()); err != nil {
		return nil, err
	}
	return puller.Ensure(ctx, project.Images())
}

// fetchPasswords adds to known the registry passwords that refs need and that aren't known yet.
func (a *Agent) fetchPasswords(ctx context.Context, cfg config.Secrets, refs []string, credentials *image.Credentials, known map[string]secret.Value) error {
	var wanted []string
	for _, ref := range refs {
		host, err := image.Host(ref)
		if err != nil {
			return &ConfigurationError{err}
		}
		name, needed := credentials.NeedsSecret(host)
		if _, found := known[name]; needed && !found && !slices.Contains(wanted, name) {
			wanted = append(wanted, name)
		}
	}
	if len(wanted) == 0 {
		return nil
	}
	// The others may well be out of reach here, and nobody asks for them.
	cfg.Items = slices.DeleteFunc(slices.Clone(cfg.Items), func(item config.Secret) bool { return !slices.Contains(wanted, item.Name) })
	keeper, err := secret.NewKeeper(cfg, secret.Deps{
		AWS: a.aws.Config, CredentialsDirectory: os.Getenv("CREDENTIALS_DIRECTORY"), Log: a.log,
	})
	if err != nil {
		return &ConfigurationError{err}
	}
	if _, err := keeper.Refresh(ctx); err != nil {
		return fmt.Errorf("%w; where the source is out of reach, give the passwords on standard input", err)
	}
	var missing []error
	for _, name := range wanted {
		value, found := keeper.Value(name)
		if !found {
			missing = append(missing, fmt.Errorf("no password for a registry: the secret %q is not there", name))
			continue
		}
		known[name] = value
	}
	return errors.Join(missing...)
}
