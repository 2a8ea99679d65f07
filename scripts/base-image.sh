#!/usr/bin/env bash
# Makes sure the Docker Engine has the image debian:trixie-slim, the base of every image in examples/.
#
# In:  the Docker Engine that the docker command talks to (DOCKER_HOST and contexts work as usual).
# Out: that image, either already there, pulled, or made here from Debian packages; one line for each step on
#      standard output. Exit status 0 means the image exists.
# It never replaces an image that is there, and leaves nothing half-made behind.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly log=$PWD/.build/base-image.log # what apt and mmdebstrap say
readonly image=debian:trixie-slim
# A registry that doesn't answer must not hold up a site without one; the image is about 30 MB, so two minutes are
# enough even on a slow line.
readonly pull_limit=120

say() { printf 'base-image: %s\n' "$*"; }
die() { printf 'base-image: %s\n' "$*" >&2; exit 1; }

# shellcheck source=scripts/debian.sh
. scripts/debian.sh

install_mmdebstrap() {
  command -v mmdebstrap >/dev/null && return 0
  command -v apt-get >/dev/null ||
    die "mmdebstrap is missing and there is no apt-get: install mmdebstrap, or load $image with 'docker load'"
  apt_install "${mmdebstrap_packages[@]}"
}

# The tree goes through a file rather than a pipe: docker import would keep a truncated one as an image.
make_image() {
  local dir
  dir=$(mktemp -d)
  # shellcheck disable=SC2064 # the name as it is now: the variable is gone when the trap runs
  trap "rm -rf '$dir'" EXIT
  say "making $image from Debian's packages with mmdebstrap (about 35 s)"
  new_log
  # A further try overwrites the file.
  again mmdebstrap into_log mmdebstrap "${debian_options[@]}" "$debian_suite" "$dir/rootfs.tar" ||
    die "mmdebstrap failed: check that this machine reaches a Debian mirror, or load $image with 'docker load'"
  docker import --change 'CMD ["bash"]' "$dir/rootfs.tar" "$image" >/dev/null
  say "made $image"
}

docker version --format '{{.Server.Version}}' >/dev/null ||
  die "no Docker Engine answers: start it (systemctl start docker) or set DOCKER_HOST"

if docker image inspect "$image" >/dev/null 2>&1; then
  say "$image is there"
  exit 0
fi

say "$image is not there: pulling it"
if reason=$(timeout "$pull_limit" docker pull --quiet "$image" 2>&1); then
  say "pulled $image"
  exit 0
fi
say "no registry gave it to us (${reason:-no answer within $pull_limit s})"
install_mmdebstrap
make_image
