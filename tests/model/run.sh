#!/bin/bash
# Checks the model of the planned move with SPIN: the right one must have no error, and every seeded bug must
# be found. Exits with 1 when either is not so.
#
#   tests/model/run.sh [DIR]          short: one crash, exhaustively (what CI runs; well under a minute)
#   tests/model/run.sh --full [DIR]   two crashes and an abort, both arbiters, copying with crashes: minutes, gigabytes
#
# DIR: where generated programs and their outputs go (preset: build/model).
set -u
here=$(cd "$(dirname "$0")" && pwd)
form=short
[ "${1:-}" = --full ] && { form=full; shift; }
dir=${1:-$here/../../build/model}
for tool in spin gcc; do
    command -v "$tool" >/dev/null || { echo "model: $tool is missing (package $tool)" >&2; exit 1; }
done
mkdir -p "$dir" || exit 1

# one NAME EXPECTED DEFINES...: EXPECTED is "right" or "wrong"
one() {
    # Compiling is most of the time that a seeded bug takes, searching that of the right model.
    local name=$1 expected=$2 work=$dir/$1 memory=4000 optimise=-O0
    shift 2
    rm -rf "$work"
    mkdir -p "$work"
    cd "$work" || return 1
    [ "$expected" = right ] && optimise=-O2
    [ "$expected" = right ] && [ "$form" = full ] && memory=12000
    if ! { spin -a "$@" "$here/lane_move.pml" && [ -f pan.c ] &&
        gcc $optimise -w -DSAFETY $collapse -DMEMLIM=$memory -o pan pan.c; } >build.log 2>&1; then
        echo "FAIL $name: cannot be built:"
        cat build.log
        return 1
    fi
    ./pan -m1000000 -w24 >pan.out 2>&1
    local errors states
    errors=$(sed -n 's/.*errors: \([0-9]*\).*/\1/p' pan.out)
    states=$(sed -n 's/ *\([0-9]*\) states, stored.*/\1/p' pan.out)
    # A search that was cut short proves nothing.
    if [ "$expected" = right ] && { [ "$errors" != 0 ] ||
        grep -qE 'search depth too small|out of memory|Search not completed|aborting' pan.out; }; then
        echo "FAIL $name: an error, or not searched to the end:"
        cat pan.out
        [ -f lane_move.pml.trail ] && spin "$@" -t -p -g -k lane_move.pml.trail "$here/lane_move.pml" | tail -n 60
        return 1
    fi
    # Only a broken property counts; a model that cannot end would be another defect than the one seeded.
    if [ "$expected" = wrong ] && ! grep -q 'assertion violated' pan.out; then
        echo "FAIL $name: the seeded bug was not found in $states states"
        return 1
    fi
    echo "pass $name: $states states"
    # Everything but the outputs is large.
    rm -f pan pan.c pan.[bhmpt]
}

# The longest first.
list() {
    if [ "$form" = full ]; then
        echo "precopy right -DPRECOPY -DCRASHES=1"
        echo "arbiter right -DARBITER"
        echo "static right"
        echo "arbiter-patient right -DARBITER -DABORTS=2 -DCRASHES=1"
        for bug in 1 2 3 4 5 6 8 11; do echo "arbiter-bug$bug wrong -DARBITER -DBUG$bug"; done
    else
        echo "precopy right -DPRECOPY -DCRASHES=1 -DABORTS=0 -DFAILS=0"
        echo "arbiter right -DARBITER -DCRASHES=1"
        echo "static right -DCRASHES=1"
    fi
    for bug in 1 2 3 4 5 6 7 8 9 11 12; do echo "static-bug$bug wrong -DCRASHES=1 -DBUG$bug"; done
    echo "precopy-bug10 wrong -DPRECOPY -DCRASHES=1 -DABORTS=0 -DBUG10"
}

export here dir form
collapse=
[ "$form" = full ] && collapse=-DCOLLAPSE
export collapse
export -f one
list | xargs -P "$(nproc)" -L 1 bash -c 'one "$@"' one
failed=$?
[ "$failed" = 0 ] || { echo "model: FAILED"; exit 1; }
echo "model: all properties hold, every seeded bug is found"
