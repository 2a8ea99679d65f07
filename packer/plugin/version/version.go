// Package version says which release of the plugin this is. The Makefile sets it from git's newest tag.
package version

import "github.com/hashicorp/packer-plugin-sdk/version"

// Version and Prerelease are set by the linker, as 1.2.3 and dev. A build by hand is a development version, which Packer
// takes for older than any release.
var (
	Version    = "0.0.0"
	Prerelease = "dev"
)

// Plugin is what `packer-plugin-flowagent describe` says; the file names of a release must agree with it.
var Plugin = version.NewPluginVersion(Version, Prerelease, "")
