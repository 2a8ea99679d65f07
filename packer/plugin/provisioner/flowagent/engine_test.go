package flowagent

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/armor"
	"github.com/google/go-cmp/cmp"

	ansiblefree "github.com/flowviz/flowagent/ansible-free"
)

// makeKeyring makes an armored keyring of fresh keys, and returns the fingerprint of the first.
func makeKeyring(t *testing.T, keys int) (armored, fingerprint string) {
	t.Helper()
	var out bytes.Buffer
	writer, err := armor.Encode(&out, openpgp.PublicKeyType, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := range keys {
		entity, err := openpgp.NewEntity(fmt.Sprintf("key %d", i), "", "key@example.com", nil)
		if err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			fingerprint = strings.ToUpper(hex.EncodeToString(entity.PrimaryKey.Fingerprint))
		}
		if err := entity.Serialize(writer); err != nil {
			t.Fatal(err)
		}
	}
	if err := writer.Close(); err != nil {
		t.Fatal(err)
	}
	return out.String(), fingerprint
}

func TestOnlyTheRightKeySignsTheRepository(t *testing.T) {
	right, fingerprint := makeKeyring(t, 1)
	if err := checkKey(right, fingerprint); err != nil {
		t.Errorf("the right key: %v", err)
	}
	other, _ := makeKeyring(t, 1)
	// apt would trust the second key as much as the first.
	two, first := makeKeyring(t, 2)
	for want, c := range map[string]struct{ key, fingerprint string }{
		"and not " + fingerprint:       {other, fingerprint},
		"2 keys where one is expected": {two, first},
		"is no OpenPGP key":            {"<html>Sign in to the hotel's network</html>", fingerprint},
	} {
		if err := checkKey(c.key, c.fingerprint); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
}

// The script's function runs in the shell that runs it on a target, with apt-cache's answer as Debian 13 gives it.
func TestAVersionIsPinnedAsItIsOffered(t *testing.T) {
	bin := t.TempDir()
	answer := `#!/bin/sh
cat <<'END'
 docker-ce | 5:29.0.1-1~debian.13~trixie | https://download.docker.com/linux/debian trixie/stable amd64 Packages
 docker-ce | 5:28.5.2-1~debian.13~trixie | https://download.docker.com/linux/debian trixie/stable amd64 Packages
 docker.io | 26.1.5+dfsg1-9+b9 | http://mirror.example.org/debian trixie/main amd64 Packages
END
`
	if err := os.WriteFile(filepath.Join(bin, "apt-cache"), []byte(answer), 0o755); err != nil {
		t.Fatal(err)
	}
	pinned := func(version string) (string, error) {
		cmd := exec.Command("/bin/sh", "-c", "set -eu\n"+pinFunctions+`pinned docker-ce "$1"`, "sh", version)
		cmd.Env = []string{"PATH=" + bin + ":" + os.Getenv("PATH")}
		out, err := cmd.CombinedOutput()
		return strings.TrimSpace(string(out)), err
	}
	for version, want := range map[string]string{
		"":                            "docker-ce",
		"29.0.1":                      "docker-ce=5:29.0.1-1~debian.13~trixie",
		"28.5.2":                      "docker-ce=5:28.5.2-1~debian.13~trixie",
		"5:28.5.2-1~debian.13~trixie": "docker-ce=5:28.5.2-1~debian.13~trixie",
		"26.1.5":                      "docker-ce=26.1.5+dfsg1-9+b9",
	} {
		if got, err := pinned(version); err != nil || got != want {
			t.Errorf("version %q: got %q and %v, want %q", version, got, err, want)
		}
	}
	for _, version := range []string{"29.0", "29.0.1-1", "9.0.1", "*"} {
		if got, err := pinned(version); err == nil || !strings.Contains(got, "has no version "+version+" here; offered are: 5:29.0.1-1~debian.13~trixie") {
			t.Errorf("version %q: got %q and %v, want what is offered", version, got, err)
		}
	}
}

// The functions run in the shell that runs them on a target, where a mirror answers as often as a case says with a 503.
func TestAMirrorsHiccupEndsNoBake(t *testing.T) {
	const apt = `#!/bin/sh
call=${*##*Error-Mode=any }
echo "$call" >>"$CALLS"
case $call in
*--download-only*) refused=$DOWNLOADS ;;
install*) refused=$INSTALLS ;;
update) refused=$UPDATES ;;
esac
[ "$(grep -c -x -e "$call" "$CALLS")" -gt "$refused" ] || exit 100
`
	const update, download, install = "update", "install --download-only docker.io nftables", "install docker.io nftables"
	for name, c := range map[string]struct {
		updates, downloads, installs int // that fail
		want                         []string
		fails                        bool
	}{
		"none":                   {0, 0, 0, []string{update, download, install}, false},
		"one at the lists":       {1, 0, 0, []string{update, "sleep 5", update, download, install}, false},
		"one at a package":       {0, 1, 0, []string{update, download, "sleep 5", update, download, install}, false},
		"two at a package":       {0, 2, 0, []string{update, download, "sleep 5", update, download, "sleep 20", update, download, install}, false},
		"at both":                {2, 1, 0, []string{update, "sleep 5", update, "sleep 20", update, download, "sleep 5", update, download, install}, false},
		"no lists at all":        {9, 0, 0, []string{update, "sleep 5", update, "sleep 20", update}, true},
		"no package at all":      {0, 9, 0, []string{update, download, "sleep 5", update, download, "sleep 20", update, download}, true},
		"an installation failed": {0, 0, 1, []string{update, download, install}, true},
	} {
		t.Run(name, func(t *testing.T) {
			bin := t.TempDir()
			for name, script := range map[string]string{"apt-get": apt, "sleep": "#!/bin/sh\necho sleep \"$1\" >>\"$CALLS\"\n"} {
				if err := os.WriteFile(filepath.Join(bin, name), []byte(script), 0o755); err != nil {
					t.Fatal(err)
				}
			}
			calls := filepath.Join(bin, "calls")
			cmd := exec.Command("/bin/sh", "-c", "set -eu\nlock=1\n"+aptFunctions+"apt_update\napt_install docker.io nftables\necho installed")
			cmd.Env = []string{"PATH=" + bin + ":" + os.Getenv("PATH"), "CALLS=" + calls,
				fmt.Sprintf("UPDATES=%d", c.updates), fmt.Sprintf("DOWNLOADS=%d", c.downloads), fmt.Sprintf("INSTALLS=%d", c.installs)}
			out, err := cmd.CombinedOutput()
			if (err != nil) != c.fails || strings.Contains(string(out), "installed") == c.fails {
				t.Errorf("got %v, want a failure: %v\n%s", err, c.fails, out)
			}
			got, err := os.ReadFile(calls)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c.want, strings.Split(strings.TrimSpace(string(got)), "\n")); diff != "" {
				t.Errorf("calls of apt-get (-want +got):\n%s", diff)
			}
		})
	}
}

func TestPackagesAreWhatTheDistributionCallsThem(t *testing.T) {
	profiles := []ansiblefree.Profile{ansiblefree.Agent, ansiblefree.Base, ansiblefree.Hardening}
	all := []string{"chronyd", "unattended-upgrade", "nft", "sshd", "modprobe"}
	for name, c := range map[string]struct {
		facts facts
		from  string
		want  []string
	}{
		"Debian":            {facts{distribution: "debian", programs: all}, engineDistribution, []string{"docker.io", "docker-cli", "docker-compose"}},
		"Ubuntu":            {facts{distribution: "ubuntu", programs: all}, engineDistribution, []string{"docker.io", "docker-compose-v2"}},
		"Docker's":          {facts{distribution: "debian", programs: all}, engineDocker, []string{"docker-ce", "docker-ce-cli", "containerd.io", "docker-compose-plugin"}},
		"the plugin alone":  {facts{distribution: "debian", engine: "26", programs: all}, engineDistribution, []string{"docker-compose"}},
		"what profiles use": {facts{distribution: "debian", engine: "26", compose: "2", programs: all[3:]}, engineDistribution, []string{"chrony", "unattended-upgrades", "nftables"}},
		"nothing":           {facts{distribution: "debian", engine: "26", compose: "2", programs: all}, engineDistribution, nil},
	} {
		b := &bake{facts: &c.facts, config: &Config{Engine: c.from, profiles: profiles}}
		if got, _ := b.wanted(); !cmp.Equal(got, c.want) {
			t.Errorf("%s: got %v, want %v", name, got, c.want)
		}
	}
}

func TestUpstreamVersions(t *testing.T) {
	for version, want := range map[string]string{
		"5:29.0.1-1~debian.13~trixie": "29.0.1", "26.1.5+dfsg1-9+b9": "26.1.5", "26.1.5+dfsg1": "26.1.5", "2.40.3": "2.40.3", "27.5.1-0ubuntu3~24.04.2": "27.5.1",
	} {
		if got := upstream(version); got != want {
			t.Errorf("%s: got %s, want %s", version, got, want)
		}
	}
}
