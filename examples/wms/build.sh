#!/usr/bin/env bash
# Builds the images of the FlowViz WMS: flowviz/app, flowviz/postgres and flowviz/valkey.
#
# In:  IMAGE_TAG, the tag they get (default demo); the Docker Engine that the docker command talks to.
# Out: the three images, and their sizes on standard output. What hasn't changed comes from the engine's cache.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

tag=${IMAGE_TAG:-demo}

../../scripts/base-image.sh
for name in app postgres valkey; do
  image=flowviz/$name:$tag
  printf 'build: %s\n' "$image"
  # Shown on failure only: an engine without buildx warns about that at each build.
  log=$(docker build --quiet --tag "$image" --file "images/$name/Dockerfile" . 2>&1) || {
    printf '%s\n' "$log" >&2
    printf 'build: %s failed\n' "$image" >&2
    exit 1
  }
  docker image inspect --format "build: $image is {{.Size}} bytes" "$image"
done
