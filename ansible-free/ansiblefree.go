// Package ansiblefree holds what an Ansible role would have put on a machine: the agent's units, and how a node's engine,
// packet filter, SSH, clock, journal, kernel and updates are set. The files beside this one are the only copy there is: they
// are embedded in the binary, and [Files] says where on a node each belongs.
//
// Nothing enters; what leaves are contents, paths and units. The package never touches a machine: package golden/install
// does. Why each setting is as it is stands in the files' comments and, with how to switch it off, in
// docs/guides/hardening.md.
package ansiblefree

import (
	"embed"
	"fmt"
	"io/fs"
	"slices"
	"strings"
)

//go:embed apt.conf.d chrony cloud-init/image docker journald.conf.d modprobe.d nftables resolved.conf.d sshd_config.d sysctl.d systemd sysusers.d tmpfiles.d
var embedded embed.FS

// Profile is a set of files that makes sense by itself.
type Profile string

// The profiles, in the order in which they are installed.
const (
	Agent     Profile = "agent"     // the agent's units, group and directories; part of every choice
	Base      Profile = "base"      // engine, journal, names, clock, updates, cloud-init: what any node needs
	EC2       Profile = "ec2"       // what only an EC2 instance can use
	Hardening Profile = "hardening" // packet filter, SSH, kernel
)

// Profiles lists all of them.
var Profiles = []Profile{Agent, Base, EC2, Hardening}

// ParseProfiles reads names of profiles. The agent is always among the result, which is in order and names each once.
func ParseProfiles(names []string) ([]Profile, error) {
	chosen := map[Profile]bool{Agent: true}
	for _, name := range names {
		if !slices.Contains(Profiles, Profile(name)) {
			var known []string
			for _, p := range Profiles {
				known = append(known, string(p))
			}
			return nil, fmt.Errorf("profile %q is unknown: use one or more of %s", name, strings.Join(known, ", "))
		}
		chosen[Profile(name)] = true
	}
	return slices.DeleteFunc(slices.Clone(Profiles), func(p Profile) bool { return !chosen[p] }), nil
}

// File is one file and its place.
type File struct {
	Source  string      // in this directory
	Path    string      // on the node, absolute
	Mode    fs.FileMode // permissions; the owner is root
	Profile Profile
	Reader  Program // what reads it on the node, where that isn't systemd; the zero value otherwise
	// Activate is the command that makes a running machine heed the file, empty where a boot alone or a daemon-reload does.
	Activate string
}

// Program is a program of the distribution.
type Program struct {
	Name    string `json:"name"`    // in /usr/bin or /usr/sbin
	Package string `json:"package"` // Debian's and Ubuntu's that has it; there may be others, such as docker-ce
}

var (
	dockerd    = Program{"dockerd", "docker.io"}
	nft        = Program{"nft", "nftables"}
	sshd       = Program{"sshd", "openssh-server"}
	chronyd    = Program{"chronyd", "chrony"}
	modprobe   = Program{"modprobe", "kmod"}
	unattended = Program{"unattended-upgrade", "unattended-upgrades"}
	cloudInit  = Program{"cloud-init", "cloud-init"}
)

const (
	units   = "/usr/lib/systemd/system/"
	library = "/usr/lib/flowagent/"
)

// table is in the order of installation: what is used comes before what uses it.
var table = []File{
	{Source: "sysusers.d/flowagent.conf", Path: "/usr/lib/sysusers.d/flowagent.conf", Mode: 0o644, Profile: Agent},
	{Source: "tmpfiles.d/flowagent.conf", Path: "/usr/lib/tmpfiles.d/flowagent.conf", Mode: 0o644, Profile: Agent},
	{Source: "systemd/flowagent-secrets.service", Path: units + "flowagent-secrets.service", Mode: 0o644, Profile: Agent},
	{Source: "systemd/flowagent.service", Path: units + "flowagent.service", Mode: 0o644, Profile: Agent, Activate: "systemctl restart flowagent.service"},
	{Source: "systemd/flowagent.socket", Path: units + "flowagent.socket", Mode: 0o644, Profile: Agent},

	{Source: "docker/daemon.json", Path: "/etc/docker/daemon.json", Mode: 0o644, Profile: Base, Reader: dockerd, Activate: "systemctl restart docker.service"},
	{Source: "systemd/docker.service.d/60-flowagent.conf", Path: units + "docker.service.d/60-flowagent.conf", Mode: 0o644, Profile: Base},
	{Source: "journald.conf.d/60-flowagent.conf", Path: "/usr/lib/systemd/journald.conf.d/60-flowagent.conf", Mode: 0o644, Profile: Base, Activate: "systemctl restart systemd-journald.service"},
	{Source: "resolved.conf.d/60-flowagent.conf", Path: "/usr/lib/systemd/resolved.conf.d/60-flowagent.conf", Mode: 0o644, Profile: Base, Activate: "systemctl try-restart systemd-resolved.service"},
	{Source: "chrony/flowagent.conf", Path: "/etc/chrony/conf.d/60-flowagent.conf", Mode: 0o644, Profile: Base, Reader: chronyd, Activate: "systemctl restart chrony.service"},
	{Source: "apt.conf.d/60flowagent", Path: "/etc/apt/apt.conf.d/60flowagent", Mode: 0o644, Profile: Base, Reader: unattended},
	{Source: "systemd/apt-.timer.d/60-flowagent.conf", Path: units + "apt-.timer.d/60-flowagent.conf", Mode: 0o644, Profile: Base},
	{Source: "cloud-init/image/95-flowagent.cfg", Path: "/etc/cloud/cloud.cfg.d/95-flowagent.cfg", Mode: 0o644, Profile: Base, Reader: cloudInit},

	{Source: "chrony/ec2.sources", Path: "/etc/chrony/sources.d/60-flowagent-ec2.sources", Mode: 0o644, Profile: EC2, Reader: chronyd, Activate: "chronyc reload sources"},

	{Source: "nftables/firewall.nft", Path: library + "firewall.nft", Mode: 0o644, Profile: Hardening, Reader: nft, Activate: "systemctl reload-or-restart flowagent-firewall.service"},
	{Source: "nftables/firewall.sh", Path: library + "firewall", Mode: 0o755, Profile: Hardening},
	{Source: "systemd/flowagent-firewall.service", Path: units + "flowagent-firewall.service", Mode: 0o644, Profile: Hardening},
	{Source: "sshd_config.d/10-flowagent.conf", Path: "/etc/ssh/sshd_config.d/10-flowagent.conf", Mode: 0o644, Profile: Hardening, Reader: sshd, Activate: "systemctl reload ssh.service"},
	{Source: "sysctl.d/60-flowagent.conf", Path: "/usr/lib/sysctl.d/60-flowagent.conf", Mode: 0o644, Profile: Hardening, Activate: "/usr/lib/systemd/systemd-sysctl 60-flowagent.conf"},
	{Source: "modprobe.d/flowagent.conf", Path: "/etc/modprobe.d/flowagent.conf", Mode: 0o644, Profile: Hardening, Reader: modprobe},
}

// Files returns the files of the given profiles in the order of installation.
func Files(profiles ...Profile) []File {
	return slices.DeleteFunc(slices.Clone(table), func(f File) bool { return !slices.Contains(profiles, f.Profile) })
}

// Content returns what the file holds.
func (f File) Content() []byte {
	data, err := embedded.ReadFile(f.Source)
	if err != nil {
		panic("ansiblefree: " + err.Error()) // a name in the table that isn't embedded, which a test finds
	}
	return data
}

// Units says which units of a profile start at boot, and which units of the distribution must not be started at all.
type Units struct {
	Enable []string
	Mask   []string
}

// UnitsOf returns the units of the given profiles.
func UnitsOf(profiles ...Profile) Units {
	var u Units
	if slices.Contains(profiles, Agent) {
		u.Enable = append(u.Enable, "flowagent.service")
	}
	if slices.Contains(profiles, Hardening) {
		u.Enable = append(u.Enable, "flowagent-firewall.service")
		// A keyboard in the server room, or a click in the hypervisor's console, restarts no node.
		u.Mask = append(u.Mask, "ctrl-alt-del.target")
	}
	return u
}
