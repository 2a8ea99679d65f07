package sbom

import (
	"bytes"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	cdx "github.com/CycloneDX/cyclonedx-go"
	"github.com/google/go-cmp/cmp"
	"github.com/santhosh-tekuri/jsonschema/v6"
	spdxjson "github.com/spdx/tools-golang/json"
	"github.com/spdx/tools-golang/spdx"
	"github.com/spdx/tools-golang/spdxlib"

	"github.com/flowviz/flowagent/golden/internal/disk"
)

const (
	manifest = "sha256:1111111111111111111111111111111111111111111111111111111111111111"
	imageID  = "3333333333333333333333333333333333333333333333333333333333333333"
	imageRef = "registry.example.com:5000/team/wms@" + manifest
)

var moment = time.Date(2026, 11, 24, 8, 0, 0, 0, time.UTC)

// agent is the smallest of this project's programs that has modules. A test's own names none.
var agent = sync.OnceValues(func() (string, error) { return disk.Program("../../agent/config/internal/generate") })

// baked is a system with three packages, an agent and two images.
func baked(t testing.TB) *disk.Disk {
	t.Helper()
	d := disk.New(t)
	d.File("usr/lib/os-release", "PRETTY_NAME=\"Debian GNU/Linux 13 (trixie)\"\nID=debian\nVERSION_ID=\"13\"\n")
	d.Link("etc/os-release", "../usr/lib/os-release")
	d.File("var/lib/dpkg/status", `Package: libstdc++6
Status: install ok installed
Maintainer: Debian GCC Maintainers <debian-gcc@lists.debian.org>
Architecture: amd64
Multi-Arch: same
Source: gcc-14 (14.2.0-19)
Version: 14.2.0-19+b1
Description: GNU Standard C++ Library v3
 with a line that goes on: and has a colon

Package: gone
Status: deinstall ok config-files
Version: 1
Architecture: all

Package: adduser
Status: install ok installed
Version: 3.152
Architecture: all
Homepage: https://salsa.debian.org/debian/adduser

Package: bash
Status: install ok installed
Version: 1:5.2.37-2
Architecture: amd64
`)
	d.File("usr/share/doc/adduser/copyright", "Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/\n\nFiles: *\nLicense: GPL-2+\n\nFiles: x\nLicense: Expat\n\nLicense: GPL-2+\n text\n")
	d.File("usr/share/doc/bash/copyright", "This is Debian's package.\nLicense: whatever it says\n")
	d.File("etc/flowagent/config.yaml", "apiVersion: flowagent/v1\nkind: Node\nworkload: {project: wms, files: [compose.yaml]}\n")
	d.File("etc/flowagent/compose.yaml", "services: {api: {image: '"+imageRef+"'}, side: {image: 'side:2'}}\n")
	list, err := json.Marshal(map[string]any{"Repositories": map[string]any{
		"registry.example.com:5000/team/wms": map[string]string{imageRef: "sha256:" + imageID},
		"side":                               map[string]string{"side:2": "sha256:" + imageID},
	}})
	if err != nil {
		t.Fatal(err)
	}
	d.File("var/lib/docker/image/overlay2/repositories.json", string(list))
	d.File("var/lib/docker/image/overlay2/imagedb/content/sha256/"+imageID, "{}")
	program, err := agent()
	if err != nil {
		t.Fatal(err)
	}
	d.FileMode("usr/bin/flowagent", program, 0o755)
	return d
}

func taken(t testing.TB, d *disk.Disk) Inventory {
	t.Helper()
	all, err := Take(t.Context(), d.Root, "/etc/flowagent/config.yaml", "1.2.3")
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func written(t testing.TB, all Inventory, format Format) []byte {
	t.Helper()
	document, err := all.Document(format, "1.2.3", moment)
	if err != nil {
		t.Fatal(err)
	}
	return document
}

// wantURLs are the package URLs of what baked has, but for the agent's modules.
var wantURLs = []string{
	"pkg:deb/debian/adduser@3.152?arch=all&distro=debian-13",
	"pkg:deb/debian/bash@1:5.2.37-2?arch=amd64&distro=debian-13",
	"pkg:deb/debian/libstdc%2B%2B6@14.2.0-19%2Bb1?arch=amd64&distro=debian-13",
	"pkg:oci/side@sha256:" + imageID + "?repository_url=docker.io/library/side&tag=2",
	"pkg:oci/wms@" + manifest + "?repository_url=registry.example.com:5000/team/wms",
}

// checkURLs looks for all that a document has to name.
func checkURLs(t *testing.T, got []string) {
	t.Helper()
	for _, want := range wantURLs {
		if !slices.ContainsFunc(got, func(url string) bool { return unescaped(url) == unescaped(want) }) {
			t.Errorf("%s is missing in\n%s", want, strings.Join(got, "\n"))
		}
	}
	for _, prefix := range []string{"pkg:golang/stdlib@1.", "pkg:golang/github.com/invopop/jsonschema@v", "pkg:golang/github.com/flowviz/flowagent"} {
		if !slices.ContainsFunc(got, func(url string) bool { return strings.HasPrefix(url, prefix) }) {
			t.Errorf("nothing begins with %s", prefix)
		}
	}
	if slices.ContainsFunc(got, func(url string) bool { return strings.Contains(url, "gone") }) {
		t.Error("a package that was removed is listed")
	}
}

// unescaped is a package URL with the characters that its specification allows both ways.
func unescaped(url string) string {
	return strings.NewReplacer("%3A", ":", "%2F", "/").Replace(url)
}

func TestSPDXIsReadAndFoundValidByItsOwnLibrary(t *testing.T) {
	document, err := spdxjson.Read(bytes.NewReader(written(t, taken(t, baked(t)), SPDX)))
	if err != nil {
		t.Fatal(err)
	}
	if err := spdxlib.ValidateDocument(document); err != nil {
		t.Error(err)
	}
	var urls []string
	ids := map[string]bool{}
	for _, p := range document.Packages {
		if id := string(p.PackageSPDXIdentifier); ids[id] || strings.ContainsFunc(id, func(r rune) bool { return !strings.ContainsRune(allowedInID, r) }) {
			t.Errorf("the identifier %q is there twice, or has other characters than SPDX allows", id)
		} else {
			ids[id] = true
		}
		for _, r := range p.PackageExternalReferences {
			urls = append(urls, r.Locator)
		}
		if p.FilesAnalyzed {
			t.Errorf("%s says that its files were looked at", p.PackageName)
		}
	}
	checkURLs(t, urls)
	described, err := spdxlib.GetDescribedPackageIDs(document)
	if err != nil || len(described) != 1 || described[0] != "OperatingSystem" {
		t.Errorf("the document describes %v (%v), want the operating system", described, err)
	}
	adduser := document.Packages[slices.IndexFunc(document.Packages, func(p *spdx.Package) bool { return p.PackageName == "adduser" })]
	if !strings.HasSuffix(adduser.PackageLicenseComments, ": Expat, GPL-2+") {
		t.Errorf("licenses of adduser: got %q", adduser.PackageLicenseComments)
	}
	gcc := document.Packages[slices.IndexFunc(document.Packages, func(p *spdx.Package) bool { return p.PackageName == "libstdc++6" })]
	if gcc.PackageSourceInfo != "built from: gcc-14 14.2.0-19" {
		t.Errorf("source of libstdc++6: got %q", gcc.PackageSourceInfo)
	}
}

const allowedInID = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789.-"

// schemaOfCycloneDX is the specification's own, which comes with its library.
func schemaOfCycloneDX(t *testing.T) *jsonschema.Schema {
	t.Helper()
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/CycloneDX/cyclonedx-go").Output()
	if err != nil {
		t.Fatalf("find the schema: %v", err)
	}
	compiler := jsonschema.NewCompiler()
	for _, name := range []string{"bom-1.6.schema.json", "spdx.schema.json", "jsf-0.82.schemax.json"} {
		f, err := os.Open(filepath.Join(strings.TrimSpace(string(out)), "schema", name))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		schema, err := jsonschema.UnmarshalJSON(f)
		if err != nil {
			t.Fatal(err)
		}
		// The file is named otherwise than the main schema calls it.
		id := "http://cyclonedx.org/schema/" + strings.Replace(name, "schemax", "schema", 1)
		if err := compiler.AddResource(id, schema); err != nil {
			t.Fatal(err)
		}
	}
	schema, err := compiler.Compile("http://cyclonedx.org/schema/bom-1.6.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	return schema
}

func TestCycloneDXIsValidByItsOwnSchemaAndRead(t *testing.T) {
	document := written(t, taken(t, baked(t)), CycloneDX)
	value, err := jsonschema.UnmarshalJSON(bytes.NewReader(document))
	if err != nil {
		t.Fatal(err)
	}
	schema := schemaOfCycloneDX(t)
	if err := schema.Validate(value); err != nil {
		t.Error(err)
	}
	if err := schema.Validate(map[string]any{"bomFormat": "CycloneDX", "specVersion": "1.6", "serialNumber": "x"}); err == nil {
		t.Error("the schema takes a serial number that is none")
	}
	var bom cdx.BOM
	if err := cdx.NewBOMDecoder(bytes.NewReader(document), cdx.BOMFileFormatJSON).Decode(&bom); err != nil {
		t.Fatal(err)
	}
	var urls []string
	refs := map[string]bool{"operating-system": true}
	for _, c := range *bom.Components {
		urls = append(urls, c.PackageURL)
		refs[c.BOMRef] = true
	}
	checkURLs(t, urls)
	contained := 0
	for _, d := range *bom.Dependencies {
		for _, ref := range *d.Dependencies {
			contained++
			if !refs[ref] {
				t.Errorf("%s depends on %s, which isn't listed", d.Ref, ref)
			}
		}
	}
	if contained != len(*bom.Components) {
		t.Errorf("%d of %d components belong to something", contained, len(*bom.Components))
	}
	if bom.Metadata.Component.Name != "debian" || bom.Metadata.Component.Version != "13" {
		t.Errorf("it is about %+v", bom.Metadata.Component)
	}
}

func TestTheSameDiskGivesTheSameBytesAndAnotherOneOthers(t *testing.T) {
	d := baked(t)
	for _, format := range Formats() {
		first, second := written(t, taken(t, d), format), written(t, taken(t, d), format)
		if !bytes.Equal(first, second) {
			t.Errorf("%s: the same disk gives two documents", format)
		}
	}
	all := taken(t, d)
	other := all
	other.Packages = slices.Clone(all.Packages[1:])
	for _, format := range Formats() {
		if identifierOf(t, written(t, all, format)) == identifierOf(t, written(t, other, format)) {
			t.Errorf("%s: two disks have one identifier", format)
		}
	}
}

func identifierOf(t *testing.T, document []byte) string {
	t.Helper()
	var ids struct{ SerialNumber, DocumentNamespace string }
	if err := json.Unmarshal(document, &ids); err != nil {
		t.Fatal(err)
	}
	if ids.SerialNumber+ids.DocumentNamespace == "" {
		t.Fatal("the document has no identifier")
	}
	return ids.SerialNumber + ids.DocumentNamespace
}

func TestTheAgentsVersionIsThisProgramsWhereItIsTheSame(t *testing.T) {
	d := baked(t)
	if got := taken(t, d).Agent; got.Version == "1.2.3" {
		t.Errorf("another program has this one's version: %+v", got)
	}
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	d.FileMode("usr/bin/flowagent", string(self), 0o755)
	if got := taken(t, d).Agent; got.Version != "1.2.3" || got.URL != "pkg:golang/github.com/flowviz/flowagent@1.2.3" {
		t.Errorf("got version %q and %s", got.Version, got.URL)
	}
}

func TestWhatCantBeListedIsAnError(t *testing.T) {
	for name, c := range map[string]struct {
		spoil func(*disk.Disk)
		want  string
	}{
		"no distribution":  {func(d *disk.Disk) { remove(t, d, "usr/lib/os-release") }, "which distribution"},
		"no packages":      {func(d *disk.Disk) { remove(t, d, "var/lib/dpkg/status") }, "only Debian"},
		"a damaged list":   {func(d *disk.Disk) { d.File("var/lib/dpkg/status", "Package: x\nStatus: install ok installed\n") }, "dpkg --audit"},
		"no agent":         {func(d *disk.Disk) { remove(t, d, "usr/bin/flowagent") }, "install it as /usr/bin/flowagent"},
		"no configuration": {func(d *disk.Disk) { remove(t, d, "etc/flowagent/config.yaml") }, "configuration can't be read"},
		"an image that isn't there": {func(d *disk.Disk) {
			d.File("etc/flowagent/compose.yaml", "services: {api: {image: 'other:1'}}\n")
		}, "image other:1: it isn't there; pull it"},
		"nobody who knows the images": {func(d *disk.Disk) { remove(t, d, "var/lib/docker") }, "the engine isn't running"},
	} {
		t.Run(name, func(t *testing.T) {
			d := baked(t)
			c.spoil(d)
			if _, err := Take(t.Context(), d.Root, "/etc/flowagent/config.yaml", "1.2.3"); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want an error with %q", err, c.want)
			}
		})
	}
	if _, err := Take(t.Context(), t.TempDir(), "/etc/flowagent/config.yaml", "1.2.3"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("an empty directory: got %v", err)
	}
}

func remove(t *testing.T, d *disk.Disk, name string) {
	t.Helper()
	if err := os.RemoveAll(d.Path(name)); err != nil {
		t.Fatal(err)
	}
}

func TestTheMomentIsGivenOrTheEpochOrNow(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 678, time.FixedZone("", 3600))
	for _, c := range []struct {
		given, epoch string
		want         time.Time
	}{
		{"2026-11-24T09:00:00+01:00", "1", moment},
		{"", "1795507200", time.Unix(1795507200, 0)},
		{"", "", time.Date(2026, 1, 2, 2, 4, 5, 0, time.UTC)},
	} {
		t.Setenv("SOURCE_DATE_EPOCH", c.epoch)
		got, err := Timestamp(c.given, now)
		if err != nil || !got.Equal(c.want) || got.Location() != time.UTC {
			t.Errorf("%q, epoch %q: got %v (%v), want %v", c.given, c.epoch, got, err, c.want)
		}
	}
	if _, err := Timestamp("today", now); err == nil {
		t.Error("a word is taken for a moment")
	}
	t.Setenv("SOURCE_DATE_EPOCH", "today")
	if _, err := Timestamp("", now); err == nil {
		t.Error("a word is taken for an epoch")
	}
}

func TestIdentifiersAreUUIDsOfTheContent(t *testing.T) {
	a, b := identifier([]byte("a")), identifier([]byte("b"))
	if a == b || a[14] != '8' || !strings.ContainsRune("89ab", rune(a[19])) || len(a) != 36 {
		t.Errorf("got %s and %s", a, b)
	}
	if diff := cmp.Diff(a, identifier([]byte("a"))); diff != "" {
		t.Error(diff)
	}
}
