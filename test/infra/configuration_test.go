package infra

import (
	"bufio"
	"encoding/json"
	"os/exec"
	"strings"
	"testing"
)

func TestConfigurationIsFormatted(t *testing.T) {
	t.Parallel()
	out, err := exec.Command("terraform", "fmt", "-check", "-recursive", "-diff", repository+"/infrastructure").CombinedOutput()
	if err != nil {
		t.Fatalf("run terraform fmt -recursive infrastructure: %v\n%s", err, out)
	}
}

func TestConfigurationIsValid(t *testing.T) {
	t.Parallel()
	for _, module := range []string{"", "bootstrap"} {
		t.Run("infrastructure/"+module, func(t *testing.T) {
			newWorkspace(t, module, "-backend=false").succeed(t, "validate")
		})
	}
}

// TestTerraform runs infrastructure/tests, each run as a test of its own.
func TestTerraform(t *testing.T) {
	t.Parallel()
	w := newWorkspace(t, "", "-backend=false")
	code, out := w.run(t, "test", "-json")
	status, said := map[string]string{}, map[string][]string{}
	var order []string
	lines := bufio.NewScanner(strings.NewReader(out))
	lines.Buffer(nil, 16<<20)
	for lines.Scan() {
		var event struct {
			Type string `json:"type"`
			File string `json:"@testfile"`
			Run  string `json:"@testrun"`
			Test struct {
				Progress string `json:"progress"`
				Status   string `json:"status"`
			} `json:"test_run"`
			Diagnostic struct {
				Severity string `json:"severity"`
				Summary  string `json:"summary"`
				Detail   string `json:"detail"`
			} `json:"diagnostic"`
		}
		if json.Unmarshal(lines.Bytes(), &event) != nil {
			continue // a warning of the CLI itself, which is no event
		}
		name := strings.TrimSuffix(strings.TrimPrefix(event.File, "tests/"), ".tftest.hcl") + "/" + event.Run
		switch {
		case event.Type == "test_run" && event.Test.Progress == "complete":
			status[name] = event.Test.Status
			order = append(order, name)
		case event.Type == "diagnostic" && event.Diagnostic.Severity == "error":
			said[name] = append(said[name], event.Diagnostic.Summary+": "+event.Diagnostic.Detail)
		}
	}
	for _, name := range order {
		t.Run(name, func(t *testing.T) {
			if status[name] != "pass" {
				t.Errorf("status %s\n%s", status[name], strings.Join(said[name], "\n"))
			}
		})
	}
	if len(order) == 0 || code != 0 && !t.Failed() {
		t.Fatalf("terraform test: exit code %d after %d runs\n%s", code, len(order), out)
	}
}
