#!/bin/sh
# The documents say what is there: pages format without a warning, name every command and option, links lead
# somewhere, the samples are good configurations.
#
#   tests/docs.sh BIN_DIR
set -u
bin=${1:?usage: docs.sh BIN_DIR}
cd "$(dirname "$0")/.." || exit 2
bad=0
complain() {
    echo "docs: $*"
    bad=1
}

for page in docs/man/*.[1-8]; do
    said=$(groff -mandoc -ww -z "$page" 2>&1)
    [ -z "$said" ] || complain "$page: $said"
done

# page_has PAGE WORD...: in plain text, so that macros do not matter
page_has() {
    page=$1
    text=$(groff -mandoc -Tascii -P-cbou -rLL=2000n "docs/man/$page" 2>/dev/null)
    shift
    for word; do
        case $text in
        *"$word"*) ;;
        *) complain "$page does not tell of $word" ;;
        esac
    done
}
commands=$("$bin/mochila" help | sed -n 's/^  \([a-z]*\) .*/\1/p' | sort -u)
[ -n "$commands" ] || complain "mochila help lists no commands"
# shellcheck disable=SC2086
page_has mochila.1 $commands
# shellcheck disable=SC2046
page_has mochilad.8 $("$bin/mochilad" --help | grep -o -e '--[a-z-]*' | sort -u)
for c in source sink run compare figures direct verdict; do
    # shellcheck disable=SC2046
    page_has mochila-bench.1 $c $("$bin/mochila-bench" $c --help | grep -o -e '^  --[a-z-]*' | sort -u)
done

for file in README.md docs/*.md; do
    for link in $(grep -o '](\([^)#:]*\))' "$file" | sed 's/^](//; s/)$//'); do
        [ -e "$(dirname "$file")/$link" ] || complain "$file: there is no $link"
    done
done
# Paths that are named in text: `worker/spool/scan.c`.
for path in $(grep -oh '`[a-z]*/[a-z0-9_/]*\.[a-z]*`' README.md docs/*.md | tr -d '`' | sort -u); do
    [ -e "$path" ] || ls worker/"$path" >/dev/null 2>&1 || complain "there is no $path"
done
for target in $(grep -oh 'make [a-z][a-z-]*' README.md | sed 's/make //' | sort -u); do
    make -n "$target" >/dev/null 2>&1 || complain "README.md: make $target does not exist"
done

for file in config/mochila.yaml config/default.yaml; do
    "$bin/mochila" check "$file" >/dev/null || complain "$file is not good"
done
readme=$(mktemp) || exit 2
trap 'rm -f "$readme"' EXIT
sed -n '/^    node: /,/^    pools: /p' README.md | sed 's/^    //' >"$readme"
"$bin/mochila" check "$readme" >/dev/null || complain "the configuration in README.md is not good"
sed -n '/^    node: a$/,/^        lanes: /p' docs/moving.md | sed 's/^    //' >"$readme"
grep -q '^cluster:' "$readme" || complain "docs/moving.md shows no cluster"
"$bin/mochila" check "$readme" >/dev/null || complain "the configuration in docs/moving.md is not good"

[ "$bad" = 0 ] && echo "pass docs"
exit "$bad"
