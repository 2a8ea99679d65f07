#!/usr/bin/env bash
# Pushes the images of an archive to a registry, as CI does after a build.
#
#   test/image/push.sh ARCHIVE REGISTRY USER      the archive as test/image/images.sh makes it
#
# In:  root; REGISTRY_PASSWORD. A Docker Engine that isn't there is started, and ended again.
# Out: the images under REGISTRY/flowviz/…; the engine keeps none of these names.
set -euo pipefail
archive=$1 registry=$2 user=$3
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

DOCKER_CONFIG=$(mktemp -d)
export DOCKER_CONFIG
trap 'rm -rf "$DOCKER_CONFIG"; scripts/setup.sh engine-stop' EXIT
scripts/setup.sh engine
docker login --username "$user" --password-stdin "$registry" <<<"$REGISTRY_PASSWORD"
docker load --input "$archive" | sed -n 's/^Loaded image: //p' | while read -r image; do
  docker tag "$image" "$registry/$image"
  docker push --quiet "$registry/$image"
  docker rmi "$registry/$image"
done
