#!/usr/bin/env bash
# A service written by `strata new-service` must build, pass its own test, and run: start, answer on
# its admin port, count, and stop at SIGTERM. Usage: new_service.sh TOOL GENERATOR REPO TREE [SANITIZE]
set -euo pipefail
tool=$1 generator=$2 repo=$3 tree=$4 sanitize=${5:-}
here=$(mktemp -d)
pid=
trap '[ -z "$pid" ] || kill -9 "$pid" 2>/dev/null || true; rm -rf "$here"' EXIT
cd "$here"

# Two words, so that every spelling of the name is met; the second run must refuse to overwrite.
"$tool" new-service guest_book --dir "$here/guest_book"
if "$tool" new-service guest_book --dir "$here/guest_book" 2>refusal; then echo "it overwrote a service"; exit 1; fi
grep -q 'there already' refusal
for bad in '' Guest guest-book 1guest guest_ guest__book g.b "$(printf 'a%.0s' {1..33})"; do
  if "$tool" new-service "$bad" --dir "$here/bad" 2>/dev/null; then echo "it took the name \"$bad\""; exit 1; fi
  [ ! -e "$here/bad" ]
done
if grep -rn '@[A-Za-z]*@' guest_book; then echo "a mark was left"; exit 1; fi

mkdir top
cp "$repo/tests/process/chassis/new_service/CMakeLists.txt" top/
for folder in base chassis cmake proto tests; do ln -s "$repo/$folder" top/; done
cmake -S top -B build -G Ninja -DTREE="$tree" -DGENERATOR="$generator" -DSERVICE="$here/guest_book" \
  -DSTRATA_SANITIZE="$sanitize" >cmake.log || { cat cmake.log; exit 1; }
ninja -C build -j2 >ninja.log || { cat ninja.log; exit 1; }
build/bin/test_guest_book

build/bin/guest_book --port-file="$here/ports" --log-level=warn &
pid=$!
for _ in $(seq 400); do [ -s ports ] && break; sleep 0.05; done
admin=$(sed -n 2p ports)
exec 3<>"/dev/tcp/${admin%:*}/${admin#*:}"
printf 'GET /metrics HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n' >&3
grep -q '^guest_book_greeted_total 0' <&3
kill -TERM "$pid"
wait "$pid"
pid=
echo "a new service builds, passes its test, runs and stops"
