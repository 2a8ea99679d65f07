#!/usr/bin/env bash
# Runs the Packer plugin's tests in a lab, with the race detector. `make plugin-test` prepares what they need.
#
#   scripts/plugin-test.sh [ARGUMENTS OF go test]     ./... without any
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# The lab has no network.
scripts/again.sh 'the download of the modules' go -C packer/plugin mod download
export GOFLAGS=-mod=readonly GOPROXY=off

(($# > 0)) || set -- ./...
# shellcheck disable=SC2016 # the inner shell is to expand it
exec scripts/lab.sh -- bash -c 'cd packer/plugin && exec ../../.build/bin/lab test -race -count=1 -p 2 -timeout 30m "$@"' - "$@"
