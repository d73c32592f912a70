#!/bin/sh
# tidy - the rules of the house that a machine can check, on all C files in git.
#
#   sh tests/tidy.sh              all tracked C files; exit 1 when a hard rule is broken
#   sh tests/tidy.sh FILE...      these files
#   sh tests/tidy.sh --self-test  breaks every rule once in a scratch directory and wants to see it
#
# A function whose parameters are another library's choice says "tidy: ..." in the comment before it.
#
# Hard: function <= 70 lines, file <= 900, 100 columns, no tabs, <= 5 parameters, no TODO or FIXME,
# no typedef of a struct, no bare `default:` in a switch over our own enums, includes go down only.
# Warnings: function > 50 lines, file > 600, header > 120, header without its opening comment.
set -u
LC_ALL=C
export LC_ALL

check() {
    awk '
    function say(line, text) { print FILENAME ":" line ": " text; hard = 1 }
    function warn(line, text) { print FILENAME ":" line ": warning: " text }

    # base < proto < config < the four programs; nothing goes up, and no program into another.
    function rank(room) {
        return room == "base" ? 1 : room == "proto" ? 2 : room == "config" ? 3 : \
               room ~ /^(worker|master|ctl|bench)$/ ? 4 : 0
    }
    function check_include(line, target,    from, to) {
        from = FILENAME; sub(/\/.*/, "", from)
        to = target; sub(/\/.*/, "", to)
        if (rank(from) == 0 || rank(to) == 0 || from == to) {
            if (FILENAME ~ /^worker\/(io|spool)\// && target ~ /^worker\/(smtp|lane)\//)
                say(line, "io and spool know no " target)
            return
        }
        if (rank(to) >= rank(from))
            say(line, from " must not include " target)
    }

    # Commas of the last parameter list of a signature, outside of inner brackets.
    function parameters(text,    i, c, depth, count, seen) {
        gsub(/__attribute__\(\(([^()]|\([^()]*\))*\)\)/, "", text)
        for (i = 1; i <= length(text); i++) {
            c = substr(text, i, 1)
            if (c == "(" && depth++ == 0) { count = 0; seen = 0 }
            else if (c == ")") depth--
            else if (c == "," && depth == 1) count++
            else if (c != " " && depth >= 1) seen = 1
        }
        return seen ? count + 1 : 0
    }

    FNR == 1 {
        finish_file()
        file = FILENAME; in_body = 0; signature = ""; depth_switch = 0
        if (file ~ /\.h$/ && $0 !~ /^\/\*/)
            warn(1, "a header begins with its contract")
    }
    function finish_file() {
        if (file == "")
            return
        if (lines > 900) { print file ":" lines ": file of " lines " lines, 900 at most"; hard = 1 }
        else if (lines > 600) print file ":" lines ": warning: file of " lines " lines, over 600"
        if (file ~ /\.h$/ && lines > 120)
            print file ":" lines ": warning: header of " lines " lines, over 120"
    }
    {
        lines = FNR
        if (length($0) > 100) say(FNR, "line of " length($0) " columns, 100 at most")
        if ($0 ~ /\t/) say(FNR, "tab")
        if ($0 ~ /(TODO|FIXME|XXX:)/) say(FNR, "TODO or FIXME: do it, or open an issue")
        if ($0 ~ /typedef[ ]+(struct|union)/) say(FNR, "typedef of a struct")
    }
    /^#[ ]*include "/ { split($0, part, "\""); check_include(FNR, part[2]) }

    # Bodies: Linux braces, so a function is what stands between "{" and "}" in the first column.
    /^\{/ {
        in_body = 1; body_from = FNR
        n = parameters(signature)
        if (signature ~ /\)/ && n > 5 && !excused)
            say(FNR - 1, name(signature) " has " n " parameters, 5 at most")
        next
    }
    /^\}/ && in_body {
        n = FNR - body_from - 1
        if (n > 70) say(body_from, name(signature) " has " n " lines, 70 at most")
        else if (n > 50) warn(body_from, name(signature) " has " n " lines, over 50")
        in_body = 0; signature = ""
        next
    }
    !in_body {
        if (/tidy: /) excused = 1
        else if (/^[ ]*$/) excused = 0
        if ($0 ~ /^[ ]*$/ || $0 ~ /;[ ]*$/ || $0 ~ /^(#|\/\*| \*|\})/ || $0 ~ /\*\/[ ]*$/)
            signature = ""
        else
            signature = signature " " $0
    }
    function name(text,    t) {
        t = text
        gsub(/__attribute__\(\(([^()]|\([^()]*\))*\)\)/, "", t)
        sub(/\(.*/, "", t); sub(/.*[ *]/, "", t)
        return t
    }

    # Switches, innermost last: a bare default next to labels of an enum of ours.
    in_body && /switch \(/ { depth_switch++; ours[depth_switch] = 0; bare[depth_switch] = 0
                             match($0, /^ */); indent[depth_switch] = RLENGTH }
    in_body && /^ *case [A-Z][A-Z0-9]*_[A-Z0-9_]*:/ && depth_switch > 0 {
        label = $0; sub(/^ *case /, "", label)
        if (label !~ /_MAGIC:/ && label !~ /^(SIG|AF_|S_IF|SQLITE_|YAML_|JSON_|MHD_|IORING_|SSL_|CURL|ARES_|NN_|E[A-Z]+:|LOG_|SO_|IPPROTO_|PCRE2_|CLOCK_|OPT_|DT_|RTM_|IFLA_|IFA_|NLMSG_)/)
            ours[depth_switch] = 1
    }
    in_body && /^ *default:/ && depth_switch > 0 {
        if ($0 !~ /\/\*/ && last !~ /\*\/ *$/) bare[depth_switch] = FNR
    }
    in_body && depth_switch > 0 && /^ *\}/ {
        match($0, /^ */)
        if (RLENGTH == indent[depth_switch]) {
            if (ours[depth_switch] && bare[depth_switch])
                say(bare[depth_switch], "default: in a switch over an enum, without a comment that says why")
            depth_switch--
        }
    }
    { last = $0 }
    END { finish_file(); exit hard }
    ' "$@"
}

# want TEXT FILE: the check of FILE fails and says TEXT.
want() {
    out=$(cd "$scratch" && check "$2")
    if [ $? -eq 0 ] && [ "${3:-hard}" = hard ]; then
        echo "self-test: $2 should fail: $1"
        failed=1
    fi
    case $out in
    *"$1"*) ;;
    *) echo "self-test: $2 should say '$1', says: $out"; failed=1 ;;
    esac
}

# function_of N: a function with N lines in its body.
function_of() {
    echo "static int long_one(int a)"
    echo "{"
    i=1
    while [ "$i" -lt "$1" ]; do echo "    a++;"; i=$((i + 1)); done
    echo "    return a;"
    echo "}"
}

self_test() {
    scratch=$(mktemp -d) || exit 2
    trap 'rm -rf "$scratch"' EXIT
    failed=0
    mkdir -p "$scratch/base" "$scratch/proto" "$scratch/worker/io" "$scratch/master"
    cd "$scratch" || exit 2
    function_of 71 >base/long.c; want "long_one has 71 lines" base/long.c
    function_of 51 >base/longish.c; want "long_one has 51 lines" base/longish.c warning
    function_of 50 >base/fits.c
    printf 'int f(int a, int b, int c, int d, int e, int g)\n{\n    return a;\n}\n' >base/six.c
    want "f has 6 parameters" base/six.c
    printf 'int f(int a, int b,\n      int c, int d, int (*e)(int x, int y))\n{\n    return a;\n}\n' >base/five.c
    printf '/* tidy: their signature */\n' | cat - base/six.c >base/excused.c
    printf '\tint a;\n' >base/tab.c; want "tab" base/tab.c
    printf '/* %s: later */\n' TO''DO >base/todo.c; want "TODO" base/todo.c
    printf 'typedef struct a b;\n' >base/typedef.c; want "typedef" base/typedef.c
    awk 'BEGIN { for (i = 0; i < 101; i++) printf "x"; print "" }' >base/wide.c
    want "101 columns" base/wide.c
    awk 'BEGIN { for (i = 0; i < 901; i++) print "int a;" }' >base/big.c; want "file of 901" base/big.c
    awk 'BEGIN { print "/*"; for (i = 0; i < 121; i++) print "int a;" }' >base/big.h
    want "header of 122" base/big.h warning
    printf 'int a;\n' >base/bare.h; want "contract" base/bare.h warning
    printf '#include "proto/x.h"\n' >base/up.c; want "base must not include" base/up.c
    printf '#include "master/x.h"\n' >worker/up.c; want "worker must not include" worker/up.c
    printf '#include "worker/lane/x.h"\n' >worker/io/up.c; want "know no" worker/io/up.c
    printf '#include "base/x.h"\n#include "master/y.h"\n' >master/down.c
    switch='void f(int a)\n{\n    switch (a) {\n    case OUR_ONE:\n        break;\n'
    printf "$switch"'    default:\n        break;\n    }\n}\n' >base/default.c
    want "default:" base/default.c
    printf "$switch"'    default: /* foreign numbers */\n        break;\n    }\n}\n' >base/said.c
    for f in base/fits.c base/five.c base/excused.c master/down.c base/said.c; do
        check "$f" || { echo "self-test: $f should pass"; failed=1; }
    done
    [ "$failed" -eq 0 ] && echo "pass tidy self-test"
    exit "$failed"
}

if [ "${1:-}" = --self-test ]; then
    self_test
fi
cd "$(dirname "$0")/.." || exit 2
if [ $# -eq 0 ]; then
    # Without git (an unpacked archive), or in a tree of somebody else, what is there is looked at.
    set -- $(git ls-files '*.c' '*.h' 2>/dev/null)
    [ $# -gt 0 ] || set -- $(find . -path ./build -prune -o -name '*.[ch]' -print | sed 's,^\./,,')
    for f; do
        shift
        [ -f "$f" ] && set -- "$@" "$f"
    done
fi
if check "$@"; then
    echo "tidy: $# files"
else
    echo "tidy: hard rules are broken" >&2
    exit 1
fi
