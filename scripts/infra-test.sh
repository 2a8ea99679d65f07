#!/usr/bin/env bash
# Holds infrastructure/ against a stand-in for AWS: formatting, validation, terraform test, and production applied as a
# whole. No account is needed. The last line holds the counts; ends with 1 when one failed.
#
#   scripts/infra-test.sh [ARGUMENTS OF go test]
#
# Terraform is the one on the path, or is fetched into .build. The AWS provider comes from TF_PLUGIN_MIRROR, a directory
# as `terraform providers mirror` makes it, else from one that is found on this machine, else from the registry.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly build=$PWD/.build
readonly providers=$build/terraform-providers
readonly version=1.11.4

say() { printf 'infra-test: %s\n' "$*" >&2; }
die() { say "$*"; printf '\n0 passed, 1 failed\n'; exit 1; }

# shellcheck source=scripts/again.sh
. scripts/again.sh

# What a variable for another Terraform points at may be gone; each run would say so, in the middle of JSON.
[[ -z ${TF_CLI_CONFIG_FILE:-} || -e $TF_CLI_CONFIG_FILE ]] || unset TF_CLI_CONFIG_FILE
export PATH=$PATH:$build/bin:$build/venv/bin CHECKPOINT_DISABLE=1

# fetch_archive: $archive, by its $sum; $blame is why not. Python says nothing of an answer that breaks off: the sum does.
fetch_archive() {
  blame="terraform can't be fetched: install 1.11 or newer from https://developer.hashicorp.com/terraform/install, so that it is on the path, and run this again"
  python3 -c 'import shutil, sys, urllib.request; shutil.copyfileobj(urllib.request.urlopen(sys.argv[1], timeout=60), open(sys.argv[2], "wb"))' \
    "https://releases.hashicorp.com/terraform/$version/terraform_${version}_linux_$arch.zip" "$archive" || return
  blame="what was fetched is not terraform $version: see who answers for releases.hashicorp.com here"
  printf '%s  %s\n' "$sum" "$archive" | sha256sum --check --quiet
}

# fetch_terraform: HashiCorp's own archive, by its sum. Their licence (BUSL) allows that; it is run and never linked.
fetch_terraform() {
  local arch sum archive=$build/terraform.zip
  case $(uname -m) in
  x86_64) arch=amd64 sum=1ce994251c00281d6845f0f268637ba50c0005657eb3cf096b92f753b42ef4dc ;;
  aarch64) arch=arm64 sum=a43d1d0da9b9bab214a8305a39db0e40869572594ccf50c416a7756499143633 ;;
  *) die "there is no Terraform for $(uname -m) here: install 1.11 or newer and run this again" ;;
  esac
  say "fetching terraform $version"
  mkdir -p "$build/bin"
  again 'the download of terraform' fetch_archive || die "$blame"
  python3 -c 'import sys, zipfile; zipfile.ZipFile(sys.argv[1]).extract("terraform", sys.argv[2])' "$archive" "$build/bin"
  chmod 0755 "$build/bin/terraform"
  rm "$archive"
}

# fetch_provider: aside, so that what has its final name is whole.
fetch_provider() {
  rm -rf "$providers.new"
  terraform -chdir=infrastructure providers mirror "$providers.new" >"$build/infra-test.log" 2>&1 || {
    tail -n 20 "$build/infra-test.log" >&2
    return 1
  }
}

# mirror: a directory on this machine that has the provider.
mirror() {
  local place found
  for place in "$providers" "$HOME/.terraform.d/plugins" /usr/local/share/terraform/plugins /usr/share/terraform/plugins; do
    [[ ! -d $place/registry.terraform.io/hashicorp/aws ]] || { echo "$place"; return; }
  done
  found=$(find / -maxdepth 4 \( -path /proc -o -path /sys -o -path /dev -o -path /tmp \) -prune -o -type d -name registry.terraform.io -print -quit 2>/dev/null || true)
  [[ -z $found || ! -d $found/hashicorp/aws ]] || echo "${found%/*}"
}

scripts/setup.sh moto aws || die 'moto or the AWS command line is missing: the lines above say why'
command -v terraform >/dev/null || fetch_terraform
have=$(terraform version -json | python3 -c 'import json, sys; print(json.load(sys.stdin)["terraform_version"])')
[[ $(printf '1.11.0\n%s\n' "$have" | sort --version-sort | head -n 1) == 1.11.0 ]] ||
  die "terraform $have is older than 1.11, which infrastructure/ needs: install a newer one, or take it off the path to have $version fetched"

rm -rf "$providers.new" # mirror must not find what a run that was ended left
TF_PLUGIN_MIRROR=${TF_PLUGIN_MIRROR:-$(mirror)}
if [[ -z $TF_PLUGIN_MIRROR ]]; then
  say 'fetching the AWS provider'
  again 'the download of the AWS provider' fetch_provider ||
    die "the AWS provider can't be fetched: give TF_PLUGIN_MIRROR a directory made by 'terraform providers mirror' where there is a registry, and run this again"
  rm -rf "$providers" # it has no such provider, or it would have been taken
  mv "$providers.new" "$providers"
  TF_PLUGIN_MIRROR=$providers
fi
[[ -d $TF_PLUGIN_MIRROR/registry.terraform.io/hashicorp/aws ]] ||
  die "TF_PLUGIN_MIRROR ($TF_PLUGIN_MIRROR) has no registry.terraform.io/hashicorp/aws: name the directory that holds registry.terraform.io"
export TF_PLUGIN_MIRROR

# A copy of its own: make test starts the lab at the same time.
reporter=$build/bin/lab-for-infra
go build -o "$reporter" ./test/lab/cmd/lab
cd test/infra
again 'the download of the modules' go mod download
# More at once than there are processors: the provider sleeps most of the time. Without CI a missing part would be a reason
# to skip a test.
CI=true exec "$reporter" test -count=1 -parallel 8 -timeout 40m "$@" ./...
