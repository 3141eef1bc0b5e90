#!/usr/bin/env bash
# everything.sh WORK: the last task, when all folders are summed up: one table of all files, one
# index of all words, and the sums. Leaves WORK/files.tsv and WORK/index.tsv.
source -- "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"
work=$1

cat -- "$work/measured"/* | put "$work/files.tsv"
sum_words "$work/folder-words"/* | put "$work/index.tsv"
printf '%s files and %s words are in %s and %s\n' "$(thousands "$(wc -l <"$work/files.tsv")")" \
    "$(thousands "$(wc -l <"$work/index.tsv")")" "$work/files.tsv" "$work/index.tsv"
