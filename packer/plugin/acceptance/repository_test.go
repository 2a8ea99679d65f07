package acceptance

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/armor"
	"github.com/ProtonMail/go-crypto/openpgp/clearsign"
	"github.com/ProtonMail/go-crypto/openpgp/packet"
)

// older and newer are the versions of the engine that a repository offers, as Docker writes them.
const older, newer = "5:28.5.2-1~debian.13~trixie", "5:29.0.1-1~debian.13~trixie"

// repository is an apt repository laid out as Docker's, on a target's own loopback address, where nothing of a mirror's is.
type repository struct {
	address     string // engine_repository
	fingerprint string // of the key that it offers
}

// newSigner makes a key.
func newSigner(t *testing.T) *openpgp.Entity {
	t.Helper()
	signer, err := openpgp.NewEntity("repository", "", "repository@example.com", &packet.Config{Algorithm: packet.PubKeyAlgoEdDSA})
	if err != nil {
		t.Fatal(err)
	}
	return signer
}

// serveRepository offers the packages of an engine on the target. The key in it is offered's, the signature signer's.
func (g *target) serveRepository(offered, signer *openpgp.Entity) *repository {
	g.t.Helper()
	root := g.t.TempDir()
	suite := filepath.Join(root, "debian/dists/trixie")
	index := filepath.Join(suite, "stable/binary-amd64/Packages")
	for _, dir := range []string{filepath.Dir(index), filepath.Join(root, "debian/pool")} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			g.t.Fatal(err)
		}
	}
	var packages strings.Builder
	for _, version := range []string{older, newer} {
		upstream := strings.TrimPrefix(version[:strings.Index(version, "-")], "5:")
		packages.WriteString(makePackage(g.t, root, "docker-ce", version, "docker-ce-cli, containerd.io", map[string]string{
			"/usr/bin/dockerd": "#!/bin/sh\necho Docker version " + upstream + ", build 0000000\n",
			// It has nothing to do.
			"/usr/lib/systemd/system/docker.service": "[Service]\nExecStart=/usr/bin/sleep infinity\n[Install]\nWantedBy=multi-user.target\n",
		}))
	}
	packages.WriteString(makePackage(g.t, root, "docker-ce-cli", newer, "", nil))
	packages.WriteString(makePackage(g.t, root, "containerd.io", "2.1.5-1~debian.13~trixie", "", nil))
	packages.WriteString(makePackage(g.t, root, "docker-compose-plugin", "2.40.3-1~debian.13~trixie", "", map[string]string{
		"/usr/libexec/docker/cli-plugins/docker-compose": "#!/bin/sh\necho 2.40.3\n",
	}))
	write(g.t, index, packages.String())
	sum := sha256.Sum256([]byte(packages.String()))
	release := fmt.Sprintf("Origin: Docker\nSuite: trixie\nCodename: trixie\nArchitectures: amd64\nComponents: stable\nDate: %s\nSHA256:\n %x %d stable/binary-amd64/Packages\n",
		time.Now().UTC().Format(time.RFC1123), sum, packages.Len())
	write(g.t, filepath.Join(suite, "InRelease"), clearSigned(g.t, release, signer))
	write(g.t, filepath.Join(root, "debian/gpg"), publicKey(g.t, offered))

	listener := g.Listen(g.t, "127.0.0.1:0")
	server := &http.Server{Handler: http.FileServer(http.Dir(root))}
	go func() { _ = server.Serve(listener) }()
	g.t.Cleanup(func() { _ = server.Close() })
	return &repository{
		address:     "http://" + listener.Addr().String(),
		fingerprint: strings.ToUpper(hex.EncodeToString(offered.PrimaryKey.Fingerprint)),
	}
}

// makePackage builds a package into the repository's pool and returns its paragraph of the index. Programs are executable.
func makePackage(t *testing.T, root, name, version, depends string, files map[string]string) string {
	t.Helper()
	control := fmt.Sprintf("Package: %s\nVersion: %s\nArchitecture: amd64\nMaintainer: Nobody <nobody@example.com>\nDescription: %s of a test\n", name, version, name)
	if depends != "" {
		control += "Depends: " + depends + "\n"
	}
	tree := t.TempDir()
	write(t, filepath.Join(tree, "DEBIAN/control"), control)
	for path, content := range files {
		write(t, filepath.Join(tree, path), content)
		if strings.HasPrefix(content, "#!") {
			if err := os.Chmod(filepath.Join(tree, path), 0o755); err != nil {
				t.Fatal(err)
			}
		}
	}
	_, plain, _ := strings.Cut(version, ":")
	pool := "pool/" + name + "_" + plain + "_amd64.deb"
	file := filepath.Join(root, "debian", pool)
	build := exec.Command("dpkg-deb", "--build", "--root-owner-group", "-Zgzip", tree, file)
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", build, err, out)
	}
	content, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%sFilename: %s\nSize: %d\nSHA256: %x\n\n", control, pool, len(content), sha256.Sum256(content))
}

func clearSigned(t *testing.T, text string, signer *openpgp.Entity) string {
	t.Helper()
	var out bytes.Buffer
	w, err := clearsign.Encode(&out, signer.PrivateKey, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write([]byte(text)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

func publicKey(t *testing.T, key *openpgp.Entity) string {
	t.Helper()
	var out bytes.Buffer
	w, err := armor.Encode(&out, openpgp.PublicKeyType, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := key.Serialize(w); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

// newBareTarget is a target without an engine, whose apt knows no mirror.
func newBareTarget(t *testing.T) *target {
	t.Helper()
	g := newTarget(t, "")
	const plugin = "/usr/libexec/docker/cli-plugins/docker-compose" // this machine's own, lent to the lab's
	g.Run(t, "systemctl", "stop", "docker.socket", "docker.service")
	g.Run(t, "apt-get", "--yes", "purge", "docker.io", "containerd", "runc")
	g.Run(t, "umount", plugin)
	g.Run(t, "rm", "-rf", plugin, "/etc/apt/sources.list", "/etc/apt/sources.list.d")
	g.Run(t, "mkdir", "/etc/apt/sources.list.d")
	// What Docker's repository is reached by, HTTPS, this one is not.
	g.Put(t, "/etc/ssl/certs/ca-certificates.crt", []byte("none\n"), 0o644)
	return g
}

// installed are the packages of an engine that the target has, with their versions.
func (g *target) installed() string {
	g.t.Helper()
	out, _, _ := g.Try(g.t, "dpkg-query", "--show", "--showformat=${Package} ${Version} ${db:Status-Status}\n", "docker*", "containerd*")
	var there strings.Builder
	for line := range strings.Lines(out) {
		if name, ok := strings.CutSuffix(line, " installed\n"); ok {
			fmt.Fprintln(&there, name)
		}
	}
	return there.String()
}

func TestInstallsAnEngineFromDockersRepository(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ asked, want string }{
		"the newest":                {"", newer},
		"a version":                 {"28.5.2", older},
		"a version with a revision": {older, older},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := newBareTarget(t)
			key := newSigner(t)
			from := g.serveRepository(key, key)
			changes := settings{
				"engine": `"docker"`, "engine_repository": quote(from.address), "engine_key_fingerprint": quote(from.fingerprint),
				"engine_version": quote(c.asked), "compose_version": `"2.40.3"`,
			}
			g.build(changes)
			want := "containerd.io 2.1.5-1~debian.13~trixie\ndocker-ce " + c.want + "\ndocker-ce-cli " + newer + "\ndocker-compose-plugin 2.40.3-1~debian.13~trixie\n"
			if got := g.installed(); got != want {
				t.Errorf("on the target is\n%swant\n%s", got, want)
			}
			for path, want := range map[string]string{
				"/etc/apt/keyrings/docker.asc":           "644 root:root",
				"/etc/apt/sources.list.d/docker.list":    "644 root:root",
				"/usr/lib/systemd/system/docker.service": "644 root:root",
			} {
				if got := strings.TrimSpace(g.Run(t, "stat", "--format=%a %U:%G", path)); got != want {
					t.Errorf("%s: got %s, want %s", path, got, want)
				}
			}
			for question, want := range map[string]string{"is-active": "active", "is-enabled": "enabled"} {
				if got := strings.TrimSpace(g.Run(t, "systemctl", question, "docker.service")); got != want {
					t.Errorf("docker.service is %s, want %s", got, want)
				}
			}
			if last := g.calls(); !strings.HasPrefix(last[len(last)-1], "image verify") {
				t.Errorf("the build ended with %q, want the verification", last)
			}
			g.nothingLeft()
		})
	}
}

func TestInstallsNothingThatTheRightKeyHasNotSigned(t *testing.T) {
	t.Parallel()
	key, other := newSigner(t), newSigner(t)
	right := strings.ToUpper(hex.EncodeToString(key.PrimaryKey.Fingerprint))
	for name, c := range map[string]struct {
		offered, signer *openpgp.Entity
		version         string
		want            string
		known           bool // apt may know the repository, whose key is the right one
	}{
		"another key":            {other, other, "", "and not " + right + ": it is not used", false},
		"another one's packages": {key, other, "", "is not signed", true},
		"a version that isn't":   {key, key, "27.0.0", "the package docker-ce has no version 27.0.0 here; offered are: " + newer + " " + older, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := newBareTarget(t)
			from := g.serveRepository(c.offered, c.signer)
			g.refused(settings{
				"engine": `"docker"`, "engine_repository": quote(from.address), "engine_key_fingerprint": quote(right), "engine_version": quote(c.version),
			}, c.want)
			if got := g.installed(); got != "" {
				t.Errorf("on the target is\n%swant nothing", got)
			}
			if _, _, code := g.Try(t, "ls", "/etc/apt/keyrings/docker.asc", "/etc/apt/sources.list.d/docker.list"); (code == 0) != c.known {
				t.Errorf("ls of the repository's key and list on the target: exit code %d, want them there: %v", code, c.known)
			}
			if calls := g.noted("calls"); calls != "" {
				t.Errorf("the agent was called on the target: %s", calls)
			}
			g.nothingLeft()
		})
	}
}
