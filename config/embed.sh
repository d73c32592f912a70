#!/bin/sh
# Prints each file given as a C array named after it: config/default.yaml -> embed_default_yaml.
set -eu
for f in "$@"; do
    name=embed_$(basename "$f" | tr '.-' '__')
    printf 'static const unsigned char %s[] = {\n' "$name"
    od -An -v -tu1 "$f" | sed 's/[0-9][0-9]*/&,/g'
    printf '0};\nenum { %s_bytes = sizeof(%s) - 1 };\n' "$name" "$name"
done
