package verify

import (
	"io/fs"
	"path"
	"regexp"
	"strings"
	"sync"

	"github.com/flowviz/flowagent/golden/leak"
)

// stickyDirs are those that everybody may write to by design, where nobody may remove another's files.
var stickyDirs = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`^(?:tmp|var/tmp|var/crash|dev/shm|dev/mqueue|run/lock|var/lib/php/sessions|(?:var/)?tmp/\.(?:X11|ICE|XIM|font)-unix|(?:var/)?tmp/systemd-private-[^/]+/tmp)$`)
})

// setuidFiles are the programs that Debian 12 and 13 and Ubuntu 22.04 and 24.04 give privileges to, and what those are for.
// Paths are as they are with /usr merged; a star stands for the architecture.
var setuidFiles = map[string]string{
	"usr/bin/at":                     "queues jobs for others to run (at)",
	"usr/bin/bsd-write":              "writes to others' terminals (bsdutils)",
	"usr/bin/wall":                   "writes to others' terminals (bsdutils)",
	"usr/bin/write.ul":               "writes to others' terminals (util-linux)",
	"usr/bin/chage":                  "reads the ages of passwords (passwd)",
	"usr/bin/chfn":                   "changes one's own name (passwd)",
	"usr/bin/chsh":                   "changes one's own shell (passwd)",
	"usr/bin/crontab":                "writes one's own table (cron)",
	"usr/bin/dotlockfile":            "locks mailboxes (liblockfile-bin)",
	"usr/bin/expiry":                 "reads the ages of passwords (passwd)",
	"usr/bin/fusermount":             "mounts one's own file systems (fuse)",
	"usr/bin/fusermount3":            "mounts one's own file systems (fuse3)",
	"usr/bin/gpasswd":                "changes groups that one administers (passwd)",
	"usr/bin/mount":                  "mounts what fstab allows (mount)",
	"usr/bin/umount":                 "unmounts what fstab allows (mount)",
	"usr/bin/newgidmap":              "maps one's own groups (uidmap)",
	"usr/bin/newuidmap":              "maps one's own users (uidmap)",
	"usr/bin/newgrp":                 "changes to a group that one is in (login)",
	"usr/bin/passwd":                 "changes one's own password (passwd)",
	"usr/bin/pkexec":                 "asks polkit (policykit-1, pkexec)",
	"usr/bin/plocate":                "reads the index of all files (plocate)",
	"usr/bin/mlocate":                "reads the index of all files (mlocate)",
	"usr/bin/screen":                 "writes to utmp (screen)",
	"usr/bin/ssh-agent":              "can't be traced by its own user (openssh-client)",
	"usr/bin/su":                     "asks for the other's password (util-linux)",
	"usr/bin/sudo":                   "asks sudoers (sudo)",
	"usr/sbin/mount.nfs":             "mounts what fstab allows (nfs-common)",
	"usr/sbin/mount.cifs":            "mounts what fstab allows (cifs-utils)",
	"usr/sbin/pam_extrausers_chkpwd": "checks one's own password (libpam-extrausers)",
	"usr/sbin/unix_chkpwd":           "checks one's own password (libpam-modules)",
	"usr/sbin/postdrop":              "queues mail (postfix)",
	"usr/sbin/postqueue":             "shows the queue (postfix)",
	"usr/lib/dbus-1.0/dbus-daemon-launch-helper": "starts services of the system bus (dbus)",
	"usr/lib/eject/dmcrypt-get-device":           "finds the disk below an encrypted one (eject)",
	"usr/lib/landscape/apt-update":               "refreshes package lists (landscape-client)",
	"usr/lib/openssh/ssh-keysign":                "signs with the host's key (openssh-client)",
	"usr/lib/polkit-1/polkit-agent-helper-1":     "asks for one's own password (polkitd)",
	"usr/libexec/polkit-agent-helper-1":          "asks for one's own password (policykit-1)",
	"usr/lib/snapd/snap-confine":                 "makes the sandbox of a snap (snapd)",
	"usr/lib/*/utempter/utempter":                "writes to utmp (libutempter0)",
}

// capabilityFiles are the programs of these distributions whose files have capabilities.
var capabilityFiles = map[string]string{
	"usr/bin/arping":              "raw sockets (iputils-arping)",
	"usr/bin/clockdiff":           "raw sockets (iputils-clockdiff)",
	"usr/bin/mtr-packet":          "raw sockets (mtr-tiny)",
	"usr/bin/newgidmap":           "maps one's own groups (uidmap)",
	"usr/bin/newuidmap":           "maps one's own users (uidmap)",
	"usr/bin/ping":                "raw sockets (iputils-ping)",
	"usr/bin/traceroute6.iputils": "raw sockets (iputils-tracepath)",
	"usr/lib/snapd/snap-confine":  "makes the sandbox of a snap (snapd)",
}

// usrMerged is a path as it is where /bin, /sbin and /lib are links into /usr.
func usrMerged(at string) string {
	first, _, _ := strings.Cut(at, "/")
	if first == "bin" || first == "sbin" || first == "lib" {
		return "usr/" + at
	}
	return at
}

func isKnownSetuid(at string, mode fs.FileMode) bool {
	if mode.Perm()&0o111 == 0 && mode&fs.ModeSetuid == 0 {
		return true // setgid without execution was a kind of lock (mandatory locking), and gives nothing
	}
	at = usrMerged(at)
	if setuidFiles[at] != "" {
		return true
	}
	parts := strings.Split(at, "/")
	return len(parts) > 3 && parts[1] == "lib" && setuidFiles[path.Join("usr/lib/*", path.Join(parts[3:]...))] != ""
}

// allowance is a finding that is no leak, because the whole world has that file.
type allowance struct {
	path *regexp.Regexp // in the system or in an image
	// layers: it is one in the layers of images only.
	layers bool
	why    string
}

var allowances = sync.OnceValue(func() []allowance {
	return []allowance{
		{
			path: regexp.MustCompile(`^usr/share/doc/`),
			why:  "examples in packages' documentation",
		},
		{
			path: regexp.MustCompile(`^usr/(?:local/)?(?:lib|share)/.*/(?:tests?|testing|testdata|test_data|fixtures|examples?)/`),
			why:  "keys that packages' own tests and examples use",
		},
		{
			path: regexp.MustCompile(`^usr/lib/[^/]+/libgnutls\.so\.`),
			why:  "keys with which the library tests itself when it is loaded",
		},
		{
			path: regexp.MustCompile(`^usr/bin/age-keygen$`),
			why:  "the example in its help",
		},
		{
			// Of the system's own, every clone would have the same; sealing removes it.
			path: regexp.MustCompile(`^etc/ssl/private/ssl-cert-snakeoil\.key$`), layers: true,
			why: "made with the image, and known to all who have it",
		},
	}
})

// harmless tells whether a finding is known not to be a leak, or was allowed by name. In the system itself its file must
// belong to a package; in the layer of an image, unpacked or in an archive, that isn't asked, since the list may be in another
// layer. Any other archive is judged as the file that it is: nobody vouches for the paths in it.
func (w *walker) harmless(at string, found leak.Finding) bool {
	inImage := found.Image != ""
	places := []string{at}
	if inImage {
		places = append(places, found.Image)
	}
	for _, pattern := range w.opts.AllowFiles {
		for _, place := range places {
			if matched, err := path.Match(strings.TrimPrefix(pattern, "/"), place); err == nil && matched {
				return true
			}
		}
	}
	for _, a := range allowances() {
		if inImage && a.path.MatchString(found.Image) || !a.layers && w.owned[at] && a.path.MatchString(at) {
			return true
		}
	}
	return false
}
