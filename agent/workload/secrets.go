package workload

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/compose-spec/compose-go/v2/types"

	"github.com/flowviz/flowagent/agent/secret"
)

const (
	secretsMount = "/run/secrets"

	// defaultSecretMode is the Compose specification's: readable by everyone in the container.
	defaultSecretMode fs.FileMode = 0o444

	// maxLocalSecret is what systemd allows all credentials of a service together.
	maxLocalSecret = 1 << 20
)

// SecretUse is one secret as one service sees it.
type SecretUse struct {
	// Service that has it.
	Service string
	// Name under the Compose files' top-level secrets.
	Name string
	// Item is the configured secret that is served, for one with external: true. Empty: ask Value.
	Item string
	// Target is the file's path inside the container.
	Target string
	// File is the name under which the store keeps it, in <store>/<service>.
	File string
	// UID and GID own the file; both default to 0.
	UID, GID int
	// Mode of the file; default 0444.
	Mode fs.FileMode
	// ForcesRestart: the target is outside /run/secrets and so a mount of a single file, which goes on showing the old
	// value after a rotation. The service must be recreated, whatever the secret's onChange says.
	ForcesRestart bool

	source types.SecretConfig
}

// Value is the secret itself for one that the Compose files define by file: or environment:. It is read anew each
// time. A variable is looked up in workload.variables, then in the project's .env, then in the agent's own environment.
// For an external secret it is an error; the store has those.
func (u SecretUse) Value() (secret.Value, error) {
	switch {
	case u.Item != "":
		return secret.Value{}, fmt.Errorf("secret %q is external: it comes from the item %q", u.Name, u.Item)
	case u.source.File != "":
		value, err := readLocalSecret(u.source.File)
		if err != nil {
			return secret.Value{}, fmt.Errorf("secret %q: %w", u.Name, err)
		}
		return value, nil
	case u.source.Content != "": // compose-go puts a variable's value here, too
		return secret.NewValue([]byte(u.source.Content)), nil
	}
	value, found := os.LookupEnv(u.source.Environment)
	if !found {
		return secret.Value{}, fmt.Errorf("secret %q: variable %s is not set: set it in the agent's environment or in .env beside the Compose file, or make the secret external",
			u.Name, u.source.Environment)
	}
	return secret.NewValue([]byte(value)), nil
}

func readLocalSecret(file string) (secret.Value, error) {
	f, err := os.Open(file)
	if err != nil {
		return secret.Value{}, fmt.Errorf("%w: write the file, or make the secret external", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return secret.Value{}, err
	}
	if !info.Mode().IsRegular() {
		return secret.Value{}, fmt.Errorf("%s is not a regular file: name a file", file)
	}
	// One byte more than is allowed tells a file that is too large.
	content, err := io.ReadAll(io.LimitReader(f, maxLocalSecret+1))
	if err != nil {
		return secret.Value{}, err
	}
	if len(content) > maxLocalSecret {
		return secret.Value{}, fmt.Errorf("%s is larger than %d bytes: mount it as a volume if it isn't a secret", file, maxLocalSecret)
	}
	return secret.NewValue(content), nil
}

// Secrets are all uses of secrets by active services, by service and then in the order of the files.
func (p *Project) Secrets() []SecretUse { return slices.Clone(p.uses) }

func (p *Project) secretUses() ([]SecretUse, error) {
	var uses []SecretUse
	var errs []error
	for _, name := range p.Services() {
		service := p.model.Services[name]
		files := make(map[string]string) // target → compose name
		for _, ref := range service.Secrets {
			use, err := p.secretUse(name, ref)
			if err != nil {
				errs = append(errs, fmt.Errorf("service %q, secret %q: %w", name, ref.Source, err))
				continue
			}
			if other, taken := files[use.Target]; taken {
				errs = append(errs, fmt.Errorf("service %q: secrets %q and %q have the same target %s: give one another target", name, other, ref.Source, use.Target))
				continue
			}
			files[use.Target] = ref.Source
			uses = append(uses, use)
		}
		for target, source := range files {
			for dir := path.Dir(target); dir != "/"; dir = path.Dir(dir) {
				if other, taken := files[dir]; taken {
					errs = append(errs, fmt.Errorf("service %q: the target of secret %q is below that of %q: give one another target", name, source, other))
				}
			}
		}
		if len(files) > 0 {
			errs = append(errs, mountConflicts(service, files)...)
		}
	}
	return uses, errors.Join(errs...)
}

func (p *Project) secretUse(service string, ref types.ServiceSecretConfig) (SecretUse, error) {
	source := p.model.Secrets[ref.Source]
	use := SecretUse{Service: service, Name: ref.Source, Mode: defaultSecretMode, source: source}
	if source.Driver != "" || source.TemplateDriver != "" {
		return use, errors.New("drivers are Swarm's: use external: true and name the secret under secrets.items")
	}
	if source.External {
		use.Item = source.Name
	} else if source.File == "" && source.Environment == "" && source.Content == "" {
		return use, errors.New("it has no source: give it external: true, a file or an environment variable")
	}
	var err error
	if use.UID, err = numericID("uid", ref.UID); err != nil {
		return use, err
	}
	if use.GID, err = numericID("gid", ref.GID); err != nil {
		return use, err
	}
	if ref.Mode != nil {
		if *ref.Mode < 0 || *ref.Mode > 0o777 {
			return use, fmt.Errorf("mode %#o is not one of a secret's file: use one like 0440", int64(*ref.Mode))
		}
		use.Mode = fs.FileMode(*ref.Mode)
	}
	target := ref.Target
	if target == "" {
		target = ref.Source
	}
	if strings.ContainsAny(target, "\x00\n,") {
		return use, errors.New("its target holds a comma, a line break or a NUL byte: choose another")
	}
	if !path.IsAbs(target) {
		target = path.Join(secretsMount, target)
	}
	use.Target = path.Clean(target)
	if use.Target == secretsMount || strings.HasPrefix(secretsMount, strings.TrimSuffix(use.Target, "/")+"/") {
		return use, fmt.Errorf("its target %s is a directory: name a file in it", use.Target)
	}
	if file, below := strings.CutPrefix(use.Target, secretsMount+"/"); below {
		use.File = file
	} else {
		// One name without a slash, different for every target.
		use.File, use.ForcesRestart = "@"+url.PathEscape(use.Target), true
	}
	switch {
	case strings.HasPrefix(use.File, ".."):
		return use, errors.New(`names that start with ".." are the store's own: choose another target`)
	case strings.Contains(use.File, "/"):
		return use, fmt.Errorf("its target %s is in a directory below %s: secrets are files right in it; choose a target without a slash", use.Target, secretsMount)
	}
	return use, nil
}

func numericID(field, value string) (int, error) {
	if value == "" {
		return 0, nil
	}
	// 31 bits: what the kernel and every file system keep apart from "no owner".
	id, err := strconv.ParseUint(value, 10, 31)
	if err != nil {
		return 0, fmt.Errorf("%s %q is not a number: names can't be known outside the image; use the number", field, value)
	}
	return int(id), nil
}

// mountConflicts are mounts of the operator's own in the way of the secrets'.
func mountConflicts(service types.ServiceConfig, targets map[string]string) []error {
	var errs []error
	inTheWay := func(kind, target string) {
		target = path.Clean(target)
		// In most images /var/run is a link to /run.
		real := strings.TrimPrefix(target, "/var")
		_, same := targets[real]
		if same || real == secretsMount || strings.HasPrefix(real, secretsMount+"/") {
			errs = append(errs, fmt.Errorf("service %q has a %s at %s, where its secrets are mounted: choose another target for it", service.Name, kind, target))
		}
	}
	for _, volume := range service.Volumes {
		inTheWay("volume", volume.Target)
	}
	for _, tmpfs := range service.Tmpfs {
		target, _, _ := strings.Cut(tmpfs, ":")
		inTheWay("tmpfs", target)
	}
	for _, ref := range service.Configs {
		target := ref.Target
		if target == "" {
			target = "/" + ref.Source
		}
		inTheWay("config", target)
	}
	return errs
}

// serviceStore is where the store keeps a service's secrets.
func (p *Project) serviceStore(service string) string { return filepath.Join(p.storeDir, service) }
