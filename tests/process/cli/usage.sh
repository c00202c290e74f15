#!/usr/bin/env bash
# Whoever types a command wrongly is told what is wrong: an exit value of 2 never comes without a word on stderr, because a
# script that ends silently cannot be mended. And port 0 means any free port, as everywhere else.   usage.sh STRATA
set -uo pipefail
strata=$(readlink -f "$1") dir=$(mktemp -d "${TMPDIR:-/tmp}/strata-usage-XXXXXX")
unset STRATA_DIR
cd "$dir" || exit 1
finish() { "$strata" down --dir "$dir/cell" --kill >/dev/null 2>&1; rm -rf "$dir"; }
trap finish EXIT
failed=0
fail() { echo "FAILED: $*"; failed=1; }

# refuses WORD ARGUMENTS…: exits 2 and its text has the word.
refuses() {
  local word=$1 text value
  shift
  text=$("$strata" "$@" 2>&1 >/dev/null)
  value=$?
  [ $value = 2 ] || fail "strata $*: exit value $value"
  grep -qi -e "$word" <<<"$text" || fail "strata $*: says \"$text\", not a word of \"$word\""
}

refuses 'strata COMMAND'
refuses nonsense nonsense
refuses machine-init machine-init
refuses 'is no cell' machine-init m1
refuses --datastore-port up --datastore-port 65536
refuses --datastore-port up --datastore-port seven
refuses --datastore-port up --datastore-port
refuses --bigtable-port up --bigtable-port -1
refuses --machines up --machines 0
refuses --machines up --machines 3x
refuses --masters up --masters 2
refuses --masters up --masters many
refuses --wait up --wait soon
refuses usage up word
for command in down status ps names locks env masters 'masters add m1' 'kill master:m1' 'why echo/0' 'logs master' 'job list' 'machine list' 'kill echo/0'; do
  # shellcheck disable=SC2086
  refuses 'is no cell' $command
done
for command in 'why' 'why echo/x' 'logs' 'kill' 'kill echo/0 -NOSUCH' 'job' 'machine' 'sample' 'index' 'index drop x' 'masters add' 'masters grow m1' 'masters add m1 m2' 'new-service' \
  'new-service 9' 'status --loud' 'down now'; do
  # shellcheck disable=SC2086
  refuses . $command
done
[ -e .strata ] && fail "a refused command left a folder"

mkdir jobs
port() { sed -n "s/.*\"$1\": \([0-9]*\).*/\1/p" cell/cell.json; }
up() { "$strata" up --dir "$dir/cell" --machines 1 --jobs "$dir/jobs" --datastore-port 0 --bigtable-port 0; }
up || fail "up with ports 0: exit value $?"
datastore=$(port datastore) bigtable=$(port bigtable)
[ "${datastore:-0}" -gt 0 ] && [ "${bigtable:-0}" -gt 0 ] && [ "$datastore" != "$bigtable" ] || fail "ports: $(cat cell/cell.json)"
up || fail "up again: exit value $?"
"$strata" down --dir "$dir/cell" || fail "down: exit value $?"
up || fail "up after down: exit value $?"
[ "$(port datastore)" = "$datastore" ] || fail "the port changed though it is free: $(port datastore), it was $datastore"
exit $failed
