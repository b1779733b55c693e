#!/usr/bin/env bash
# Damages at random what comes from outside: client data, attestation objects, assertions, codes, phone numbers, names in otpauth
# addresses, JWTs, client tokens, the headers Authorization and Idempotency-Key. Nothing may panic, and nothing that was changed
# may pass for what it was.
#
#   bash tests/torture.sh [CASES]     of each; 10,000 if not said. tests/run.sh runs a few of the same.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

cases="${1-10000}"
case "$cases" in
    "" | *[!0-9]*) echo "usage: bash tests/torture.sh [CASES]" >&2; exit 2 ;;
esac
export COUNTERSIGN_TORTURE="$cases"
cargo test --locked --lib --test vectors torture
