package workload

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"os/user"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/compose-spec/compose-go/v2/cli"
	"github.com/compose-spec/compose-go/v2/types"
	"github.com/sirupsen/logrus"

	"github.com/flowviz/flowagent/agent/config"
)

// maxComposeFile is far above any real Compose file; compose-go reads whole files into memory.
const maxComposeFile = 4 << 20

// Project is a Compose application as its files describe it, with the profiles that are active. It doesn't change.
type Project struct {
	// Warnings are what compose-go had to say while reading, such as a variable that isn't set.
	Warnings []string

	model    *types.Project
	files    []string
	profiles []string
	env      []string // the whole environment of the plugin, and all that compose-go interpolates with
	runDir   string
	storeDir string
	engine   string
	uses     []SecretUse
	override atomic.Pointer[[]byte] // as it was last written
}

// Load reads the Compose files of cfg, with its variables and profiles. Relative paths are relative to the current
// directory. runDir is where generated files go, storeDir where the secrets of each service are; nothing is written
// and nothing there needs to exist yet.
//
// The error names the file, or lists everything that stands in the way of running the project.
func Load(ctx context.Context, cfg config.Workload, runDir, storeDir string) (*Project, error) {
	if len(cfg.Files) == 0 {
		return nil, errors.New("no Compose file: name at least one under workload.files")
	}
	p := &Project{profiles: cfg.Profiles, engine: string(cfg.Engine)}
	for _, dir := range []struct {
		to   *string
		path string
	}{{&p.runDir, runDir}, {&p.storeDir, storeDir}} {
		abs, err := filepath.Abs(dir.path)
		if err != nil {
			return nil, err
		}
		*dir.to = abs
	}
	for _, file := range cfg.Files {
		abs, err := checkFile(file)
		if err != nil {
			return nil, err
		}
		p.files = append(p.files, abs)
	}
	var err error
	if p.env, err = p.environment(cfg); err != nil {
		return nil, err
	}
	if p.model, p.Warnings, err = p.read(ctx, cfg.Project); err != nil {
		return nil, err
	}
	if err := errors.Join(p.checkProfiles(cfg.Profiles), p.checkServices()); err != nil {
		return nil, err
	}
	if p.uses, err = p.secretUses(); err != nil {
		return nil, err
	}
	return p, nil
}

// Name is the Compose project's name.
func (p *Project) Name() string { return p.model.Name }

// Services are the names of the active services, sorted.
func (p *Project) Services() []string { return p.model.ServiceNames() }

// Images are the references of the active services' images as the files name them, sorted, each once.
func (p *Project) Images() []string {
	var refs []string
	for _, service := range p.model.Services {
		refs = append(refs, service.Image)
	}
	slices.Sort(refs)
	return slices.Compact(refs)
}

// ImageOf is the reference of an active service's image as the files name it; empty for any other name.
func (p *Project) ImageOf(service string) string { return p.model.Services[service].Image }

// CheckServices tells whether every name of a list of the configuration, such as drain.order, is a service of the
// project, active or not: one list serves every profile.
func (p *Project) CheckServices(field string, names []string) error {
	known := slices.Sorted(maps.Keys(p.model.AllServices()))
	var errs []error
	for i, name := range names {
		if !slices.Contains(known, name) {
			errs = append(errs, fmt.Errorf("%s: no service %q in the Compose files%s", field, name, didYouMean(name, known)))
		}
		if slices.Contains(names[:i], name) {
			errs = append(errs, fmt.Errorf("%s: service %q is listed twice: remove one", field, name))
		}
	}
	return errors.Join(errs...)
}

// CheckItems tells whether every secret that the Compose files expect from the configuration is among its items.
func (p *Project) CheckItems(items []config.Secret) error {
	var names []string
	for _, item := range items {
		names = append(names, item.Name)
	}
	known := "secrets.items lists none"
	if len(names) > 0 {
		known = "secrets.items has " + strings.Join(names, ", ")
	}
	var missing []error
	for _, use := range p.Secrets() {
		if use.Item != "" && !slices.Contains(names, use.Item) {
			missing = append(missing, fmt.Errorf("service %q uses the external secret %q, which is not configured (%s): add it under secrets.items", use.Service, use.Item, known))
		}
	}
	return errors.Join(missing...)
}

// Same tells whether both were read from the same files with the same outcome: a start of the other changes no container.
func (p *Project) Same(other *Project) bool {
	return slices.Equal(p.files, other.files) && slices.Equal(p.profiles, other.profiles) && slices.Equal(p.env, other.env) &&
		reflect.DeepEqual(p.model, other.model)
}

func (p *Project) directory() string { return filepath.Dir(p.files[0]) }

func checkFile(file string) (string, error) {
	abs, err := filepath.Abs(file)
	if err != nil {
		return "", err
	}
	info, err := os.Stat(abs)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "", fmt.Errorf("workload.files: %s doesn't exist: write it, or correct the path", abs)
	case err != nil:
		return "", fmt.Errorf("workload.files: %w", err)
	case !info.Mode().IsRegular():
		return "", fmt.Errorf("workload.files: %s is not a regular file: correct the path", abs)
	case info.Size() > maxComposeFile:
		return "", fmt.Errorf("workload.files: %s has %d bytes, more than %d: name a Compose file", abs, info.Size(), maxComposeFile)
	}
	return abs, nil
}

// reserved are variables that steer compose past what the configuration says, or apart from what compose-go reads.
// The value tells where the setting belongs.
var reserved = map[string]string{
	"DOCKER_HOST":              "set workload.engine instead",
	"DOCKER_CONTEXT":           "set workload.engine instead",
	"DOCKER_CONFIG":            "list registries instead",
	"DOCKER_API_VERSION":       "it is negotiated with the engine",
	"DOCKER_TLS":               "the engine is reached through its socket",
	"DOCKER_TLS_VERIFY":        "the engine is reached through its socket",
	"DOCKER_CERT_PATH":         "the engine is reached through its socket",
	"COMPOSE_FILE":             "set workload.files instead",
	"COMPOSE_PATH_SEPARATOR":   "set workload.files instead",
	"COMPOSE_PROJECT_NAME":     "set workload.project instead",
	"COMPOSE_PROFILES":         "set workload.profiles instead",
	"COMPOSE_ENV_FILES":        "use the .env file beside the first Compose file, or workload.variables",
	"COMPOSE_DISABLE_ENV_FILE": "remove the .env file beside the first Compose file instead",
	"PWD":                      "it is the directory of the first Compose file",
}

var variableName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_.-]*$`)

// environment is the plugin's whole environment: nothing of the agent's own.
func (p *Project) environment(cfg config.Workload) ([]string, error) {
	vars := map[string]string{
		"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
		// The real home, because "~/data" in a volume must mean what it means when the operator runs compose by hand.
		"HOME": homeDirectory(),
	}
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(cfg.Variables)) {
		value := cfg.Variables[name]
		switch {
		case reserved[name] != "":
			errs = append(errs, fmt.Errorf("workload.variables: %s can't be set there: %s", name, reserved[name]))
		case !variableName.MatchString(name):
			errs = append(errs, fmt.Errorf("workload.variables: %q is not a variable's name: use letters, digits and underscores", name))
		case strings.ContainsRune(value, 0):
			errs = append(errs, fmt.Errorf("workload.variables: the value of %s holds a NUL byte: remove it", name))
		}
		vars[name] = value
	}
	vars["PWD"] = p.directory()
	if p.engine != "" {
		vars["DOCKER_HOST"] = p.engine
	}
	vars["DOCKER_CONFIG"] = p.dockerConfigDir()
	env := make([]string, 0, len(vars))
	for _, name := range slices.Sorted(maps.Keys(vars)) {
		env = append(env, name+"="+vars[name])
	}
	return env, errors.Join(errs...)
}

// dockerConfigDir stays empty: no credential store, no context and no plugin hook of the machine reaches compose.
func (p *Project) dockerConfigDir() string { return filepath.Join(p.runDir, "docker-config") }

func homeDirectory() string {
	if u, err := user.Current(); err == nil && u.HomeDir != "" {
		return u.HomeDir
	}
	return "/"
}

// read parses the files. compose-go panics on some malformed input; that is an error here.
func (p *Project) read(ctx context.Context, name string) (model *types.Project, warnings []string, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("read %s: compose-go gave up on it: run `docker compose config` to see what is wrong with it", strings.Join(p.files, ", "))
		}
	}()
	opts := []cli.ProjectOptionsFn{
		cli.WithWorkingDirectory(p.directory()),
		cli.WithEnv(p.env),
		cli.WithResolvedPaths(true),
		cli.WithName(name),
	}
	dotEnv := filepath.Join(p.directory(), ".env")
	if info, err := os.Stat(dotEnv); err == nil && !info.IsDir() {
		opts = append(opts, cli.WithEnvFiles(dotEnv), cli.WithDotEnv)
	}
	opts = append(opts, cli.WithDefaultProfiles(p.profiles...))
	release := collectWarnings(&warnings)
	defer release()
	options, err := cli.NewProjectOptions(p.files, opts...)
	if err != nil {
		return nil, nil, p.readError(err)
	}
	model, err = options.LoadProject(ctx)
	if err != nil {
		return nil, nil, p.readError(err)
	}
	// The plugin would stop reading .env after this line of it; compose-go has read all of it.
	if _, set := model.Environment["COMPOSE_DISABLE_ENV_FILE"]; set {
		return nil, nil, fmt.Errorf("%s sets COMPOSE_DISABLE_ENV_FILE: remove that line, or the file", dotEnv)
	}
	if model.Name == "" {
		return nil, nil, errors.New("the Compose project has no name: set workload.project")
	}
	return model, warnings, nil
}

// readError says which file, and what compose-go's shorter messages mean.
func (p *Project) readError(err error) error {
	text := err.Error()
	hint := ""
	switch {
	case strings.HasSuffix(text, "false schema"), strings.Contains(text, "additional properties "):
		hint = ": Compose has no such field there; correct its name"
	case strings.Contains(text, "yaml: "):
		// The parser's own line is one too low in some messages, so another opinion helps.
		hint = ": correct its YAML; `docker compose config --quiet` checks it, too"
	case strings.Contains(text, "depends on undefined service"):
		hint = ": define it, or activate a profile of it in workload.profiles"
	case strings.Contains(text, "refers to undefined secret"):
		hint = ": define it under the file's top-level secrets"
	}
	for _, file := range p.files {
		if strings.Contains(text, file) {
			return fmt.Errorf("read the Compose files: %w%s", err, hint)
		}
	}
	return fmt.Errorf("read %s: %w%s", strings.Join(p.files, ", "), err, hint)
}

// compose-go speaks through logrus' one global logger.
var globalLogger sync.Mutex

// collectWarnings takes over the global logger until the returned function is called.
func collectWarnings(to *[]string) (release func()) {
	globalLogger.Lock()
	logger := logrus.StandardLogger()
	output, hooks := logger.Out, logger.ReplaceHooks(make(logrus.LevelHooks))
	logger.SetOutput(io.Discard)
	logger.AddHook(&warningHook{to})
	return func() {
		logger.ReplaceHooks(hooks)
		logger.SetOutput(output)
		globalLogger.Unlock()
	}
}

type warningHook struct{ to *[]string }

func (*warningHook) Levels() []logrus.Level {
	return []logrus.Level{logrus.WarnLevel, logrus.ErrorLevel}
}

func (h *warningHook) Fire(entry *logrus.Entry) error {
	if !slices.Contains(*h.to, entry.Message) {
		*h.to = append(*h.to, entry.Message)
	}
	return nil
}

// checkProfiles refuses a profile that no service has: a typing error would silently leave services out.
func (p *Project) checkProfiles(wanted []string) error {
	var known []string
	for _, service := range p.model.AllServices() {
		known = append(known, service.Profiles...)
	}
	slices.Sort(known)
	known = slices.Compact(known)
	var errs []error
	for _, profile := range wanted {
		if profile == "*" || slices.Contains(known, profile) {
			continue
		}
		exist := "the files define no profile"
		if len(known) > 0 {
			exist = "there are " + strings.Join(known, ", ")
		}
		errs = append(errs, fmt.Errorf("workload.profiles: no service has the profile %q%s (%s)", profile, didYouMean(profile, known), exist))
	}
	return errors.Join(errs...)
}

// checkServices refuses what can't run on a node, all of it at once.
func (p *Project) checkServices() error {
	if len(p.model.Services) == 0 {
		return errors.New("no service is active: the Compose files define none, or none without a profile; set workload.profiles")
	}
	var errs []error
	for _, name := range p.Services() {
		service := p.model.Services[name]
		switch {
		case service.Provider != nil:
			errs = append(errs, fmt.Errorf("service %q has a provider: only containers can run here; remove it or move it to another profile", name))
		case service.Image == "" && service.Build != nil:
			errs = append(errs, fmt.Errorf("service %q has build: but no image: nodes don't build; bake and push the image, and name it with the image key", name))
		}
		if len(service.Models) > 0 {
			errs = append(errs, fmt.Errorf("service %q uses models: only containers can run here; remove them", name))
		}
	}
	return errors.Join(errs...)
}
