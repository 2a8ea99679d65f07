#!/usr/bin/env bash
# Runs a command that a moment's trouble of a server or of the network may fail, up to three times.
#
#   scripts/again.sh WHAT COMMAND...     ends as the last try did
#
# WHAT is for people: "the download of the modules". A second run of the command must do no harm. Scripts that have a function to
# run source this.
set -euo pipefail

again() {
  local what=$1 script=${0##*/} pause
  shift
  # A server or a proxy that is being restarted is back in seconds; of what isn't, one wants to hear within half a minute.
  for pause in 5 20; do
    ! "$@" || return 0
    printf '%s: %s failed: trying again in %d s\n' "${script%.sh}" "$what" "$pause" >&2
    sleep "$pause"
  done
  "$@"
}

[[ ${BASH_SOURCE[0]} != "$0" ]] || again "$@"
