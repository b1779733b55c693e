#!/usr/bin/env bash
# The races of tests/api/races.rs over and over: is anything used up twice when fifty copies of a request arrive together?
#
#   bash tests/races.sh [ROUNDS]     so many rounds, each with new people; 500 if not said, which are 10,000 races of fifty
#   SECONDS_AT_MOST=300 bash tests/races.sh     no new ten rounds after that time
#   RELEASE=1 bash tests/races.sh     optimised: some minutes more to build, and each round several times as fast
#
# On SQLite, or where COUNTERSIGN_TEST_POSTGRES names a server and COUNTERSIGN_TEST_DATABASE=postgres, on PostgreSQL.
# A second winner, or none, fails at once. tests/run.sh runs one round of the same.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

rounds="${1-500}"
case "$rounds" in
    "" | *[!0-9]*) echo "usage: bash tests/races.sh [ROUNDS]" >&2; exit 2 ;;
esac
ulimit -n 16384 2>/dev/null || ulimit -n "$(ulimit -Hn)" || true
log="$(mktemp /tmp/countersign-races.XXXXXX)"
trap 'rm -f "$log"' EXIT
cargo test --locked ${RELEASE:+--release} --test api --no-run 2>&1 | tee "$log"
races="$(sed -n 's/.*Executable .*(\(.*\))$/\1/p' "$log")"

SECONDS=0
left="$rounds"
outcome=0
while [ "$left" -gt 0 ] && [ "$SECONDS" -lt "${SECONDS_AT_MOST-1000000}" ] && [ "$outcome" = 0 ]; do
    batch="$((left < 10 ? left : 10))"
    left="$((left - batch))"
    COUNTERSIGN_RACE_ROUNDS="$batch" "$races" races:: --nocapture >>"$log" 2>&1 || outcome=$?
done
grep -E 'panicked at|^assertion|^ *left:|^ *right:|^error' "$log" || true
awk -v took="$SECONDS" -v rounds="$((rounds - left))" -v outcome="$outcome" '
    /^races of 50: / { races += $4 }
    END {
        printf "%d races of 50 in %d rounds, %d s; ", races, rounds, took
        print (outcome == 0 ? "0 double spends" : "FAILED, see above")
    }' "$log"
exit "$outcome"
