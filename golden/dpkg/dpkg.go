// Package dpkg reads what Debian's package manager has installed in a system.
//
// What enters is the root directory of a system; what leaves are its packages and the files that they own. It runs no
// program and changes nothing.
package dpkg

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"
)

const (
	statusFile = "var/lib/dpkg/status"
	infoDir    = "var/lib/dpkg/info"
)

// Package is one that is installed.
type Package struct {
	Name, Version, Architecture string
	// Source and SourceVersion name the source package that it was built from, which security advisories are about.
	Source, SourceVersion string
	Maintainer, Homepage  string
}

// Packages are those that are installed, in the order of their names. A system without any has no dpkg, which is an error.
func Packages(root *os.Root) ([]Package, error) {
	f, err := root.Open(statusFile)
	if err != nil {
		return nil, fmt.Errorf("read the installed packages: %w; only Debian and its kin are known", err)
	}
	defer f.Close()
	packages, err := parse(f)
	if err != nil {
		return nil, fmt.Errorf("read the installed packages: /%s: %w", statusFile, err)
	}
	slices.SortFunc(packages, func(a, b Package) int {
		return strings.Compare(a.Name+" "+a.Architecture, b.Name+" "+b.Architecture)
	})
	return packages, nil
}

// Find returns the first installed package of several names.
func Find(packages []Package, names ...string) (Package, bool) {
	for _, name := range names {
		if i := slices.IndexFunc(packages, func(p Package) bool { return p.Name == name }); i >= 0 {
			return packages[i], true
		}
	}
	return Package{}, false
}

// maxLine is far above the longest in a status file, a list of dependencies of a metapackage.
const maxLine = 4 << 20

// parse reads deb822(5) paragraphs and keeps those of installed packages.
func parse(r io.Reader) ([]Package, error) {
	var packages []Package
	fields := map[string]string{}
	flush := func() error {
		defer clear(fields)
		if len(fields) == 0 {
			return nil
		}
		// "install ok installed": the last word is the state. Others, such as config-files, have no program left.
		words := strings.Fields(fields["Status"])
		if len(words) == 0 || words[len(words)-1] != "installed" {
			return nil
		}
		p := Package{
			Name: fields["Package"], Version: fields["Version"], Architecture: fields["Architecture"],
			Maintainer: fields["Maintainer"], Homepage: fields["Homepage"],
		}
		if p.Name == "" || p.Version == "" {
			return errors.New("a package without a name or a version: repair it with dpkg --audit")
		}
		// "Source: name (version)", each where it differs.
		source, version, _ := strings.Cut(fields["Source"], " ")
		p.Source, p.SourceVersion = source, strings.Trim(version, "()")
		if p.Source == "" {
			p.Source = p.Name
		}
		if p.SourceVersion == "" {
			p.SourceVersion = p.Version
		}
		packages = append(packages, p)
		return nil
	}
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, maxLine)
	for lines.Scan() {
		line := lines.Text()
		switch {
		case line == "":
			if err := flush(); err != nil {
				return nil, err
			}
		case line[0] == ' ' || line[0] == '\t': // goes on with a field; none of ours has a second line
		default:
			name, value, ok := strings.Cut(line, ":")
			if !ok {
				return nil, fmt.Errorf("a line without a field: %.60q", line)
			}
			fields[name] = strings.TrimSpace(value)
		}
	}
	if err := lines.Err(); err != nil {
		return nil, err
	}
	return packages, flush()
}

// Owned are the files of all packages, as paths from the root directory.
func Owned(root *os.Root) (map[string]bool, error) {
	lists, err := fs.Glob(root.FS(), infoDir+"/*.list")
	if err != nil {
		return nil, err
	}
	owned := map[string]bool{}
	for _, list := range lists {
		content, err := root.ReadFile(list)
		if err != nil {
			return nil, fmt.Errorf("read the files of a package: %w", err)
		}
		for line := range strings.Lines(string(content)) {
			name := strings.TrimPrefix(strings.TrimSpace(line), "/")
			// A package that was built before /usr was merged names a file where its link is.
			if first, _, ok := strings.Cut(name, "/"); ok && slices.Contains([]string{"bin", "sbin", "lib", "lib64"}, first) {
				owned["usr/"+name] = true
			}
			owned[name] = true
		}
	}
	return owned, nil
}
