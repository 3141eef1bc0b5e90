# shellcheck shell=bash
# The demo's prompts, where there is a model to ask: finds a server, or starts one, asks about some of
# the files, and shows the answers. Sourced by demo.sh.
# shellcheck disable=SC2154 # its words come from demo.sh

readonly most_prompts=8 most_letters=200 answer_tokens=40 longest_wait=60
# Of a model larger than this there is room for one at a time.
readonly large_model=1000000000

llm_words=()    # what the brain is told
llm_workers=    # its GPUs
llm_model=
llm_where=      # for people
llm_missing='No model server was found, so the prompts were skipped. To see them: `ollama serve` with a model pulled, or set LLAMA_SERVER=/path/to/llama-server and LLAMA_MODELS=/path/to/a.gguf (or a folder of them; `./run.sh test` gets a tiny pair).'

# What is asked first: what somebody has named, an Ollama where workers or people have it, and what the
# tests have got.
find_model() {
    local host=${OLLAMA_HOST-}
    use_llama "${LLAMA_SERVER-}" "${LLAMA_MODELS-}" && return
    local place
    for place in ${host:+"$host"} 127.0.0.1:11436 127.0.0.1:11434; do
        use_ollama "$place" && return
    done
    local llm=${CARGO_TARGET_DIR:-$(dirname -- "$here")/target}/llm
    use_llama "$llm/llama-server" "$llm/tiny.gguf" || return 1
    llm_where+='; of random weights, so what it says means nothing'
}

# use_llama PROGRAM FILE-OR-FOLDER: the smallest model there.
use_llama() {
    [[ -n $1 && -n $2 ]] && command -v -- "$1" >/dev/null || return 1
    local file
    file=$(find -L "$2" -maxdepth 1 -type f -name '*.gguf' -printf '%s\t%p\n' 2>/dev/null | sort -n | awk 'NR == 1' | cut -f 2-)
    [[ -n $file ]] || return 1
    llm_model=$(basename -- "$file" .gguf)
    llm_workers=0,1
    (($(stat -L -c %s -- "$file") < large_model)) || llm_workers=0
    llm_words=(--managed "$1" --model-file "$llm_model=$(realpath -- "$file")" --ollama-base-port "$(free_ports)")
    llm_where="a $(basename -- "$1") that each worker starts for itself"
}

# use_ollama HOST: its smallest model that writes.
use_ollama() {
    local host=${1#*://} port=11434 said
    host=${host%/}
    [[ $host != *:* ]] || { port=${host##*:} host=${host%:*}; }
    [[ -n $host && $host != 0.0.0.0 ]] || host=127.0.0.1
    said=$(get "$host" "$port" /api/tags) || true
    [[ $said == *'"models"'* ]] || return 1
    llm_model=$(models_of <<<"$said" | sort -n | awk 'NR == 1' | cut -f 2)
    if [[ -z $llm_model ]]; then
        llm_missing="Ollama at $host:$port has no model that writes, so the prompts were skipped. To see them: \`ollama pull qwen2.5:0.5b\`, or any other."
        return 1
    fi
    llm_workers=0,1
    llm_words=(--ollama-url "http://$host:$port")
    llm_where="Ollama at $host:$port"
}

# get HOST PORT PATH: what a web server has answered after two seconds, if it does not hang up before.
get() {
    # shellcheck disable=SC2016 # bash -c gets its words as arguments
    timeout 2 bash -c 'exec 3<>"/dev/tcp/$1/$2" && printf "GET %s HTTP/1.0\r\nHost: %s:%s\r\nConnection: close\r\n\r\n" "$3" "$1" "$2" >&3 && cat <&3' \
        get "$@" 2>/dev/null
}

# Size and name of each model in Ollama's list on stdin; not those that only embed, or are elsewhere.
models_of() {
    grep -o '"name": *"[^"]*"\|"size": *[0-9]*' | awk -F '"' '
        $2 == "name" { name = $4 }
        $2 == "size" && name !~ /embed|minilm|bge|cloud/ { sub(/: */, "", $3); printf "%s\t%s\n", $3, name }
    '
}

# Two ports in a row that nobody listens at.
free_ports() {
    local port=21436
    while (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null || (exec 3<>"/dev/tcp/127.0.0.1/$((port + 1))") 2>/dev/null; do
        port=$((port + 2))
    done
    printf '%d' "$port"
}

# A row per file, the ones with the most lines first: its name and how it begins, fit for JSON.
write_rows() {
    local name
    sort -t $'\t' -k 4,4nr "$work/files.tsv" | cut -f 7 | awk 'NR <= 200' | while IFS= read -r name; do
        [[ -r $root/$name ]] && grep -Iq . "$root/$name" 2>/dev/null || continue
        printf '{"custom_id": "%s", "text": "%s"}\n' "$(printf %s "$name" | fit_for_json)" \
            "$(head -c $((3 * most_letters)) -- "$root/$name" | fit_for_json | head -c "$most_letters")"
    done | awk -F '"' -v most="$most_prompts" '!seen[$4]++ && n++ < most'
}

fit_for_json() {
    LC_ALL=C tr -s '[:space:]' ' ' | LC_ALL=C tr -cd '[:print:]' | tr -d '"\\'
}

# Asks about some files, with a brain of its own over the same pool.
ask_about_files() {
    heading 'Prompts'
    if ! find_model; then
        printf '  %s\n' "$llm_missing"
        return
    fi
    write_rows >"$work/rows.jsonl"
    local count
    count=$(wc -l <"$work/rows.jsonl")
    ((count > 0)) || { printf '  No text files here, so nothing was asked.\n' && return; }
    printf '  %d prompts about files, for the model %s (%s).\n\n' "$count" "$llm_model" "$llm_where"
    watch_for_the_end
    follow_story
    start_brain "$llm_workers" "${llm_words[@]}"
    mapfile -t asked < <("$queue" --pool "$pool" submit --key about-files --model "$llm_model" \
        --max-tokens "$answer_tokens" --rows "$work/rows.jsonl" \
        --template 'Say in one short sentence what this file is for. {custom_id}: {text}' 2>/dev/null)
    local status=0
    run_in_background "$queue" --pool "$pool" wait about-files --timeout "${longest_wait}s"
    wait "${helpers[-1]}" || status=$?
    stop_all
    trap - EXIT
    report_answers "$status"
}

report_answers() {
    local id name
    printf '\n'
    while IFS= read -r name && IFS= read -r -u 3 id; do
        printf '  %s%s%s\n    %s\n' "$faint" "$name" "$plain" "$("$queue" --pool "$pool" output "$id" 2>/dev/null |
            LC_ALL=C tr -s '[:space:]' ' ' | LC_ALL=C tr -c '[:print:]' '.' | head -c 110)"
    done < <(cut -d '"' -f 4 "$work/rows.jsonl") 3< <(printf '%s\n' "${asked[@]}")
    case $1 in
        0) ;;
        100) printf '\n  Not all were answered: queue ls --batch about-files\n' ;;
        *) printf '\n  Not all were answered within %d s: queue ls --batch about-files\n' "$longest_wait" ;;
    esac
    "$queue" --pool "$pool" ls --json --batch about-files | awk '
        function number(field,    at) {
            at = index($0, "\"" field "\":")
            return at ? substr($0, at + length(field) + 3) + 0 : 0
        }
        { n++; read += number("prompt_tokens"); wrote += number("completion_tokens"); took += number("answer_seconds") }
        /"state":"succeeded"/ { good++ }
        END {
            printf "\n  %d prompts, %d answered: %d tokens read, %d written, %.2f s of answering\n", n, good, read, wrote, took
        }
    '
}
