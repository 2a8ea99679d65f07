#!/usr/bin/env bash
# Replaces nodes that run examples/wms behind nginx while clients make requests and tasks run, in a lab, and prints what
# came of requests and tasks. Ends with 1 when a request failed, or a task was lost or run twice. `make drain-e2e` prepares
# what it needs.
#
#   scripts/drain-e2e.sh [FLAGS]
#     -replacements 10   how many nodes are replaced, by turns left and right
#     -requests 100000   how many requests are made at least
#     -rate 300          how many of them a second
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# The lab has no network. Everything the build needs is fetched here; the settings below prove it.
scripts/again.sh 'the download of the modules' go mod download
export GOFLAGS=-mod=readonly GOPROXY=off

# Without the variable a missing part would be a reason to skip the test.
CI=true exec scripts/lab.sh --image flowviz/app:demo --image flowviz/postgres:demo --image flowviz/valkey:demo -- \
  go test -race -tags fleet -count=1 -v -timeout 30m -run '^TestNodesAreReplacedUnderLoad' ./test/e2e "$@"
