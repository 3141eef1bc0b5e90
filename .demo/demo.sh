#!/usr/bin/env bash
# demo.sh [DIR]: a brain with three workers, and a real batch over real files, with three accidents on
# the way, and then some prompts where there is a model to ask. Started by `./run.sh demo`, which builds the programs first. Needs bash, coreutils, gzip, awk.
set -euo pipefail

here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
programs=$(dirname -- "$here")/target/release
queue=$programs/queue

fail() {
    printf 'demo: %s\n' "$*" >&2
    exit 1
}

source -- "$here/tasks/common.sh"
source -- "$here/files.sh"
source -- "$here/story.sh"
source -- "$here/report.sh"
source -- "$here/llm.sh"

# start_brain GPUS WORDS...
# Starts the brain in a process group of its own, so that a Ctrl-C at the terminal reaches this script
# alone, which then stops everything in order.
start_brain() {
    local gpus=$1 commas=${1//[!,]/}
    local workers=$((${#commas} + 1))
    shift
    rm -f -- "$pool"/workers/*.json
    set -m
    # The demo uses no GPU, so it must not wait for one that another pool has locked, and it has its
    # workers on any machine: the GPU library is not looked for.
    XDG_RUNTIME_DIR=$demo/runtime BRAINSTEM_NVML=none "$programs/brain" --pool "$pool" --gpus "$gpus" "$@" \
        </dev/null >>"$demo/brain.out" 2>&1 &
    brain_pid=$!
    set +m
    local waited=0
    until alive_workers=$(count_alive) && ((alive_workers >= workers)); do
        kill -0 "$brain_pid" 2>/dev/null || fail "the brain has ended; it said:"$'\n'"$(tail -n 20 "$demo/brain.out")"
        ((++waited < 150)) || fail "$workers workers have not come up in 30 s; see $demo/brain.out"
        sleep 0.2
    done
}

count_alive() {
    local beats=("$pool"/workers/*.json)
    [[ -e ${beats[0]} ]] || beats=()
    printf '%d' "${#beats[@]}"
}

submit() {
    mapfile -t ids < <("$queue" --pool "$pool" submit --batch "$work/batch.jsonl")
    ((${#ids[@]} == $(wc -l <"$work/batch.jsonl"))) || fail 'the batch was not taken'
    solid_id=${ids[0]}
    last_id=${ids[-1]}
    fails_id=$(id_with fails_once)
    later_id=$(id_with later_once)
}

# The ids come in the order of the lines.
id_with() {
    local number
    number=$(awk -v word="\"$1\"" 'index($0, word) { print NR; exit }' "$work/batch.jsonl")
    printf '%s' "${number:+${ids[number - 1]}}"
}

# Waits until the long task is in the middle, and kills the worker that runs it: no warning, no last words.
kill_a_worker() {
    until [[ -e $work/killable ]]; do
        sleep 0.1
    done
    local at=("$pool"/processing/*/"$solid_id".a1*.json) worker beat
    [[ -e ${at[0]} ]] || return 0
    worker=$(basename -- "$(dirname -- "${at[0]}")")
    beat=$(<"$pool/workers/$worker.json")
    [[ $beat =~ \"pid\":\ ?([0-9]+) ]] || return 0
    tell demo "${bold}kill -9 ${BASH_REMATCH[1]}${plain}, which is $worker, in the middle of \"$solid_name\""
    kill -KILL "${BASH_REMATCH[1]}"
    printf '%s\n' "$worker" >"$work/killed"
    sleep 0.4
    tell demo "${bold}queue workers${plain} now says:"
    "$queue" --pool "$pool" workers | tell_workers
}

# The processes that belong to this demo's pool: they name it on their command line (workers) or in
# their environment (jobs).
processes_of_the_pool() {
    local process
    for process in /proc/[0-9]*; do
        if [[ $(tr '\0' '\n' 2>/dev/null <"$process/cmdline") == *"$pool"* ]] ||
            [[ $(tr '\0' '\n' 2>/dev/null <"$process/environ") == *"$pool"* ]]; then
            printf '%s\n' "${process#/proc/}"
        fi
    done 2>/dev/null
}

helpers=()
brain_pid=
# Ends everything, in order: the brain drains its workers and ends. Asked twice, it does not let jobs
# finish. What is left after that is killed.
stop_all() {
    trap '' INT TERM HUP
    local pid
    for pid in "${helpers[@]}"; do
        kill -TERM "$pid" 2>/dev/null || true
    done
    helpers=()
    [[ -n $brain_pid ]] || return 0
    kill -TERM "$brain_pid" 2>/dev/null || true
    brain_ends_within 3 || kill -TERM "$brain_pid" 2>/dev/null || true
    brain_ends_within 15 || true
    for pid in $(processes_of_the_pool); do
        kill -KILL "$pid" 2>/dev/null || true
    done
    wait "$brain_pid" 2>/dev/null || true
    brain_pid=
}

brain_ends_within() {
    local tenths=$(($1 * 10))
    while kill -0 "$brain_pid" 2>/dev/null; do
        ((tenths-- > 0)) || return 1
        sleep 0.1
    done
}

interrupted() {
    printf '\n%s\n' 'stopping the brain, its workers and their jobs ...' >&2
    stop_all
    rm -rf -- "$demo"
    printf 'nothing is left running, and %s is removed\n' "$demo" >&2
    trap - EXIT
    exit "$1"
}

# The way out where something failed. What a brain has left is kept, to look at.
left_early() {
    stop_all
    [[ -d $pool ]] || rm -rf -- "$demo"
}

# However it ends, nothing is left running.
watch_for_the_end() {
    trap 'interrupted 130' INT
    trap 'interrupted 143' TERM
    trap 'interrupted 129' HUP
    trap left_early EXIT
}

main() {
    demo=$(mktemp -d -- "${TMPDIR:-/tmp}/brainstem-demo.XXXXXX")
    pool=$demo/pool work=$demo/work
    watch_for_the_end
    mkdir -p -- "$demo/runtime" "$work"/{lists,scratch,measured,words,folders,folder-words}
    chmod 700 -- "$demo/runtime"

    say "Looking for files ..."
    enter_root "${1:-$(default_root)}"
    list_files
    say "$(thousands "$file_count") files of $(on_one_line "$root") (folders: ${#folders[@]}): $(size "$byte_count")"

    start_brain 0,1,2 --ollama-base-port off
    say "A brain with three workers is up. The pool: $pool"
    write_batch >"$work/batch.jsonl"
    say "The batch has $(wc -l <"$work/batch.jsonl") tasks: hash, compress, count and index $group_count groups of files,"
    say "sum up each folder when its groups are done, then all. Three accidents are planned."
    say
    follow_story
    submit
    run_in_background kill_a_worker
    wait_for_batch
    stop_all
    trap - EXIT
    killed_worker=$(cat -- "$work/killed" 2>/dev/null || true)
    report_findings
    report_run "${#ids[@]}"
    ask_about_files
    report_further
}

main "$@"
