#!/usr/bin/env bash
# A coverage-guided fuzzer (libFuzzer) on what reads things from outside: ceremonies, codes, phone numbers, names in otpauth
# addresses, JWTs and client tokens. Nothing may panic, and nothing that was changed may pass for what it was.
#
#   bash tests/fuzz.sh [SECONDS] [PARSER…]     of each; 60 if not said, and all parsers
#   FUZZ_CORPUS=folder bash tests/fuzz.sh      keeps what was found to reach new code, and begins with it
#
# Needs cargo and a C++ compiler. No other toolchain: coverage is counted by a pass that the stable compiler has. The first run
# builds all dependencies anew, counted too.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

seconds="${1-60}"
case "$seconds" in
    "" | *[!0-9]*) echo "usage: bash tests/fuzz.sh [SECONDS] [PARSER…]" >&2; exit 2 ;;
esac
shift || true
parsers=("$@")
[ "${#parsers[@]}" -gt 0 ] || parsers=(registration assertion code recovery_code phone otpauth jwt client_token)

export CARGO_TARGET_DIR="${FUZZ_TARGET-$PWD/target/fuzz}"
copy="$(mktemp -d /tmp/countersign-fuzz.XXXXXX)"
trap 'rm -rf "$copy"' EXIT
. tests/pure-rooms.sh
pure_rooms "$copy"
mkdir "$copy/examples"
cp tests/fuzz/parsers.rs "$copy/examples/fuzz.rs"
sed -i 's/^\[dev-dependencies\]/&\nlibfuzzer-sys = "0.4.10"/' "$copy/Cargo.toml"

# What the fuzzer counts is built into every crate but those that run while building, which is why the target is named.
host="$(rustc -vV | sed -n 's/^host: //p')"
export RUSTFLAGS="-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
-Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares"
(cd "$copy" && cargo build --quiet --example fuzz --target "$host" --config profile.dev.opt-level=1)

corpus="${FUZZ_CORPUS-$copy/corpus}"
outcome=0
for parser in "${parsers[@]}"; do
    mkdir -p "$corpus/$parser" "$copy/seeds/$parser"
    log="$copy/$parser.log"
    COUNTERSIGN_FUZZ="$parser" COUNTERSIGN_FUZZ_SEEDS="$copy/seeds/$parser" \
        "$CARGO_TARGET_DIR/$host/debug/examples/fuzz" -max_total_time="$seconds" -max_len=4096 -timeout=5 -rss_limit_mb=1024 \
        -artifact_prefix="$copy/" -print_final_stats=1 "$corpus/$parser" "$copy/seeds/$parser" >"$log" 2>&1 || {
        outcome=1
        tail -n 40 "$log"
    }
    inputs="$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")"
    reached="$(sed -n 's/.* cov: \([0-9]*\) .*/\1/p' "$log" | sed -n '1p;$p' | paste -sd' ')"
    printf '%s: %s inputs, places reached at first and at last: %s\n' "$parser" "${inputs:-?}" "${reached:-?}"
done
[ "$outcome" = 0 ] && echo "nothing panicked, nothing that was changed passed" || echo "FAILED, see above"
exit "$outcome"
