#!/usr/bin/env bash
# Whether the documentation says what is there: files and tests that it names exist, requirement numbers agree with the tests,
# and the code's own documentation builds without a warning. Called by tests/run.sh; stands alone as well.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

faults=0

fault() {
    echo "$*"
    faults=$((faults + 1))
}

# --- files that the guides name ---

# "line<TAB>link or span<TAB>text" for each link target and code span outside fenced blocks.
mentions() {
    awk '
        /^ *(```|~~~)/ { fenced = !fenced; next }
        fenced { next }
        {
            rest = $0
            while (match(rest, /`[^`]+`/)) {
                print NR "\tspan\t" substr(rest, RSTART + 1, RLENGTH - 2)
                rest = substr(rest, 1, RSTART - 1) " " substr(rest, RSTART + RLENGTH)
            }
            rest = $0
            while (match(rest, /\]\([^) ]+/)) {
                print NR "\tlink\t" substr(rest, RSTART + 2, RLENGTH - 2)
                rest = substr(rest, RSTART + RLENGTH)
            }
            if (match($0, /^\[[^]]+\]: *[^ ]+/)) {
                target = substr($0, RSTART, RLENGTH)
                sub(/^\[[^]]+\]: */, "", target)
                print NR "\tlink\t" target
            }
        }' "$1"
}

check_link() {
    local place="$1" folder target="${2%%#*}"
    folder="$(dirname "${place%%:*}")"
    case "$2" in
        \#* | *://* | mailto:*) return 0 ;;
    esac
    [ -e "$folder/$target" ] || fault "$place: the link to $target leads nowhere"
}

# A word that looks like a path of ours must be one; a bare name of a source, script or page must be in some folder.
check_span() {
    local place="$1" word words=()
    read -r -a words <<<"$2" || true
    for word in "${words[@]}"; do
        word="${word%%::*}"
        word="${word%%:[0-9]*}"
        word="${word%%[,;.)]}"
        if [[ "$word" =~ ^(src|tests|docs|web|migrations|benches|\.ci)/[A-Za-z0-9_./-]*$ ]]; then
            [ -e "$word" ] || fault "$place: there is no $word"
        elif [[ "$word" =~ ^[A-Za-z0-9_-]+\.(rs|md|sh)$ ]]; then
            find . \( -path ./target -o -path ./.git \) -prune -o -name "$word" -print -quit | grep -q . ||
                fault "$place: there is no $word anywhere"
        fi
    done
}

check_guide() {
    local guide="$1" line kind text
    if [ ! -f "$guide" ]; then
        fault "$guide: missing"
        return 0
    fi
    while IFS=$'\t' read -r line kind text; do
        "check_$kind" "$guide:$line" "$text"
    done < <(mentions "$guide")
}

# --- requirement numbers ---

number='[A-Z]{1,2}-[0-9]{2}'
requirements=docs/requirements.md

# Files and tests that a text names.
named_in() {
    grep -oE '\b(tests|src)/[A-Za-z0-9_./-]+(::[a-z0-9_]+)*' <<<"$1" || true
}

# Each of them is there, and each test is in its file.
check_names() {
    local place="$1" name path
    while IFS= read -r name; do
        path="${name%%::*}"
        if [ ! -e "$path" ]; then
            fault "$place names $path, which is not there"
        elif [ "$name" != "$path" ] && ! grep -rqE "fn ${name##*::}\b" "$path"; then
            fault "$place names ${name##*::}, which is not in $path"
        fi
    done < <(named_in "$2")
}

# The same of a row that must name a test, or say "none: " and why.
check_tests() {
    if [ -z "$(named_in "$2")" ] && ! grep -qE 'none: [^ |]' <<<"$2"; then
        fault "$1 names no test"
    fi
    check_names "$1" "$2"
}

# "name number" for each requirement number in a test, from the comment above it to its end, and for each in a file.
citations() {
    find src tests -name '*.rs' -exec awk '
        FNR == 1 { above = ""; depth = 0 }
        {
            cited = ""
            rest = " " $0 " "
            while (match(rest, /[^A-Za-z0-9_][A-Z][A-Z]?-[0-9][0-9][^A-Za-z0-9_]/)) {
                cited = cited " " substr(rest, RSTART + 1, RLENGTH - 2)
                rest = substr(rest, RSTART + RLENGTH - 1)
            }
            tell(FILENAME, cited)
            column = match($0, /[^ ]/)
            if ($0 ~ /^ *(pub(\([a-z]+\))? )?(const )?(async )?fn [a-z0-9_]+/) {
                while (depth > 0 && column <= begun[depth]) depth--
                match($0, /fn [a-z0-9_]+/)
                name = substr($0, RSTART + 3, RLENGTH - 3)
                depth++
                names[depth] = name
                begun[depth] = column
                tell(FILENAME "::" name, above)
            }
            for (inside = 1; inside <= depth; inside++) tell(FILENAME "::" names[inside], cited)
            above = $0 ~ /^ *(\/\/|#\[)/ ? above cited : ""
            if (depth > 0 && column == begun[depth] && $0 ~ /^ *\}|fn .*\}$/) depth--
        }
        function tell(name, numbers,   each, count, i) {
            count = split(numbers, each, " ")
            for (i = 1; i <= count; i++) print name " " each[i]
        }' {} +
}

# Each test or file that a row names cites the row's number.
check_cited() {
    local place="$1" row="$2" name
    while IFS= read -r name; do
        [ -n "${cites[$name ${place##* }]-}" ] || fault "$place names $name, which does not cite it in its comment or body"
    done < <(named_in "$row")
}

# A table row of the requirements begins with its number, which stands there once, as does every number that a test cites; the
# tests that hold it cite it themselves.
check_requirements() {
    local row line place cited
    local -A known=() cites=()
    if [ ! -f "$requirements" ]; then
        fault "$requirements: missing"
        return 0
    fi
    while IFS= read -r cited; do
        cites[$cited]=1
    done < <(citations)
    while IFS= read -r row; do
        line="${row%%:*}"
        row="${row#*:}"
        [[ "$row" =~ $number ]]
        place="$requirements:$line: ${BASH_REMATCH[0]}"
        [ -z "${known[${BASH_REMATCH[0]}]-}" ] || fault "$place stands here twice"
        known[${BASH_REMATCH[0]}]=1
        check_tests "$place" "$row"
        [[ "$row" == *'none: '* ]] || check_cited "$place" "$row"
    done < <(grep -nE "^\| *[\`*[]*$number\b" "$requirements" || true)
    [ "${#known[@]}" -gt 0 ] || fault "$requirements: no row begins with a number"

    while IFS= read -r cited; do
        [ -n "${known[${cited##*:}]-}" ] || fault "${cited%:*}: ${cited##*:} does not stand in $requirements"
    done < <(grep -rnoE --include='*.rs' "\b$number\b" tests src || true)
}

# --- tests that the threat model and the ASVS name ---

check_shown() {
    local guide="$1" row
    while IFS= read -r row; do
        check_names "$guide:${row%%:*}:" "${row#*:}"
    done < <(grep -nE '\b(tests|src)/' "$guide" || true)
}

# An item of the ASVS stands once, with a level, one of four verdicts, and what shows it or why not.
check_items() {
    local guide=docs/asvs.md row place item verdict='(holds|holds in part|not ours|not yet)'
    local -A known=()
    while IFS= read -r row; do
        place="$guide:${row%%:*}"
        row="${row#*:}"
        item="$(grep -oE '[0-9]+\.[0-9]+\.[0-9]+' <<<"$row" | head -n 1)"
        [ -z "${known[$item]-}" ] || fault "$place: $item stands here twice"
        known[$item]=1
        grep -qE "^\| [0-9.]+ \| [123] \| .+ \| $verdict \| .+ \|$" <<<"$row" || fault "$place: $item has no level, verdict or reason"
    done < <(grep -nE '^\| *[0-9]+\.[0-9]+\.[0-9]+' "$guide" || true)
    [ "${#known[@]}" -gt 0 ] || fault "$guide: no row begins with an item"
}

# Each class of attacks has a row in docs/attacks.md, and each row its tests.
check_attacks() {
    local attacks=docs/attacks.md row class
    while IFS= read -r row; do
        check_tests "$attacks:${row%%:*}" "${row#*:}"
    done < <(grep -nE '^\| [^|-]' "$attacks" | grep -vE '^[0-9]+:\| (class|bound) \|')
    for class in $(seq 1 38); do
        [ "$(grep -cE "^\| 3\.$class \|" "$attacks")" -eq 1 ] || fault "$attacks: 3.$class has not one row"
    done
}

for guide in README.md ARCHITECTURE.md CONTRIBUTING.md SECURITY.md docs/{attacks,reliability,performance,scaling,operations,webhooks,integration}.md; do
    check_guide "$guide"
done
for guide in docs/threat-model.md docs/asvs.md; do
    check_guide "$guide"
    [ ! -f "$guide" ] || check_shown "$guide"
done
check_items
check_requirements
check_attacks
RUSTDOCFLAGS="-D warnings" cargo doc --no-deps --locked --quiet || fault "cargo doc: warnings, see above"

[ "$faults" -eq 0 ] || { echo "documentation: $faults faults"; exit 1; }
echo "documentation: as it should be"
