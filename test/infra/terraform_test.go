package infra

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// repository is two levels up.
const repository = "../.."

// workspace is a copy of infrastructure/ that Terraform may write into.
type workspace struct {
	dir string // of one root module in it
	all string
}

// newWorkspace copies the configuration and has Terraform fetch the provider. module is a root module below
// infrastructure/, "" for infrastructure/ itself; arguments are further ones of init.
func newWorkspace(t *testing.T, module string, arguments ...string) *workspace {
	t.Helper()
	all := filepath.Join(t.TempDir(), "infrastructure")
	copyOf := exec.Command("cp", "-r", filepath.Join(repository, "infrastructure"), all)
	if out, err := copyOf.CombinedOutput(); err != nil {
		t.Fatalf("copy infrastructure/: %v: %s", err, out)
	}
	// A developer's own initialisation is not the test's.
	if err := errors.Join(os.RemoveAll(filepath.Join(all, ".terraform")), os.RemoveAll(filepath.Join(all, "bootstrap", ".terraform"))); err != nil {
		t.Fatal(err)
	}
	w := &workspace{dir: filepath.Join(all, module), all: all}
	if mirror := os.Getenv("TF_PLUGIN_MIRROR"); mirror != "" {
		arguments = append(arguments, "-plugin-dir="+mirror)
	}
	w.succeed(t, append([]string{"init", "-lockfile=readonly"}, arguments...)...)
	return w
}

// run runs Terraform and returns its exit code with all that it printed.
func (w *workspace) run(t *testing.T, arguments ...string) (int, string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	// Before the first option: some commands have a second word, others take what follows their options for names.
	at := slices.IndexFunc(arguments, func(word string) bool { return strings.HasPrefix(word, "-") })
	if at < 0 {
		at = len(arguments)
	}
	plain := slices.Insert(slices.Clone(arguments), at, "-no-color")
	cmd := exec.CommandContext(ctx, "terraform", append([]string{"-chdir=" + w.dir}, plain...)...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatalf("terraform %v: %v", arguments, err)
	}
	return cmd.ProcessState.ExitCode(), out.String()
}

func (w *workspace) succeed(t *testing.T, arguments ...string) string {
	t.Helper()
	code, out := w.run(t, arguments...)
	if code != 0 {
		// What an apply planned before it failed is four thousand lines.
		if i := strings.Index(out, "\nError: "); i >= 0 {
			out = out[i:]
		}
		t.Fatalf("terraform %v: exit code %d\n%s", arguments, code, out)
	}
	return out
}

// wantNoDifference plans and fails with the plan where it isn't empty.
func (w *workspace) wantNoDifference(t *testing.T, arguments ...string) {
	t.Helper()
	if code, out := w.run(t, append([]string{"plan", "-detailed-exitcode"}, arguments...)...); code != 0 {
		if i := strings.Index(out, "Terraform will perform the following actions"); i >= 0 {
			out = out[i:]
		}
		t.Fatalf("terraform plan: exit code %d, want 0 for no differences\n%s", code, out)
	}
}
