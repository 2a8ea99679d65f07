package flowagent

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"

	"al.essio.dev/pkg/shellescape"
	"github.com/ProtonMail/go-crypto/openpgp"

	ansiblefree "github.com/flowviz/flowagent/ansible-free"
)

// Packages of an engine and of the compose plugin, by where they come from.
type packages struct {
	engine, compose string   // whose versions can be pinned
	more            []string // what they need beside them
}

func (f *facts) packages(from string) packages {
	switch {
	case from == engineDocker:
		return packages{engine: "docker-ce", compose: "docker-compose-plugin", more: []string{"docker-ce-cli", "containerd.io"}}
	case f.distribution == "ubuntu":
		return packages{engine: "docker.io", compose: "docker-compose-v2"}
	default:
		return packages{engine: "docker.io", compose: "docker-compose", more: []string{"docker-cli"}}
	}
}

// timers start apt by themselves. They are stopped while the image is made, and start again with a clone of it.
const holdTimers = `for unit in apt-daily.timer apt-daily-upgrade.timer; do
  if systemctl is-active --quiet "$unit"; then systemctl stop "$unit"; echo "$unit"; fi
done`

// awaitUnits waits until no unit that works with packages is at it. apt-get waits for dpkg's lock, and not for that of the
// lists.
const awaitUnits = `for unit in apt-daily.service apt-daily-upgrade.service unattended-upgrades.service; do
  while [ "$(systemctl show --property=ActiveState --value "$unit")" = activating ]; do sleep 1; done
done`

// aptFunctions are the beginning of every script that installs something. $lock is in seconds.
//
// apt itself tries again for seconds after a broken connection or a 503 of the mirror, and not at all after a wrong
// checksum or while somebody else reads the lists. A mirror that is being restarted is back within the pauses. A 404
// means that the lists are older than the mirror: a further try reads them first, and the download tells whether that
// went well. Once the packages are here, an installation that fails is no hiccup.
const aptFunctions = `apt() {
  apt-get --yes --quiet --no-install-recommends -o DPkg::Lock::Timeout="$lock" -o Acquire::Retries=3 \
    -o Dpkg::Use-Pty=0 -o APT::Update::Error-Mode=any "$@" </dev/null
}
again() {
  for pause in 5 20; do
    ! "$@" || return 0
    echo "\"$*\" failed: trying again in $pause s" >&2
    sleep "$pause"
  done
  "$@"
}
apt_update() { again apt update; }
apt_download() {
  [ -z "$tried" ] || apt update || true
  tried=yes
  apt install --download-only "$@"
}
apt_install() {
  tried=
  again apt_download "$@"
  apt install "$@"
}
`

// pinFunctions find the version of a package that a template asks for: the whole version, or its upstream part.
const pinFunctions = `pinned() {
  if [ -z "$2" ]; then printf '%s\n' "$1"; return; fi
  offered=$(apt-cache madison "$1" | awk -F'|' '{ gsub(/ /, "", $2); print $2 }')
  for version in $offered; do
    own=${version#*:}
    own=${own%%[+~-]*}
    if [ "$version" = "$2" ] || [ "$own" = "$2" ]; then printf '%s=%s\n' "$1" "$version"; return; fi
  done
  echo "the package $1 has no version $2 here; offered are:" $offered >&2
  return 1
}
`

// programsOf are the programs that read the files of the profiles, with their packages, which are the same on Debian and
// Ubuntu. The engine is apart, and cloud-init is left to the source image: a machine without it has no use for it.
func programsOf(profiles []ansiblefree.Profile) []ansiblefree.Program {
	var programs []ansiblefree.Program
	for _, f := range ansiblefree.Files(profiles...) {
		switch f.Reader.Name {
		case "", "dockerd", "cloud-init":
			continue
		}
		if !slices.Contains(programs, f.Reader) {
			programs = append(programs, f.Reader)
		}
	}
	return programs
}

// wanted are the packages that the target lacks, and the versions that the template asks for: "" for any.
func (b *bake) wanted() (names []string, versions map[string]string) {
	versions = map[string]string{}
	add := func(name, version string) {
		if _, twice := versions[name]; !twice {
			names = append(names, name)
			versions[name] = version
		}
	}
	from := b.facts.packages(b.config.Engine)
	if b.facts.engine == "" {
		add(from.engine, b.config.EngineVersion)
		for _, name := range from.more {
			add(name, "")
		}
	}
	if b.facts.compose == "" {
		add(from.compose, b.config.ComposeVersion)
	}
	for _, program := range programsOf(b.config.profiles) {
		if !slices.Contains(b.facts.programs, program.Name) {
			add(program.Package, "")
		}
	}
	return names, versions
}

// installPackages installs what the target lacks of an engine, a compose plugin and the programs of the profiles.
func (b *bake) installPackages(ctx context.Context) error {
	if b.facts.engine != "" {
		b.ui.Say("Docker Engine " + b.facts.engine + " is there")
	}
	if b.facts.compose != "" {
		b.ui.Say("compose plugin " + b.facts.compose + " is there")
	}
	names, versions := b.wanted()
	if len(names) == 0 {
		return nil
	}
	if b.config.Engine == engineDocker && (b.facts.engine == "" || b.facts.compose == "") {
		if err := b.addDockerRepository(ctx); err != nil {
			return err
		}
	}
	var script strings.Builder
	fmt.Fprintf(&script, "lock=%d\n%s%sapt_update\nset --\n", int(b.config.LockTimeout.Seconds()), aptFunctions, pinFunctions)
	for _, name := range names {
		fmt.Fprintf(&script, "package=$(pinned %s %s); set -- \"$@\" \"$package\"\n", shellescape.Quote(name), shellescape.Quote(versions[name]))
	}
	script.WriteString("apt_install \"$@\"\n")
	_, err := b.run(ctx, step{name: "install " + strings.Join(names, ", "), script: script.String(), limit: b.config.InstallTimeout})
	var failed *stepError
	if errors.As(err, &failed) {
		return fmt.Errorf("%w\nSee whether the target reaches its package mirrors (environment may name a proxy), and whether they have these packages", err)
	}
	return err
}

const keyring = "/etc/apt/keyrings/docker.asc"

// addDockerRepository lets apt know Docker's repository, once the key that signs it is known to be the right one. The
// target downloads the key, because that is who has to reach the repository; it is looked at here, because a small
// system has nothing that could.
func (b *bake) addDockerRepository(ctx context.Context) error {
	base := strings.TrimSuffix(b.config.EngineRepository, "/") + "/" + b.facts.distribution
	script := fmt.Sprintf(`lock=%d
%s[ -s /etc/ssl/certs/ca-certificates.crt ] || { apt_update; apt_install ca-certificates; } >&2
into=$(mktemp)
trap 'rm -f "$into"' EXIT
again /usr/lib/apt/apt-helper -q download-file %s "$into" >&2
cat "$into"
`, int(b.config.LockTimeout.Seconds()), aptFunctions, shellescape.Quote(base+"/gpg"))
	key, err := b.run(ctx, step{name: "download the key of " + base, script: script, limit: b.config.InstallTimeout, quiet: true})
	if err != nil {
		return err
	}
	if err := checkKey(key, b.config.EngineKeyFingerprint); err != nil {
		return fmt.Errorf("the key of %s: %w", base, err)
	}
	source := fmt.Sprintf("deb [arch=%s signed-by=%s] %s %s stable\n",
		goArchitecture[b.facts.architecture], keyring, base, b.facts.codename)
	_, err = b.run(ctx, step{
		name: "add Docker's repository",
		script: fmt.Sprintf(`install -d -m 0755 %[1]s
cat >%[2]s
chmod 0644 %[2]s
printf %%s %[3]s >/etc/apt/sources.list.d/docker.list
chmod 0644 /etc/apt/sources.list.d/docker.list
`, "/etc/apt/keyrings", keyring, shellescape.Quote(source)),
		input: []byte(key),
		limit: b.config.StepTimeout,
	})
	return err
}

// checkKey demands that an armored keyring holds one key, and that with the fingerprint: apt would trust every key in it.
func checkKey(armored, fingerprint string) error {
	ring, err := openpgp.ReadArmoredKeyRing(strings.NewReader(armored))
	if err != nil {
		return fmt.Errorf("is no OpenPGP key: %w: check engine_repository, and what a proxy makes of it", err)
	}
	if len(ring) != 1 {
		return fmt.Errorf("%d keys where one is expected: check engine_repository", len(ring))
	}
	if got := strings.ToUpper(hex.EncodeToString(ring[0].PrimaryKey.Fingerprint)); got != fingerprint {
		return fmt.Errorf("has the fingerprint %s and not %s: it is not used; check engine_repository, or set engine_key_fingerprint when the key was changed in public", got, fingerprint)
	}
	return nil
}
