package seal

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/flowviz/flowagent/golden/internal/disk"
)

// used is a system that has been in use: everything that sealing is about is there.
func used(t *testing.T) *disk.Disk {
	t.Helper()
	d := disk.New(t)
	for name, content := range map[string]string{
		"etc/docker/key.json":                            "{}",
		"var/lib/docker/engine-id":                       "3d2b",
		"var/lib/docker/network/files/local-kv.db":       "networks",
		"var/lib/flowagent/boots.json":                   "{}",
		"run/flowagent/compose.override.yaml":            "services: {}",
		"var/lib/cloud/instances/i-1/user-data.txt":      "#cloud-config",
		"var/lib/cloud/seed/nocloud/meta-data":           "instance-id: i-1",
		"etc/netplan/50-cloud-init.yaml":                 "network: {}",
		"etc/ssh/sshd_config.d/50-cloud-init.conf":       "PasswordAuthentication yes",
		"etc/cloud/cloud.cfg.d/99-installer.cfg":         "datasource_list: [None]",
		"etc/cloud/ds-identify.cfg":                      "policy: disabled",
		"etc/netplan/00-installer-config.yaml":           "network: {}",
		"etc/machine-id":                                 "0123456789abcdef0123456789abcdef\n",
		"var/lib/dbus/machine-id":                        "0123456789abcdef0123456789abcdef\n",
		"etc/ssh/ssh_host_ed25519_key":                   "key",
		"etc/ssh/ssh_host_ed25519_key.pub":               "key",
		"root/.ssh/authorized_keys":                      "ssh-ed25519 builder",
		"home/deploy/.ssh/authorized_keys2":              "ssh-ed25519 builder",
		"etc/ssl/private/ssl-cert-snakeoil.key":          "key",
		"etc/iscsi/initiatorname.iscsi":                  "InitiatorName=iqn.1993-08.org.debian:01:1\n",
		"var/lib/amazon/ssm/Vault/Store/RegistrationKey": "key",
		"root/.bash_history":                             "mysql -psecret",
		"home/deploy/.python_history":                    "password = 'x'",
		"var/lib/systemd/random-seed":                    "seed",
		"boot/efi/loader/random-seed":                    "seed",
		"var/lib/systemd/credential.secret":              "secret",
		"swapfile":                                       "memory",
		"var/swap/more":                                  "memory",
		"etc/fstab":                                      "UUID=1 / ext4 defaults 0 1\n/var/swap/more none swap sw 0 0\n# /swapfile none swap sw 0 0\n",
		"var/lib/systemd/coredump/core.zst":              "memory",
		"var/mail/root":                                  "From cron",
		"var/lib/dhcp/dhclient.eth0.leases":              "lease {}",
		"var/cache/apt/archives/docker.io.deb":           "package",
		"var/cache/apt/pkgcache.bin":                     "cache",
		"var/lib/apt/lists/mirror.example.org_InRelease": "list",
		"tmp/script_1.sh":                                "#!/bin/sh",
		"tmp/systemd-private-1-chrony/tmp/cache":         "x",
		"var/tmp/dir/file":                               "x",
		"var/log/syslog":                                 "line\n",
		"var/log/syslog.1":                               "line\n",
		"var/log/apt/history.log.2.gz":                   "line\n",
		"var/log/nginx/access.log-20261101":              "line\n",
		"var/log/cloud-init-output.log":                  "line\n",
		"var/log/journal/0123/system.journal":            "journal",
		"var/log/wtmp":                                   "login",
		// These stay.
		"etc/ssh/sshd_config":           "Port 22",
		"etc/cloud/cloud.cfg":           "users: []",
		"home/deploy/notes":             "x",
		"var/lib/docker/image/manifest": "{}",
		"usr/bin/flowagent":             "program",
	} {
		d.File(name, content)
	}
	d.Directory("etc/ssh/ssh_host_keys.d", 0o755) // a directory of such a name goes as well
	return d
}

func sealed(t *testing.T, d *disk.Disk, opts Options) Report {
	t.Helper()
	opts.Root = d.Root
	report, err := Seal(t.Context(), opts)
	if err != nil {
		t.Fatal(err)
	}
	return report
}

func TestSealLeavesWhatAnImageIsMadeOf(t *testing.T) {
	d := used(t)
	sealed(t, d, Options{})
	var files []string
	for name, entry := range d.Snapshot() {
		if !strings.HasPrefix(entry, "d") {
			files = append(files, name)
		}
	}
	slices.Sort(files)
	want := []string{
		"etc/cloud/cloud.cfg", "etc/fstab", "etc/iscsi/initiatorname.iscsi", "etc/machine-id", "etc/passwd", "etc/ssh/sshd_config",
		"home/deploy/notes", "usr/bin/flowagent", "var/lib/dbus/machine-id", "var/lib/docker/image/manifest",
		"var/log/syslog", "var/log/wtmp",
	}
	if diff := cmp.Diff(want, files); diff != "" {
		t.Errorf("files of the sealed system (-want +got):\n%s", diff)
	}
	for name, want := range map[string]string{
		"etc/machine-id":                "",
		"etc/fstab":                     "UUID=1 / ext4 defaults 0 1\n# /swapfile none swap sw 0 0\n",
		"etc/iscsi/initiatorname.iscsi": "GenerateName=yes\n",
		"var/log/syslog":                "",
		"var/log/wtmp":                  "",
	} {
		if got := d.Read(name); got != want {
			t.Errorf("%s: got %q, want %q", name, got, want)
		}
	}
	if target, err := os.Readlink(d.Path("var/lib/dbus/machine-id")); err != nil || target != "/etc/machine-id" {
		t.Errorf("D-Bus' machine id: got a link to %q (%v), want one to /etc/machine-id", target, err)
	}
	for _, dir := range []string{"tmp/systemd-private-1-chrony/tmp", "var/lib/apt/lists", "var/log/nginx", "var/lib/flowagent"} {
		if !d.Has(dir) {
			t.Errorf("%s was removed, and is needed empty", dir)
		}
	}
}

func TestSealSaysWhatItDidAndWhy(t *testing.T) {
	d := used(t)
	report := sealed(t, d, Options{})
	seen := map[string]bool{}
	for _, c := range report.Changes {
		seen[c.Kind] = true
		if c.Did == "" || c.Why == "" || !strings.HasPrefix(c.Path, "/") || strings.Contains(c.Path, d.Root) {
			t.Errorf("a change lacks something: %+v", c)
		}
	}
	for _, kind := range Kinds() {
		if !seen[kind] && kind != "containers" { // which takes an engine
			t.Errorf("nothing is said of %s", kind)
		}
	}
	var lists Change
	for _, c := range report.Changes {
		if c.Path == "/var/lib/apt/lists" {
			lists = c
		}
	}
	if lists.Files != 1 || lists.Bytes != 4 {
		t.Errorf("package lists: got %d files with %d bytes, want 1 with 4", lists.Files, lists.Bytes)
	}
}

func TestSealingWhatIsSealedDoesNothing(t *testing.T) {
	d := used(t)
	sealed(t, d, Options{})
	before := d.Snapshot()
	report := sealed(t, d, Options{})
	if len(report.Changes) > 0 {
		t.Errorf("the second time changed something: %+v", report.Changes)
	}
	if diff := cmp.Diff(before, d.Snapshot()); diff != "" {
		t.Errorf("the second time changed the disk:\n%s", diff)
	}
}

func TestADryRunSaysTheSameAndChangesNothing(t *testing.T) {
	d := used(t)
	before := d.Snapshot()
	would := sealed(t, d, Options{DryRun: true})
	if diff := cmp.Diff(before, d.Snapshot()); diff != "" {
		t.Errorf("the dry run changed the disk:\n%s", diff)
	}
	did := sealed(t, d, Options{})
	if diff := cmp.Diff(did.Changes, would.Changes); diff != "" {
		t.Errorf("the dry run said something else than what was done (-done +said):\n%s", diff)
	}
}

func TestWhatIsToBeKeptIsKept(t *testing.T) {
	d := used(t)
	report := sealed(t, d, Options{Keep: []string{"authorized-keys", "logs"}})
	if !d.Has("root/.ssh/authorized_keys") || d.Read("var/log/syslog") == "" {
		t.Error("what was to be kept is gone")
	}
	if d.Has("etc/ssh/ssh_host_ed25519_key") {
		t.Error("something else was kept as well")
	}
	if diff := cmp.Diff([]string{"logs", "authorized-keys"}, report.Kept, sorted); diff != "" {
		t.Errorf("kept (-want +got):\n%s", diff)
	}
	_, err := Seal(t.Context(), Options{Root: d.Root, Keep: []string{"authorised-keys"}})
	if !errors.Is(err, ErrUnknownKind) || !strings.Contains(err.Error(), "authorized-keys") {
		t.Errorf("a kind that isn't one: got %v, want an error with those there are", err)
	}
}

var sorted = cmp.Transformer("sorted", func(names []string) map[string]bool {
	set := map[string]bool{}
	for _, name := range names {
		set[name] = true
	}
	return set
})

func TestTheMachineIDIsNeverMissing(t *testing.T) {
	for name, prepare := range map[string]func(*disk.Disk){
		"nothing there":          func(*disk.Disk) {},
		"an id":                  func(d *disk.Disk) { d.FileMode("etc/machine-id", "0123456789abcdef0123456789abcdef\n", 0o444) },
		"what cloud-init writes": func(d *disk.Disk) { d.FileMode("etc/machine-id", Uninitialized, 0o444) },
		"an empty file":          func(d *disk.Disk) { d.FileMode("etc/machine-id", "", 0o444) },
		"a link":                 func(d *disk.Disk) { d.Link("etc/machine-id", "/var/lib/dbus/machine-id") },
	} {
		for _, first := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, first boot %v", name, first), func(t *testing.T) {
				want := ""
				if first {
					want = Uninitialized
				}
				d := disk.New(t)
				prepare(d)
				sealed(t, d, Options{FirstBoot: first})
				info, err := os.Lstat(d.Path("etc/machine-id"))
				if err != nil || !info.Mode().IsRegular() || info.Mode().Perm() != 0o444 {
					t.Fatalf("got %v (%v), want a regular file of mode 0444", info, err)
				}
				if got := d.Read("etc/machine-id"); got != want {
					t.Errorf("got %q, want %q", got, want)
				}
			})
		}
	}
}

// outside is a directory beside the system's, which no link may lead to.
func outside(t *testing.T, d *disk.Disk) string {
	t.Helper()
	dir := filepath.Join(filepath.Dir(d.Root), "outside")
	for _, name := range []string{"authorized_keys", "syslog", "ssh_host_rsa_key", "file"} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte("the host's own"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		for _, name := range []string{"authorized_keys", "syslog", "ssh_host_rsa_key", "file"} {
			if content, err := os.ReadFile(filepath.Join(dir, name)); err != nil || string(content) != "the host's own" {
				t.Errorf("%s outside of the root directory was changed: %q, %v", name, content, err)
			}
		}
	})
	return dir
}

func TestNoLinkLeadsOutOfTheRootDirectory(t *testing.T) {
	d := disk.New(t)
	out := outside(t, d)
	// Removed as links.
	d.Link("root/.bash_history", filepath.Join(out, "file"))
	d.Link("tmp/link", out)
	d.Link("var/lib/flowagent/link", "../../../../outside")
	d.Link("etc/ssh/ssh_host_rsa_key", filepath.Join(out, "ssh_host_rsa_key"))
	// Left, for something else may be meant by them.
	d.Link("var/log/syslog", filepath.Join(out, "syslog"))
	sealed(t, d, Options{})
	for _, link := range []string{"root/.bash_history", "tmp/link", "var/lib/flowagent/link", "etc/ssh/ssh_host_rsa_key"} {
		if d.Has(link) {
			t.Errorf("the link %s was left", link)
		}
	}
	if !d.Has("var/log/syslog") {
		t.Error("the link in /var/log was removed")
	}
}

func TestADirectoryThatLeadsOutIsAProblemAndTheRestIsSealed(t *testing.T) {
	for name, target := range map[string]string{"absolute": "", "relative": "../../outside"} {
		t.Run(name, func(t *testing.T) {
			d := used(t)
			out := outside(t, d)
			if target == "" {
				target = out
			}
			if err := os.RemoveAll(d.Path("var/log")); err != nil {
				t.Fatal(err)
			}
			d.Link("var/log", target)
			report, err := Seal(t.Context(), Options{Root: d.Root})
			if err == nil || !strings.Contains(err.Error(), "/var/log") {
				t.Errorf("got %v, want an error about /var/log", err)
			}
			if len(report.Problems) == 0 {
				t.Error("the report tells no problem")
			}
			if d.Has("root/.bash_history") {
				t.Error("the rest was not sealed")
			}
		})
	}
}

func TestALinkInAHomeIsNotEvenFollowedWithinTheRootDirectory(t *testing.T) {
	d := disk.New(t)
	d.File("etc/keys/authorized_keys", "ssh-ed25519 somebody")
	d.Link("home/deploy/.ssh", "../../etc/keys")
	_, err := Seal(t.Context(), Options{Root: d.Root})
	if err == nil || !strings.Contains(err.Error(), "/home/deploy/.ssh") {
		t.Errorf("got %v, want an error that names the link", err)
	}
	if !d.Has("etc/keys/authorized_keys") {
		t.Error("what the link leads to was removed")
	}
}

func TestAFileWithASecondNameIsNotEmptied(t *testing.T) {
	d := disk.New(t)
	d.File("usr/share/text", "needed")
	d.Directory("var/log", 0o755)
	if err := os.Link(d.Path("usr/share/text"), d.Path("var/log/text")); err != nil {
		t.Fatal(err)
	}
	sealed(t, d, Options{})
	if d.Has("var/log/text") || d.Read("usr/share/text") != "needed" {
		t.Error("want the name in /var/log gone and the file as it was")
	}
}

func TestANameThatIsReplacedMeanwhileLeadsNowhere(t *testing.T) {
	d := disk.New(t)
	d.File("etc/important/file", "needed")
	d.File("tmp/dir/file", "x")
	s, err := open(t.Context(), Options{Root: d.Root})
	if err != nil {
		t.Fatal(err)
	}
	defer s.root.Close()
	tmp, err := s.root.OpenRoot("tmp")
	if err != nil {
		t.Fatal(err)
	}
	defer tmp.Close()
	info, err := tmp.Lstat("dir")
	if err != nil {
		t.Fatal(err)
	}
	// Between the look and the removal, somebody swaps the directory for a link.
	if err := os.Rename(d.Path("tmp/dir"), d.Path("tmp/aside")); err != nil {
		t.Fatal(err)
	}
	d.Link("tmp/dir", "../etc/important")
	if err := s.removeAll(place{tmp, "dir", "tmp/dir", info}, &tally{}); err == nil {
		t.Error("got no error")
	}
	if !d.Has("etc/important/file") {
		t.Error("the link was followed")
	}
}

func TestASystemInUseIsNotSealed(t *testing.T) {
	d := used(t)
	d.Directory("run/flowagent", 0o755)
	listener, err := net.Listen("unix", d.Path("run/flowagent/agent.sock"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	before := d.Snapshot()
	if _, err := Seal(t.Context(), Options{Root: d.Root}); !errors.Is(err, ErrServing) {
		t.Errorf("got %v, want %v", err, ErrServing)
	}
	if diff := cmp.Diff(before, d.Snapshot()); diff != "" {
		t.Errorf("it was changed all the same:\n%s", diff)
	}
	if _, err := Seal(t.Context(), Options{Root: d.Root, DryRun: true}); err != nil {
		t.Errorf("a dry run may look: %v", err)
	}
}

func TestContainersWithoutAnEngineAreAProblem(t *testing.T) {
	d := disk.New(t)
	d.File("var/lib/docker/containers/4f2a/config.v2.json", "{}")
	d.File("var/lib/docker/volumes/wms_data/_data/file", "x")
	_, err := Seal(t.Context(), Options{Root: d.Root})
	if err == nil || !strings.Contains(err.Error(), "1 containers") || !strings.Contains(err.Error(), "volumes/wms_data") {
		t.Errorf("got %v, want an error about the container and the volume", err)
	}
	if !d.Has("var/lib/docker/containers/4f2a/config.v2.json") {
		t.Error("the container's files were removed, which leaves its layers behind")
	}
}

func TestWhatIsNoSystemIsRefused(t *testing.T) {
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "tmp"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "tmp/file"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := Seal(t.Context(), Options{Root: dir}); !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "not the root directory") {
		t.Errorf("got %v, want that it is no system's root", err)
	}
	if _, err := os.Stat(filepath.Join(dir, "tmp/file")); err != nil {
		t.Error("it was sealed all the same")
	}
	if _, err := Seal(t.Context(), Options{Root: filepath.Join(dir, "nothing")}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v, want that nothing is there", err)
	}
}

func TestACancelledSealSaysThatItIsNotDone(t *testing.T) {
	d := used(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	report, err := Seal(ctx, Options{Root: d.Root})
	if !errors.Is(err, context.Canceled) || len(report.Changes) > 0 {
		t.Errorf("got %d changes and %v", len(report.Changes), err)
	}
}

func TestTheRunningSystemIsKnownUnderEveryName(t *testing.T) {
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink("/", link); err != nil {
		t.Fatal(err)
	}
	for root, want := range map[string]bool{"/": true, "/.": true, link: true, t.TempDir(): false} {
		if got, err := IsRunning(root); err != nil || got != want {
			t.Errorf("%s: got %v (%v), want %v", root, got, err, want)
		}
	}
}

func TestOfCloudInitsFlagsThoseThatItHasAreUsed(t *testing.T) {
	for help, want := range map[string]string{
		// From cloud-init 20.4, 22.4 and 25.1.
		"usage: cloud-init clean [-h] [-l] [-r] [-s]\n  -l, --logs\n  -r, --reboot\n  -s, --seed":              "clean --logs --seed",
		"usage: clean [-h] [-l] [--machine-id] [-r] [-s]\n --logs --machine-id --reboot --seed":                "clean --logs --seed --machine-id",
		"usage: clean [-h] [-l] [--machine-id] [-r] [-s] [-c {all,..}]\n --logs --machine-id --seed --configs": "clean --logs --seed --machine-id --configs all",
	} {
		if got := strings.Join(cloudInitArguments(help), " "); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}
