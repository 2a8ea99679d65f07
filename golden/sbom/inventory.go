// Package sbom writes down what a system's disk is made of, as SPDX 2.3 and as CycloneDX 1.6.
//
// What enters is the root directory of a system; what leaves is one document that lists its Debian packages, the agent with
// the Go modules in it, and the container images of its Compose files by digest. The same disk at the same moment gives the
// same bytes. It doesn't look into the images: what they are made of, their own documents say. It changes nothing.
package sbom

import (
	"bufio"
	"context"
	"crypto/sha256"
	"debug/buildinfo"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	"github.com/package-url/packageurl-go"

	"github.com/flowviz/flowagent/golden/dpkg"
	"github.com/flowviz/flowagent/golden/target"
)

// Inventory is what a system is made of.
type Inventory struct {
	// System is the distribution.
	System System
	// Packages of the distribution, by name.
	Packages []Package
	// Agent is flowagent's program.
	Agent Program
	// Images of the configuration's Compose files, by reference.
	Images []Image
}

// System is a distribution, from os-release(5).
type System struct {
	ID, Version, Name string
}

// Package is one of the distribution's.
type Package struct {
	dpkg.Package
	// Licenses are the short names in its copyright file, in Debian's spelling; none where that file isn't of the kind that
	// machines read.
	Licenses []string
	URL      string
}

// Program is a Go program with its modules.
type Program struct {
	Name, Version, SHA256, URL string
	Modules                    []Module
}

// Module is one that was linked into a program.
type Module struct {
	Path, Version, URL string
}

// Image is a container image.
type Image struct {
	// Name is the repository, with its registry; Tag is empty for a reference by digest.
	Name, Tag string
	// Digest of the manifest, or the image's id where it came from no registry.
	Digest string
	URL    string
}

// Take takes the inventory of the system below root, whose agent's configuration is at a path of it. version is this
// program's own: the agent has it as well where it is the same program, since Go doesn't write into a program what the
// linker was told to call it.
func Take(ctx context.Context, root, config, version string) (Inventory, error) {
	system, err := target.Open(root)
	if err != nil {
		return Inventory{}, err
	}
	defer system.Root.Close()
	var all Inventory
	if all.System, err = distribution(system.Root); err != nil {
		return Inventory{}, err
	}
	if all.Packages, err = packages(system.Root, all.System); err != nil {
		return Inventory{}, err
	}
	if all.Agent, err = program(system.Root, "usr/bin/flowagent"); err != nil {
		return Inventory{}, fmt.Errorf("read the agent: %w; install it as /usr/bin/flowagent", err)
	}
	if own, err := ownSum(); err == nil && own == all.Agent.SHA256 {
		all.Agent.Version, all.Agent.URL = version, moduleURL(all.Agent.Name, version)
	}
	if all.Images, err = images(ctx, system, config); err != nil {
		return Inventory{}, err
	}
	return all, nil
}

func distribution(root *os.Root) (System, error) {
	content, err := root.ReadFile("etc/os-release")
	if errors.Is(err, fs.ErrNotExist) {
		content, err = root.ReadFile("usr/lib/os-release")
	}
	if err != nil {
		return System{}, fmt.Errorf("read which distribution it is: %w", err)
	}
	fields := map[string]string{}
	for line := range strings.Lines(string(content)) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), "="); ok {
			if unquoted, err := strconv.Unquote(value); err == nil {
				value = unquoted
			}
			fields[name] = strings.Trim(value, "'")
		}
	}
	s := System{ID: fields["ID"], Version: fields["VERSION_ID"], Name: fields["PRETTY_NAME"]}
	if s.ID == "" {
		return s, errors.New("/etc/os-release doesn't say which distribution it is: write its ID")
	}
	if s.Name == "" {
		s.Name = strings.TrimSpace(s.ID + " " + s.Version)
	}
	return s, nil
}

func packages(root *os.Root, system System) ([]Package, error) {
	installed, err := dpkg.Packages(root)
	if err != nil {
		return nil, err
	}
	var all []Package
	for _, p := range installed {
		licenses, err := licensesOf(root, p.Name)
		if err != nil {
			return nil, err
		}
		qualifiers := map[string]string{"arch": p.Architecture, "distro": strings.Trim(system.ID+"-"+system.Version, "-")}
		all = append(all, Package{p, licenses, address(packageurl.TypeDebian, system.ID, p.Name, p.Version, qualifiers)})
	}
	return all, nil
}

// address writes a package URL (https://github.com/package-url/purl-spec).
func address(kind, namespace, name, version string, qualifiers map[string]string) string {
	return packageurl.NewPackageURL(kind, namespace, name, version, packageurl.QualifiersFromMap(qualifiers), "").ToString()
}

// maxCopyright bounds what is read of a copyright file; Linux's own has 60 kB.
const maxCopyright = 4 << 20

// licensesOf reads the license names in a package's copyright file, if it has the machine-readable format
// (https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/).
func licensesOf(root *os.Root, name string) ([]string, error) {
	f, err := root.Open("usr/share/doc/" + name + "/copyright")
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil // images without documentation are usual
	}
	if err != nil {
		return nil, fmt.Errorf("read the license of %s: %w", name, err)
	}
	defer f.Close()
	lines := bufio.NewScanner(io.LimitReader(f, maxCopyright))
	lines.Buffer(nil, maxCopyright)
	var names []string
	for first := true; lines.Scan(); first = false {
		field, value, ok := strings.Cut(lines.Text(), ":")
		if first && (!ok || field != "Format") {
			return nil, nil // free text
		}
		if ok && field == "License" {
			if value = strings.TrimSpace(value); value != "" && !slices.Contains(names, value) {
				names = append(names, value)
			}
		}
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("read the license of %s: %w", name, err)
	}
	slices.Sort(names)
	return names, nil
}

func program(root *os.Root, name string) (Program, error) {
	f, err := root.Open(name)
	if err != nil {
		return Program{}, err
	}
	defer f.Close()
	built, err := buildinfo.Read(f)
	if err != nil {
		return Program{}, err
	}
	sum, err := sumOf(f)
	if err != nil {
		return Program{}, err
	}
	p := Program{
		Name: built.Main.Path, Version: built.Main.Version, SHA256: sum,
		URL: moduleURL(built.Main.Path, built.Main.Version),
	}
	p.Modules = append(p.Modules, Module{"stdlib", strings.TrimPrefix(built.GoVersion, "go"), moduleURL("stdlib", strings.TrimPrefix(built.GoVersion, "go"))})
	for _, m := range built.Deps {
		m = replaced(m)
		p.Modules = append(p.Modules, Module{m.Path, m.Version, moduleURL(m.Path, m.Version)})
	}
	slices.SortFunc(p.Modules, func(a, b Module) int { return strings.Compare(a.URL, b.URL) })
	return p, nil
}

func sumOf(f *os.File) (string, error) {
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return "", err
	}
	sum := sha256.New()
	_, err := io.Copy(sum, f)
	return hex.EncodeToString(sum.Sum(nil)), err
}

func ownSum() (string, error) {
	path, err := os.Executable()
	if err != nil {
		return "", err
	}
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	return sumOf(f)
}

func replaced(m *debug.Module) *debug.Module {
	if m.Replace != nil {
		return m.Replace
	}
	return m
}

func moduleURL(path, version string) string {
	namespace, name := "", path
	if at := strings.LastIndexByte(path, '/'); at >= 0 {
		namespace, name = path[:at], path[at+1:]
	}
	if version == "(devel)" {
		version = "" // built from a working tree
	}
	return address(packageurl.TypeGolang, namespace, name, version, nil)
}

func images(ctx context.Context, system *target.Target, config string) ([]Image, error) {
	node, err := system.Load(ctx, config)
	if err != nil {
		return nil, err
	}
	find, err := system.Images(ctx, node.Config.Workload.Engine)
	if err != nil {
		return nil, fmt.Errorf("look for the images: %w", err)
	}
	var all []Image
	for _, ref := range node.Project.Images() {
		found, err := find(ref)
		if err != nil {
			return nil, fmt.Errorf("image %s: %w; pull it into the image first", ref, err)
		}
		named, err := reference.ParseDockerRef(ref)
		if err != nil {
			return nil, err
		}
		image := Image{Name: named.Name(), Digest: found.Digest}
		if tagged, ok := named.(reference.Tagged); ok {
			image.Tag = tagged.Tag()
		}
		if image.Digest == "" {
			image.Digest = found.ID
		}
		if _, err := digest.Parse(image.Digest); err != nil {
			return nil, fmt.Errorf("image %s: the engine knows it by %q: %w", ref, image.Digest, err)
		}
		name := image.Name[strings.LastIndexByte(image.Name, '/')+1:]
		qualifiers := map[string]string{"repository_url": image.Name}
		if image.Tag != "" {
			qualifiers["tag"] = image.Tag
		}
		image.URL = address(packageurl.TypeOCI, "", name, image.Digest, qualifiers)
		all = append(all, image)
	}
	return all, nil
}
