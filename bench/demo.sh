#!/bin/sh
# The main job, shown: a node with its built-in configuration takes 20,000 messages from the load
# generator and delivers them to the sink, from its lanes' own addresses. Exit status 0 only if every
# message arrived exactly once and the node's ledger balances.
#
#   bench/demo.sh BIN_DIR [COUNT] [options of mochila-bench sink...]
set -eu
bin=$1
count=${2:-20000}
[ $# -ge 2 ] && shift 2 || shift 1
dir=$(mktemp -d "${TMPDIR:-/var/tmp}/mochila-demo.XXXXXX")
node= sink=
cleanup() {
    [ -z "$sink" ] || kill -TERM "$sink" 2>/dev/null || true
    [ -z "$node" ] || { kill -TERM "$node" 2>/dev/null && wait "$node" 2>/dev/null; } || true
    rm -rf "$dir"
}
trap cleanup EXIT
trap 'exit 130' INT TERM

fail() {
    echo "demo: $*" >&2
    said=$(grep -E ' (warn|error) ' "$dir/log/mochila.log" 2>/dev/null | tail -n 20) || true
    [ -z "$said" ] || printf -- '--- the node says:\n%s\n' "$said" >&2
    exit 1
}
ask() {
    "$bin/mochila" --socket "$dir/run/api.sock" "$@"
}
# number NAME: of the ledger
number() {
    ask ledger --json | sed -n 's/.*"'"$1"'": *\([0-9]*\).*/\1/p' | head -n 1
}

"$bin/mochila-bench" sink --listen 127.0.0.1:2526 --json "$dir/sink.json" "$@" >"$dir/sink.log" 2>&1 &
sink=$!
# In a container the file system is an overlay: good enough for mail that is thrown away below.
"$bin/mochilad" --allow-volatile-spool --set "spool=$dir/spool" --set "run=$dir/run" --set "log=$dir/log" >"$dir/node.log" 2>&1 &
node=$!
echo "starting a node with the built-in configuration: SMTP on 127.0.0.1:2525, lanes 127.0.0.11-18, sink on 127.0.0.1:2526"
tries=0
until ask status >/dev/null 2>&1; do
    kill -0 "$node" 2>/dev/null || { cat "$dir/node.log" >&2; fail "the node did not start"; }
    kill -0 "$sink" 2>/dev/null || { cat "$dir/sink.log" >&2; fail "the sink did not start"; }
    tries=$((tries + 1))
    [ "$tries" -lt 300 ] || fail "the node does not answer"
    sleep 0.1
done
echo "injecting $count messages of 2 KB over 50 connections"
"$bin/mochila-bench" source --to 127.0.0.1:2525 --connections 50 --size 2048 --count "$count" \
    --domains 100 --source-addresses 127.0.0.1,127.0.1.1 --json "$dir/source.json" || fail "the load generator reports errors"
tries=0
until [ "$(number queued)" = 0 ]; do
    tries=$((tries + 1))
    [ "$tries" -lt 600 ] || break
    sleep 0.1
done
balanced=yes
ask ledger || balanced=no
[ "$(number accepted)" = "$count" ] || balanced=no
kill -TERM "$sink"
wait "$sink" || true
sink=
"$bin/mochila-bench" verdict --source "$dir/source.json" --sink "$dir/sink.json" || fail "the ledger does not balance"
[ "$balanced" = yes ] || fail "the node's own ledger does not balance, or has other than $count messages"
