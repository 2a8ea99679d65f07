#!/usr/bin/env bash
# Checks formatting, vets and lints Go and shell code. Prints every finding and ends with 1 if there is one.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

failed=
check() {
  "$@" || failed=yes
}

# files PATTERN: the project's files of that name, new ones included; .build holds only what is made.
files() {
  find . \( -name .build -o -name .git -o -name node_modules \) -prune -o -name "$1" -type f -print0
}

formatted() {
  local unformatted
  unformatted=$(files '*.go' | xargs -0 --no-run-if-empty gofmt -l)
  [[ -z $unformatted ]] || {
    printf 'not formatted, run gofmt -w on:\n%s\n' "$unformatted"
    return 1
  }
}

shell_checked() {
  {
    files '*.sh'
    printf '%s\0' .ci/run
  } | xargs -0 shellcheck
}

check formatted
# in_module DIRECTORY: the modules with code of the project's own.
in_module() {
  scripts/again.sh "the download of the modules of $1" go -C "$1" mod download &&
    go -C "$1" vet -tags fleet ./... && (cd "$1" && "$staticcheck" -tags fleet ./...)
}
readonly staticcheck=$PWD/.build/bin/staticcheck

check in_module .
check in_module packer/plugin
check in_module test/infra
check shell_checked
[[ -z $failed ]]
