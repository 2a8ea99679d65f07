package secret

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	sm "github.com/aws/aws-sdk-go-v2/service/secretsmanager"
	"github.com/aws/aws-sdk-go-v2/service/ssm"

	"github.com/flowviz/flowagent/agent/config"
)

// locate turns an item's source into a locator and the key path inside it.
func locate(from config.Source) (locator, string, error) {
	type found struct {
		locator locator
		key     string
		err     error
	}
	var all []found
	if s := from.SecretsManager; s != nil {
		l, err := locateSecretsManager(s)
		all = append(all, found{l, s.Key, err})
	}
	if s := from.SSM; s != nil {
		all = append(all, found{ssmLocator{region: regionOf(s.Region, s.Name), name: s.Name}, s.Key, notEmpty("ssm.name", s.Name)})
	}
	if s := from.Age; s != nil {
		all = append(all, found{ageLocator{s.File}, s.Key, absolute("age.file", s.File)})
	}
	if s := from.Credential; s != nil {
		all = append(all, found{credentialLocator{s.Name}, s.Key, checkCredentialName(s.Name)})
	}
	if s := from.File; s != nil {
		all = append(all, found{fileLocator{s.Path}, s.Key, absolute("file.path", s.Path)})
	}
	if s := from.Vault; s != nil {
		l, err := locateVault(s)
		all = append(all, found{l, s.Key, err})
	}
	if len(all) != 1 {
		return nil, "", fmt.Errorf("from names %d sources: name one of secretsManager, ssm, age, credential, file or vault", len(all))
	}
	return all[0].locator, all[0].key, all[0].err
}

func locateSecretsManager(s *config.SecretsManagerSource) (locator, error) {
	l := smLocator{region: regionOf(s.Region, s.ID), id: s.ID, stage: s.Stage, version: s.VersionID}
	if l.stage != "" && l.version != "" {
		return nil, errors.New("secretsManager has stage and versionId: keep one")
	}
	if l.stage == "" {
		l.stage = smCurrent
	}
	return l, notEmpty("secretsManager.id", s.ID)
}

func locateVault(s *config.VaultSource) (locator, error) {
	l := vaultLocator{mount: strings.Trim(s.Mount, "/"), path: strings.Trim(s.Path, "/"), version: s.Version}
	if l.mount == "" {
		l.mount = "secret"
	}
	if s.Version < 0 {
		return nil, fmt.Errorf("vault.version is %d: write a number from 1, or 0 for the newest", s.Version)
	}
	return l, errors.Join(checkVaultPath(l.mount), checkVaultPath(l.path))
}

func notEmpty(field, text string) error {
	if text == "" {
		return fmt.Errorf("%s is empty", field)
	}
	return nil
}

// absolute refuses paths that would depend on where the agent was started.
func absolute(field, path string) error {
	if !filepath.IsAbs(path) {
		return fmt.Errorf("%s is %q: write the whole path from /", field, path)
	}
	return nil
}

// makeSources makes one source for each kind that the items use.
func makeSources(items []*item, cfg config.Secrets, deps Deps) ([]source, error) {
	var (
		fromManager     []smLocator
		fromParameters  []ssmLocator
		fromAge         []ageLocator
		fromCredentials []credentialLocator
		fromFiles       []fileLocator
		fromVault       []vaultLocator
	)
	seen := make(map[locator]bool)
	for _, it := range items {
		if seen[it.locator] {
			continue
		}
		seen[it.locator] = true
		switch l := it.locator.(type) {
		case smLocator:
			fromManager = append(fromManager, l)
		case ssmLocator:
			fromParameters = append(fromParameters, l)
		case ageLocator:
			fromAge = append(fromAge, l)
		case credentialLocator:
			fromCredentials = append(fromCredentials, l)
		case fileLocator:
			fromFiles = append(fromFiles, l)
		case vaultLocator:
			fromVault = append(fromVault, l)
		}
	}

	var (
		sources  []source
		problems []error
	)
	if deps.AWS == nil && len(fromManager)+len(fromParameters) > 0 {
		problems = append(problems, errors.New("secrets are kept in AWS, and this node was given no AWS configuration"))
	}
	if len(fromManager) > 0 {
		clients := regional[secretsManagerAPI]{config: deps.AWS, build: func(c aws.Config) secretsManagerAPI { return sm.NewFromConfig(c) }}
		sources = append(sources, &secretsManager{clients: clients, wanted: fromManager, log: deps.Log.With("phase", "secrets")})
	}
	if len(fromParameters) > 0 {
		clients := regional[ssmAPI]{config: deps.AWS, build: func(c aws.Config) ssmAPI { return ssm.NewFromConfig(c) }}
		sources = append(sources, &parameterStore{clients: clients, wanted: fromParameters})
	}
	if len(fromAge) > 0 {
		if cfg.Age.IdentityFile != "" && cfg.Age.IdentityCredential != "" {
			problems = append(problems, errors.New("secrets.age has identityFile and identityCredential: keep one"))
		}
		if name := cfg.Age.IdentityCredential; name != "" {
			if err := checkCredentialName(name); err != nil {
				problems = append(problems, fmt.Errorf("secrets.age.identityCredential: %w", err))
			}
		}
		sources = append(sources, &ageFiles{identity: cfg.Age, credentialsDirectory: deps.CredentialsDirectory, wanted: fromAge})
	}
	if len(fromCredentials) > 0 {
		sources = append(sources, &credentials{directory: deps.CredentialsDirectory, wanted: fromCredentials})
	}
	if len(fromFiles) > 0 {
		sources = append(sources, &files{wanted: fromFiles})
	}
	if len(fromVault) > 0 {
		v, err := newVault(cfg.Vault, deps)
		if err != nil {
			problems = append(problems, err)
		} else {
			v.wanted = fromVault
			sources = append(sources, v)
		}
	}
	return sources, errors.Join(problems...)
}
