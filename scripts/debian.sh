# shellcheck shell=bash
# How a Debian system is made from packages: what base-disk.sh, base-image.sh and setup.sh share, to be sourced by them in the
# project's root. In: functions say and die, the latter of which ends the script with a message; log, the path of the file that
# holds what apt and the like say. Out: the names below; nothing is done here.

# shellcheck source=scripts/again.sh
. scripts/again.sh

# shellcheck disable=SC2034 # the scripts that source this use it
readonly debian_suite=trixie

# The keyring is named because mmdebstrap alone doesn't bring Debian's keys to an Ubuntu machine.
# shellcheck disable=SC2034
readonly mmdebstrap_packages=(mmdebstrap debian-archive-keyring)

# The exclusions are those of Debian's own slim images; mmdebstrap keeps them in the system, so packages installed later
# stay slim as well. No mirror is given: mmdebstrap knows Debian's.
# shellcheck disable=SC2034
readonly debian_options=(
  --quiet
  --variant=minbase
  --dpkgopt='path-exclude=/usr/share/doc/*'
  --dpkgopt='path-include=/usr/share/doc/*/copyright'
  --dpkgopt='path-exclude=/usr/share/man/*'
  --dpkgopt='path-exclude=/usr/share/locale/*'
)

as_root() {
  if ((EUID == 0)); then
    "$@"
  elif command -v sudo >/dev/null; then
    sudo "$@"
  else
    die "\"$*\" needs root: install sudo or run this as root"
  fi
}

# into_log COMMAND...: adds what it says to the log, the end of which is shown where it fails.
# shellcheck disable=SC2154 # log is the script's
into_log() {
  local before status=0
  before=$(wc -l <"$log")
  "$@" >>"$log" 2>&1 </dev/null || status=$?
  ((status == 0)) || tail -n +"$((before + 1))" "$log" | tail -n 20 >&2
  return "$status"
}

new_log() {
  mkdir -p "${log%/*}"
  rm -f "$log" # it may be root's
  : >"$log"
}

# logged COMMAND...: once. A failure ends the script.
logged() {
  new_log
  into_log "$@" || die "\"$*\" failed: the lines above are the end of $log"
}

# retried WHAT COMMAND...: up to three times, as again does it. The failure of the last try ends the script.
retried() {
  new_log
  again "$1" into_log "${@:2}" || die "$1 failed: the lines above are the end of $log"
}

# afresh PATH COMMAND...: as root, without what an earlier try left there.
afresh() { as_root rm -rf --one-file-system "$1" && as_root "${@:2}"; }

# apt_get ARGUMENTS...: as root. A machine that has just booted may be at its own upgrades, so each lock is waited for up to five
# minutes. apt itself does that for dpkg's alone and fails at once for the others: should one be taken between the look and
# apt's start, that is for a further try.
apt_get() {
  local lock inode end=$((SECONDS + 300))
  for lock in /var/lib/apt/lists/lock /var/cache/apt/archives/lock; do
    inode=$(stat --format %i "$lock" 2>/dev/null) || continue
    while grep --quiet ":$inode " /proc/locks && ((SECONDS < end)); do sleep 1; done
  done
  as_root env DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=300 "$@"
}

refreshed=
# apt_refresh PACKAGE...: reads the package lists, once a run. By itself apt calls it a success when a mirror can't be reached.
# A mirror that can't for good may be one that has none of the packages: in the end it's left to apt.
apt_refresh() {
  [[ -z $refreshed ]] || return 0
  command -v apt-get >/dev/null || die "this machine has no apt-get: install $* yourself and run this again"
  as_root true # where nobody can be root, that is said here and not in the log
  new_log
  again 'reading the package lists' into_log apt_get update -o APT::Update::Error-Mode=any || {
    say 'reading the package lists failed: going on with what can be read'
    logged apt_get update
  }
  refreshed=yes
}

# from_mirror COMMAND...: a download of packages, to be tried again: apt itself does so for seconds after a broken connection or
# a 503, and not at all after a wrong checksum. A 404 means that the lists are older than the mirror, so they're read before a
# further try; whether that went well, the command tells.
from_mirror() {
  [[ -n $refreshed ]] || apt_get update || true
  refreshed=
  "$@" && refreshed=yes
}

apt_install() {
  local install=(apt_get install --yes --no-upgrade --no-install-recommends)
  apt_refresh "$@"
  say "installing $*"
  retried "the download of $*" from_mirror "${install[@]}" --download-only "$@"
  logged "${install[@]}" "$@"
}
