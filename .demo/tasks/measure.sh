#!/usr/bin/env bash
# measure.sh WORK GROUP: hashes, compresses, counts and indexes the files listed in WORK/lists/GROUP
# (names end with NUL). Leaves a line per file in WORK/measured/GROUP and the words in WORK/words/GROUP.
source -- "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"
work=$1 group=$2
planned_accident "$work/unused"

list=$work/lists/$group
mapfile -d '' -t files <"$list"
scratch=$(mktemp -d -- "$work/scratch/$group.XXXXXX")
trap 'rm -rf -- "$scratch"' EXIT

# The language of a file, by its name. Sets `language`, and `is_text` for files that are worth indexing.
tell_language() {
    local name=${1##*/}
    is_text=yes
    case ${name,,} in
        *.rs) language=Rust ;;
        *.c | *.h) language=C ;;
        *.cc | *.cpp | *.hpp | *.cxx) language=C++ ;;
        *.py | *.pyi) language=Python ;;
        *.js | *.mjs | *.ts | *.tsx | *.jsx) language=JavaScript ;;
        *.go) language=Go ;;
        *.java | *.kt) language=Java ;;
        *.pl | *.pm) language=Perl ;;
        *.rb) language=Ruby ;;
        *.sh | *.bash) language=Shell ;;
        *.s | *.asm) language=Assembly ;;
        *.html | *.htm | *.css) language=HTML ;;
        *.toml) language=TOML ;;
        *.json) language=JSON ;;
        *.yml | *.yaml) language=YAML ;;
        *.md | *.rst | *.adoc) language=Markdown ;;
        *.txt | readme* | license* | copying* | changelog* | makefile) language=Text ;;
        *) language=other is_text=no ;;
    esac
}

# These name the file whose reading fails, and then the task fails with them.
sha256sum -z -- "${files[@]}" >"$scratch/hashes"
wc -lw --files0-from="$list" >"$scratch/counts"
stat --printf '%s\n' -- "${files[@]}" >"$scratch/sizes"
mkdir "$scratch/gz"
texts=()
packed=()
languages=()
for i in "${!files[@]}"; do
    gzip -nc -- "${files[i]}" >"$scratch/gz/$i"
    packed+=("$scratch/gz/$i")
    tell_language "${files[i]}"
    languages+=("$language")
    [[ $is_text == no ]] || texts+=("${files[i]}")
done
stat --printf '%s\n' -- "${packed[@]}" >"$scratch/packed"

mapfile -d '' -t hashes <"$scratch/hashes"
mapfile -t -n "${#files[@]}" counts <"$scratch/counts"
mapfile -t sizes <"$scratch/sizes"
mapfile -t packed <"$scratch/packed"

# A line per file: language, bytes, bytes packed, lines, words, hash, name.
IFS= read -r -d '' root <"$work/root"
all_bytes=0 all_packed=0 all_lines=0
for i in "${!files[@]}"; do
    read -r lines words _ <<<"${counts[i]}"
    ((all_bytes += sizes[i], all_packed += packed[i], all_lines += lines)) || true
    printf '%s\t%d\t%d\t%d\t%d\t%s\t%s\n' "${languages[i]}" "${sizes[i]}" "${packed[i]}" \
        "$lines" "$words" "${hashes[i]:0:64}" "$(on_one_line "${files[i]#"$root"/}")"
done >"$scratch/measured"

# The words of the group's texts: word, how often, in how many files.
if ((${#texts[@]} > 0)); then
    awk '
        FNR == 1 { file++ }
        {
            gsub(/[^A-Za-z0-9_]+/, " ")
            n = split($0, words, " ")
            for (i = 1; i <= n; i++) {
                word = words[i]
                if (length(word) < 3 || length(word) > 60 || word ~ /^[0-9]/) continue
                count[word]++
                if (seen[word] != file) { seen[word] = file; files[word]++ }
            }
        }
        END { for (word in count) printf "%s\t%d\t%d\n", word, count[word], files[word] }
    ' "${texts[@]}" | sort -t $'\t' -k 1,1 >"$scratch/words"
else
    : >"$scratch/words"
fi
put "$work/words/$group" <"$scratch/words"
put "$work/measured/$group" <"$scratch/measured"

printf '%d files, %s lines, %s; %s when compressed; %s different words in %d texts\n' "${#files[@]}" \
    "$(thousands "$all_lines")" "$(size "$all_bytes")" "$(size "$all_packed")" \
    "$(wc -l <"$scratch/words")" "${#texts[@]}"
