# shellcheck shell=bash
# Which files the demo works on, and how they are grouped into tasks. Sourced by demo.sh. Names of
# files are kept as they are, ended by NUL; names of tasks are made fit for people.
# shellcheck disable=SC2154 # `work` and `here` come from demo.sh

readonly most_files=7000 most_bytes=120000000 most_folders=250
readonly largest_file=20000000
readonly group_files=40 group_bytes=1200000

# A tree of sources that is surely there; building the project has just read most of it.
default_root() {
    local candidate
    for candidate in "${CARGO_HOME:-${HOME:-/root}/.cargo}/registry/src" "$(rustc --print sysroot 2>/dev/null)/share"; do
        [[ -d $candidate ]] && printf '%s' "$candidate" && return
    done
    printf '%s' "$here"
}

# Goes into DIR, and further down as long as there is nothing but one directory. Sets `root`.
enter_root() {
    cd -P -- "$1" 2>/dev/null || fail "$1 is not a directory that can be entered"
    local entries
    shopt -s dotglob nullglob
    while entries=(*) && ((${#entries[@]} == 1)) && [[ -d ${entries[0]} && ! -L ${entries[0]} ]]; do
        cd -- "${entries[0]}" || break
    done
    shopt -u dotglob nullglob
    root=$PWD
    cd /
    printf '%s\0' "$root" >"$work/root"
}

folders=()          # the names of the folders, as they are
folder_groups=()    # how many groups each has
declare -A number_of=()
group_fill=() group_weight=()
group_count=0 file_count=0 byte_count=0 left_out=0

# add_file FOLDER SIZE PATH: into the folder's last group, or a new one when that is full.
add_file() {
    local folder=$1 bytes=$2 path=$3 f
    if [[ -z ${number_of[$folder]-} ]]; then
        if ((${#folders[@]} >= most_folders)) && [[ $folder != '(others)' ]]; then
            add_file '(others)' "$bytes" "$path"
            return
        fi
        number_of[$folder]=${#folders[@]}
        folders+=("$folder")
        folder_groups+=(0)
        group_fill[${number_of[$folder]}]=$group_files
        group_weight[${number_of[$folder]}]=0
    fi
    f=${number_of[$folder]}
    if ((group_fill[f] >= group_files || group_weight[f] + bytes > group_bytes)); then
        folder_groups[f]=$((folder_groups[f] + 1)) group_count=$((group_count + 1))
        group_fill[$f]=0 group_weight[$f]=0
    fi
    group_fill[$f]=$((group_fill[$f] + 1)) group_weight[$f]=$((group_weight[$f] + bytes))
    file_count=$((file_count + 1)) byte_count=$((byte_count + bytes))
    printf '%s\0' "$path" >>"$work/lists/f$f.${folder_groups[f]}"
}

# Lists the files under `root`, within the bounds above.
list_files() {
    local bytes path inside folder
    while IFS=$'\t' read -r -d '' bytes path; do
        [[ -f $path && ! -L $path && -r $path ]] || continue
        if ((bytes > largest_file)); then
            left_out=$((left_out + 1))
            continue
        fi
        ((file_count < most_files && byte_count + bytes <= most_bytes)) || break
        inside=${path#"${root%/}"/}
        folder=.
        [[ $inside != */* ]] || folder=${inside%%/*}
        add_file "$folder" "$bytes" "$path"
    done < <(du -0 -a -l --apparent-size -B 1 --exclude=.git --exclude=target -- "$root" 2>/dev/null)
    ((file_count > 0)) || fail "there is no file in $root that can be read"
}

# json TEXT: sets `quoted` to the text as JSON. (Printing it would cost a process for each word.)
json() {
    local text=$1 i char code out=
    text=${text//\\/\\\\}
    text=${text//\"/\\\"}
    if [[ $text == *[[:cntrl:]]* ]]; then
        for ((i = 0; i < ${#text}; i++)); do
            char=${text:i:1}
            if [[ $char == [[:cntrl:]] ]]; then
                printf -v code '%d' "'$char"
                printf -v char '\\u%04x' "$code"
            fi
            out+=$char
        done
        text=$out
    fi
    quoted="\"$text\""
}

# name_folder F: sets `name` to a folder's name as a task's: unique, and only what is harmless in a list.
name_folder() {
    name=${folders[$1]:0:60}
    name=${name//[^A-Za-z0-9._+() -]/?}
    [[ $name == "${folders[$1]}" ]] || name="$name #$1"
    [[ $name != . ]] || name='files at the top'
}

# task NAME AFTER ACCIDENT PRIORITY SCRIPT [ARGUMENT]: one line of the batch. AFTER is names as JSON.
task() {
    local quoted line
    json "$1"
    line="{\"class\": \"cpu\", \"name\": $quoted, \"priority\": $4"
    [[ -z $2 ]] || line+=", \"after\": [$2]"
    [[ -z $3 ]] || line+=", \"env\": {\"DEMO_ACCIDENT\": \"$3\"}"
    json "$here/tasks/$5"
    line+=", \"command\": [\"bash\", $quoted"
    json "$work"
    line+=", $quoted"
    [[ -z ${6-} ]] || line+=", \"$6\""
    printf '%s]}\n' "$line"
}

readonly solid_name='everything as one stream' last_name='everything summed up'

# The batch: a task per group, one per folder after its groups, one over all after all folders, and
# one beside them that is long. Three of them have accidents planned.
write_batch() {
    local f g name part quoted after all accident count=0
    task "$solid_name" '' waits_once 9 solid.sh
    json "$solid_name"
    all=$quoted
    for f in "${!folders[@]}"; do
        name_folder "$f"
        after=
        for ((g = 1; g <= folder_groups[f]; g++)); do
            accident=
            count=$((count + 1))
            ((count != group_count / 2)) || accident=later_once
            ((count != group_count / 3 + 1)) || accident=fails_once
            part="$name, part $g of ${folder_groups[f]}"
            task "$part" '' "$accident" 5 measure.sh "f$f.$g"
            json "$part"
            after+="${after:+, }$quoted"
        done
        task "$name" "$after" '' 6 folder.sh "f$f"
        json "$name"
        all+=", $quoted"
    done
    task "$last_name" "$all" '' 5 everything.sh
}
