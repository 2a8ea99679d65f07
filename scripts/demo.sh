#!/usr/bin/env bash
# The main job on this machine: boots examples/wms as a node with flowagent in the foreground, until Ctrl-C.
#
# In:  demo.sh onprem      age-encrypted secrets, images from the engine, this machine's Docker Engine
#      demo.sh aws         secrets from Secrets Manager, images from ECR, identity from IMDS: moto, a TLS registry under
#                          an ECR host name and the metadata mock, in a private lab (run it with scripts/demo-aws.sh)
#      DEMO_ONCE=1         boot, run the smoke test, clean up and end
# Out: the agent's progress, `ready in N s`, the status table and the URLs; exit 1 where the node did not become ready
#
# The make targets build the parts and the images first. Everything written is under .build/demo, except the secrets:
# those are on a tmpfs and gone afterwards, as are the containers and their volumes.
set -euo pipefail
cd "$(dirname "$0")/.."
mode=${1:?demo.sh: say onprem or aws}
bin=$PWD/.build/bin
demo=$PWD/.build/demo/$mode
run=/run/flowagent-demo
project=flowviz # as in the configurations

if [[ $EUID != 0 ]]; then
  echo "demo: the agent mounts a tmpfs and talks to the Docker Engine, so it runs as root: try again with sudo" >&2
  exit 1
fi
mkdir -p "$demo"

# The operator's compose plugin and the registry log-in, in a private place: the demo changes nothing in ~/.docker.
export DOCKER_CONFIG=$demo/docker
mkdir -p "$DOCKER_CONFIG/cli-plugins"
ln -sf "$bin/docker-compose" "$DOCKER_CONFIG/cli-plugins/docker-compose"

flowagent=("$bin/flowagent" --config "$demo/config.yaml" --run-dir "$run" --state-dir "$demo/state")
random() { head -c 24 /dev/urandom | base64 | tr -d '+/=\n'; }

# Two random passwords as age-encrypted YAML, as an on-prem site keeps them. The plain values exist only in the pipe.
prepare_onprem() {
  cp examples/wms/compose.yaml "$demo/compose.yaml"
  cp examples/wms/config.onprem.yaml "$demo/config.yaml"
  [[ -s $demo/age.key ]] || (umask 077 && age-keygen -o "$demo/age.key" 2>/dev/null)
  printf 'db:\n  password: %s\ncache:\n  password: %s\n' "$(random)" "$(random)" |
    age --encrypt --recipient "$(age-keygen -y "$demo/age.key")" --output "$demo/secrets.age"
}

# The same two passwords in Secrets Manager, and the images in the registry only, so that the node has to pull them.
prepare_aws() {
  local registry=123456789012.dkr.ecr.us-east-1.amazonaws.com image
  cp examples/wms/compose.yaml "$demo/compose.yaml"
  cp examples/wms/config.aws.yaml "$demo/config.yaml"
  # moto checks no signature, only that there is one with a region.
  printf '{"Name":"flowviz/production/app","ClientRequestToken":"%s","SecretString":"{\\"db\\":{\\"password\\":\\"%s\\"},\\"cache\\":{\\"password\\":\\"%s\\"}}"}' \
    "$(cat /proc/sys/kernel/random/uuid)" "$(random)" "$(random)" |
    curl --silent --show-error --fail --output /dev/null --data-binary @- \
      --header 'Content-Type: application/x-amz-json-1.1' \
      --header 'X-Amz-Target: secretsmanager.CreateSecret' \
      --header 'Authorization: AWS4-HMAC-SHA256 Credential=demo/20260101/us-east-1/secretsmanager/aws4_request, SignedHeaders=host, Signature=none' \
      "$AWS_ENDPOINT_URL"
  docker login --username AWS --password-stdin "$registry" <"$FLOWAGENT_LAB/registries/$registry/password" >/dev/null 2>&1
  for image in app postgres valkey; do
    docker tag "flowviz/$image:demo" "$registry/flowviz/$image:demo"
    echo "demo: pushing $registry/flowviz/$image:demo"
    docker push --quiet "$registry/flowviz/$image:demo" >/dev/null
  done
  for image in app postgres valkey; do # only now, since they share layers
    docker rmi "$registry/flowviz/$image:demo" "flowviz/$image:demo" >/dev/null
  done
  docker logout "$registry" >/dev/null
  # From here on the node is on its own: it gets its credentials from the instance's role.
  unset AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY AWS_REGION
}

agent=
cleanup() {
  trap - EXIT INT TERM
  if [[ -n $agent ]] && kill -0 "$agent" 2>/dev/null; then
    kill -TERM "$agent" # --drain-on-stop: services stop in order and the secrets are wiped
    wait "$agent" || true
  fi
  "$bin/docker-compose" --project-name "$project" down --volumes --remove-orphans >"$demo/down.log" 2>&1 ||
    echo "demo: containers may be left over, see .build/demo/$mode/down.log" >&2
  ! mountpoint --quiet "$run/secrets" || umount "$run/secrets"
  rm -rf "$run"
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

"prepare_$mode"
"${flowagent[@]}" config validate
"${flowagent[@]}" run --drain-on-stop &
agent=$!

# Whichever ends first: the agent, which is a failure, or the wait for it.
"${flowagent[@]}" status --wait 10m &
waiter=$!
if ! wait -n "$agent" "$waiter" || ! kill -0 "$agent" 2>/dev/null; then
  kill "$waiter" 2>/dev/null || true
  echo "demo: the node did not become ready" >&2
  exit 1
fi

api=http://127.0.0.1:8000
printf '\n  WMS API   %s/docs\n  health    http://127.0.0.1:9180/health\n' "$api"
# The AWS node's control socket is in its own namespaces.
[[ $mode == aws ]] || printf '  status    .build/bin/flowagent --run-dir %s status\n' "$run"
echo
if [[ ${DEMO_ONCE:-0} == 1 ]]; then
  examples/wms/smoke.sh "$api"
  exit 0
fi
echo "Running until Ctrl-C."
wait "$agent"
