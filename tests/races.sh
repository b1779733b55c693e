#!/usr/bin/env bash
# The races of tests/api/races.rs over and over: is anything used up twice when fifty copies of a request arrive together?
#
#   bash tests/races.sh [ROUNDS]     so many rounds, each with a new person a day later; 500 if not said, which are
#                                    10,000 races of fifty
#   SECONDS_AT_MOST=300 bash tests/races.sh     as many rounds as fit
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
start="$SECONDS"
outcome=0
COUNTERSIGN_RACE_ROUNDS="$rounds" COUNTERSIGN_RACE_SECONDS="${SECONDS_AT_MOST-}" \
    cargo test --locked --test api races:: -- --nocapture >"$log" 2>&1 || outcome=$?
grep -E '^test |panicked at|assertion|left:|right:|error' "$log" || true
awk -v took="$((SECONDS - start))" -v outcome="$outcome" '
    /^races of 50: / { races += $4; rounds += $6 }
    END {
        printf "%d races of 50 in %d rounds of a test, %d s with the build; ", races, rounds, took
        print (outcome == 0 ? "0 double spends" : "FAILED: see above")
    }' "$log"
exit "$outcome"
