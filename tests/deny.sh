#!/usr/bin/env bash
# What comes in from outside: licences, sources, bans and known vulnerabilities of every crate in Cargo.lock, by deny.toml.
#
#   bash tests/deny.sh                what can be judged here
#   ADVISORIES=1 bash tests/deny.sh   fails as well where no list of advisories can be had
#
# Needs cargo-deny; where it is missing it is built into target/tools, which takes some minutes: so this is no step of tests/run.sh.
# Advisories are those of github.com/RustSec/advisory-db, as fetched now, else as fetched last.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

PATH="$PATH:$PWD/target/tools/bin"
if ! cargo deny --version >/dev/null 2>&1; then
    echo "building cargo-deny"
    cargo install --quiet --locked --root target/tools cargo-deny
fi
cargo deny --version

outcome=0
# duplicates are told of and allowed
cargo deny --locked --log-level error check --hide-inclusion-graph --allow duplicate licenses bans sources || outcome=1

fetched=(--disable-fetch)
if cargo deny fetch db >/dev/null 2>&1; then fetched=(); fi
if [ "${#fetched[@]}" -eq 0 ] || compgen -G "${CARGO_HOME:-$HOME/.cargo}/advisory-dbs/*/crates" >/dev/null; then
    cargo deny --locked --log-level error check --hide-inclusion-graph "${fetched[@]}" advisories || outcome=1
elif [ "${ADVISORIES-}" = 1 ]; then
    echo "advisories: there is no list of them, and it cannot be fetched" >&2
    outcome=1
else
    echo "advisories: not checked, their list cannot be fetched"
fi
exit "$outcome"
