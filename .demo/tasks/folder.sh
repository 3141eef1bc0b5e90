#!/usr/bin/env bash
# folder.sh WORK FOLDER: sums up one folder once all its groups are measured. Leaves a line in
# WORK/folders/FOLDER and the folder's words in WORK/folder-words/FOLDER.
source -- "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"
work=$1 folder=$2

sum_words "$work/words/$folder".* | put "$work/folder-words/$folder"
awk -F '\t' '
    { files++; bytes += $2; packed += $3; lines += $4; words += $5 }
    END { printf "%d\t%.0f\t%.0f\t%.0f\t%.0f\n", files, bytes, packed, lines, words }
' "$work/measured/$folder".* | put "$work/folders/$folder"

IFS=$'\t' read -r files bytes packed lines words <"$work/folders/$folder"
printf '%s files, %s lines, %s words, %s; %s when compressed\n' "$files" "$(thousands "$lines")" \
    "$(thousands "$words")" "$(size "$bytes")" "$(size "$packed")"
sort -t $'\t' -k 2,2nr "$work/folder-words/$folder" |
    awk -F '\t' 'NR <= 10 { printf "%s%s (%d)", NR == 1 ? "most used: " : ", ", $1, $2 } END { if (NR) print "" }'
