# shellcheck shell=bash
# How a Debian system is made from packages: what base-image.sh and setup.sh share, to be sourced by them. In: a function
# die that ends the script with a message. Out: the names below; nothing is done here.

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
