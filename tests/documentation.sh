#!/usr/bin/env bash
# Whether the documentation says what is there: files that it names exist, requirement numbers agree with the tests, and the
# code's own documentation builds without a warning. Called by tests/run.sh; stands alone as well.
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
    local place="$1" target="${2%%#*}"
    case "$2" in
        \#* | *://* | mailto:*) return 0 ;;
    esac
    [ -e "$target" ] || fault "$place: the link to $target leads nowhere"
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

# Whether the tests that a table row names are there: `tests/api/totp.rs`, or with the test's own name,
# `src/policy/throttle.rs::a_pause_grows`. A row that can have none says "none: " and why.
check_tests() {
    local place="$1" row="$2" named name path
    named="$(grep -oE '\b(tests|src)/[A-Za-z0-9_./-]+(::[a-z0-9_]+)*' <<<"$row" || true)"
    if [ -z "$named" ] && ! grep -qE 'none: [^ |]' <<<"$row"; then
        fault "$place names no test"
    fi
    for name in $named; do
        path="${name%%::*}"
        if [ ! -e "$path" ]; then
            fault "$place names $path, which is not there"
        elif [ "$name" != "$path" ] && ! grep -rqE "fn ${name##*::}\b" "$path"; then
            fault "$place names ${name##*::}, which is not in $path"
        fi
    done
}

# A table row of the requirements begins with its number, which stands there once, as does every number that a test cites.
check_requirements() {
    local row line place cited
    local -A known=()
    if [ ! -f "$requirements" ]; then
        fault "$requirements: missing"
        return 0
    fi
    while IFS= read -r row; do
        line="${row%%:*}"
        row="${row#*:}"
        [[ "$row" =~ $number ]]
        place="$requirements:$line: ${BASH_REMATCH[0]}"
        [ -z "${known[${BASH_REMATCH[0]}]-}" ] || fault "$place stands here twice"
        known[${BASH_REMATCH[0]}]=1
        check_tests "$place" "$row"
    done < <(grep -nE "^\| *[\`*[]*$number\b" "$requirements" || true)
    [ "${#known[@]}" -gt 0 ] || fault "$requirements: no row begins with a number"

    while IFS= read -r cited; do
        [ -n "${known[${cited##*:}]-}" ] || fault "${cited%:*}: ${cited##*:} does not stand in $requirements"
    done < <(grep -rnoE --include='*.rs' "\b$number\b" tests src || true)
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

for guide in README.md ARCHITECTURE.md CONTRIBUTING.md docs/attacks.md; do
    check_guide "$guide"
done
check_requirements
check_attacks
RUSTDOCFLAGS="-D warnings" cargo doc --no-deps --locked --quiet || fault "cargo doc: warnings, see above"

[ "$faults" -eq 0 ] || { echo "documentation: $faults faults"; exit 1; }
echo "documentation: as it should be"
