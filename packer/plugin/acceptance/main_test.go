package acceptance

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/flowviz/flowagent/test/lab"
)

// programs are what all tests share.
var programs struct {
	packer  string
	plugins string            // PACKER_PLUGIN_PATH, with the plugin installed
	agents  map[string]string // the fake agent, by architecture
}

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "plugin-acceptance-")
	if err == nil {
		err = build(dir)
	}
	code := 1
	if err != nil {
		fmt.Fprintln(os.Stderr, "acceptance:", err)
	} else {
		code = m.Run()
	}
	_ = os.RemoveAll(dir)
	os.Exit(code)
}

// build makes the programs and has Packer install the plugin, as `packer plugins install --path` does for a person.
func build(dir string) error {
	made, err := lab.BuildDir()
	if err != nil {
		return err
	}
	programs.packer = filepath.Join(made, "bin", "packer")
	if _, err := os.Stat(programs.packer); err != nil {
		return fmt.Errorf("%w: run `make packer-tools`", err)
	}
	programs.plugins = filepath.Join(dir, "plugins")
	programs.agents = map[string]string{}
	for _, architecture := range []string{"amd64", "arm64"} {
		programs.agents[architecture] = filepath.Join(dir, "flowagent-"+architecture)
		if err := goBuild(programs.agents[architecture], "./fakeagent", "GOARCH="+architecture); err != nil {
			return err
		}
	}
	plugin := filepath.Join(dir, "packer-plugin-flowagent")
	if err := goBuild(plugin, ".."); err != nil {
		return err
	}
	install := packer("plugins", "install", "--path", plugin, "github.com/flowviz/flowagent")
	if out, err := install.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w\n%s", strings.Join(install.Args, " "), err, out)
	}
	return nil
}

func goBuild(to, what string, environment ...string) error {
	cmd := exec.Command("go", "build", "-o", to, what)
	cmd.Env = append(os.Environ(), append(environment, "CGO_ENABLED=0")...)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("go build %s: %w\n%s", what, err, out)
	}
	return nil
}

// packer prepares a call of Packer that knows no other plugin, asks nobody for news and colours nothing.
func packer(arguments ...string) *exec.Cmd {
	cmd := exec.Command(programs.packer, arguments...)
	cmd.Env = append(os.Environ(), "PACKER_PLUGIN_PATH="+programs.plugins, "CHECKPOINT_DISABLE=1", "PACKER_NO_COLOR=1")
	return cmd
}
