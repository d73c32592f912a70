#!/bin/bash
# Runs every ring of tests one after the other, goes on after failures, and ends with one line that counts.
#
#   tests/run.sh            all rings (what `make test` and CI run)
#   tests/run.sh unit node  only these
#
# Each ring has a time limit, so that a hang is a failure with the end of its log; logs stay in build/logs.
set -u
cd "$(dirname "$0")/.." || exit 1
logs=build/logs
mkdir -p "$logs"
jobs=$(nproc)
passed=0 failed=0 skipped=0
export MOCHILA_BIN=$PWD/build/debug

count() { # count PATTERN FILE: lines that match
    local n
    n=$(grep -cE "$1" "$2")
    echo "${n:-0}"
}

# ring NAME LIMIT_S COMMAND...: runs, keeps the log; sets $log and $status
ring() {
    local name=$1 limit=$2
    shift 2
    log=$logs/$name.log
    local from=$SECONDS
    timeout --kill-after=20 "$limit" "$@" >"$log" 2>&1
    status=$?
    took=$((SECONDS - from))
}

# tell NAME PASSED FAILED SKIPPED
tell() {
    passed=$((passed + $2))
    failed=$((failed + $3))
    skipped=$((skipped + $4))
    printf '%-14s %5d passed %4d failed %4d skipped   %4d s\n' "$1" "$2" "$3" "$4" "$took"
    if [ "$3" -gt 0 ]; then
        echo "--- $1: the log ends with (whole: $log)"
        tail -n 60 "$log"
    fi
}

# one NAME LIMIT_S COMMAND...: a ring that counts as one test
one() {
    ring "$@"
    if [ "$status" = 0 ]; then tell "$1" 1 0 0; else tell "$1" 0 1 0; fi
}

unit() { # unit NAME BUILD: cmocka programs
    ring "$1" 900 make -s -k -j"$jobs" BUILD="$2" unit
    local ok bad
    ok=$(cat build/"$2"/tests/unit/*.log 2>/dev/null | grep -c '^\[       OK \]')
    bad=$(cat build/"$2"/tests/unit/*.log 2>/dev/null | grep -c '^\[  FAILED  \] [a-zA-Z_0-9]*$')
    [ "$status" = 0 ] || [ "$bad" -gt 0 ] || bad=1
    [ "$status" = 0 ] && bad=0
    tell "$1" "$ok" "$bad" 0
}

pytest_ring() { # pytest_ring NAME LIMIT_S FILES...
    local name=$1 limit=$2
    shift 2
    ring "$name" "$limit" /usr/bin/python3 -m pytest -q -rs -p no:cacheprovider "$@"
    local sum ok bad err skip
    sum=$(grep -E '^[0-9]+ (passed|failed|error|skipped)|^(=+ )?.*[0-9]+ (passed|failed|error|skipped).* in ' "$log" | tail -n 1)
    ok=$(echo "$sum" | sed -n 's/.*\b\([0-9]\+\) passed.*/\1/p')
    bad=$(echo "$sum" | sed -n 's/.*\b\([0-9]\+\) failed.*/\1/p')
    err=$(echo "$sum" | sed -n 's/.*\b\([0-9]\+\) error.*/\1/p')
    skip=$(echo "$sum" | sed -n 's/.*\b\([0-9]\+\) skipped.*/\1/p')
    bad=$((${bad:-0} + ${err:-0}))
    [ "$status" = 0 ] || [ "$bad" -gt 0 ] || bad=1
    tell "$name" "${ok:-0}" "$bad" "${skip:-0}"
    grep -E '^SKIPPED' "$log"
}

ring_build() {
    one build-debug 600 make -s -j"$jobs" BUILD=debug all
    one build-san 900 make -s -j"$jobs" BUILD=san all
    one build-clang 900 make -s -j"$jobs" CC=clang B=build/clang all
    one build-release 600 make -s -j"$jobs" BUILD=release B=build/release all
}
ring_tidy() { one tidy 120 make -s tidy; }
ring_unit() { unit unit debug; unit unit-san san; }
ring_crash() { one crash 300 make -s BUILD=debug crash-short; }
ring_fuzz() { one fuzz 900 make -s -j"$jobs" fuzz FUZZ_S="${FUZZ_S:-4}"; }
ring_node() { pytest_ring node 900 tests/node; }
ring_demo() { one demo 120 sh bench/demo.sh build/release 5000; }
ring_kill() {
    [ -f tests/crash/kill_loop.py ] || return 0
    one kill 400 /usr/bin/python3 tests/crash/kill_loop.py --kills 50
}

rings=${*:-build tidy unit crash demo node kill fuzz}
for r in $rings; do
    "ring_$r"
done
echo
if [ "$skipped" -gt 0 ]; then
    echo "$passed passed, $failed failed, $skipped skipped"
else
    echo "$passed passed, $failed failed"
fi
[ "$failed" = 0 ]
