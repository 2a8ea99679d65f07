#!/usr/bin/env bash
# Fuzzes every Fuzz function of the project in turn, and ends with 1 when one found something. The readers of what a
# stranger on the network says, PostgreSQL's and Redis', get longer than the others.
#
#   FUZZTIME=1m FUZZTIME_OTHERS=10s scripts/fuzz.sh [NAME...]     only these functions; all without any
#
# What was found lies in testdata/fuzz beside the test: with it, go test fails until it is mended, so commit it with that.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly readers_time=${FUZZTIME:-1m} others_time=${FUZZTIME_OTHERS:-10s}

# wanted NAME NAMES...: whether it is among them; without names, everything is.
wanted() {
  local name=$1 other
  shift
  (($# > 0)) || return 0
  for other in "$@"; do
    [[ $other != "$name" ]] || return 0
  done
  return 1
}

# only_time_up FILE: whether all that a failed run has to say is that its time was up, as Go before 1.27 may say where nothing
# was found (golang/go#75804). What is found comes with more words.
only_time_up() {
  [[ $(sed -n '/^--- FAIL: /,/^FAIL$/p' "$1" | sed '1d;$d') == '    context deadline exceeded' ]]
}

said=$(mktemp)
readonly said
trap 'rm -f "$said"' EXIT

# By their source: to ask go test for its list would build every test of the project first.
functions=$(grep -r --include='*_test.go' --exclude-dir=.build '^func Fuzz' . | sort)
passed=0 failed=0
while IFS=: read -r file declaration; do
  name=${declaration#func } package=${file%/*}
  name=${name%%(*}
  wanted "$name" "$@" || continue
  time=$others_time
  [[ $name != FuzzPostgres* && $name != FuzzRedis* ]] || time=$readers_time
  printf 'fuzz: %s in %s for %s\n' "$name" "$package" "$time"
  if go test -run '^$' -fuzz "^$name\$" -fuzztime "$time" "$package" </dev/null 2>&1 | tee "$said" || only_time_up "$said"; then
    passed=$((passed + 1))
  else
    failed=$((failed + 1))
  fi
done <<<"$functions"

# Nothing found because nothing was run is no result.
((passed + failed > 0)) || {
  echo 'fuzz: no function of that name' >&2
  exit 1
}
# Each function counts as a test does, in the form of the tests' own report.
printf '\n%d passed, %d failed\n' "$passed" "$failed"
((failed == 0))
