# shellcheck shell=bash
# What is told while the batch runs: the system's own log lines, picked from its logs, and the
# progress of `queue wait`. Sourced by demo.sh.
# shellcheck disable=SC2154 # `pool`, `queue`, `ids` and `helpers` come from demo.sh

bold='' faint='' plain='' clear_line=''
if [[ -t 1 && -z ${NO_COLOR-} && ${TERM-dumb} != dumb ]]; then
    bold=$'\e[1m' faint=$'\e[2m' plain=$'\e[0m'
fi
# The progress bar stands in the last line of the terminal: what is told goes above it.
if [[ -t 1 && -t 2 ]]; then
    clear_line=$'\r\e[K'
fi

say() {
    printf '%s\n' "$*"
}

story_began=
# tell WHO TEXT: a line with the time since the beginning.
tell() {
    local now=${EPOCHREALTIME//[.,]/}
    local tenths=$(((now - story_began) / 100000))
    printf '%s%s%3d.%d s%s  %-8s  %s\n' "$clear_line" "$faint" $((tenths / 10)) $((tenths % 10)) "$plain" "$1" "$2"
}

# A table on stdin, below a line that was told, without its last and widest column.
tell_workers() {
    local line before width=
    while IFS= read -r line; do
        before=${line%%LAST LOOK*}
        width=${width:-${#before}}
        line=${line:0:width}
        printf '%s                    %s%s%s\n' "$clear_line" "$faint" "${line%"${line##*[! ]}"}" "$plain"
    done
}

# Which of the log lines are worth telling: deaths and what follows, failures, and how the queue fares.
tell_logs() {
    local line who message
    local text='"message": "(([^"\\]|\\.)*)"' logger='"worker_id": "([^"]*)"'
    while IFS= read -r line; do
        case $line in
            *'"event": "claim.won"'*)
                [[ $line == *'"attempt": 1,'* ]] && continue
                ;;
            *'"event": "brain.monitor"'* | *'"event": "spawn.'* | *'"event": "worker.died"'* | \
                *'"event": "worker.settled"'* | *'"event": "task.requeued"'* | *'"event": "task.failed"'* | \
                *'"event": "task.returned"'* | *'"event": "models.'* | *'"event": "model.load'* | \
                *'"event": "server.'*) ;;
            *) continue ;;
        esac
        [[ $line =~ $text ]] || continue
        message=${BASH_REMATCH[1]//\\\"/\"}
        who=brain
        [[ $line =~ $logger ]] && [[ $line == *'"logger": "worker.'* || $line == *'"logger": "queue.task"'* ]] &&
            who=${BASH_REMATCH[1]}
        tell "$who" "${message//\\\\/\\}"
    done
}

run_in_background() {
    "$@" &
    helpers+=($!)
}

follow_story() {
    story_began=${EPOCHREALTIME//[.,]/}
    tail -q -n 0 -s 0.2 -F -- "$pool"/logs/*.jsonl 2>/dev/null > >(tell_logs) &
    helpers+=($!)
}

# Waits for the batch, with `queue wait` showing how far it is.
wait_for_batch() {
    local status=0
    printf '%s\n' "${ids[@]}" >"$work/ids"
    "$queue" --pool "$pool" wait - <"$work/ids" &
    helpers+=($!)
    wait $! || status=$?
    ((status == 0)) || ended_badly "$status"
}

ended_badly() {
    say "queue wait ended with status $1; what did not succeed:"
    "$queue" --pool "$pool" ls --state failed || true
}
