#!/usr/bin/env bash
# An older release and this one on the same database: does each finish what the other began, and refuse what the other has taken?
#
#   bash tests/rolling.sh [COMMIT]     the older one is built from this commit; the newest tag if not said, else the last merge
#
# On SQLite one after the other (older, newer, older, newer), on PostgreSQL side by side; at the end the schema names a release
# that neither is, and both refuse it. Prints what it saw, and fails with the first thing that was lost or taken twice.
# Needs git, cargo, a C compiler and PostgreSQL (initdb and pg_ctl; Debian: postgresql), of which it starts a throwaway server. What
# is built stays in target/rolling for the next time: the first takes as long as a build from nothing.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

commit="${1-$(git describe --tags --abbrev=0 2>/dev/null || git rev-list --merges --max-count=1 HEAD)}"
commit="$(git rev-parse --verify --quiet --short "$commit^{commit}")" || {
    echo "usage: bash tests/rolling.sh [COMMIT]; there is no commit ${1-, tag or merge to take}" >&2
    exit 2
}
older="$PWD/target/rolling/countersign-$commit"
if [ ! -x "$older" ]; then
    source="$(mktemp -d /tmp/countersign-rolling.XXXXXX)"
    trap 'rm -rf "$source"' EXIT
    git archive "$commit" | tar -x -C "$source"
    echo "building $commit"
    cargo build --quiet --locked --manifest-path "$source/Cargo.toml" --target-dir target/rolling --bin countersign
    cp target/rolling/debug/countersign "$older"
fi
echo "older: $commit, $(git log -1 --format='%cs %s' "$commit")"
echo "newer: $(git rev-parse --short HEAD)$(git diff --quiet HEAD || echo ', with changes')"

# settings of the shell are not those of the test
for name in "${!COUNTERSIGN_@}"; do unset "$name"; done
COUNTERSIGN_OLDER="$older" cargo test --quiet --locked --test api two_releases_on_one_database -- --ignored --nocapture
