#!/bin/sh
# Loads or removes the node's table of the packet filter, as flowagent-firewall.service asks: start, reload or stop. One
# transaction each: at no moment are some of the rules there and others not. Other tables, Docker's among them, stay as they are.
set -eu

own=/usr/lib/flowagent/firewall.nft
site='/etc/flowagent/firewall.d/*.nft'

load() { printf 'include "%s"\ninclude "%s"\n' "$own" "$site" | nft --file -; }

case ${1:-} in
start)
  load && exit 0
  # A mistake in the site's rules must not leave the node open: our own alone, and a failed unit to tell of it.
  nft --file "$own"
  echo "<3>the rules in $site were refused, see above: only $own is loaded. Correct them, then: systemctl restart flowagent-firewall" >&2
  exit 1
  ;;
reload)
  load || {
    echo "<3>the rules were refused, see above, and the ones before stay in force" >&2
    exit 1
  }
  ;;
stop) printf 'table inet flowagent\ndelete table inet flowagent\n' | nft --file - ;;
*)
  echo "usage: $0 start|reload|stop" >&2
  exit 2
  ;;
esac
