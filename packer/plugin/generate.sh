#!/usr/bin/env bash
# Makes what is derived from the settings' structs: the HCL specs beside them and docs/reference/packer-plugin.md.
#
#   packer/plugin/generate.sh           writes them
#   packer/plugin/generate.sh --check   ends with 1 if they are not what it would write, and changes nothing
#
# packer-sdc does the work: `make packer-tools` builds it.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

readonly reference=../../docs/reference/packer-plugin.md
sdc=$(cd ../.. && pwd)/.build/bin/packer-sdc
[[ -x $sdc ]] || {
  echo "generate: $sdc is missing: run 'make packer-tools'" >&2
  exit 1
}

work=$(mktemp -d)
# packer-sdc finds a plugin's root by its name.
root=$work/packer-plugin-flowagent
cleanup() { rm -rf "$work" docs-partials; }
trap cleanup EXIT
ln -s "$PWD" "$root"

# settings DIRECTORY FILE TYPES: the HCL spec of the types, and the partials of the documentation.
settings() {
  (
    cd -L "$root/$1"
    export GOFILE=$2 GOPACKAGE=${1##*/}
    "$sdc" mapstructure-to-hcl2 -type "$3"
    "$sdc" struct-markdown
  )
}

generate() {
  settings provisioner/flowagent config.go Config
  settings post-processor/publish config.go Config,Keep
  settings datasource/ami ami.go Config,DatasourceOutput
  mkdir -p "$work/docs"
  "$sdc" renderdocs -src docs -partials docs-partials -dst "$work/docs" 2>"$work/log" || {
    cat "$work/log" >&2
    return 1
  }
  mkdir -p "${reference%/*}"
  sed -e '/^<!-- .* generated from the comments of /d' -e 's/[[:space:]]*$//' "$work/docs/packer-plugin.mdx" | cat -s >"$reference"
}

if [[ ${1:-} != --check ]]; then
  generate
  exit
fi

readonly made=(provisioner/flowagent/config.hcl2spec.go post-processor/publish/config.hcl2spec.go datasource/ami/ami.hcl2spec.go "$reference")
for i in "${!made[@]}"; do
  cp "${made[$i]}" "$work/before-$i"
done
generate
failed=
for i in "${!made[@]}"; do
  cmp --silent "${made[$i]}" "$work/before-$i" || {
    printf 'generate: %s is not what the comments and settings say: run packer/plugin/generate.sh\n' "${made[$i]}" >&2
    cp "$work/before-$i" "${made[$i]}"
    failed=yes
  }
done
[[ -z $failed ]]
