#!/usr/bin/env bash
# kill -9 of `countersign serve` at random under load, then: is everything there that was answered, and is no code taken twice?
#
#   bash tests/kill.sh [ROUNDS]     so many kills on each database; 200 if not said, about ten minutes
#
# Needs cargo, a C compiler and PostgreSQL (initdb and pg_ctl; Debian: postgresql). It starts a throwaway server of its own.
# Prints what was counted, and fails with the first thing that was lost. tests/run.sh runs a few rounds of the same.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

rounds="${1-200}"
case "$rounds" in
    "" | *[!0-9]*) echo "usage: bash tests/kill.sh [ROUNDS]" >&2; exit 2 ;;
esac

# settings of the shell are not those of the test
for name in "${!COUNTERSIGN_@}"; do unset "$name"; done
COUNTERSIGN_KILL_ROUNDS="$rounds" cargo test --locked --test api killed_many_times -- --ignored --nocapture
