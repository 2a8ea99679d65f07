#!/usr/bin/env bash
# Checks the Packer templates without a cloud and without a machine: their format, every combination of distribution and
# architecture, and that wrong values are refused with a reason.
#
#   test/image/templates.sh DIRECTORY      of packer, its plugins, and the flowagent binary
#
# Out: a line for each check; 1 where one fails. The plugins are installed below .build/packer, and stay there for later runs.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
bin=$(realpath "${1:?templates.sh: name the directory of packer and its plugins, such as .build/bin}")

export PACKER_PLUGIN_PATH=$PWD/.build/packer/plugins PACKER_CONFIG_DIR=$PWD/.build/packer CHECKPOINT_DISABLE=1
unset "${!PKR_VAR_@}"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failed=

# check TEXT COMMAND...: prints how it went, and what the command said if it failed.
check() {
  local text=$1
  shift
  if "$@" >"$work/log" 2>&1; then
    printf 'ok    %s\n' "$text"
    return
  fi
  failed=yes
  printf 'FAIL  %s\n' "$text"
  cat "$work/log"
}

for plugin in hashicorp/amazon hashicorp/qemu flowviz/flowagent; do
  check "packer takes the plugin $plugin" "$bin/packer" plugins install --path "$bin/packer-plugin-${plugin#*/}" "github.com/$plugin"
done
check 'packer fmt -check' "$bin/packer" fmt -check -diff packer

ssh-keygen -q -t ed25519 -N '' -f "$work/builder_key"
: >"$work/base.qcow2"
variables=(
  -var "agent_binary=$bin/flowagent"
  -var node_config=test/image/node/config.yaml
  -var 'node_files={"/etc/flowagent/compose.yaml" = "examples/wms/compose.yaml", "/etc/flowagent/calm.yaml" = "test/image/node/calm.yaml"}'
  -var "builder_key=$work/builder_key"
  -var "base_disk=$work/base.qcow2"
  -var "base_disk_checksum=sha256:$(sha256sum "$work/base.qcow2" | cut -d ' ' -f 1)"
  -var "output_directory=$work/image"
  -var agent_version=v1.2.3
)
validate() { "$bin/packer" validate "${variables[@]}" "$@" packer; }

for distribution in debian-13 ubuntu-24.04 ubuntu-22.04; do
  check "both templates with $distribution" validate -var "distribution=$distribution"
done
# Whether the agent's binary is one for it shows on the machine only.
for distribution in debian-13 ubuntu-24.04 ubuntu-22.04; do
  check "an AMI of $distribution for arm64" validate -only='node.amazon-ebs.aws' -var "distribution=$distribution" -var architecture=arm64
done
check 'an AMI with copies, own keys and a share' validate -only='node.amazon-ebs.aws' -var kms_key_id=alias/images \
  -var 'copy_to={"eu-west-1" = "alias/images", "us-east-1" = "arn:aws:kms:us-east-1:123456789012:key/11111111-2222-3333-4444-555555555555"}' \
  -var 'share_with_accounts=["210987654321"]' \
  -var ssh_interface=private_ip -var subnet_id=subnet-0123456789abcdef0
check 'an AMI by Session Manager that is published' validate -only='node.amazon-ebs.aws' -var distribution=ubuntu-24.04 \
  -var ssh_interface=session_manager -var instance_profile=image-builder -var ssm_parameter=/flowviz/production/ami \
  -var terraform_variables=ami.auto.tfvars.json -var keep_images=3
check 'a disk for a server room alone needs nothing of an AMI' validate -only='node.qemu.onprem' -var agent_version=

# refuses WORD NAME=VALUE: the reason has the word.
refuses() {
  if validate -var "$2" >"$work/said" 2>&1 || ! grep -q -- "$1" "$work/said"; then
    cat "$work/said"
    return 1
  fi
}
while read -r word setting; do
  check "refused: $setting" refuses "$word" "$setting"
done <<'WRONG'
distribution distribution=centos-7
architecture architecture=riscv64
region region=Frankfurt
copy_to copy_to={"europe"=""}
copy_to copy_to={"eu-west-1"="my key"}
kms_key_id kms_key_id=arn:aws:kms:eu-west-1:123456789012:key/1
share_with_accounts share_with_accounts=["1234"]
checksum base_disk_checksum=none
base_disk base_disk=http://mirror.example/disk.qcow2
accelerator accelerator=hax
agent_version agent_version=
ssm_parameter ssm_parameter=flowviz
terraform_variables terraform_variables=ami.json
deprecate_after_days deprecate_after_days=0
volume_gib volume_gib=4
node_config node_config=/nowhere.yaml
agent_binary agent_binary=/nowhere
node_files node_files={"etc/x"="README.md"}
image_archives image_archives=["README.md"]
tags tags={"aws:x"="y"}
allow_files allow_files=["key.pem"]
WRONG

# The configuration is read before any machine starts.
printf 'apiVersion: flowagent/v1\nkind: Node\nhelth: {}\n' >"$work/typo.yaml"
check 'refused: a typo in the configuration of the node' refuses 'helth' "node_config=$work/typo.yaml"

[[ -z $failed ]]
