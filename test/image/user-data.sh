#!/usr/bin/env bash
# What flowagent's golden image replaces, written the way teams write it: a script that makes a node of a plain Debian machine
# at its first boot. cloud-init runs it; the yardstick for the time to the first answer.
#
#   user-data.sh URL      of the application's images, as docker save writes them
#
# Nothing in it is slowed down on purpose. The images come uncompressed from the same host, which is faster than any registry.
set -euo pipefail
images=$1
cd /opt/wms

mark() { printf '%s\t%s\n' "$1" "$(awk '{printf "%d", $1 * 1000000}' /proc/uptime)" >>/var/log/user-data.marks; }

mark 'the script begins'
export DEBIAN_FRONTEND=noninteractive
apt-get -qq update
apt-get -qq install -y --no-install-recommends docker.io docker-cli docker-compose curl >/dev/null
mark 'the engine is installed'
curl -fsS "$images" | docker load -q
mark 'the images are there'
export WMS_SECRETS_DIR=/opt/wms/secrets
docker compose -f compose.yaml -f calm.yaml -f compose.standalone.yaml --profile onprem up -d --quiet-pull
mark 'the workload is started'
