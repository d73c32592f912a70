#!/bin/bash
# Runs every ring of tests, goes on after failures, and ends with one line that counts.
#
#   tests/run.sh            all rings (what `make test` and CI run)
#   tests/run.sh unit node  only these: build tidy docs unit model move_bugs crash demo node cluster kill fuzz, soak_...
#   NODE_FILES="tests/node/test_api.py ..." tests/run.sh node
#
# Each program has a time limit, so that a hang is a failure with the end of its log; logs stay in build/logs.
# Node tests run in several processes, as root each in a network namespace of its own: no two tests, and
# nothing else on this machine, can take each other's ports.
set -u
cd "$(dirname "$0")/.." || exit 1
# Where the programs are is settled here; a B or BUILD of the caller would test another build.
unset B BUILD CC CFLAGS LDFLAGS MAKEFLAGS MAKEOVERRIDES MFLAGS
export MOCHILA_BIN=$PWD/build/debug PYTHONDONTWRITEBYTECODE=1 LC_ALL=C.UTF-8
python=/usr/bin/python3
logs=build/logs
mkdir -p "$logs"
jobs=$(nproc)
passed=0 failed=0 skipped=0 reasons=
began=$SECONDS
pids=

net=()
if [ "$(id -u)" = 0 ] && unshare -n ip link set lo up 2>/dev/null; then
    net=(unshare -n sh -c 'ip link set lo up && exec "$@"' sh)
fi

# What was started is ended with us, by its id.
stop_all() {
    trap - EXIT INT TERM
    for p in $pids; do kill -TERM "$p" 2>/dev/null; done
    wait
}
trap 'stop_all; exit 130' INT TERM

# limited NAME LIMIT_S COMMAND...: runs with its log in $logs/NAME.log and its time in $logs/NAME.time
limited() {
    local name=$1 limit=$2 from=$SECONDS status
    shift 2
    timeout --kill-after=20 "$limit" "$@" >"$logs/$name.log" 2>&1 </dev/null
    status=$?
    [ "$status" = 124 ] || [ "$status" = 137 ] && echo "run.sh: ended after $limit s" >>"$logs/$name.log"
    echo $((SECONDS - from)) >"$logs/$name.time"
    return "$status"
}

# tell NAME PASSED FAILED SKIPPED: one line, and the end of the log when something failed
tell() {
    passed=$((passed + $2)) failed=$((failed + $3)) skipped=$((skipped + $4))
    printf '%-26s %5d passed %4d failed %4d skipped %5d s\n' "$1" "$2" "$3" "$4" "$(cat "$logs/$1.time")"
    [ "$3" -gt 0 ] || return 0
    echo "--- $1: the log ends with (whole: $logs/$1.log)"
    tail -n 60 "$logs/$1.log"
    echo "---"
}

# one NAME LIMIT_S COMMAND...: something that counts as one test
one() {
    if limited "$@"; then tell "$1" 1 0 0; else tell "$1" 0 1 0; fi
}

# lines PATTERN FILE...: how many different lines match
lines() {
    local pattern=$1
    shift
    cat "$@" 2>/dev/null | grep -aE "$pattern" | sort -u | wc -l
}

# cmocka NAME BUILD: every unit program. A program that does not build or dies counts as one failure.
cmocka() {
    local name=$1 build=$2 dir=build/$2/tests/unit ok bad skip status=0 log
    rm -f "$dir"/*.log
    limited "$name" 1200 make -s -k -j"$jobs" BUILD="$build" unit || status=1
    ok=0 bad=0 skip=0
    for log in "$dir"/*.log; do
        [ -f "$log" ] || continue
        ok=$((ok + $(lines '^\[       OK \] ' "$log")))
        skip=$((skip + $(lines '^\[  SKIPPED \] [A-Za-z_0-9]+$' "$log")))
        bad=$((bad + $(lines '^\[  FAILED  \] [A-Za-z_0-9]+$' "$log")))
    done
    # Dead without a word: a signal, a sanitizer, or the compiler.
    if [ "$status" != 0 ] && [ "$bad" = 0 ]; then
        bad=$(lines '^FAIL ' "$logs/$name.log")
        [ "$bad" -gt 0 ] || bad=$(lines '^make.*\*\*\* \[' "$logs/$name.log")
        [ "$bad" -gt 0 ] || bad=1
    fi
    # No test at all is no success.
    [ "$ok" -gt 0 ] || [ "$bad" -gt 0 ] || bad=1
    tell "$name" "$ok" "$bad" "$skip"
}

# attribute NAME FILE: a number from the first <testsuite> of a JUnit file
attribute() {
    local v
    v=$(grep -ao "<testsuite [^>]*" "$2" 2>/dev/null | head -n 1 | sed -n "s/.* $1=\"\([0-9]*\)\".*/\1/p")
    echo "${v:-0}"
}

# pytest_tell NAME STATUS: counts what pytest wrote into $logs/NAME.xml
pytest_tell() {
    local name=$1 status=$2 xml=$logs/$1.xml all bad skip
    all=$(attribute tests "$xml")
    bad=$(($(attribute failures "$xml") + $(attribute errors "$xml")))
    skip=$(attribute skipped "$xml")
    # 0: all good; 1: some failed; anything else, and no report, is a failure that pytest could not count.
    if [ "$status" != 0 ] && [ "$bad" = 0 ]; then bad=1; all=$((all + 1)); fi
    [ "$all" -gt 0 ] || { bad=1; all=1; }
    tell "$name" $((all - bad - skip)) "$bad" "$skip"
    reasons+=$(grep -a '^SKIPPED' "$logs/$name.log" | sed "s,^,$name: ,")${reasons:+$'\n'}
}

# pytest_files LIMIT_S FILE...: a process for each file, as many at a time as there are cores, at most four
pytest_files() {
    local limit=$1 file name running=0 most=$((jobs < 4 ? jobs : 4)) pid done status
    local -A names=()
    shift
    [ "$most" -gt 1 ] || most=2
    for file in "$@" ''; do
        while [ "$running" -ge "$most" ] || { [ -z "$file" ] && [ "$running" -gt 0 ]; }; do
            wait -n -p done
            status=$?
            [ -n "${names[$done]:-}" ] || continue
            pytest_tell "${names[$done]}" "$status"
            pids=${pids/ $done/}
            running=$((running - 1))
        done
        [ -n "$file" ] || break
        name=$(basename "$file" .py)
        name=node-${name#test_}
        rm -f "$logs/$name.xml"
        limited "$name" "$limit" ${net[@]+"${net[@]}"} "$python" -m pytest -q -rs -p no:cacheprovider \
            --junitxml="$logs/$name.xml" "$file" &
        pid=$!
        names[$pid]=$name
        pids+=" $pid"
        running=$((running + 1))
    done
}

ring_build() {
    one build-debug 600 make -s -j"$jobs" BUILD=debug all
    one build-san 900 make -s -j"$jobs" BUILD=san all
    # For its warnings only.
    one build-clang 900 make -s -k -j"$jobs" CC=clang B=build/clang OPT_debug='-O0 -Werror' all
    one build-release 600 make -s -j"$jobs" BUILD=release all
}
ring_tidy() { one tidy 120 make -s tidy; }
# The protocol of a planned move, all states of it (SPIN).
ring_model() { one model 300 bash tests/model/run.sh build/model; }
ring_move_bugs() { one move-bugs 300 make -s BUILD=debug move-bugs; }
ring_docs() { one docs 60 sh tests/docs.sh build/debug; }
ring_unit() {
    cmocka unit debug
    cmocka unit-san san
}
ring_crash() { one crash 900 make -s -j"$jobs" BUILD=debug crash-short CRASH_SEEDS=10000; }
ring_demo() { one demo 180 ${net[@]+"${net[@]}"} sh bench/demo.sh build/release 5000; }
# The longest first, so that none is left over at the end.
ring_node() {
    # shellcheck disable=SC2086
    pytest_files 600 ${NODE_FILES:-$(ls -S tests/node/test_*.py)}
}
# Whole clusters, one after the other: each has as many processes as this machine has patience.
ring_cluster() {
    local file name status
    # shellcheck disable=SC2086
    for file in ${CLUSTER_FILES:-tests/cluster/test_*.py}; do
        name=cluster-$(basename "$file" .py)
        name=${name/test_/}
        rm -f "$logs/$name.xml"
        limited "$name" 1800 "$python" -m pytest -q -rs -p no:cacheprovider --junitxml="$logs/$name.xml" "$file"
        status=$?
        pytest_tell "$name" "$status"
    done
}
ring_kill() { one kill 600 ${net[@]+"${net[@]}"} "$python" tests/crash/kill_loop.py --kills 50; }
ring_fuzz() { one fuzz 900 make -s -j"$jobs" fuzz FUZZ_S="${FUZZ_S:-3}"; }

# Campaigns: make soak.
ring_soak_kill() { one soak-kill 14400 ${net[@]+"${net[@]}"} make -s soak-kill; }
ring_soak_crash() { one soak-crash 43200 make -s BUILD=debug crash CRASH_SEEDS="${CRASH_SEEDS:-100000}" CRASH_EVERY=200; }
ring_soak_model() { one soak-model 7200 bash tests/model/run.sh --full build/model-full; }
ring_soak_move() {
    one soak-move 14400 env MOVE_SEEDS="${CRASH_SEEDS:-100000}" build/debug/tests/unit/test_move_sim
}
# Every kind of death, cut and abort at every step of a move.
ring_soak_cluster() {
    MOVE_ALL=1 CLUSTER_FILES=tests/cluster/test_move_kill.py ring_cluster
}
ring_soak_node() {
    local i
    for ((i = 1; i <= ${SOAK_ROUNDS:-10}; i++)); do
        echo "node tests, round $i"
        ring_node
    done
}

for r in ${*:-build tidy docs unit model move_bugs crash demo node cluster kill fuzz}; do
    if ! declare -F "ring_$r" >/dev/null; then
        echo "run.sh: there is no ring \"$r\"; there are: $(declare -F | sed -n 's/^declare -f ring_//p' | tr '\n' ' ')" >&2
        exit 2
    fi
done
for r in ${*:-build tidy docs unit model move_bugs crash demo node cluster kill fuzz}; do
    "ring_$r"
done
echo
[ -z "${reasons//$'\n'/}" ] || printf 'Not run here:\n%s\n\n' "$reasons"
echo "after $((SECONDS - began)) s"
if [ "$skipped" -gt 0 ]; then
    echo "$passed passed, $failed failed, $skipped skipped"
else
    echo "$passed passed, $failed failed"
fi
[ "$failed" = 0 ]
