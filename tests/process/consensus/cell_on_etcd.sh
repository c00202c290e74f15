#!/usr/bin/env bash
# A cell whose clustermasters keep their state in an etcd cluster: what was acknowledged outlives the leading clustermaster's death, an
# etcd member's, and the whole cell's stop, and nothing of it lies in the masters' folders.   cell_on_etcd.sh BIN_DIR
set -uo pipefail
bin=$(readlink -f "$1")
[ -x /usr/bin/etcd ] || { echo "etcd-server is not installed (tools/packages.txt)"; exit 77; }
dir=$(mktemp -d "${TMPDIR:-/tmp}/strata-etcd-XXXXXX")
pids=()
finish() {
  "$bin/strata" down --dir "$dir/cell" --kill >/dev/null 2>&1
  kill -9 "${pids[@]}" 2>/dev/null
  rm -rf "$dir"
}
trap finish EXIT
failed=0
fail() { echo "FAILED: $*"; failed=1; }
strata() { local command=$1; shift; "$bin/strata" "$command" --dir "$dir/cell" "$@"; }
# within SECONDS COMMAND…: until it succeeds.
within() {
  local until=$((SECONDS + $1))
  shift
  until "$@" >/dev/null 2>&1; do
    [ $SECONDS -lt $until ] || { fail "not in time: $*"; return 1; }
    sleep 0.2
  done
}

# Three members on ports of their own. (disown: their end is no news.)
port=$((20000 + $$ % 1900 * 6)) all="" state="etcd://"
for i in 0 1 2; do
  all+="${all:+,}e$i=http://127.0.0.1:$((port + 2 * i + 1))"
  state+="127.0.0.1:$((port + 2 * i))$([ $i -lt 2 ] && echo ,)"
done
for i in 0 1 2; do
  client=http://127.0.0.1:$((port + 2 * i)) peer=http://127.0.0.1:$((port + 2 * i + 1))
  /usr/bin/etcd --name e$i --data-dir "$dir/etcd$i" --listen-client-urls $client --advertise-client-urls $client --listen-peer-urls $peer \
    --initial-advertise-peer-urls $peer --initial-cluster "$all" --initial-cluster-state new --logger zap --log-outputs stderr \
    >"$dir/etcd$i.log" 2>&1 &
  pids+=($!)
  disown
done

mkdir "$dir/jobs"
up() { strata up --machines 3 --jobs "$dir/jobs" --datastore-port 0 --bigtable-port 0 "$@"; }
up --state "$state/test" || { fail "up: exit value $?"; exit 1; }
grep -q etcd: <<<"$(strata masters)" || fail "masters: $(strata masters 2>&1)"

# The state looked at is a job's number of tasks: once acknowledged it is there from then on.
printf 'name: echo\ncommand: clu_echo\ntasks: 1\nresources: { cpu: 100m, memory: 64MiB }\n' >"$dir/echo.yaml"
tasks_are() { strata job list | grep -Eq "^echo +$1 "; }
scale() { within 20 strata job scale echo "$1" && within 5 tasks_are "$1"; }

within 20 strata job submit "$dir/echo.yaml"
within 20 tasks_are 1
tasks=1
for machine in m1 m2 m3; do # the leading one is among them
  begin=$(date +%s%3N)
  strata kill master:$machine -9 || fail "kill master:$machine"
  within 20 tasks_are $tasks
  scale $((++tasks))
  echo "clustermaster of $machine killed: the next change took $(($(date +%s%3N) - begin)) ms"
done
kill -9 "${pids[0]}" # one of three etcd members
within 20 tasks_are $tasks
scale $((++tasks))
strata down >/dev/null || fail "down: exit value $?"
up || fail "up again: exit value $?"
within 20 tasks_are $tasks
[ -z "$(find "$dir/cell" -name 'segment-*')" ] || fail "a log on disk: $(find "$dir/cell" -name 'segment-*')"
exit $failed
