# shellcheck shell=bash
# What the demo's tasks share. Sourced; each task is a program that the pool starts as it would any
# other: it finds its work in files, writes its result beside the old one and renames it into place,
# so that running it twice (after a kill, say) does no harm.
set -euo pipefail
export LC_ALL=C

# put FILE: what comes on stdin becomes FILE, whole or not at all.
put() {
    local aside=$1.$BRAINSTEM_ATTEMPT.new
    cat >"$aside"
    mv -f -- "$aside" "$1"
}

# 1234567 -> 1,234,567
thousands() {
    local digits=$1 out=
    while ((${#digits} > 3)); do
        out=,${digits: -3}$out
        digits=${digits:0:-3}
    done
    printf '%s%s' "$digits" "$out"
}

# 1234567 -> 1.2 MB
size() {
    local bytes=$1
    if ((bytes < 1000)); then
        printf '%d B' "$bytes"
    elif ((bytes < 1000000)); then
        printf '%d.%d kB' $((bytes / 1000)) $((bytes % 1000 / 100))
    else
        printf '%d.%d MB' $((bytes / 1000000)) $((bytes % 1000000 / 100000))
    fi
}

# A name as it can stand in a table: no tabs, newlines or other control characters.
on_one_line() {
    local name=${1//\\/\\\\}
    name=${name//$'\n'/\\n}
    name=${name//$'\t'/\\t}
    printf '%s' "${name//[[:cntrl:]]/?}"
}

# planned_accident [SIGN]: what a task's environment says should go wrong with it at its first try.
# Just before it waits it makes the file SIGN.
planned_accident() {
    case ${DEMO_ACCIDENT-}.$BRAINSTEM_ATTEMPT in
        fails_once.1)
            printf 'this task was told to fail at its first try, so it does (status 1)\n' >&2
            exit 1
            ;;
        later_once.1)
            printf 'this task was told to ask for another time once, so it does (status 75)\n' >&2
            exit 75
            ;;
        waits_once.1)
            printf 'this task was told to wait here at its first try, to be killed in the middle\n' >&2
            : >"$1"
            sleep 20
            ;;
    esac
}

# sum_words FILE...: tables of words, each in order, as one.
sum_words() {
    sort -m -t $'\t' -k 1,1 -- "$@" | awk -F '\t' '
        $1 != word { if (NR > 1) printf "%s\t%.0f\t%.0f\n", word, count, files; word = $1; count = files = 0 }
        { count += $2; files += $3 }
        END { if (NR) printf "%s\t%.0f\t%.0f\n", word, count, files }
    '
}
