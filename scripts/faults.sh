#!/usr/bin/env bash
# Runs every trigger of a drain against every fault, in a lab, and prints the matrix. `make faults` prepares it.
#
#   scripts/faults.sh [FLAGS OF A TEST BINARY]    such as -test.run '/edge/hangs' for some of the cells
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# The lab has no network, and the agent is built in it.
scripts/again.sh 'the download of the modules' go mod download
export GOFLAGS=-mod=readonly GOPROXY=off

# Not by `go test`, which holds the table back until the last cell has ended.
go test -race -c -o .build/bin/faults ./test/faults
exec scripts/lab.sh -- .build/bin/faults -matrix "$@"
