package verify

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/flowviz/flowagent/golden/internal/disk"
	"github.com/flowviz/flowagent/golden/seal"
)

// verifyVariable tells this test's program to be a command that verifies the system it names.
const verifyVariable = "FLOWAGENT_TEST_VERIFY"

func TestMain(m *testing.M) {
	root := os.Getenv(verifyVariable)
	if root == "" {
		os.Exit(m.Run())
	}
	report, err := Verify(context.Background(), Options{Root: root, Config: "/etc/flowagent/config.yaml"})
	if err == nil {
		err = json.NewEncoder(os.Stdout).Encode(report)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

const (
	imageDigest = "sha256:1111111111111111111111111111111111111111111111111111111111111111"
	otherDigest = "sha256:2222222222222222222222222222222222222222222222222222222222222222"
	imageID     = "3333333333333333333333333333333333333333333333333333333333333333"
	imageRef    = "registry.example.com/wms@" + imageDigest
)

// fit is a system that passes every check.
func fit(t testing.TB) *disk.Disk {
	t.Helper()
	d := disk.New(t)
	d.File("etc/machine-id", "")
	d.FileMode("etc/shadow", "root:*:20000:0:99999:7:::\ndaemon:*:20000:0:99999:7:::\ndeploy:!:20000:0:99999:7:::\n", 0o640)
	d.File("etc/flowagent/config.yaml", "apiVersion: flowagent/v1\nkind: Node\nworkload: {project: wms, files: [compose.yaml]}\n")
	d.File("etc/flowagent/compose.yaml", "services: {api: {image: '"+imageRef+"'}}\n")
	for _, unit := range []string{"flowagent.service", "flowagent-secrets.service"} {
		content, err := os.ReadFile("../../ansible-free/systemd/" + unit)
		if err != nil {
			t.Fatal(err)
		}
		d.File("usr/lib/systemd/system/"+unit, string(content))
	}
	d.File("usr/lib/systemd/system/docker.service", "[Service]\nExecStart=/usr/sbin/dockerd\n")
	for _, unit := range []string{"flowagent.service", "docker.service"} {
		d.Link("etc/systemd/system/multi-user.target.wants/"+unit, "/usr/lib/systemd/system/"+unit)
	}
	d.FileMode("usr/sbin/dockerd", "program", 0o755)
	d.FileMode("usr/libexec/docker/cli-plugins/docker-compose", "program", 0o755)
	d.File("var/lib/dpkg/status", `Package: docker.io
Status: install ok installed
Version: 26.1.5+dfsg1-9
Architecture: amd64
`)
	d.File("var/lib/dpkg/info/passwd.list", "/.\n/bin/su\n/usr/share/doc/passwd/examples/key.pem\n")
	d.FileMode("usr/bin/su", "program", fs.ModeSetuid|0o755)
	list, err := json.Marshal(map[string]any{"Repositories": map[string]any{
		"registry.example.com/wms": map[string]string{imageRef: "sha256:" + imageID},
	}})
	if err != nil {
		t.Fatal(err)
	}
	d.File("var/lib/docker/image/overlay2/repositories.json", string(list))
	d.File("var/lib/docker/image/overlay2/imagedb/content/sha256/"+imageID, "{}")
	d.File("var/log/syslog", "written after sealing")
	d.FileMode("usr/bin/flowagent", anAgent(t), 0o755)
	return d
}

// anAgent is a program that is known for the agent by what Go has written into it.
func anAgent(t testing.TB) string {
	t.Helper()
	content, err := builtAgent()
	if err != nil {
		t.Fatal(err)
	}
	return content
}

var builtAgent = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "agent")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(dir)
	for name, content := range map[string]string{"go.mod": "module github.com/flowviz/flowagent\n", "main.go": "package main\n\nfunc main() {}\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644); err != nil {
			return "", err
		}
	}
	return disk.Program(dir)
})

func verified(t testing.TB, d *disk.Disk, opts Options) Report {
	t.Helper()
	opts.Root, opts.Config = d.Root, "/etc/flowagent/config.yaml"
	report, err := Verify(t.Context(), opts)
	if err != nil {
		t.Fatal(err)
	}
	return report
}

func (r Report) check(name string) Check {
	return r.Checks[slices.IndexFunc(r.Checks, func(c Check) bool { return c.Name == name })]
}

func (c Check) String() string {
	return fmt.Sprintf("%s: %s: %s\n\t%s", c.Name, c.Status, c.Reason, strings.Join(c.Findings, "\n\t"))
}

func TestAFitSystemPassesEveryCheck(t *testing.T) {
	report := verified(t, fit(t), Options{})
	for _, c := range report.Checks {
		want := OK
		if c.Name == "ports" {
			want = Skipped // of a disk that doesn't run
		}
		if c.Status != want || c.Reason == "" || len(c.Findings) > 0 {
			t.Errorf("want %s, got %s", want, c)
		}
	}
	if !report.OK {
		t.Error("the report is not ok")
	}
	if got := report.check("engine").Reason; !strings.Contains(got, "26.1.5") {
		t.Errorf("the engine's version isn't told: %s", got)
	}
	if got := report.check("images").Reason; !strings.Contains(got, imageDigest) {
		t.Errorf("the image's digest isn't told: %s", got)
	}
}

// privateKey is a new one, as openssl writes it.
func privateKey(t testing.TB) string {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
}

func TestEveryDefectIsFound(t *testing.T) {
	remove := func(name string) func(*disk.Disk) {
		return func(d *disk.Disk) {
			if err := os.RemoveAll(d.Path(name)); err != nil {
				t.Fatal(err)
			}
		}
	}
	file := func(name, content string) func(*disk.Disk) { return func(d *disk.Disk) { d.File(name, content) } }
	mode := func(name string, mode fs.FileMode) func(*disk.Disk) {
		return func(d *disk.Disk) {
			if err := os.Chmod(d.Path(name), mode); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, c := range []struct {
		check, defect string
		plant         func(*disk.Disk)
		want          string // in the reason or a finding
	}{
		{"agent", "none", remove("usr/bin/flowagent"), "there is no agent"},
		{"agent", "not executable", mode("usr/bin/flowagent", 0o644), "can't be executed"},
		{"agent", "a script", func(d *disk.Disk) { d.FileMode("usr/bin/flowagent", "#!/bin/sh\n", 0o755) }, "not the agent"},
		{"configuration", "none", remove("etc/flowagent/config.yaml"), "can't be read"},
		{"configuration", "a mistake", file("etc/flowagent/config.d/10.yaml", "drian: {}\n"), "drian"},
		{"configuration", "no Compose file", remove("etc/flowagent/compose.yaml"), "compose.yaml"},
		{"configuration", "no digest where one is wanted", func(d *disk.Disk) {
			d.File("etc/flowagent/config.d/10.yaml", "workload: {pull: {pin: digest}}\n")
			d.File("etc/flowagent/compose.yaml", "services: {api: {image: 'registry.example.com/wms:1'}}\n")
		}, "registry.example.com/wms:1"},
		{"configuration", "a link out of the root directory", func(d *disk.Disk) {
			remove("etc/flowagent/compose.yaml")(d)
			d.Link("etc/flowagent/compose.yaml", "../../../outside.yaml")
		}, "escapes"},
		{"configuration files", "writable by its group", mode("etc/flowagent/config.yaml", 0o664), "/etc/flowagent/config.yaml has mode 0664"},
		{"configuration files", "in a directory of others", mode("etc/flowagent", 0o777), "/etc/flowagent has mode 0777"},
		{"configuration files", "of a drop-in", func(d *disk.Disk) { d.FileMode("etc/flowagent/config.d/10.yaml", "", 0o666) }, "10.yaml has mode 0666"},
		{"configuration files", "no configuration", remove("etc/flowagent/config.yaml"), "not checked"},
		{"units", "the agent isn't enabled", remove("etc/systemd/system/multi-user.target.wants/flowagent.service"), "flowagent.service isn't enabled"},
		{"units", "the engine isn't enabled", remove("etc/systemd/system/multi-user.target.wants/docker.service"), "docker.service isn't enabled"},
		{"units", "no unit for secrets", remove("usr/lib/systemd/system/flowagent-secrets.service"), "flowagent-secrets.service isn't there"},
		{"units", "an enabled unit that isn't there", remove("usr/lib/systemd/system/flowagent.service"), "flowagent.service isn't there"},
		{"units", "masked", func(d *disk.Disk) { d.Link("etc/systemd/system/flowagent-secrets.service", "/dev/null") }, "flowagent-secrets.service is masked"},
		{"engine", "none", remove("usr/sbin/dockerd"), "no Docker Engine"},
		{"compose plugin", "none", remove("usr/libexec/docker"), "no Docker Compose plugin"},
		{"compose plugin", "not executable", mode("usr/libexec/docker/cli-plugins/docker-compose", 0o644), "no Docker Compose plugin"},
		{"images", "another digest", file("etc/flowagent/compose.yaml", "services: {api: {image: 'registry.example.com/wms@"+otherDigest+"'}}\n"), "it isn't there"},
		{"images", "lost by the engine", remove("var/lib/docker/image/overlay2/imagedb"), "has lost it"},
		{"images", "nobody to ask", remove("var/lib/docker/image/overlay2/repositories.json"), "the engine isn't running"},
		{"images", "a damaged list", file("var/lib/docker/image/overlay2/repositories.json", "{"), "is damaged"},
		{"images", "no configuration", remove("etc/flowagent/config.yaml"), "not checked"},
		{"identity", "a machine id", file("etc/machine-id", "0123456789abcdef0123456789abcdef\n"), "/etc/machine-id"},
		{"identity", "no machine id", remove("etc/machine-id"), "/etc/machine-id"},
		{"identity", "a host key", file("etc/ssh/ssh_host_rsa_key.pub", "ssh-rsa"), "/etc/ssh/ssh_host_rsa_key.pub"},
		{"identity", "the builder's key", file("home/deploy/.ssh/authorized_keys", "ssh-rsa"), "/home/deploy/.ssh/authorized_keys"},
		{"identity", "an instance of cloud-init", file("var/lib/cloud/instances/i-1/boot-finished", ""), "/var/lib/cloud/instances"},
		{"identity", "an installer's leftovers", file("etc/cloud/cloud.cfg.d/99-installer.cfg", ""), "99-installer.cfg"},
		{"identity", "a history", file("root/.bash_history", "ls"), "/root/.bash_history"},
		{"identity", "a seed", file("var/lib/systemd/random-seed", "x"), "random-seed"},
		{"identity", "swap", file("swapfile", "x"), "/swapfile"},
		{"identity", "the engine's id", file("var/lib/docker/engine-id", "x"), "engine-id"},
		{"identity", "a container", file("var/lib/docker/containers/4f2a/config.v2.json", "{}"), "1 containers"},
		{"identity", "the agent's state", file("var/lib/flowagent/boots.json", "{}"), "/var/lib/flowagent"},
		{"passwords", "a password", func(d *disk.Disk) { d.FileMode("etc/shadow", "root:$y$j9T$x$y:1::::::\n", 0o640) }, "root has a password"},
		{"passwords", "an empty one", func(d *disk.Disk) { d.FileMode("etc/shadow", "deploy::1::::::\n", 0o640) }, "deploy needs no password"},
		{"passwords", "one in the copy", func(d *disk.Disk) { d.FileMode("etc/shadow-", "root:$y$j9T$x$y:1::::::\n", 0o640) }, "/etc/shadow-: root"},
		{"passwords", "no table", remove("etc/shadow"), "not checked"},
		{"world-writable", "a file", func(d *disk.Disk) { d.FileMode("opt/app/file", "", 0o666) }, "/opt/app/file"},
		{"world-writable", "a directory", func(d *disk.Disk) { d.Directory("opt/app", 0o777) }, "/opt/app"},
		{"world-writable", "another temporary directory", func(d *disk.Disk) { d.Directory("opt/app", 0o777|fs.ModeSticky) }, "/opt/app"},
		{"world-writable", "/tmp that is everybody's", mode("tmp", 0o777), "/tmp"},
		{"privileged files", "an unknown program", func(d *disk.Disk) { d.FileMode("usr/local/bin/root", "", fs.ModeSetuid|0o755) }, "/usr/local/bin/root"},
		{"privileged files", "of a group", func(d *disk.Disk) { d.FileMode("usr/bin/group", "", fs.ModeSetgid|0o755) }, "/usr/bin/group"},
		{"privileged files", "a known name elsewhere", func(d *disk.Disk) { d.FileMode("opt/usr/bin/su", "", fs.ModeSetuid|0o755) }, "/opt/usr/bin/su"},
		{"credentials", "a key", file("home/deploy/key.pem", privateKey(t)), "/home/deploy/key.pem: private key at byte 11"},
		{"credentials", "a key in a test of nobody's", file("usr/lib/python3/dist-packages/x/tests/key.pem", privateKey(t)), "/tests/key.pem"},
		{"credentials", "a library of the system that is no package's", file("usr/lib/x86_64-linux-gnu/libgnutls.so.30.40.3", privateKey(t)), "libgnutls"},
		{"credentials", "a package's key that every clone would have", func(d *disk.Disk) {
			d.File("var/lib/dpkg/info/ssl-cert.list", "/etc/ssl/private/ssl-cert-snakeoil.key\n")
			d.File("etc/ssl/private/ssl-cert-snakeoil.key", privateKey(t))
		}, "/ssl-cert-snakeoil.key"},
		{"credentials", "a key in an image", file("var/lib/docker/overlay2/4f2a/diff/app/key.pem", privateKey(t)), "/app/key.pem"},
		{"credentials", "a key with a file's second name", func(d *disk.Disk) {
			d.File("opt/a/key", privateKey(t))
			if err := os.Link(d.Path("opt/a/key"), d.Path("opt/b")); err != nil {
				t.Fatal(err)
			}
		}, "/opt/a/key"},
		{"credentials", "a registry's login", file("root/.docker/config.json", `{"auths":{"r":{"auth":"dTpw"}}}`), "/root/.docker/config.json: registry login"},
		{"credentials", "a password for cloud-init", file("etc/cloud/cloud.cfg.d/99-user.cfg", "password: hunter2\n"), "/etc/cloud/cloud.cfg.d/99-user.cfg"},
		{"credentials", "a login file that is too long", file("root/.netrc", strings.Repeat("#", 2<<20)), "not checked"},
	} {
		t.Run(c.check+"/"+c.defect, func(t *testing.T) {
			t.Parallel()
			d := fit(t)
			c.plant(d)
			report := verified(t, d, Options{})
			got := report.check(c.check)
			if got.Status != Failed || report.OK {
				t.Fatalf("want it to fail, got %s", got)
			}
			if !strings.Contains(got.Reason+"\n"+strings.Join(got.Findings, "\n"), c.want) {
				t.Errorf("want %q in %s", c.want, got)
			}
		})
	}
}

func TestAFindingNeverShowsTheCredential(t *testing.T) {
	d := fit(t)
	key := privateKey(t)
	d.File("opt/key", key)
	d.File("etc/app/url", "postgresql://wms:hunter2@db/wms")
	report, err := json.Marshal(verified(t, d, Options{}))
	if err != nil {
		t.Fatal(err)
	}
	if secret := strings.Split(key, "\n")[1]; strings.Contains(string(report), secret) || strings.Contains(string(report), "hunter2") {
		t.Errorf("the report shows it: %s", report)
	}
}

func TestWhatDistributionsShipIsNoFinding(t *testing.T) {
	d := fit(t)
	d.File("usr/share/doc/passwd/examples/key.pem", privateKey(t)) // of a package
	d.File("var/lib/docker/overlay2/4f2a/diff/usr/share/doc/python/examples/key.pem", privateKey(t))
	d.File("var/lib/docker/overlay2/4f2a/diff/etc/ssl/private/ssl-cert-snakeoil.key", privateKey(t))
	d.File("var/lib/docker/overlay2/4f2a/diff/usr/lib/x86_64-linux-gnu/libgnutls.so.30.40.3", privateKey(t))
	d.FileMode("var/lib/docker/overlay2/4f2a/diff/tmp/file", "", 0o666)
	d.FileMode("var/lib/docker/overlay2/4f2a/diff/app/run", "", fs.ModeSetuid|0o755)
	d.Directory("var/tmp/systemd-private-1-x/tmp", 0o777|fs.ModeSticky)
	d.File("etc/flowagent/secrets.age", "age-encryption.org/v1\n-> X25519 4f2a\n"+strings.Repeat("A", 43)+"\n")
	report := verified(t, d, Options{})
	for _, name := range []string{"credentials", "world-writable", "privileged files"} {
		if c := report.check(name); c.Status != OK {
			t.Errorf("got %s", c)
		}
	}
	if got := report.check("credentials").Reason; !strings.Contains(got, "but for 4") {
		t.Errorf("the reason doesn't count what was passed over: %s", got)
	}
}

// tarred is an archive of files.
func tarred(t testing.TB, files map[string]string) string {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, name := range slices.Sorted(maps.Keys(files)) {
		if err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(files[name]))}); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, files[name]); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestAnArchiveOfAnImageIsJudgedAsTheImage(t *testing.T) {
	const (
		archive = "usr/share/flowagent/images/wms.tar"
		blob    = "blobs/sha256/4444444444444444444444444444444444444444444444444444444444444444"
	)
	image := func(files map[string]string) string {
		var zipped bytes.Buffer
		w := gzip.NewWriter(&zipped)
		if _, err := io.WriteString(w, tarred(t, files)); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		return tarred(t, map[string]string{"oci-layout": "{}", blob: zipped.String()})
	}
	d := fit(t)
	known := map[string]string{
		"etc/ssl/private/ssl-cert-snakeoil.key": privateKey(t), "usr/share/doc/python/examples/key.pem": privateKey(t),
		"usr/lib/app/settings": "postgresql://wms:hunter2@db/wms\n", // no configuration
	}
	d.File(archive, image(known))
	c := verified(t, d, Options{}).check("credentials")
	if c.Status != OK || !strings.Contains(c.Reason, "but for 2") {
		t.Errorf("want it ok but for two, got %s", c)
	}
	known["app/key.pem"], known["root/.docker/config.json"] = privateKey(t), `{"auths":{"r":{"auth":"dTpw"}}}`
	d.File(archive, image(known))
	c = verified(t, d, Options{}).check("credentials")
	want := []string{
		"/" + archive + ", in it " + blob + "/app/key.pem: private key at byte 11",
		"/" + archive + ", in it " + blob + "/root/.docker/config.json: registry login at byte 15",
	}
	if c.Status != Failed || !slices.Equal(c.Findings, want) {
		t.Errorf("want %q, got %s", want, c)
	}
	for _, allowed := range [][]string{{"/app/key.pem", "/root/.docker/*"}, {"/" + archive}} {
		if c := verified(t, d, Options{AllowFiles: allowed}).check("credentials"); c.Status != OK {
			t.Errorf("allowed are %v: got %s", allowed, c)
		}
	}
}

// Whoever packs a system's files knows no packages that would vouch for their paths.
func TestWhatIsInAnyOtherArchiveIsNobodysPackage(t *testing.T) {
	d := fit(t)
	key := privateKey(t)
	files := map[string]string{"etc/ssl/private/ssl-cert-snakeoil.key": key, "usr/share/doc/passwd/examples/key.pem": key}
	d.File("opt/backup.tar", tarred(t, files))
	d.File("usr/share/doc/passwd/examples/key.pem", tarred(t, files)) // this archive is a package's
	c := verified(t, d, Options{AllowFiles: []string{"/usr/share/doc/*/*/*.pem"}}).check("credentials")
	if c.Status != Failed || len(c.Findings) != 2 || !strings.HasPrefix(c.Findings[0], "/opt/backup.tar, in it etc/ssl/") {
		t.Errorf("want both of the backup, got %s", c)
	}
	if c := verified(t, d, Options{AllowFiles: []string{"/opt/backup.tar"}}).check("credentials"); c.Status != OK || !strings.Contains(c.Reason, "but for 4") {
		t.Errorf("want the backup allowed by its name, got %s", c)
	}
}

func TestAFileThatCantBeReadFailsTheChecksOfFiles(t *testing.T) {
	d := fit(t)
	d.File("opt/readable", "x")
	d.FileMode("opt/private/file", "x", 0o600)
	d.FileMode("etc/shadow", "root:*:::::::\n", 0o644)
	// This program, where others may run it.
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(filepath.Dir(d.Root), "verify")
	if err := os.WriteFile(program, self, 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program)
	cmd.Env = append(os.Environ(), verifyVariable+"="+d.Root)
	if os.Getuid() == 0 {
		// Root reads everything.
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	} else if err := os.Chmod(d.Path("opt/private/file"), 0); err != nil {
		t.Fatal(err)
	}
	for dir := d.Root; dir != os.TempDir() && dir != "/"; dir = filepath.Dir(dir) {
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	out, err := cmd.Output()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		t.Fatalf("%v: %s", err, exit.Stderr)
	}
	if err != nil {
		t.Fatal(err)
	}
	var report Report
	if err := json.Unmarshal(out, &report); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"credentials", "world-writable", "privileged files"} {
		c := report.check(name)
		if c.Status != Failed || !strings.HasPrefix(c.Reason, "not checked") || !strings.Contains(strings.Join(c.Findings, "\n"), "/opt/private/file: ") {
			t.Errorf("want it not checked because of the file, got %s", c)
		}
	}
}

func TestAProgramWithCapabilitiesIsFound(t *testing.T) {
	d := fit(t)
	d.FileMode("usr/local/bin/raw", "program", 0o755)
	d.FileMode("usr/bin/ping", "program", 0o755)
	// CAP_NET_RAW, permitted and effective, as linux/capability.h lays it out (version 2).
	raw := []byte{1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}
	for _, name := range []string{"usr/local/bin/raw", "usr/bin/ping"} {
		if err := unix.Setxattr(d.Path(name), "security.capability", raw, 0); errors.Is(err, unix.EPERM) || errors.Is(err, unix.ENOTSUP) {
			t.Skipf("only root may give capabilities, on a file system that keeps them: %v", err)
		} else if err != nil {
			t.Fatal(err)
		}
	}
	c := verified(t, d, Options{}).check("privileged files")
	if c.Status != Failed || len(c.Findings) != 1 || !strings.Contains(c.Findings[0], "/usr/local/bin/raw has file capabilities") {
		t.Errorf("want one finding, got %s", c)
	}
}

func TestWhatWasKeptOrSkippedIsSaid(t *testing.T) {
	d := fit(t)
	d.File("root/.ssh/authorized_keys", "ssh-rsa")
	d.File("opt/key", privateKey(t))
	report := verified(t, d, Options{Keep: []string{"authorized-keys"}, Skip: []string{"credentials"}})
	if !report.OK {
		t.Errorf("got %v", report)
	}
	if c := report.check("identity"); c.Status != OK || !strings.Contains(c.Reason, "kept as asked: authorized-keys") {
		t.Errorf("got %s", c)
	}
	if c := report.check("credentials"); c.Status != Skipped || !strings.Contains(c.Reason, "--skip") {
		t.Errorf("got %s", c)
	}
	if _, err := Verify(t.Context(), Options{Root: d.Root, Skip: []string{"secrets"}}); !errors.Is(err, ErrUnknownCheck) {
		t.Errorf("got %v, want %v", err, ErrUnknownCheck)
	}
	if _, err := Verify(t.Context(), Options{Root: d.Root, Keep: []string{"keys"}}); !errors.Is(err, seal.ErrUnknownKind) {
		t.Errorf("got %v, want %v", err, seal.ErrUnknownKind)
	}
}

func TestAFileWithACredentialIsAllowedByItsPath(t *testing.T) {
	d := fit(t)
	d.File("var/lib/docker/overlay2/4f2a/diff/app/lib/tests/a.pem", privateKey(t))
	d.File("opt/test.key", privateKey(t))
	report := verified(t, d, Options{AllowFiles: []string{"/app/lib/tests/*.pem"}})
	if c := report.check("credentials"); c.Status != Failed || len(c.Findings) != 1 || !strings.HasPrefix(c.Findings[0], "/opt/test.key") {
		t.Errorf("want one finding, got %s", c)
	}
	if c := verified(t, d, Options{AllowFiles: []string{"/app/lib/tests/*.pem", "/opt/test.key"}}).check("credentials"); c.Status != OK {
		t.Errorf("got %s", c)
	}
	if _, err := Verify(t.Context(), Options{Root: d.Root, AllowFiles: []string{"/opt/["}}); !errors.Is(err, ErrPattern) {
		t.Errorf("got %v, want %v", err, ErrPattern)
	}
}

func TestAMachineIDForAFirstBootIsSealedAsWell(t *testing.T) {
	d := fit(t)
	d.File("etc/machine-id", seal.Uninitialized)
	if c := verified(t, d, Options{}).check("identity"); c.Status != OK {
		t.Errorf("got %s", c)
	}
}

func TestVerifyingChangesNothing(t *testing.T) {
	d := fit(t)
	d.File("root/.bash_history", "ls")
	before := d.Snapshot()
	verified(t, d, Options{})
	after := d.Snapshot()
	if len(before) != len(after) {
		t.Errorf("got %d files, want %d", len(after), len(before))
	}
	for name, entry := range before {
		if after[name] != entry {
			t.Errorf("%s was changed", name)
		}
	}
}

// anEngine answers at the system's socket for images as the Docker Engine does.
func anEngine(t *testing.T, d *disk.Disk, images map[string]string) {
	t.Helper()
	d.Directory("run", 0o755)
	listener, err := net.Listen("unix", d.Path("run/docker.sock"))
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Api-Version", "1.45")
		w.Header().Set("Content-Type", "application/json")
		_, name, asked := strings.Cut(r.URL.Path, "/images/")
		answer, known := images[strings.TrimSuffix(name, "/json")]
		switch {
		case strings.HasSuffix(r.URL.Path, "/_ping"):
			fmt.Fprint(w, "OK")
		case strings.HasSuffix(r.URL.Path, "/containers/json"):
			fmt.Fprint(w, "[]")
		case asked && known:
			fmt.Fprint(w, answer)
		default:
			w.WriteHeader(http.StatusNotFound)
			fmt.Fprint(w, `{"message":"No such image"}`)
		}
	})}
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(func() { _ = server.Close() })
}

func TestAnEngineThatRunsIsAsked(t *testing.T) {
	d := fit(t)
	d.File("etc/flowagent/compose.yaml", "services: {api: {image: '"+imageRef+"'}, worker: {image: 'registry.example.com/worker:1'}, side: {image: 'side:1'}, gone: {image: 'gone:1'}}\n")
	anEngine(t, d, map[string]string{
		imageRef:                        `{"Id":"sha256:` + imageID + `","RepoDigests":["` + imageRef + `"]}`,
		"registry.example.com/worker:1": `{"Id":"sha256:` + imageID + `","RepoDigests":["other/name@` + imageDigest + `","registry.example.com/worker@` + otherDigest + `"]}`,
		"docker.io/library/side:1":      `{"Id":"sha256:` + imageID + `","RepoDigests":[]}`,
	})
	c := verified(t, d, Options{}).check("images")
	if c.Status != Failed || len(c.Findings) != 1 || !strings.Contains(c.Findings[0], "gone:1: it isn't there") {
		t.Fatalf("want one image missing, got %s", c)
	}
	d.File("etc/flowagent/compose.yaml", "services: {api: {image: '"+imageRef+"'}, worker: {image: 'registry.example.com/worker:1'}, side: {image: 'side:1'}}\n")
	c = verified(t, d, Options{}).check("images")
	for _, want := range []string{"3 images", imageRef + " (" + imageDigest, "worker:1 (" + otherDigest, "side:1 (loaded, id sha256:" + imageID} {
		if c.Status != OK || !strings.Contains(c.Reason, want) {
			t.Errorf("want %q in %s", want, c)
		}
	}
}

func TestOnlyNamedPortsMayBeListenedOn(t *testing.T) {
	listening := func(text string) listener {
		protocol, address, _ := strings.Cut(text, " ")
		at := netip.MustParseAddrPort(address)
		return listener{Port{at.Port(), protocol}, at.Addr(), uint64(at.Port())}
	}
	all := []listener{
		listening("tcp 0.0.0.0:22"), listening("tcp [::]:22"), listening("tcp [::]:9180"), listening("udp 10.0.2.15:68"),
		listening("udp 127.0.0.53:53"), listening("tcp [::1]:631"),
	}
	allowed := []Port{{22, "tcp"}, {68, "udp"}, {9180, "tcp"}}
	who := map[uint64]string{22: "sshd"}
	reason, err := judgePorts(all, allowed, who)
	if want := "only 22/tcp (sshd), 68/udp, 9180/tcp; on the loopback address, 2 more"; err != nil || reason != want {
		t.Errorf("got %q (%v), want %q", reason, err, want)
	}
	for _, extra := range []string{"tcp 0.0.0.0:2375", "udp [::]:22", "tcp 10.0.2.15:68"} {
		_, err := judgePorts(append(slices.Clone(all), listening(extra)), allowed, who)
		var places *findings
		if !errors.As(err, &places) || len(places.places) != 1 {
			t.Errorf("%s: got %v, want one finding", extra, err)
		}
	}
}

func TestTheKernelTellsWhoListens(t *testing.T) {
	tcp, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = tcp.Close() })
	udp, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = udp.Close() })
	all, err := listeners()
	if err != nil {
		t.Fatal(err)
	}
	who := owners()
	self, err := os.ReadFile("/proc/self/comm")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []Port{
		{tcp.Addr().(*net.TCPAddr).AddrPort().Port(), "tcp"},
		{udp.LocalAddr().(*net.UDPAddr).AddrPort().Port(), "udp"},
	} {
		i := slices.IndexFunc(all, func(l listener) bool { return l.Port == want })
		if i < 0 {
			t.Errorf("%v is not among %v", want, all)
			continue
		}
		if l := all[i]; !l.address.IsLoopback() || who[l.inode] != strings.TrimSpace(string(self)) {
			t.Errorf("%v: got address %v of %q, want a loopback address of %s", want, l.address, who[l.inode], self)
		}
	}
}

func TestATableOfSocketsThatCantBeReadIsAnError(t *testing.T) {
	const head = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
	for _, line := range []string{
		"   0: 0100007F:0016 00000000:0000 0A",
		"   0: 0100007:0016 00000000:0000 0A 00000000:00000000 00:00000000 00000000 0 0 77",
		"   0: 0100007F00:0016 00000000:0000 0A 00000000:00000000 00:00000000 00000000 0 0 77",
		"   0: 0100007F:10016 00000000:0000 0A 00000000:00000000 00:00000000 00000000 0 0 77",
		"   0: 0100007F:0016 00000000:0000 XX 00000000:00000000 00:00000000 00000000 0 0 77",
		"   0: 0100007F:0016 00000000:0000 0A 00000000:00000000 00:00000000 00000000 0 0 -1",
	} {
		if err := parseSockets(head+line+"\n", func(listener, uint64) {}); !errors.Is(err, errSocket) {
			t.Errorf("%q: got %v, want %v", line, err, errSocket)
		}
	}
}

func TestAPortIsReadAsPeopleWriteIt(t *testing.T) {
	for text, want := range map[string]Port{"22": {22, "tcp"}, "22/tcp": {22, "tcp"}, "68/udp": {68, "udp"}, "65535": {65535, "tcp"}} {
		if got, err := ParsePort(text); err != nil || got != want {
			t.Errorf("%s: got %v (%v), want %v", text, got, err, want)
		}
	}
	for _, text := range []string{"", "0", "65536", "-1", "ssh", "22/sctp", "22/"} {
		if got, err := ParsePort(text); err == nil {
			t.Errorf("%q: got %v, want an error", text, got)
		}
	}
}
