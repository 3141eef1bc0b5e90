# shellcheck shell=bash
# The demo's report: first what was found in the files, from the tables that the tasks left, then how
# the pool fared, from its ledger. Sourced by demo.sh. Everything is read from plain files.

# shellcheck disable=SC2154 # its words come from demo.sh: work, pool, demo, root, queue, bold, plain, the ids

# Awk functions that the tables below share.
# shellcheck disable=SC2016 # an awk program, not a string to expand
readonly words_of_awk='
    function thousands(n,    s, out) {
        s = sprintf("%.0f", n)
        while (length(s) > 3) { out = "," substr(s, length(s) - 2) out; s = substr(s, 1, length(s) - 3) }
        return s out
    }
    function size(n) {
        if (n < 1000) return sprintf("%d B", n)
        if (n < 1000000) return sprintf("%.1f kB", n / 1000)
        return sprintf("%.1f MB", n / 1000000)
    }
    function percent(part, whole) { return whole ? sprintf("%.0f %%", 100 * part / whole) : "-" }
    # The end of a long name says more than its beginning.
    function shorten(name, width) {
        return length(name) > width ? "..." substr(name, length(name) - width + 4) : name
    }
'

heading() {
    printf '\n%s%s%s\n' "$bold" "$1" "$plain"
}

# The columns of files.tsv: language, bytes, packed, lines, words, hash, name.
report_totals() {
    awk -F '\t' -v solid="$(<"$work/solid")" "$words_of_awk"'
        { bytes += $2; packed += $3; lines += $4; words += $5 }
        END {
            printf "  %s files, %s lines, %s words, %s\n", thousands(NR), thousands(lines), thousands(words), size(bytes)
            printf "  compressed one by one %s (%s), as one stream %s (%s)\n", size(packed), percent(packed, bytes),
                size(solid), percent(solid, bytes)
        }
    ' "$work/files.tsv"
}

report_languages() {
    printf '\n  %-12s %8s %12s %10s %11s\n' language files lines size compressed
    awk -F '\t' "$words_of_awk"'
        { files[$1]++; lines[$1] += $4; bytes[$1] += $2; packed[$1] += $3 }
        END {
            for (l in files)
                printf "%d\t  %-12s %8s %12s %10s %11s\n", lines[l], l, thousands(files[l]), thousands(lines[l]),
                    size(bytes[l]), percent(packed[l], bytes[l])
        }
    ' "$work/files.tsv" | sort -k 1,1nr | cut -f 2- | awk 'NR <= 8'
}

report_largest() {
    printf '\n  largest\n'
    sort -t $'\t' -k 2,2nr "$work/files.tsv" | awk 'NR <= 3' |
        awk -F '\t' "$words_of_awk"'{ printf "    %9s  %s\n", size($2), shorten($7, 70) }'
}

# Small files say little about compressing: the frame around them weighs more than what is in it.
report_compression() {
    local order title
    for order in n nr; do
        title='compresses best'
        [[ $order == n ]] || title='compresses worst'
        printf '\n  %s (of files over 4 kB)\n' "$title"
        awk -F '\t' '$2 > 4096 { printf "%.6f\t%s\n", $3 / $2, $0 }' "$work/files.tsv" |
            sort -t $'\t' -k "1,1$order" |
            awk -F '\t' -v few=$((${#folders[@]} < 10)) "$words_of_awk"'
                { folder = $8; sub(/\/.*/, "", folder) }
                # One per folder where there are many: files that are alike often lie together.
                n < 3 && (few || !seen[folder]++) { n++; printf "    %8.1f%%  %s of %s\n", 100 * $1, shorten($8, 60), size($3) }
            '
    done
}

# Copies by hash: a line per content that is there more than once (bytes wasted, copies, bytes, name).
copies_table() {
    sort -t $'\t' -k 6,6 "$work/files.tsv" | awk -F '\t' '
        function flush() { if (n > 1 && bytes > 0) printf "%.0f\t%d\t%.0f\t%s\n", (n - 1) * bytes, n, bytes, name }
        $6 != hash { flush(); n = 0; hash = $6; bytes = $2; name = $7 }
        { n++ }
        END { flush() }
    ' | sort -t $'\t' -k 1,1nr
}

report_duplicates() {
    copies_table | awk -F '\t' "$words_of_awk"'
        { copies += $2 - 1; wasted += $1 }
        NR <= 3 { top = top sprintf("    %3d times  %s of %s\n", $2, shorten($4, 60), size($3)) }
        END { printf "\n  copies of another file: %s (%s)\n%s", thousands(copies), size(wasted), top }
    '
}

report_words() {
    sort -t $'\t' -k 2,2nr "$work/index.tsv" | awk -F '\t' "$words_of_awk"'
        NR <= 8 { top = top (NR > 1 ? ", " : "") $1 " " thousands($2) }
        END { if (NR) printf "\n  %s different words; most used: %s\n", thousands(NR), top }
    '
}

report_findings() {
    heading "What is in $(on_one_line "$root")"
    report_totals
    report_languages
    report_largest
    report_compression
    report_duplicates
    report_words
}

# The ledger as a table: id, attempt, outcome, cause, worker, started, ended (in seconds), task's name.
ledger_table() {
    cat -- "$pool"/ledger/*/*.jsonl | awk '
        # The text of a field. What a text holds cannot look like a field: its quotes are escaped.
        function text(field,    at, rest) {
            at = index($0, "\"" field "\":\"")
            if (!at) return "-"
            rest = substr($0, at + length(field) + 4)
            return substr(rest, 1, match(rest, /[^\\]"/))
        }
        function number(field,    at) {
            at = index($0, "\"" field "\":")
            return at ? substr($0, at + length(field) + 3) + 0 : 0
        }
        # RFC 3339 as seconds: days since a March 1st, so that leap days come last.
        function seconds(t,    y, m, d) {
            if (t == "-") return 0
            y = substr(t, 1, 4); m = substr(t, 6, 2) - 3; d = substr(t, 9, 2)
            if (m < 0) { m += 12; y-- }
            d += int((153 * m + 2) / 5) + 365 * y + int(y / 4) - int(y / 100) + int(y / 400) - 719469
            return d * 86400 + substr(t, 12, 2) * 3600 + substr(t, 15, 2) * 60 + substr(t, 18, 6)
        }
        {
            printf "%s\t%d\t%s\t%s\t%s\t%.3f\t%.3f", text("id"), number("attempt"), text("outcome"), text("cause"),
                text("worker"), seconds(text("started_at")), seconds(text("ended_at"))
            sub(/.*"task":/, "")
            printf "\t%s\n", text("name")
        }
    ' | sort -t $'\t' -k 7,7n >"$work/attempts.tsv"
}

report_workers() {
    printf '\n  %-10s %9s %10s %13s %9s\n' worker attempts succeeded 'did not' busy
    awk -F '\t' '
        { n[$5]++; busy[$5] += $7 - $6; if ($3 == "succeeded") good[$5]++ }
        END {
            for (w in n) printf "  %-10s %9d %10d %13d %7.1f s\n", w, n[w], good[w], n[w] - good[w], busy[w]
        }
    ' "$work/attempts.tsv" | sort
}

report_times() {
    awk -F '\t' -v tasks="$1" '
        NR == 1 || $6 < first { first = $6 }
        $7 > last { last = $7 }
        { sum += $7 - $6 }
        $3 == "succeeded" { good++ }
        END {
            printf "  %d tasks in %d attempts; %d succeeded\n", tasks, NR, good
            printf "  %.1f s from the first start to the last end; the attempts together took %.1f s: %.1f at a time\n",
                last - first, sum, (last > first) ? sum / (last - first) : 0
        }
    ' "$work/attempts.tsv"
}

# report_accident ID TITLE: the attempts of one task.
report_accident() {
    [[ -n $1 ]] || return 0
    printf '\n  %s: %s\n' "$2" "$(name_of "$1")"
    awk -F '\t' -v id="$1" '
        function words() {
            if ($4 == "worker_died") return sprintf("its worker died after %.1f s; the task was put back", $7 - $6)
            if ($3 == "returned") return sprintf("not ready (status 75) after %.1f s", $7 - $6)
            return sprintf("%s after %.1f s", $3, $7 - $6)
        }
        $1 == id {
            printf "    attempt %d on %s%s: %s\n", $2, $5, before ? sprintf(", %.1f s later", $6 - before) : "", words()
            before = $7
        }
    ' "$work/attempts.tsv"
}

name_of() {
    awk -F '\t' -v id="$1" '$1 == id { print $8; exit }' "$work/attempts.tsv"
}

# Every file is in the result once, and no process is left.
report_account() {
    local lines succeeded left
    lines=$(wc -l <"$work/files.tsv")
    succeeded=$(awk -F '\t' '$3 == "succeeded" && !seen[$1]++ { n++ } END { print n + 0 }' "$work/attempts.tsv")
    left=$(processes_of_the_pool | wc -l)
    printf '\n  files given %d, files in the result %d; tasks lost: %d; processes left running: %d\n' \
        "$file_count" "$lines" $(($1 - succeeded)) "$left"
}

report_run() {
    ledger_table
    heading 'How it went'
    report_times "$1"
    report_workers
    heading 'The planned accidents'
    report_accident "$solid_id" "kill -9 of ${killed_worker:-a worker} in the middle of a task"
    report_accident "$fails_id" 'a task that fails at its first try'
    report_accident "$later_id" 'a job that asks for another time'
    report_account "$1"
}

report_further() {
    heading 'Look further'
    local programs_q pool_q word
    printf -v programs_q '%q' "$programs"
    printf -v pool_q '%q' "$pool"
    word=$(sort -t $'\t' -k 2,2nr "$work/index.tsv" | awk -F '\t' 'length($1) > 6 && !word { word = $1 } END { print word }')
    cat <<TEXT
  export PATH=$programs_q:\$PATH BRAINSTEM_POOL=$pool_q
  queue status
  queue show ${solid_id: -8}        # the task that was on the killed worker: both attempts
  queue output ${last_id: -8}      # what the last task printed
  grep -w ^$word "\$BRAINSTEM_POOL/../work/index.tsv"      # the index: word, how often, in how many files
  rm -r $(printf '%q' "$demo")      # removes all of it
TEXT
}
