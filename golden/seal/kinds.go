package seal

import (
	"errors"
	"io/fs"
	"os"
	"path"
	"regexp"
	"strings"
	"sync"
	"syscall"
)

// kind is one sort of thing that belongs to a single machine.
type kind struct {
	name string
	why  string
	// returns: a running system makes it anew while it runs.
	returns bool
	// before and after do what removing files doesn't; nil for nothing.
	before, after func(*sealer)
	rules         []rule
}

// rule is what to do with the files that a pattern names. "~/" stands for every home.
type rule struct {
	path string
	do   func(*sealer, place)
}

// kinds in the order of sealing. Programs that still run are dealt with first, and logs last, since the others make some.
var kinds = []kind{
	{
		name: "containers", why: "a clone makes its own from the images, with its own secrets and addresses",
		before: removeContainers,
	},
	{
		name: "engine", why: "the Docker Engine's id, keys and networks are one machine's; it makes new ones",
		rules: []rule{
			{"etc/docker/key.json", remove}, // the id of engines before 23
			{"var/lib/docker/engine-id", remove},
			{"var/lib/docker/network/files/local-kv.db", remove},
			{"var/lib/docker/swarm", empty},
			{"var/lib/docker/tmp", empty},
		},
	},
	{
		name: "agent-state", why: "flowagent's boot count, reports and journal are this machine's",
		rules: []rule{
			{"var/lib/flowagent", empty},
			{"run/flowagent/*", removeUnmounted}, // mounted there is the memory of secrets, which is no part of the disk
		},
	},
	{
		name: "cloud-init", why: "the next boot must look for its own instance, and not believe that it is configured",
		before: cleanCloudInit,
		// What `cloud-init clean --logs --seed --configs all` removes, for a disk that isn't running and for versions
		// that don't know all of it.
		rules: []rule{
			{"var/lib/cloud/*", remove},
			{"etc/netplan/50-cloud-init.yaml", remove},
			{"etc/NetworkManager/conf.d/*cloud-init*.conf", remove},
			{"etc/NetworkManager/system-connections/cloud-init-*.nmconnection", remove},
			{"etc/systemd/network/10-cloud-init-*.network", remove},
			{"etc/network/interfaces.d/50-cloud-init*", remove},
			{"etc/ssh/sshd_config.d/50-cloud-init.conf", remove},
			{"etc/sudoers.d/90-cloud-init-users", remove},
		},
	},
	{
		name: "installer", why: "left by an installer, it ties the disk to the machine and network that it was installed on",
		rules: []rule{
			{"etc/cloud/cloud.cfg.d/99-installer.cfg", remove},
			{"etc/cloud/cloud.cfg.d/90-installer-network.cfg", remove},
			{"etc/cloud/cloud.cfg.d/curtin-preserve-sources.cfg", remove},
			{"etc/cloud/cloud.cfg.d/subiquity-disable-cloudinit-networking.cfg", remove},
			{"etc/cloud/ds-identify.cfg", remove},
			{"etc/netplan/00-installer-config*.yaml", remove},
			{"etc/netplan/01-network-manager-all.yaml", remove},
			{"etc/udev/rules.d/70-persistent-net.rules", remove},
			{"var/log/installer", remove},
		},
	},
	{
		name: "machine-id", why: "two machines of one id get one DHCP lease and mix their journals; systemd makes a new one",
		before: resetMachineID,
	},
	{
		name: "ssh-host-keys", why: "whoever has one key could pose as every clone; cloud-init makes new ones",
		rules: []rule{{"etc/ssh/ssh_host_*", remove}},
	},
	{
		name: "authorized-keys", why: "the builder's key must not open the clones; cloud-init brings theirs",
		rules: []rule{{"~/.ssh/authorized_keys*", remove}},
	},
	{
		name: "certificates", why: "made when its package was installed, every clone would have the same private key",
		// ssl-cert.service makes it anew where it is missing.
		rules: []rule{
			{"etc/ssl/private/ssl-cert-snakeoil.key", remove},
			{"etc/ssl/certs/ssl-cert-snakeoil.pem", remove},
		},
	},
	{
		name: "registrations", why: "it would register every clone as this machine",
		before: resetISCSI,
		rules: []rule{
			{"var/lib/amazon/ssm", empty},
			{"var/lib/ubuntu-advantage/private", empty},
			{"var/lib/ubuntu-advantage/machine-access*.json", remove},
		},
	},
	{
		name: "histories", why: "what was typed while building often holds passwords, and nobody needs it",
		rules: homeRules(remove,
			".bash_history", ".zsh_history", ".ash_history", ".sh_history", ".history", ".local/share/fish/fish_history",
			".python_history", ".node_repl_history", ".irb_history", ".lesshst", ".viminfo", ".wget-hsts",
			".psql_history", ".mysql_history", ".sqlite_history", ".rediscli_history", ".valkeycli_history",
			".sudo_as_admin_successful", ".cache",
		),
	},
	{
		name: "random-seeds", why: "clones that start from one seed may guess each other's random numbers",
		rules: []rule{
			{"var/lib/systemd/random-seed", remove},
			{"var/lib/urandom/random-seed", remove},
			{"loader/random-seed", remove},
			{"efi/loader/random-seed", remove},
			{"boot/loader/random-seed", remove},
			{"boot/efi/loader/random-seed", remove},
		},
	},
	{
		name: "credential-secret", why: "systemd-creds encrypts with it; every clone could read the others' credentials",
		rules: []rule{{"var/lib/systemd/credential.secret", remove}},
	},
	{
		name: "swap", why: "it holds what was in the builder's memory, secrets included",
		before: removeSwap,
	},
	{
		name: "core-dumps", why: "they hold the memory of programs",
		rules: []rule{
			{"var/lib/systemd/coredump", empty},
			{"var/lib/apport/coredump", empty},
			{"var/crash", empty},
		},
	},
	{
		name: "mail", why: "it was meant for the builder",
		rules: []rule{{"var/mail", empty}, {"var/spool/mail", empty}},
	},
	{
		name: "leases", why: "clones would ask for the address that the builder had", returns: true,
		rules: []rule{
			{"var/lib/dhcp", empty},
			{"var/lib/dhclient", empty},
			{"var/lib/dhcpcd", empty},
			{"var/lib/NetworkManager", empty},
			{"etc/dhcpcd.duid", remove},
		},
	},
	{
		name: "package-caches", why: "they are old when a clone boots, and take room", returns: true,
		rules: []rule{
			{"var/cache/apt/archives", empty},
			{"var/cache/apt/*.bin", remove},
			{"var/lib/apt/lists", empty},
		},
	},
	{
		name: "temporary-files", why: "they were the builder's", returns: true,
		rules: []rule{{"tmp/*", removeTemporary}, {"var/tmp/*", removeTemporary}},
	},
	{
		name: "logs", why: "they tell of the builder: its addresses, users and failures", returns: true,
		rules: []rule{
			{"var/log", clearLogs},
			{"var/lib/wtmpdb/wtmp.db", remove},
			{"var/lib/lastlog/lastlog2.db", remove},
			{"var/lib/sudo/lectured", empty},
			{"var/lib/sudo/ts", empty},
		},
	},
}

func homeRules(do func(*sealer, place), names ...string) []rule {
	var rules []rule
	for _, name := range names {
		rules = append(rules, rule{"~/" + name, do})
	}
	return rules
}

func removeUnmounted(s *sealer, p place) {
	if !s.mounts[p.path] {
		remove(s, p)
	}
}

// removeTemporary leaves the directories that are the /tmp of services which run: without its own a service would see none.
// systemd removes them itself.
func removeTemporary(s *sealer, p place) {
	if s.mounts[p.path] {
		return // a service's or a person's, and no part of the disk
	}
	if !strings.HasPrefix(p.name, "systemd-private-") {
		remove(s, p)
		return
	}
	s.enter(p, func(sub *os.Root) {
		s.descend(sub, p.path, []string{"tmp"}, true, func(found place) { empty(s, found) })
	})
}

// rotated are the logs that no program writes to any more.
var rotated = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`\.(gz|xz|bz2|zst|old|\d+)$|-\d{8}$`)
})

// clearLogs removes what was rotated away and the journal, and empties every other file: daemons hold those open, and
// programs such as login expect some to be there.
func clearLogs(s *sealer, p place) {
	s.enter(p, func(dir *os.Root) {
		names, err := list(dir)
		if err != nil {
			s.problem(p.path, err)
		}
		for _, name := range names {
			info, err := dir.Lstat(name)
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
			found := place{dir, name, path.Join(p.path, name), info}
			switch {
			case err != nil:
				s.problem(found.path, err)
			case s.mounts[found.path]:
			case found.path == "var/log/journal":
				empty(s, found)
			case info.IsDir():
				clearLogs(s, found)
			case rotated().MatchString(name), strings.HasPrefix(name, "cloud-init"), linked(info) && info.Size() > 0:
				remove(s, found)
			default:
				truncate(s, found)
			}
		}
	})
}

// linked tells whether a file has other names: to empty it would empty what they name, too.
func linked(info fs.FileInfo) bool {
	stat, ok := info.Sys().(*syscall.Stat_t)
	return info.Mode().IsRegular() && ok && stat.Nlink > 1
}
