#!/usr/bin/env bash
# Do the unit tests notice when a line of the pure rooms is changed? Each change that they do not notice is named.
#
#   bash tests/mutants.sh [ROOM…]     src/policy src/vault src/token.rs src/methods if not said; a room may be one file
#   SHARD=2/8 bash tests/mutants.sh src/methods     the third eighth of a room's changes
#
# Needs cargo and a C compiler, and installs cargo-mutants where it is missing. It changes a copy that holds these rooms and the
# model alone, so that a change costs seconds. What was found is in docs/mutants.md.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

rooms=("$@")
[ "${#rooms[@]}" -gt 0 ] || rooms=(src/policy src/vault src/token.rs src/methods)
cargo mutants --version >/dev/null 2>&1 || cargo install --locked cargo-mutants

# settings of the shell are not those of the tests
for name in "${!COUNTERSIGN_@}"; do unset "$name"; done

# The copy has a folder for what is built that stays, so that the next run begins at once.
export CARGO_TARGET_DIR="${MUTANTS_TARGET-$PWD/target/mutants}"
copy="$(mktemp -d /tmp/countersign-mutants.XXXXXX)"
trap 'rm -rf "$copy"' EXIT
. tests/pure-rooms.sh
pure_rooms "$copy"

# Fewer cases of each property: a change that only one in thousands shows is for the ordinary run.
export PROPTEST_CASES="${PROPTEST_CASES-32}"
for room in "${rooms[@]}"; do
    files="$room"
    [ ! -d "$room" ] || files="$room/**/*.rs"
    # src/policy/throttle.rs -> policy::throttle::
    module="${room#src/}"
    module="${module%.rs}"
    module="${module%/mod}"
    outcome=0
    (cd "$copy" && cargo mutants --in-place --no-shuffle --timeout 20 --build-timeout 300 \
        ${SHARD:+--shard "$SHARD"} --file "$files" -- --lib "${module//\//::}::") || outcome=$?
    # 2: some changes were missed, 3: some ran out of time; both are for people to judge.
    case "$outcome" in 0 | 2 | 3) ;; *) exit "$outcome" ;; esac
    printf '\n%s%s\n' "$room" "${SHARD:+, shard $SHARD}"
    for kind in caught missed timeout unviable; do
        printf '%s: %d\n' "$kind" "$(wc -l <"$copy/mutants.out/$kind.txt")"
    done
    sed 's/^/survives: /' "$copy/mutants.out/missed.txt"
done
