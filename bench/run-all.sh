#!/bin/sh
# Measures all scenarios and writes a Markdown table for each file system into bench/results/:
# the one that holds BENCH_DIR, and, as root, an ext4 with a journal on a loop device.
#
#   bench/run-all.sh PATH/TO/mochila-bench [ROUNDS]
#
# BENCH_DIR     where the first spool is made (/var/tmp)
# BENCH_OUT     where the tables go (bench/results beside this script)
# BENCH_LOOP_GB size of the loop file system (12: a million queued messages of 2 KB fit)
set -eu

bench=${1:?usage: run-all.sh PATH/TO/mochila-bench [ROUNDS]}
rounds=${2:-3}
here=$(cd "$(dirname "$0")" && pwd)
dir=${BENCH_DIR:-/var/tmp}
out=${BENCH_OUT:-$here/results}
loop_gb=${BENCH_LOOP_GB:-12}
stamp=$(date -u +%Y%m%d-%H%M)
status=0

mkdir -p "$out"
"$bench" direct --count 300k >"$out/$stamp-direct.txt" || status=1
"$bench" figures --dir "$dir" --rounds "$rounds" --quiet --out "$out/$stamp-plain.md" || status=1

if [ "$(id -u)" -ne 0 ]; then
    echo "run-all: not root: no loop-mounted ext4 with journal" >&2
    exit "$status"
fi

work=$(mktemp -d "$dir/mochila-loop.XXXXXX")
chmod 755 "$work" # Postfix gives up root and must still reach its queue
clean_up() {
    umount "$work/mnt" 2>/dev/null || true
    rm -rf "$work"
}
trap clean_up EXIT
trap 'exit 1' INT TERM

mkdir "$work/mnt"
truncate -s "${loop_gb}G" "$work/image"
mkfs.ext4 -q -F -O has_journal "$work/image"
mount -o loop "$work/image" "$work/mnt"
"$bench" figures --dir "$work/mnt" --rounds "$rounds" --quiet --out "$out/$stamp-ext4-journal.md" ||
    status=1
exit "$status"
