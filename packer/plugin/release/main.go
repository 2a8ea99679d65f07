// Command release makes the files of a release as `packer init` expects them: for each platform
// packer-plugin-flowagent_vX.Y.Z_x5.0_OS_ARCH.zip with a program of the same name, and the SHA-256 of them all in
// packer-plugin-flowagent_vX.Y.Z_SHA256SUMS. The same source makes the same bytes.
//
// What enters is a version and the module in the current directory; what leaves is a directory of files. It signs and
// uploads nothing.
package main

import (
	"archive/zip"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/packer-plugin-sdk/plugin"
)

const (
	name          = "packer-plugin-flowagent"
	versionModule = "github.com/flowviz/flowagent/packer/plugin/version"
)

// platforms are where Packer runs: on CI's machines and on developers' laptops.
var platforms = []string{"linux/amd64", "linux/arm64", "darwin/amd64", "darwin/arm64"}

// versionForm is what Packer takes from a tag: https://developer.hashicorp.com/packer/docs/plugins/creation/tutorial
var versionForm = regexp.MustCompile(`^v?([0-9]+\.[0-9]+\.[0-9]+)(?:-([0-9A-Za-z.-]+))?$`)

// stamp is the time of each file in an archive, which holds none before 1980.
var stamp = time.Date(1980, 1, 1, 0, 0, 0, 0, time.UTC)

func main() {
	version := flag.String("version", "", "version of the release, such as v1.2.3")
	dir := flag.String("dir", "", "directory for the files; what is in it is removed")
	some := flag.String("platforms", strings.Join(platforms, ","), "platforms, as OS/ARCH, separated by commas")
	flag.Parse()
	if err := release(*version, *dir, strings.Split(*some, ",")); err != nil {
		fmt.Fprintln(os.Stderr, "release:", err)
		os.Exit(1)
	}
}

func release(version, dir string, platforms []string) error {
	parts := versionForm.FindStringSubmatch(version)
	if parts == nil {
		return fmt.Errorf("-version %q is none: write it like v1.2.3; `make plugin-release` takes git's tag, or PLUGIN_VERSION=v1.2.3", version)
	}
	if dir == "" {
		return errors.New("-dir is missing: name a directory for the files")
	}
	version = strings.TrimPrefix(version, "v")
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	work, err := os.MkdirTemp("", "plugin-release-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)
	var sums []string
	for _, platform := range platforms {
		system, architecture, _ := strings.Cut(platform, "/")
		title := fmt.Sprintf("%s_v%s_x%s.%s_%s_%s", name, version, plugin.APIVersionMajor, plugin.APIVersionMinor, system, architecture)
		program := filepath.Join(work, title)
		if err := build(program, system, architecture, parts[1], parts[2]); err != nil {
			return err
		}
		if system == runtime.GOOS && architecture == runtime.GOARCH {
			if err := checkDescription(program, version); err != nil {
				return err
			}
		}
		sum, err := pack(filepath.Join(dir, title+".zip"), program)
		if err != nil {
			return err
		}
		sums = append(sums, fmt.Sprintf("%s  %s.zip\n", sum, title))
	}
	slices.SortFunc(sums, func(a, b string) int { return strings.Compare(a[64:], b[64:]) })
	return os.WriteFile(filepath.Join(dir, fmt.Sprintf("%s_v%s_SHA256SUMS", name, version)), []byte(strings.Join(sums, "")), 0o644)
}

func build(to, system, architecture, version, prerelease string) error {
	flags := fmt.Sprintf("-s -w -buildid= -X %s.Version=%s -X %s.Prerelease=%s", versionModule, version, versionModule, prerelease)
	cmd := exec.Command("go", "build", "-trimpath", "-buildvcs=false", "-ldflags", flags, "-o", to, ".")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS="+system, "GOARCH="+architecture)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build for %s/%s: %w\n%s", system, architecture, err, out)
	}
	return nil
}

// checkDescription asks the program what it is: Packer refuses one that says another version than its file's name.
func checkDescription(program, version string) error {
	out, err := exec.Command(program, "describe").Output()
	if err != nil {
		return fmt.Errorf("%s describe: %w", program, err)
	}
	var says struct {
		Version    string `json:"version"`
		APIVersion string `json:"api_version"`
	}
	if err := json.Unmarshal(out, &says); err != nil {
		return fmt.Errorf("%s describe: %w", program, err)
	}
	if want := "x" + plugin.APIVersionMajor + "." + plugin.APIVersionMinor; says.Version != version || says.APIVersion != want {
		return fmt.Errorf("the program says version %s and API %s, and the files %s and %s", says.Version, says.APIVersion, version, want)
	}
	return nil
}

// pack puts a program into an archive of its own and returns the archive's SHA-256.
func pack(to, program string) (string, error) {
	content, err := os.ReadFile(program)
	if err != nil {
		return "", err
	}
	header := &zip.FileHeader{Name: filepath.Base(program), Method: zip.Deflate, Modified: stamp}
	header.SetMode(0o755)
	var archive bytes.Buffer
	writer := zip.NewWriter(&archive)
	file, err := writer.CreateHeader(header)
	if err == nil {
		_, err = io.Copy(file, bytes.NewReader(content))
	}
	if err = errors.Join(err, writer.Close()); err != nil {
		return "", fmt.Errorf("make %s: %w", to, err)
	}
	return fmt.Sprintf("%x", sha256.Sum256(archive.Bytes())), os.WriteFile(to, archive.Bytes(), 0o644)
}
