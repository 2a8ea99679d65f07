#!/usr/bin/env bash
# Tells whether AWS is still as Terraform left it: plans, and changes nothing.
#
#   scripts/drift.sh ENVIRONMENT     such as production; credentials come from the environment, as with any AWS tool
#
# Exit codes: 0 no difference, 2 differences, each of which is listed, 1 it could not be found out.
# TF_PLUGIN_MIRROR is a directory with providers, for machines without a registry. INFRASTRUCTURE is where the
# configuration is, if elsewhere.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

die() { printf 'drift: %s\n' "$*" >&2; exit 1; }

(($# == 1)) || die 'name one environment: scripts/drift.sh production'
environment=$1
directory=${INFRASTRUCTURE:-$PWD/infrastructure}
settings=$directory/environments/$environment
[[ -d $settings ]] || die "there is no $settings: the environments are $(cd "$directory/environments" && echo *)"
command -v terraform >/dev/null || die 'terraform is missing: install 1.11 or newer from https://developer.hashicorp.com/terraform/install'

export TF_IN_AUTOMATION=1 TF_INPUT=0
# One directory for each environment: a backend that was initialised for staging must not be planned for production.
export TF_DATA_DIR=${TF_DATA_DIR:-$directory/.terraform/$environment}
mkdir -p "$TF_DATA_DIR"
log=$TF_DATA_DIR/drift.log

mirror=()
[[ -z ${TF_PLUGIN_MIRROR:-} ]] || mirror=("-plugin-dir=$TF_PLUGIN_MIRROR")
terraform -chdir="$directory" init -no-color -lockfile=readonly -reconfigure "-backend-config=$settings/backend.hcl" "${mirror[@]}" \
  >"$log" 2>&1 || {
  cat "$log" >&2
  die "terraform init failed: the lines above say why"
}

# Without a lock: looking must not keep anybody from applying, and nothing is written.
status=0
terraform -chdir="$directory" plan -no-color -lock=false -detailed-exitcode "-var-file=$settings/terraform.tfvars" >"$log" 2>&1 || status=$?
case $status in
0) echo "$environment is as Terraform left it" ;;
2)
  sed -n '/^Terraform used the selected\|^Note: Objects have changed\|^Terraform will perform/,$p' "$log"
  echo "$environment differs: apply, to have it as the configuration says, or change the configuration" >&2
  ;;
*)
  cat "$log" >&2
  die 'terraform plan failed: the lines above say why'
  ;;
esac
exit "$status"
