#!/usr/bin/env bash
# Runs the project's tests in a lab, with the race detector. `make test` prepares what they need.
#
#   scripts/test.sh [ARGUMENTS OF go test]     ./... without any
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# The lab has no network. Everything the build needs is fetched here; the settings below prove it.
scripts/again.sh 'the download of the modules' go mod download
export GOFLAGS=-mod=readonly GOPROXY=off

# Two packages at a time: each may run a database, an engine's build and a registry at once. Nothing from go's test
# cache, which knows of changed files but not of a changed engine.
(($# > 0)) || set -- ./...
exec scripts/lab.sh -- .build/bin/lab test -race -count=1 -p 2 -timeout 30m "$@"
