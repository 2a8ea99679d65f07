#!/usr/bin/env bash
# Runs the benches and prints their figures, those with a bound once more at the end. README.md in this directory says
# what is measured; `make bench` prepares it.
#
#   test/bench/run.sh                 boot, health, checks, idle and drain, about eleven minutes
#   test/bench/run.sh BENCH [FLAGS]   one of them alone; -h lists its flags
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

readonly results=.build/bench # what each bench printed last

need() {
  local program
  for program in "$@"; do
    command -v "$program" >/dev/null || {
      echo "bench: $program is missing: run scripts/setup.sh lab bench postgres" >&2
      return 1
    }
  done
}

# built NAME: the bench's program, without cgo as the agent itself is.
built() { CGO_ENABLED=0 go build -o ".build/bin/bench-$1" "./test/bench/$1"; }

# Boots one node again and again: with flowagent, with the shell script that it replaces, with Docker Compose alone.
bench_boot() {
  PATH=$PATH:$PWD/.build/venv/bin # where scripts/setup.sh installs aws if the system has no package of it
  need aws curl docker python3
  # Where aws is a shim that first chooses a Python, the script would pay for that on no AMI: take the program itself.
  local python
  python=$(python3 -c 'import os, sys; print(os.path.dirname(sys.executable))')
  [[ ! -x $python/aws ]] || export PATH=$python:$PATH
  built boot
  scripts/lab.sh --moto --registry 123456789012.dkr.ecr.us-east-1.amazonaws.com -- \
    .build/bin/bench-boot -flowagent .build/bin/flowagent "$@"
}

# /health beside a bare net/http handler.
bench_health() {
  need wrk
  built health
  .build/bin/bench-health "$@"
}

# A thousand checks: how late their probes start. Each iteration is a second.
bench_checks() {
  go test -run '^$' -bench '^BenchmarkThousandChecks$' -benchtime 20x "$@" ./agent/health |
    awk '{ print }
      /^BenchmarkThousandChecks/ {
        late = "more than 1000"
        for (i = 2; i <= NF; i++) if ($i == "ms-p99-at-most") late = $(i - 1)
        printf "1,000 checks, one probe a second each: 99 of 100 start late by %s ms or less; at most 50: %s\n",
          late, (late + 0 > 0 && late + 0 <= 50) ? "within" : "beyond"
      }'
}

# What the agent of a node that is up needs.
bench_idle() {
  built idle
  scripts/lab.sh --moto -- .build/bin/bench-idle -flowagent .build/bin/flowagent "$@"
}

# How soon a node that is terminated says so, and lets its group go on once its work has ended.
bench_drain() {
  built drain
  scripts/lab.sh -- .build/bin/bench-drain -flowagent .build/bin/flowagent "$@"
}

mkdir -p "$results"
case ${1:-all} in
boot | health | checks | idle | drain)
  bench=$1
  shift
  "bench_$bench" "$@"
  ;;
all)
  benches=(boot health checks idle drain)
  for bench in "${benches[@]}"; do
    printf '\n== %s\n' "$bench"
    "bench_$bench" | tee "$results/$bench.txt"
  done
  printf '\n== against the bounds\n'
  for bench in "${benches[@]}"; do
    grep -E ': (within|beyond)$' "$results/$bench.txt"
  done
  ;;
*)
  echo "bench: no bench is called \"$1\": use boot, health, checks, idle or drain" >&2
  exit 2
  ;;
esac
