#!/usr/bin/env bash
# smoke.sh BASE_URL: takes one batch of food through the running WMS, from raw material to customer and back.
#
# In:  the API's address, such as http://127.0.0.1:8000. Needs bash and curl, nothing else.
# Out: one line for each step, "smoke test passed" at the end and exit status 0; otherwise what went wrong, and 1.
# It adds lots of its own and leaves everybody else's alone, so it may run against a system in use.
set -euo pipefail

# Seconds for the API to become healthy and for a job to be done. A cold worker takes a few; the rest is for a busy
# machine.
readonly patience=60

if [[ $# -ne 1 ]]; then
  printf 'usage: %s BASE_URL\n' "$0" >&2
  exit 2
fi
readonly base=${1%/}

say() { printf 'smoke: %s\n' "$*"; }
die() { printf 'smoke test failed: %s\n' "$*" >&2; exit 1; }

# request METHOD PATH [JSON]: sets status and body.
request() {
  local answer
  local -a data=()
  [[ $# -lt 3 ]] || data=(--header 'Content-Type: application/json' --data "$3")
  answer=$(curl --silent --show-error --max-time 15 --request "$1" "${data[@]}" --write-out '\n%{http_code}' "$base$2") ||
    die "$1 $2: no answer from $base"
  status=${answer##*$'\n'}
  body=${answer%$'\n'*}
}

# expect STATUS METHOD PATH [JSON]: as request, and fails on any other status.
expect() {
  local wanted=$1
  shift
  request "$@"
  [[ $status == "$wanted" ]] || die "$1 $2: status $status instead of $wanted: $body"
}

# field NAME: the first string of that name in the body. Enough for the WMS's flat answers, and no JSON tool needed.
field() {
  local pattern="\"$1\":\"([^\"]*)\""
  [[ $body =~ $pattern ]] || die "no \"$1\" in: $body"
  printf '%s' "${BASH_REMATCH[1]}"
}

contains() {
  [[ $body == *"$1"* ]] || die "$2: no $1 in: $body"
}

# until_true COMMAND…: tries it twice a second until it succeeds or patience is over.
until_true() {
  local deadline=$((SECONDS + patience))
  until "$@"; do
    ((SECONDS < deadline)) || return 1
    sleep 0.5
  done
}

healthy() {
  [[ $(curl --silent --output /dev/null --max-time 5 --write-out '%{http_code}' "$base/health") == 200 ]]
}

job_is_over() {
  expect 200 GET "/jobs/$job?wait=5"
  [[ $(field state) == "done" || $(field state) == "failed" ]]
}

until_true healthy || die "$base/health did not answer 200 within $patience s"
say "healthy: database and queue answer"

expect 201 POST /lots/raw '{"product": "oat flour", "quantity": 500, "supplier": "Muehle Nord", "supplier_lot": "MN-7781"}'
flour=$(field code)
expect 201 POST /lots/raw '{"product": "honey", "quantity": 80, "supplier": "Imkerei Sued", "supplier_lot": "IS-204"}'
honey=$(field code)
say "received raw material $flour and $honey"

expect 201 POST /lots/production "{\"product\": \"granola base\", \"quantity\": 540, \"inputs\":
  [{\"lot\": \"$flour\", \"quantity\": 480}, {\"lot\": \"$honey\", \"quantity\": 60}]}"
dough=$(field code)
expect 201 POST /lots/production "{\"product\": \"granola bars\", \"quantity\": 9000, \"unit\": \"pcs\", \"inputs\":
  [{\"lot\": \"$dough\", \"quantity\": 450}]}"
bars=$(field code)
say "produced $dough, and $bars out of it"

expect 409 POST "/lots/production" "{\"product\": \"granola base\", \"quantity\": 100, \"inputs\":
  [{\"lot\": \"$flour\", \"quantity\": 21}]}"
contains not_enough "using more than is left"
say "refused to use more of $flour than is left"

expect 201 POST "/lots/$bars/decisions" '{"decision": "pass", "decided_by": "a.meyer", "reason": "moisture 4.1 %"}'
expect 201 POST "/lots/$honey/decisions" '{"decision": "hold", "decided_by": "a.meyer", "reason": "residue test open"}'
expect 409 POST "/lots/$bars/shipments" '{"customer": "Markt 12", "quantity": 1200}'
contains "$honey is on hold" "shipping a lot with a held ingredient"
say "refused to ship $bars while its ingredient $honey is on hold"

expect 201 POST "/lots/$honey/decisions" '{"decision": "pass", "decided_by": "b.kaya", "reason": "residue test negative"}'
expect 201 POST "/lots/$bars/shipments" '{"customer": "Markt 12", "quantity": 1200}'
shipment=$(field code)
say "shipped $bars as $shipment after quality control passed it"

expect 200 GET "/lots/$honey/trace/forward"
contains "\"code\":\"$shipment\"" "tracing $honey forward"
contains '"customer":"Markt 12"' "tracing $honey forward"
say "traced raw material $honey forward to $shipment"

expect 200 GET "/shipments/$shipment/trace/back"
contains "\"raw_materials\":[\"$flour\",\"$honey\"]" "tracing $shipment back"
contains '"supplier_lot":"IS-204"' "tracing $shipment back"
say "traced $shipment back to $flour and $honey"

expect 202 POST "/lots/$bars/reports"
job=$(field id)
until_true job_is_over || die "job $job is still $(field state) after $patience s: look at the worker's log"
[[ $(field state) == "done" ]] || die "job $job failed: $body"
contains '"customers":["Markt 12"]' "the report of job $job"
say "the worker made the trace report of $bars"

printf 'smoke test passed\n'
