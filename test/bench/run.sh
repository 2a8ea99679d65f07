#!/usr/bin/env bash
# Boots one node again and again in a lab and prints how long that takes: with flowagent, with the shell script that it
# replaces, and with Docker Compose alone. README.md in this directory says what is measured; `make bench` prepares it.
#
#   test/bench/run.sh [FLAGS of boot]     none for a run of about three minutes
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

PATH=$PATH:$PWD/.build/venv/bin # where scripts/setup.sh installs aws if the system has no package of it
for program in aws curl docker python3; do
  command -v "$program" >/dev/null || {
    echo "bench: $program is missing, which user-data.sh needs: install it (Debian's awscli, curl, docker-cli, python3)" >&2
    exit 1
  }
done
# Where aws is a shim that first chooses a Python, the script would pay for that on no AMI: take the program itself.
python=$(python3 -c 'import os, sys; print(os.path.dirname(sys.executable))')
[[ ! -x $python/aws ]] || export PATH=$python:$PATH

CGO_ENABLED=0 go build -o .build/bin/bench-boot ./test/bench/boot
exec scripts/lab.sh --moto --registry 123456789012.dkr.ecr.us-east-1.amazonaws.com -- \
  .build/bin/bench-boot -flowagent .build/bin/flowagent "$@"
