package acceptance

import (
	"archive/zip"
	"bytes"
	"crypto/sha256"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/flowviz/flowagent/test/lab"
)

// makeRelease makes the files for the test's own platform.
func makeRelease(t *testing.T, version string) (dir, title string) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "release")
	platform := runtime.GOOS + "/" + runtime.GOARCH
	cmd := exec.Command("go", "run", "./release", "-version="+version, "-dir="+dir, "-platforms="+platform)
	cmd.Dir = ".."
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", strings.Join(cmd.Args, " "), err, out)
	}
	return dir, fmt.Sprintf("packer-plugin-flowagent_%s_x5.0_%s_%s", version, runtime.GOOS, runtime.GOARCH)
}

func TestAReleaseIsWhatPackerInstalls(t *testing.T) {
	t.Parallel()
	dir, title := makeRelease(t, "v1.2.3")
	content, err := os.ReadFile(filepath.Join(dir, title+".zip"))
	if err != nil {
		t.Fatal(err)
	}
	sums, err := os.ReadFile(filepath.Join(dir, "packer-plugin-flowagent_v1.2.3_SHA256SUMS"))
	if err != nil {
		t.Fatal(err)
	}
	if want := fmt.Sprintf("%x  %s.zip\n", sha256.Sum256(content), title); string(sums) != want {
		t.Errorf("the sums: got %q, want %q", sums, want)
	}
	archive, err := zip.NewReader(bytes.NewReader(content), int64(len(content)))
	if err != nil {
		t.Fatal(err)
	}
	if len(archive.File) != 1 || archive.File[0].Name != title || archive.File[0].Mode().Perm() != 0o755 {
		t.Fatalf("in the archive: got %v, want one program, %s", archive.File, title)
	}
	program := filepath.Join(t.TempDir(), title)
	unpack(t, archive.File[0], program)

	// The SDK's own check wants a name in the current directory.
	build, err := lab.BuildDir()
	if err != nil {
		t.Fatal(err)
	}
	check := exec.Command(filepath.Join(build, "bin", "packer-sdc"), "plugin-check", title)
	check.Dir = filepath.Dir(program)
	if out, err := check.CombinedOutput(); err != nil {
		t.Errorf("packer-sdc plugin-check: %v\n%s", err, out)
	}

	plugins := filepath.Join(t.TempDir(), "plugins")
	run := func(arguments ...string) string {
		cmd := packer(arguments...)
		cmd.Env = append(cmd.Env, "PACKER_PLUGIN_PATH="+plugins)
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("packer %s: %v\n%s", strings.Join(arguments, " "), err, out)
		}
		return string(out)
	}
	run("plugins", "install", "--path", program, "github.com/flowviz/flowagent")
	if out := run("plugins", "installed"); !strings.Contains(out, filepath.Join("github.com/flowviz/flowagent", title)) {
		t.Errorf("packer plugins installed: got %s, want %s", out, title)
	}
	// What is installed satisfies a template, so packer init asks nobody.
	template := filepath.Join(t.TempDir(), "needs.pkr.hcl")
	needs := `packer {
  required_plugins {
    flowagent = { source = "github.com/flowviz/flowagent", version = "1.2.3" }
  }
}
`
	if err := os.WriteFile(template, []byte(needs), 0o644); err != nil {
		t.Fatal(err)
	}
	run("init", template)
}

func TestAReleaseIsReproducible(t *testing.T) {
	t.Parallel()
	var archives [2][]byte
	for i := range archives {
		dir, title := makeRelease(t, "v0.9.0-rc1")
		var err error
		if archives[i], err = os.ReadFile(filepath.Join(dir, title+".zip")); err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(archives[0], archives[1]) {
		t.Error("two releases of one source differ")
	}
}

// unpack has another process write the program: one that a parallel test starts would hold a file that is open for writing
// here for a moment, in which the program can't be executed (golang/go#22315).
func unpack(t *testing.T, file *zip.File, to string) {
	t.Helper()
	from, err := file.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer from.Close()
	write := exec.Command("sh", "-c", `cat >"$1" && chmod 755 "$1"`, "sh", to)
	write.Stdin = from
	if out, err := write.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", strings.Join(write.Args, " "), err, out)
	}
}
