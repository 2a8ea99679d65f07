#!/usr/bin/env bash
# Builds the images of examples/wms and saves them as one archive, for machines that have no registry.
#
# In:  root; Debian's mirror, the first time. A Docker Engine that isn't there is started, and ended again.
# Out: on standard output the path of the archive, below .build/image/wms. It is made once for each state of examples/wms.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

readonly images=(flowviz/app:demo flowviz/postgres:demo flowviz/valkey:demo)
readonly home=$PWD/.build/image/wms

key=$(find examples/wms -type f -print0 | LC_ALL=C sort --zero-terminated | xargs -0 sha256sum | sha256sum | cut -c 1-16)
archive=$home/$key.tar
if [[ ! -s $archive ]]; then
  mkdir -p "$home"
  trap 'scripts/setup.sh engine-stop; rm -f "$home/new.tar"' EXIT
  {
    scripts/setup.sh engine
    examples/wms/build.sh
    docker save --output "$home/new.tar" "${images[@]}"
  } >&2
  rm -f "$home"/????????????????.tar
  mv "$home/new.tar" "$archive"
fi
printf '%s\n' "$archive"
