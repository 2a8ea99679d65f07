#!/usr/bin/env bash
# Runs a command in a lab, a private node with a Docker Engine of its own and no network; `lab run -h` lists the flags.
#
#   scripts/lab.sh [FLAGS] [--] COMMAND...
#
# The command starts in the project's root, as root: by sudo where needed.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

go build -o .build/bin/lab ./test/lab/cmd/lab
if ((EUID == 0)); then
  exec .build/bin/lab run "$@"
fi

# sudo empties the environment. What root builds goes to a cache of its own, so that the person's stays theirs.
environment=(PATH="$PATH" GOMODCACHE="$(go env GOMODCACHE)" GOCACHE="$PWD/.build/go-cache-root")
for name in CI DEMO_ONCE GOFLAGS GOPROXY GOTOOLCHAIN NO_COLOR SSL_CERT_FILE TERM; do
  [[ -z ${!name:-} ]] || environment+=("$name=${!name}")
done
exec sudo env "${environment[@]}" .build/bin/lab run "$@"
