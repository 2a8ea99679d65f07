package sbom

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	cdx "github.com/CycloneDX/cyclonedx-go"
	"github.com/spdx/tools-golang/spdx/v2/common"
	"github.com/spdx/tools-golang/spdx/v2/v2_3"
)

// Format is how a document is written.
type Format string

const (
	SPDX      Format = "spdx-json"
	CycloneDX Format = "cyclonedx-json"
)

// Formats are all of them.
func Formats() []Format { return []Format{SPDX, CycloneDX} }

// FileName is what a document of the format is called, with the ending that its specification asks for.
func (f Format) FileName() string {
	if f == SPDX {
		return "flowagent-image.spdx.json"
	}
	return "flowagent-image.cdx.json"
}

// Timestamp is the moment that a document names: given, in the form of RFC 3339; else SOURCE_DATE_EPOCH
// (https://reproducible-builds.org/specs/source-date-epoch/); else now.
func Timestamp(given string, now time.Time) (time.Time, error) {
	if given != "" {
		t, err := time.Parse(time.RFC3339, given)
		if err != nil {
			return t, fmt.Errorf("%q is no moment: write it like 2026-11-24T08:00:00Z", given)
		}
		return t.UTC().Truncate(time.Second), nil
	}
	if epoch := os.Getenv("SOURCE_DATE_EPOCH"); epoch != "" {
		seconds, err := strconv.ParseInt(epoch, 10, 64)
		if err != nil || seconds < 0 {
			return time.Time{}, errors.New("SOURCE_DATE_EPOCH is no number of seconds since 1970: correct it, or unset it")
		}
		return time.Unix(seconds, 0).UTC(), nil
	}
	return now.UTC().Truncate(time.Second), nil
}

// Document writes the inventory down. tool is the version of flowagent that does.
func (i Inventory) Document(format Format, tool string, at time.Time) ([]byte, error) {
	switch format {
	case SPDX:
		return i.spdx(tool, at)
	case CycloneDX:
		return i.cycloneDX(tool, at)
	}
	return nil, fmt.Errorf("unknown format %q", format)
}

// name is what the document is about.
func (i Inventory) name() string { return "flowagent image on " + i.System.Name }

// identifier is a UUID that is made of a document's content (RFC 9562, version 8), so that it changes with it and only then.
func identifier(content []byte) string {
	sum := sha256.Sum256(content)
	sum[6] = sum[6]&0x0f | 0x80
	sum[8] = sum[8]&0x3f | 0x80
	text := hex.EncodeToString(sum[:16])
	return strings.Join([]string{text[:8], text[8:12], text[12:16], text[16:20], text[20:]}, "-")
}

// encode writes JSON with the characters of URLs as they are.
func encode(document any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	err := e.Encode(document)
	return b.Bytes(), err
}

const (
	projectURL = "https://github.com/flowviz/flowagent"
	noneKnown  = "NOASSERTION"
)

func (i Inventory) spdx(tool string, at time.Time) ([]byte, error) {
	document := &v2_3.Document{
		SPDXVersion: v2_3.Version, DataLicense: v2_3.DataLicense, SPDXIdentifier: "DOCUMENT", DocumentName: i.name(),
		CreationInfo: &v2_3.CreationInfo{
			Created:  at.Format(time.RFC3339),
			Creators: []common.Creator{{CreatorType: "Tool", Creator: "flowagent-" + tool}},
		},
	}
	add := func(within common.ElementID, relation string, p v2_3.Package) {
		p.PackageDownloadLocation, p.PackageLicenseConcluded, p.PackageCopyrightText = noneKnown, noneKnown, noneKnown
		if p.PackageLicenseDeclared == "" {
			p.PackageLicenseDeclared = noneKnown
		}
		document.Packages = append(document.Packages, &p)
		document.Relationships = append(document.Relationships, &v2_3.Relationship{
			RefA: common.MakeDocElementID("", string(within)), Relationship: relation,
			RefB: common.MakeDocElementID("", string(p.PackageSPDXIdentifier)),
		})
	}
	const system = "OperatingSystem"
	add("DOCUMENT", common.TypeRelationshipDescribe, v2_3.Package{
		PackageName: i.System.ID, PackageSPDXIdentifier: system, PackageVersion: i.System.Version,
		PrimaryPackagePurpose: "OPERATING-SYSTEM", PackageSummary: i.System.Name,
	})
	agent := spdxID("program", i.Agent.URL)
	add(system, common.TypeRelationshipContains, v2_3.Package{
		PackageName: i.Agent.Name, PackageSPDXIdentifier: agent, PackageVersion: i.Agent.Version, PackageFileName: "/usr/bin/flowagent",
		PrimaryPackagePurpose: "APPLICATION", PackageExternalReferences: spdxURL(i.Agent.URL),
		PackageChecksums: []common.Checksum{{Algorithm: common.SHA256, Value: i.Agent.SHA256}},
	})
	for _, m := range i.Agent.Modules {
		add(agent, common.TypeRelationshipDependsOn, v2_3.Package{
			PackageName: m.Path, PackageSPDXIdentifier: spdxID("module", m.URL), PackageVersion: m.Version,
			PrimaryPackagePurpose: "LIBRARY", PackageExternalReferences: spdxURL(m.URL),
		})
	}
	for _, p := range i.Packages {
		pkg := v2_3.Package{
			PackageName: p.Name, PackageSPDXIdentifier: spdxID("package", p.URL), PackageVersion: p.Version, PackageHomePage: p.Homepage,
			PackageSourceInfo:         "built from: " + p.Source + " " + p.SourceVersion,
			PackageExternalReferences: spdxURL(p.URL),
		}
		if p.Maintainer != "" {
			pkg.PackageSupplier = &common.Supplier{SupplierType: "Organization", Supplier: p.Maintainer}
		}
		if len(p.Licenses) > 0 {
			pkg.PackageLicenseComments = "in its copyright file, in Debian's spelling: " + strings.Join(p.Licenses, ", ")
		}
		add(system, common.TypeRelationshipContains, pkg)
	}
	for _, image := range i.Images {
		add(system, common.TypeRelationshipContains, v2_3.Package{
			PackageName: image.Name, PackageSPDXIdentifier: spdxID("image", image.URL), PackageVersion: image.Digest,
			PrimaryPackagePurpose: "CONTAINER", PackageExternalReferences: spdxURL(image.URL),
			PackageChecksums: []common.Checksum{{Algorithm: common.SHA256, Value: strings.TrimPrefix(image.Digest, "sha256:")}},
		})
	}
	content, err := encode(document)
	if err != nil {
		return nil, err
	}
	document.DocumentNamespace = projectURL + "/spdx/" + identifier(content)
	return encode(document)
}

// spdxID makes an identifier of what SPDX allows in one. The hash keeps two that differ in other characters apart.
func spdxID(kind, url string) common.ElementID {
	sum := sha256.Sum256([]byte(url))
	path, _, _ := strings.Cut(strings.TrimPrefix(url, "pkg:"), "?")
	allowed := func(r rune) rune {
		if r < utf8.RuneSelf && (unicode.IsLetter(r) || unicode.IsDigit(r) || r == '.') {
			return r
		}
		return '-'
	}
	return common.ElementID(fmt.Sprintf("%s-%s-%x", kind, strings.Map(allowed, path), sum[:6]))
}

func spdxURL(url string) []*v2_3.PackageExternalReference {
	return []*v2_3.PackageExternalReference{{Category: common.CategoryPackageManager, RefType: common.TypePackageManagerPURL, Locator: url}}
}

func (i Inventory) cycloneDX(tool string, at time.Time) ([]byte, error) {
	system := cdx.Component{BOMRef: "operating-system", Type: cdx.ComponentTypeOS, Name: i.System.ID, Version: i.System.Version, Description: i.System.Name}
	var components []cdx.Component
	var contained, modules []string
	agent := cdx.Component{
		BOMRef: i.Agent.URL, Type: cdx.ComponentTypeApplication, Name: i.Agent.Name, Version: i.Agent.Version, PackageURL: i.Agent.URL,
		Hashes: &[]cdx.Hash{{Algorithm: cdx.HashAlgoSHA256, Value: i.Agent.SHA256}},
	}
	components = append(components, agent)
	contained = append(contained, agent.BOMRef)
	for _, m := range i.Agent.Modules {
		components = append(components, cdx.Component{BOMRef: m.URL, Type: cdx.ComponentTypeLibrary, Name: m.Path, Version: m.Version, PackageURL: m.URL})
		modules = append(modules, m.URL)
	}
	for _, p := range i.Packages {
		c := cdx.Component{
			BOMRef: p.URL, Type: cdx.ComponentTypeLibrary, Name: p.Name, Version: p.Version, PackageURL: p.URL,
			Properties: &[]cdx.Property{{Name: "flowagent:deb:source", Value: p.Source}, {Name: "flowagent:deb:source-version", Value: p.SourceVersion}},
		}
		if p.Maintainer != "" {
			c.Supplier = &cdx.OrganizationalEntity{Name: p.Maintainer}
		}
		if len(p.Licenses) > 0 {
			var licenses cdx.Licenses
			for _, name := range p.Licenses {
				licenses = append(licenses, cdx.LicenseChoice{License: &cdx.License{Name: name}})
			}
			c.Licenses = &licenses
		}
		components = append(components, c)
		contained = append(contained, c.BOMRef)
	}
	for _, image := range i.Images {
		components = append(components, cdx.Component{
			BOMRef: image.URL, Type: cdx.ComponentTypeContainer, Name: image.Name, Version: image.Digest, PackageURL: image.URL,
			Hashes: &[]cdx.Hash{{Algorithm: cdx.HashAlgoSHA256, Value: strings.TrimPrefix(image.Digest, "sha256:")}},
		})
		contained = append(contained, image.URL)
	}
	bom := cdx.BOM{
		JSONSchema: "http://cyclonedx.org/schema/bom-1.6.schema.json", BOMFormat: cdx.BOMFormat, SpecVersion: cdx.SpecVersion1_6, Version: 1,
		Metadata: &cdx.Metadata{
			Timestamp: at.Format(time.RFC3339), Component: &system,
			Tools: &cdx.ToolsChoice{Components: &[]cdx.Component{{Type: cdx.ComponentTypeApplication, Name: "flowagent", Version: tool}}},
		},
		Components:   &components,
		Dependencies: &[]cdx.Dependency{{Ref: system.BOMRef, Dependencies: &contained}, {Ref: agent.BOMRef, Dependencies: &modules}},
	}
	content, err := encode(bom)
	if err != nil {
		return nil, err
	}
	bom.SerialNumber = "urn:uuid:" + identifier(content)
	return encode(bom)
}
