package dpkg

import (
	"errors"
	"io/fs"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/flowviz/flowagent/golden/internal/disk"
)

func rootOf(t *testing.T, d *disk.Disk) *os.Root {
	t.Helper()
	root, err := os.OpenRoot(d.Root)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = root.Close() })
	return root
}

func TestInstalledPackagesAreReadWithTheirSources(t *testing.T) {
	d := disk.New(t)
	d.File("var/lib/dpkg/status", `Package: zlib1g
Status: install ok installed
Source: zlib
Version: 1:1.3-1
Architecture: amd64

Package: removed
Status: deinstall ok config-files
Version: 1

Package: half
Status: install ok half-configured
Version: 1

Package: libc6
Status: hold ok installed
Source: glibc (2.41-1)
Version: 2.41-1+b1
Architecture: amd64
Description: a library
 Package: this is text
`)
	got, err := Packages(rootOf(t, d))
	if err != nil {
		t.Fatal(err)
	}
	want := []Package{
		{Name: "libc6", Version: "2.41-1+b1", Architecture: "amd64", Source: "glibc", SourceVersion: "2.41-1"},
		{Name: "zlib1g", Version: "1:1.3-1", Architecture: "amd64", Source: "zlib", SourceVersion: "1:1.3-1"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("packages (-want +got):\n%s", diff)
	}
	if p, ok := Find(got, "musl", "libc6"); !ok || p.Name != "libc6" {
		t.Errorf("find: got %+v, %v", p, ok)
	}
	if _, ok := Find(got, "musl"); ok {
		t.Error("a package was found that isn't there")
	}
}

func TestAStatusFileThatCantBeReadIsAnError(t *testing.T) {
	if _, err := Packages(rootOf(t, disk.New(t))); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("none: got %v", err)
	}
	for _, content := range []string{
		"Package\n",
		"Package: x\nStatus: install ok installed\n",
		"Status: install ok installed\nVersion: 1\n",
		"Package: " + strings.Repeat("x", maxLine+1),
	} {
		d := disk.New(t)
		d.File("var/lib/dpkg/status", content)
		if got, err := Packages(rootOf(t, d)); err == nil {
			t.Errorf("%.40q: got %v, want an error", content, got)
		}
	}
}

func TestFilesBelongToPackagesWhereverUsrIs(t *testing.T) {
	d := disk.New(t)
	d.File("var/lib/dpkg/info/a.list", "/.\n/bin\n/bin/su\n/usr/bin/passwd\n")
	d.File("var/lib/dpkg/info/a.md5sums", "0 usr/bin/other\n")
	owned, err := Owned(rootOf(t, d))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"bin/su", "usr/bin/su", "usr/bin/passwd"} {
		if !owned[name] {
			t.Errorf("%s belongs to nobody", name)
		}
	}
	if owned["usr/bin/other"] || slices.Contains([]bool{owned["passwd"], owned[""]}, true) {
		t.Error("something belongs to a package that doesn't")
	}
}
