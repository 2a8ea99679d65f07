#!/usr/bin/env bash
# Installs what this project's programs need and a Debian or Ubuntu machine lacks. What is there is left as it is: no
# package is upgraded, no Docker Engine is reconfigured or restarted.
#
#   scripts/setup.sh            all of the following but engine
#   scripts/setup.sh engine     a running Docker Engine; installed and started only if none answers
#   scripts/setup.sh engine-stop  ends the engine if `engine` started it, and nothing otherwise
#   scripts/setup.sh lab        what the lab starts: dockerd, docker-registry, nginx, moto_server
#   scripts/setup.sh registry   docker-registry alone
#   scripts/setup.sh moto       moto_server alone, AWS in one process
#   scripts/setup.sh aws        the AWS command line
#   scripts/setup.sh postgres   PostgreSQL's programs, whose servers the tests start themselves; no server is set up
#   scripts/setup.sh redis      redis-server and dbus-daemon, which the tests of the health probes start themselves
#   scripts/setup.sh machine    systemd-nspawn, and the Debian system that the lab's machines boot
#   scripts/setup.sh nodefiles  a machine's system with what reads the files of ansible-free: sshd, nft, chrony, cloud-init …
#   scripts/setup.sh images     mmdebstrap and Debian's keys, to make a base image where no registry answers
#   scripts/setup.sh image      what makes and boots disks of virtual machines: QEMU, GRUB, mmdebstrap, xorriso for seeds
#   scripts/setup.sh demo       age, to encrypt secrets as an on-prem site does
#   scripts/setup.sh bench      the AWS command line and curl, which the boot script of test/bench calls, and wrk
#   scripts/setup.sh compiler   gcc, which Go's race detector needs
#   scripts/setup.sh lint       shellcheck
#
# Several words may be given. Packages are installed as root, by sudo where needed.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly build=$PWD/.build
readonly log=$build/setup.log              # what apt and pip say, which is of interest when they fail
readonly engine_note=$build/engine/started # how the engine was started, when it was started here
readonly socket=/var/run/docker.sock
# What pip installs; a program that is there is left as it is. test/infra/cloud puts right what this moto lacks: a newer one may
# lack other things. Both agree on one botocore.
readonly moto_version=5.2.1 aws_version=1.45.11
readonly engine_wait=60 # seconds; dockerd answers within two, or after a minute's recovery of its state

say() { printf 'setup: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }

# shellcheck source=scripts/debian.sh
. scripts/debian.sh

# have PROGRAM: also where Debian puts what only root runs, which isn't on everybody's PATH.
have() { PATH=$PATH:/usr/sbin:/sbin command -v "$1" >/dev/null; }

# need PROGRAM PACKAGE...: installs the packages where the program is missing.
need() {
  local program=$1
  shift
  have "$program" || apt_install "$@"
}

need_certificates() {
  [[ -s ${SSL_CERT_FILE:-/etc/ssl/certs/ca-certificates.crt} ]] || apt_install ca-certificates
}

need_docker() {
  need_certificates
  need curl curl
  need ip iproute2
  need iptables iptables
  need dockerd docker.io
  # Debian 13 and later have the command line in a package of its own; elsewhere docker.io holds it.
  if ! have docker; then
    apt_refresh docker-cli
    apt_install docker-cli
  fi
}

engine_answers() {
  local ping=(curl --silent --fail --max-time 5 --output /dev/null --unix-socket "$socket" http://docker/_ping)
  have curl && { "${ping[@]}" || as_root "${ping[@]}"; }
}

# wait_for_engine [PID]: gives up early when that process ends.
wait_for_engine() {
  local end=$((SECONDS + engine_wait))
  until engine_answers; do
    ((SECONDS < end)) && [[ -z ${1:-} || -d /proc/$1 ]] || return 1
    sleep 0.2
  done
}

setup_engine() {
  ! engine_answers || return 0
  need_docker
  ! engine_answers || return 0 # the package may have started it
  mkdir -p "$build/engine"
  if [[ -d /run/systemd/system ]]; then
    say 'starting the Docker Engine (systemd)'
    as_root systemctl start docker
    echo systemd >"$engine_note"
    wait_for_engine || die 'the Docker Engine does not answer: see journalctl -u docker'
    return
  fi
  local engine_log=$build/engine/dockerd.log pid
  say "starting a Docker Engine, because no systemd runs here; its log is $engine_log"
  # shellcheck disable=SC2016 # the inner shell is to expand these
  pid=$(as_root env PATH="$PATH:/usr/sbin:/sbin" sh -c 'setsid dockerd >"$1" 2>&1 </dev/null & echo $!' - "$engine_log")
  echo "$pid" >"$engine_note"
  wait_for_engine "$pid" || {
    tail -n 20 "$engine_log" >&2
    stop_engine
    die "the Docker Engine does not start: the lines above are the end of $engine_log"
  }
}

stop_engine() {
  [[ -s $engine_note ]] || return 0
  local how
  how=$(<"$engine_note")
  rm "$engine_note"
  if [[ $how == systemd ]]; then
    say 'stopping the Docker Engine'
    as_root systemctl stop docker.service docker.socket
    return
  fi
  # The number may belong to another program by now.
  [[ $(cat "/proc/$how/comm" 2>/dev/null) == dockerd ]] || return 0
  say 'stopping the Docker Engine'
  as_root kill "$how"
  local end=$((SECONDS + engine_wait))
  while [[ -d /proc/$how ]] && ((SECONDS < end)); do sleep 0.2; done
}

download_into() { (cd "$1" && apt-get download "$2"); }

# fetch PROGRAM PACKAGE: the program alone, out of a package that would start it for good.
fetch() {
  local program=$1 package=$2 unpacked=$build/$1
  ! have "$program" || return 0
  [[ ! -x $build/bin/$program ]] || return 0
  apt_refresh "$package"
  say "fetching $program"
  rm -rf "$unpacked"
  mkdir -p "$unpacked" "$build/bin"
  retried "the download of $package" from_mirror download_into "$unpacked" "$package"
  (cd "$unpacked" && dpkg-deb --extract ./*.deb .)
  find "$unpacked/usr" -path "*bin/$program" -exec ln -sf {} "$build/bin/$program" \;
  ! ldd "$build/bin/$program" | grep 'not found' >&2 ||
    die "$program lacks the libraries above: install the package $package"
}

setup_venv() {
  [[ ! -x $build/venv/bin/pip ]] || return 0
  if ! python3 -c 'import ensurepip, venv' 2>/dev/null; then
    apt_install python3 python3-venv
  fi
  need_certificates
  rm -rf "$build/venv"
  logged python3 -m venv "$build/venv"
}

# pip_install REQUIREMENT: into the project's own environment.
pip_install() {
  retried "the installation of $1" "$build/venv/bin/pip" install --disable-pip-version-check "$1"
}

setup_moto() {
  ! have moto_server || return 0
  [[ ! -x $build/venv/bin/moto_server ]] || return 0
  say 'installing moto_server'
  setup_venv
  pip_install "moto[server]==$moto_version"
}

setup_registry() { fetch docker-registry docker-registry; }

setup_lab() {
  need_docker
  setup_registry
  fetch nginx nginx
  setup_moto
}

# The package would make a cluster and start it for good. Where there are clusters already, none is touched.
setup_postgres() {
  if compgen -G '/usr/lib/postgresql/*/bin/postgres' >/dev/null && have pg_isready; then
    return 0
  fi
  local drop_in=/etc/postgresql-common/createcluster.d/flowagent.conf result=0
  apt_refresh postgresql
  as_root mkdir -p "${drop_in%/*}"
  echo 'create_main_cluster = false' | as_root tee "$drop_in" >/dev/null
  (apt_install postgresql postgresql-client) || result=$? # in a shell of its own, which it may end
  as_root rm -f "$drop_in"
  return "$result"
}

# What a machine of the lab is made of: systemd, which wants D-Bus, and an engine with what it sets up networks by. The
# docker command line stays out, as it may on a real node. Packer reaches a machine over SSH, as a user who has sudo.
readonly machine_packages=systemd-sysv,dbus,docker.io,iproute2,iptables,openssh-server,sudo

# shellcheck disable=SC2016 # mmdebstrap's shell is to expand $1, the system's root
readonly machine_options=(
  --format=directory
  # They would run some day in the middle of a test and fail, for a machine has no network.
  --customize-hook='for unit in apt-daily.timer apt-daily-upgrade.timer; do ln -s /dev/null "$1/etc/systemd/system/$unit"; done'
  # As Docker's own packages have it: an engine needs no Kubernetes. And containerd's hundred lines a boot would hide what
  # else is in the journal.
  --customize-hook='printf "version = 2\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n[debug]\n  level = \"warn\"\n" >"$1/etc/containerd/config.toml"'
  # mmdebstrap leaves the host's own here.
  --customize-hook='echo machine >"$1/etc/hostname"; : >"$1/etc/resolv.conf"'
)

# make_system NAME WHAT OPTIONS...: the system .build/NAME/current. It is made once for each list of options, aside and then
# renamed: one that has its final name is whole.
make_system() {
  local home=$build/$1 what=$2 key new lock
  shift 2
  need systemd-nspawn systemd-container
  need mmdebstrap "${mmdebstrap_packages[@]}"
  key=$(printf '%s\n' "$debian_suite" "${debian_options[@]}" "$@" | sha256sum | cut -c 1-16)
  mkdir -p "$home"
  exec {lock}>"$home/lock"
  flock "$lock" # a second setup waits for the first one's system
  if [[ ! -d $home/$key ]]; then
    say "making $what"
    new=$home/new
    as_root true # where nobody can be root, that is said here and not in the log
    retried mmdebstrap afresh "$new" mmdebstrap "${debian_options[@]}" "$@" "$debian_suite" "$new"
    as_root mv "$new" "$home/$key"
  fi
  [[ $(readlink "$home/current") == "$key" ]] || ln -sfn "$key" "$home/current"
  local old
  for old in "$home"/*/; do
    [[ -L ${old%/} || $old == "$home/$key/" ]] || as_root rm -rf --one-file-system "$old"
  done
  exec {lock}>&-
}

# Of two machines with the same host keys neither is the right one: the tests that want a server make keys and start it.
setup_machine() {
  # shellcheck disable=SC2016 # the hook's own argument
  make_system machine 'the system of the machines from Debian packages (about a minute, 330 MB)' \
    "${machine_options[@]}" --include="$machine_packages" \
    --customize-hook='systemctl --root="$1" --quiet disable ssh.service; rm "$1"/etc/ssh/ssh_host_*'
}

# What reads the files of ansible-free on a node, in a system of its own: cloud-init, say, on a developer's machine would
# act at its next boot. The servers are those of the roles database and edge; curl is for asking through the
# packet filter.
readonly nodefiles_packages=$machine_packages,apt-utils,age,chrony,cloud-init,curl,kmod,nftables,nginx-light,openssh-server,postgresql-17,procps,python3-yaml,ssl-cert,sudo,systemd-resolved,unattended-upgrades,valkey-server

setup_nodefiles() {
  make_system nodefiles 'the system that checks the files of a node, from Debian packages (two minutes, 800 MB)' \
    "${machine_options[@]}" --include="$nodefiles_packages"
}

setup_bench() {
  need curl curl
  need wrk wrk
  setup_aws
}

# Debian has the AWS CLI as a package; Ubuntu 24.04 doesn't, so there it comes from pip, as moto does.
setup_aws() {
  ! have aws || return 0
  [[ ! -x $build/venv/bin/aws ]] || return 0
  apt_refresh awscli
  if [[ -n $(apt-cache madison awscli) ]]; then
    apt_install awscli
  else
    setup_venv
    pip_install "awscli==$aws_version"
  fi
}

setup_image() {
  need curl curl
  need qemu-system-x86_64 qemu-system-x86
  need qemu-img qemu-utils
  need xorriso xorriso
  need mmdebstrap "${mmdebstrap_packages[@]}"
  need mke2fs e2fsprogs
  need sfdisk fdisk
  need grub-mkimage grub-common
  [[ -e /usr/lib/grub/i386-pc/boot.img ]] || apt_install grub-pc-bin
}

setup_one() {
  case $1 in
  engine) setup_engine ;;
  engine-stop) stop_engine ;;
  lab) setup_lab ;;
  registry) setup_registry ;;
  moto) setup_moto ;;
  aws) setup_aws ;;
  postgres) setup_postgres ;;
  redis)
    need redis-check-rdb redis-tools # the server under another name, without the service
    need dbus-daemon dbus-daemon
    ;;
  machine) setup_machine ;;
  nodefiles) setup_nodefiles ;;
  images) need mmdebstrap "${mmdebstrap_packages[@]}" ;;
  image) setup_image ;;
  demo) need age age ;;
  bench) setup_bench ;;
  compiler) need gcc gcc libc6-dev ;;
  lint) need shellcheck shellcheck ;;
  *) die "unknown part \"$1\": use engine, engine-stop, lab, registry, moto, aws, postgres, redis, machine, nodefiles, images, image, demo, bench, compiler or lint" ;;
  esac
}

command -v go >/dev/null ||
  die "Go is missing: install it from https://go.dev/dl/ or, under sudo, keep your path (sudo env PATH=\"\$PATH\" make …)"
(($# > 0)) || set -- lab postgres redis machine nodefiles images demo compiler lint
for part in "$@"; do
  setup_one "$part"
done
