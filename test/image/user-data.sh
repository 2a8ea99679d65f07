#!/usr/bin/env bash
# What flowagent's golden image replaces, written the way teams write it: a script that makes a node of a plain Debian machine
# at its first boot. cloud-init runs it; the yardstick for the time to the first answer.
#
#   user-data.sh REGISTRY USER      the registry of the application's images; the password is in registry_password
#
# Nothing in it is slowed down on purpose. The registry is on the machine that emulates this one, and the mirror the bake's.
set -euo pipefail
registry=$1 user=$2
cd /opt/wms

mark() { printf '%s\t%s\n' "$1" "$(awk '{printf "%d", $1 * 1000000}' /proc/uptime)" >>/var/log/user-data.marks; }

mark 'the script begins'
export DEBIAN_FRONTEND=noninteractive
apt-get -qq update
apt-get -qq install -y --no-install-recommends docker.io docker-cli docker-compose >/dev/null
mark 'the engine is installed'
export HOME=/root WMS_REGISTRY=$registry/ WMS_SECRETS_DIR=/opt/wms/secrets
docker login --username "$user" --password-stdin "$registry" <registry_password >/dev/null
compose=(docker compose -f compose.yaml -f calm.yaml -f compose.standalone.yaml --profile onprem)
"${compose[@]}" pull --quiet
mark 'the images are there'
"${compose[@]}" up -d
mark 'the workload is started'
