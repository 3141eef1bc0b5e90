#!/usr/bin/env bash
# The one door: `./run.sh help` lists what is behind it.
set -euo pipefail

oldest_rust=1.89
here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)

usage() {
    cat <<'TEXT'
usage: ./run.sh COMMAND [ARGUMENTS]

  bench [--quick] [--json FILE] [--plot FILE] [--dir DIR] [PART…]
                build for speed, and measure the pool beside what the machine allows (its pools in DIR,
                else in target/bench; all of it takes minutes and 5 GB there, --quick one minute).
                PART is spawn, submit, wake, claim, idle, large, llm (requests through a worker's
                client beside a bare loop), many (commands about 20,000 tasks, 3,000 lanes) or
                placement (models placed in virtual time); else all
  demo [DIR]    build, and run a real batch over the files of DIR (else of sources on this machine);
                then prompts about some of them, where an Ollama answers, or LLAMA_SERVER names a
                llama-server and LLAMA_MODELS a model for it (a .gguf, or a folder of them)
  map [DIR]     draw the map of the sources (of the checkout in DIR): rooms, imports, layers, circles
  storm [ARGS]  run thousands of tasks while killing workers and brains, and check that nothing is
                lost and nothing runs twice (storm --help says more)
  test [ARGS]   install what is missing, build everything, run all tests to the end, and say what was
                skipped (ARGS go to the test runner)
  help          this text
TEXT
}

fail() {
    printf 'run.sh: %s\n' "$*" >&2
    exit 1
}

# Cargo may be installed and not yet on the PATH of this shell.
find_cargo() {
    local home=${CARGO_HOME:-${HOME:-/root}/.cargo}
    if ! command -v cargo >/dev/null && [[ -x $home/bin/cargo ]]; then
        PATH=$home/bin:$PATH
    fi
    command -v cargo >/dev/null ||
        fail "cargo (Rust $oldest_rust or later) is not installed; get it from https://rustup.rs"
    local version
    version=$(cd "$here" && cargo --version | cut -d ' ' -f 2)
    printf '%s\n' "$oldest_rust" "$version" | sort -C -V ||
        fail "this cargo is $version, and $oldest_rust or later is needed: rustup update, or https://rustup.rs"
}

# need COMMAND PACKAGE...: remembers the packages where the command is missing.
missing=()
need() {
    local command=$1
    shift
    command -v "$command" >/dev/null || missing+=("$@")
}

install_missing() {
    ((${#missing[@]} == 0)) && return
    local as_root=()
    if ((EUID != 0)); then
        command -v sudo >/dev/null || fail "please install: ${missing[*]}"
        as_root=(sudo)
    fi
    command -v apt-get >/dev/null || fail "please install (Debian's names): ${missing[*]}"
    printf 'run.sh: installing %s\n' "${missing[*]}" >&2
    ${as_root[@]+"${as_root[@]}"} apt-get update -qq
    ${as_root[@]+"${as_root[@]}"} env DEBIAN_FRONTEND=noninteractive \
        apt-get install -y -qq --no-install-recommends "${missing[@]}" >&2
}

# What building takes: Rust links with cc, and some crates compile C.
prepare() {
    need cc gcc libc6-dev
    install_missing
    find_cargo
    cd "$here"
}

# Every test runs, also after one has failed, and what was skipped is said at the end. Tests that
# this machine cannot run (no mounts, say) pass, and write down that they were skipped.
run_all_and_say_what_was_skipped() {
    local list=${CARGO_TARGET_DIR:-target}/debug/skipped-tests status=0
    rm -f "$list"
    if cargo nextest --version >/dev/null 2>&1; then
        # nextest leaves out the examples in the documentation; a filter is not about them.
        (($# > 0)) || cargo test --quiet --workspace --no-fail-fast --doc || status=$?
        cargo nextest run --workspace --no-fail-fast "$@" || status=$?
    else
        cargo test --workspace --no-fail-fast "$@" || status=$?
    fi
    {
        ((${#not_had[@]} == 0)) || printf '\n%s could not be had: tests that need it were SKIPPED' "${not_had[@]}"
        if [[ -s $list ]]; then
            printf '\n%s tests or parts of tests were SKIPPED here:\n' "$(wc -l <"$list")"
            cat "$list"
        elif ((${#not_had[@]} == 0 && status == 0)); then
            printf '\nno test was skipped\n'
        else
            printf '\nno test said that it was skipped\n'
        fi
    } >&2
    return "$status"
}

# A real llama-server, out of a package of Python's index, and a tiny model for it, both kept in
# target/llm. Without them the tests that need them are skipped.
llama_package=xllamacpp==2026.10.11549
prepare_llama() {
    local llm=${CARGO_TARGET_DIR:-$here/target}/llm
    local server=$llm/llama-server python=$llm/python/bin/python3
    if [[ ! -e $llm/$llama_package ]]; then
        mkdir -p "$llm"
        printf 'run.sh: getting llama-server (%s)\n' "$llama_package" >&2
        {
            python3 -m venv "$llm/python" &&
                "$python" -m pip install --quiet --disable-pip-version-check --no-deps "$llama_package"
        } >&2 || return 1
        touch "$llm/$llama_package"
    fi
    "$python" "$here/tests/llm/tiny_model.py" "$llm/tiny.gguf" || return 1
    # 1 ms and more a token: long enough to be interrupted.
    "$python" "$here/tests/llm/tiny_model.py" "$llm/slow.gguf" 256 6 8 768 || return 1
    printf '#!/bin/sh\nexec "%s" "%s" "$@"\n' "$python" "$here/tests/llm/llama_server.py" >"$server.new"
    chmod +x "$server.new"
    mv "$server.new" "$server"
    export LLAMA_SERVER=$server LLAMA_MODELS=$llm
}

# One that can be a router, out of Debian's own package.
prepare_router() {
    local kept=${CARGO_TARGET_DIR:-$here/target}/llm
    if [[ ! -e $kept/router/llama-router ]]; then
        command -v apt-get >/dev/null || return 1
        printf 'run.sh: getting a llama-server that can be a router\n' >&2
        bash "$here/tests/llm/llama_router.sh" "$kept/router" "$kept/python/bin/python3" >&2 || return 1
    fi
    export LLAMA_ROUTER=$kept/router/llama-router
}

# Checks the spelling of the sources; without it that is skipped.
prepare_codespell() {
    missing=()
    need codespell codespell
    (install_missing)
}

# The official clients of Ollama and OpenAI, out of Python's index: no stand-in is better than what
# they make of its answers.
client_packages=(ollama==0.6.3 openai==3.54.0)
prepare_clients() {
    local kept=${CARGO_TARGET_DIR:-$here/target}/llm/clients
    local stamp=$kept/${client_packages[*]}
    if [[ ! -e $stamp ]]; then
        printf 'run.sh: getting the clients %s\n' "${client_packages[*]}" >&2
        {
            python3 -m venv "$kept" &&
                "$kept/bin/python3" -m pip install --quiet --disable-pip-version-check "${client_packages[@]}"
        } >&2 || return 1
        touch "$stamp"
    fi
    export LLM_CLIENTS=$kept/bin/python3
}

run_tests() {
    # The clock of the programs under test is set with it.
    need faketime faketime
    python3 -c 'import ensurepip, venv' 2>/dev/null || missing+=(python3 python3-venv)
    prepare
    not_had=()
    prepare_codespell || not_had+=(codespell)
    if [[ -z ${LLAMA_SERVER-} ]] && ! prepare_llama; then
        not_had+=('a llama-server')
    fi
    if [[ -z ${LLAMA_ROUTER-} ]] && ! prepare_router; then
        not_had+=('a llama-server that can be a router')
    fi
    if [[ -z ${LLM_CLIENTS-} ]] && ! prepare_clients; then
        not_had+=('the official clients of Ollama and OpenAI')
    fi
    # The tests start the programs themselves, so those are built first.
    cargo build --workspace
    run_all_and_say_what_was_skipped "$@"
}

run_demo() {
    prepare
    cargo build --release --bins -p brain -p worker -p queue
    cd - >/dev/null
    exec bash "$here/.demo/demo.sh" "$@"
}

run_map() {
    prepare
    local dir=${1-$here}
    cargo build --quiet -p tests --bin map
    local map=${CARGO_TARGET_DIR:-target}/debug/map
    map=$(realpath -- "$map")
    cd - >/dev/null
    exec "$map" "$dir"
}

run_storm() {
    prepare
    cargo build --release --bins
    exec target/release/storm "$@"
}

run_bench() {
    prepare
    cargo build --release --bins
    # On a real disk by default: /tmp is in memory on many machines. Files are named from where
    # the caller is.
    local target=${CARGO_TARGET_DIR:-$here/target}
    mkdir -p "$target/bench"
    cd - >/dev/null
    exec "$target/release/bench" --dir "$target/bench" "$@"
}

case ${1-} in
    bench) shift && run_bench "$@" ;;
    demo) shift && run_demo "$@" ;;
    map) shift && run_map "$@" ;;
    storm) shift && run_storm "$@" ;;
    test) shift && run_tests "$@" ;;
    help | --help | -h) usage ;;
    '') usage >&2 && exit 2 ;;
    *) printf 'run.sh: there is no command "%s"\n\n' "$1" >&2 && usage >&2 && exit 2 ;;
esac
