#!/usr/bin/env bash
# The same node as scripts/demo.sh boots, as it would be on EC2: secrets from Secrets Manager, images pulled from ECR,
# identity, credentials and user data from IMDS. Stand-ins play AWS inside a lab, a private node with its own Docker
# Engine; this machine's engine only builds the images. DEMO_ONCE=1 as in demo.sh.
set -euo pipefail
cd "$(dirname "$0")/.."

# What this node's user data says on top of the baked configuration: the database and the queue run on the node itself,
# since nothing here plays RDS and ElastiCache.
user_data() {
  cat <<'EOF'
apiVersion: flowagent/v1
kind: Node
node: {environment: demo}
workload:
  profiles: [onprem]
  variables: {IMAGE_TAG: demo, WMS_DB_HOST: postgres, WMS_DB_SSLMODE: prefer, WMS_CACHE_HOST: valkey, WMS_CACHE_TLS: "off"}
  ready: {stableFor: 2s}
drain: {deregisterDelay: 0s}
EOF
}

mkdir -p .build/demo/aws
# Everything else is the mock's own instance: i-1234567890abcdef0 in us-east-1. By itself the mock announces at once all that
# it knows, the instance's end first: those paths lead nowhere here, and an instance in service is what is announced.
cat >.build/demo/aws/metadata-mock.json <<EOF
{
  "userdata": {"values": {"userdata": "$(user_data | base64 --wrap=0)"}},
  "metadata": {
    "paths": {
      "target-lifecycle-state": "/latest/meta-data/unused/1", "spot": "/latest/meta-data/unused/2",
      "rebalance-rec-time": "/latest/meta-data/unused/3", "events": "/latest/meta-data/unused/4",
      "kernel-id": "/latest/meta-data/autoscaling/target-lifecycle-state"
    },
    "values": {"kernel-id": "InService"}
  }
}
EOF
exec scripts/lab.sh \
  --image flowviz/app:demo --image flowviz/postgres:demo --image flowviz/valkey:demo \
  --registry 123456789012.dkr.ecr.us-east-1.amazonaws.com \
  --moto --metadata-mock .build/demo/aws/metadata-mock.json \
  --publish 8000 --publish 9180 \
  -- scripts/demo.sh aws
