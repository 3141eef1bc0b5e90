#!/usr/bin/env bash
# solid.sh WORK: all the files as one stream through one gzip, to compare with compressing each by
# itself. The longest task of the demo: it says how far it is, and it is the one that gets killed.
source -- "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"
work=$1

lists=("$work/lists"/*)
for i in "${!lists[@]}"; do
    mapfile -d '' -t files <"${lists[i]}"
    cat -- "${files[@]}"
    ((i != ${#lists[@]} / 4)) || planned_accident "$work/killable"
    ((i % 25)) || printf 'compressed %d of %d groups\n' "$i" "${#lists[@]}" >&2
done | gzip -9 | wc -c | put "$work/solid"
printf 'all in one stream: %s\n' "$(size "$(<"$work/solid")")"
