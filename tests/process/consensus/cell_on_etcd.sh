#!/usr/bin/env bash
# A cell whose clustermasters keep their state in an etcd cluster: what was acknowledged outlives the leading clustermaster's death, an
# etcd member's, and the whole cell's stop, and nothing of it lies in the masters' folders.   cell_on_etcd.sh BIN_DIR
set -uo pipefail
# Its time runs out before ctest's does, whose end is a SIGKILL: time to clean up.
[ "${2:-}" = timed ] || exec timeout --kill-after=40 "${SECONDS_MAX:-220}" bash "$0" "$1" timed
bin=$(readlink -f "$1")
[ -x /usr/bin/etcd ] || { echo "FAILED: etcd-server is not installed (tools/packages.txt)"; exit 1; }
dir=$(mktemp -d "${TMPDIR:-/tmp}/strata-etcd-XXXXXX")
pids=() over=''
# However this ends, nothing is left behind, and a run that failed shows what was said. (A trap of TERM would wait for the command that
# runs; that of EXIT does not.)
finish() {
  local code=$?
  trap - EXIT
  trap '' TERM INT HUP
  exec >&3 2>&3 3>&-
  [ -n "$over" ] && [ $code = 0 ] || {
    echo "FAILED: ended after $SECONDS s"
    timeout 5 "$bin/strata" status --dir "$dir/cell" 2>&1 | head -n 40
    find "$dir" -name '*master*.log' -exec tail -n 15 -v {} + 2>/dev/null
    tail -n 5 -v "$dir"/etcd*.log 2>/dev/null
  }
  timeout 30 "$bin/strata" down --dir "$dir/cell" --kill >/dev/null 2>&1
  [ ${#pids[@]} = 0 ] || { kill -9 "${pids[@]}" && wait "${pids[@]}"; } 2>/dev/null
  rm -rf "$dir"
  exit $code
}
exec 3>&1 # where the words go, whatever is being run
trap finish EXIT
failed=0
fail() { echo "FAILED: $*"; failed=1; }
strata() { local command=$1; shift; "$bin/strata" "$command" --dir "$dir/cell" "$@" 3>&-; }
# within SECONDS COMMAND…: until it succeeds.
within() {
  local until=$((SECONDS + $1))
  shift
  until "$@" >/dev/null 2>&1; do
    [ $SECONDS -lt $until ] || { fail "not in time: $*"; return 1; }
    sleep 0.2
  done
}

# Three members on six ports in a row that nobody has, below those the kernel hands out.
free() { ! (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }
port=$((20000 + $$ % 1900 * 6)) found=0
while [ $found -lt 6 ]; do
  if free $((port + found)); then
    found=$((found + 1))
  else
    port=$((port < 31000 ? port + 6 : 20000)) found=0
  fi
done
all="" state="etcd://"
for i in 0 1 2; do
  all+="${all:+,}e$i=http://127.0.0.1:$((port + 2 * i + 1))"
  state+="127.0.0.1:$((port + 2 * i))$([ $i -lt 2 ] && echo ,)"
done
for i in 0 1 2; do
  client=http://127.0.0.1:$((port + 2 * i)) peer=http://127.0.0.1:$((port + 2 * i + 1))
  setpriv --pdeathsig KILL /usr/bin/etcd --name e$i --data-dir "$dir/etcd$i" --listen-client-urls $client --advertise-client-urls $client \
    --listen-peer-urls $peer --initial-advertise-peer-urls $peer --initial-cluster "$all" --initial-cluster-state new --logger zap \
    --log-outputs stderr >"$dir/etcd$i.log" 2>&1 3>&- &
  pids+=($!)
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
wait "${pids[0]}" 2>/dev/null
within 20 tasks_are $tasks
scale $((++tasks))
strata down >/dev/null || fail "down: exit value $?"
up || fail "up again: exit value $?"
within 20 tasks_are $tasks
[ -z "$(find "$dir/cell" -name 'segment-*')" ] || fail "a log on disk: $(find "$dir/cell" -name 'segment-*')"
over=yes
exit $failed
