#!/usr/bin/env bash
# The whole test run: format, lints, tests on SQLite and PostgreSQL and in a real browser, documentation.
#
#   bash tests/run.sh          everything
#   bash tests/run.sh quick    the same without the browser
#
# Needs cargo. A C compiler and make, PostgreSQL, Chromium and its driver are installed by apt-get where they are missing.
# PostgreSQL runs as a throwaway cluster in a folder of its own, which is gone afterwards; no other server is touched.
#
# The tests read four variables, which may be set by hand for `cargo test` alone:
#   COUNTERSIGN_TEST_POSTGRES   address of a PostgreSQL database whose user may create databases
#   COUNTERSIGN_TEST_DATABASE   postgres: the tests of the API run there, each on a database of its own; SQLite otherwise
#   COUNTERSIGN_TEST_BROWSER    0: leave the browser tests out; 1: fail where there is no browser
#   COUNTERSIGN_TEST_VECTORS    1: fail where the vectors are missing; set here where the folder of tests/vectors.rs is there
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# Thousands of connections at once are part of the tests.
ulimit -n 16384 2>/dev/null || ulimit -n "$(ulimit -Hn)" || true

case "${1-}" in
    "") browser=1 ;;
    quick) browser=0 ;;
    *) echo "usage: bash tests/run.sh [quick]" >&2; exit 2 ;;
esac

folder=""
owner=""
binaries=""
failed_steps=()

die() {
    echo "tests/run.sh: $*" >&2
    exit 1
}

# --- steps ---

# Runs a command under a heading, says how long it took, and remembers whether it failed.
step() {
    local name="$1" start="$SECONDS" outcome="ok"
    shift
    printf '\n=== %s ===\n' "$name"
    "$@" 2>&1 || outcome="FAILED"
    [ "$outcome" = ok ] || failed_steps+=("$name")
    printf -- '--- %s: %s, %d s\n' "$name" "$outcome" "$((SECONDS - start))"
    [ "$outcome" = ok ]
}

# The last words: what failed, and the sums of cargo's own result lines.
finish() {
    local log="$folder/tests.log" passed failed skipped
    [ -f "$log" ] || : >"$log"
    read -r passed failed skipped < <(awk '
        /^test result: / { passed += $4; failed += $6; skipped += $8 }
        END { print passed + 0, failed + 0, skipped + 0 }' "$log")
    printf '\n'
    if [ "$passed" -eq 0 ] && [ "${#failed_steps[@]}" -eq 0 ]; then
        failed_steps+=("tests: none ran")
    fi
    for name in "${failed_steps[@]}"; do
        echo "failed: $name"
    done
    echo "tests/run.sh: $passed passed, $failed failed, $skipped skipped"
    [ "${#failed_steps[@]}" -eq 0 ] || exit 1
    exit 0
}

# --- programs ---

have() {
    command -v "$1" >/dev/null 2>&1
}

# The folder of initdb and pg_ctl: on PATH, or where Debian keeps them (the newest).
find_postgres() {
    local candidate
    if have initdb && have pg_ctl; then
        binaries="$(dirname "$(command -v initdb)")"
        return 0
    fi
    while IFS= read -r candidate; do
        if [ -x "$candidate/initdb" ] && [ -x "$candidate/pg_ctl" ]; then
            binaries="$candidate"
            return 0
        fi
    done < <(printf '%s\n' /usr/lib/postgresql/*/bin | sort -rV)
    return 1
}

missing_packages() {
    find_postgres || echo postgresql
    [ -n "$(type -P kill)" ] || echo procps
    { have cc && have make; } || echo build-essential
    if [ "$browser" = 1 ]; then
        have chromium || echo chromium
        have chromedriver || echo chromium-driver
    fi
}

install_packages() {
    local log="$folder/install.log" root=() attempt
    have apt-get || die "please install what these Debian packages hold: $*"
    if [ "$(id -u)" -ne 0 ]; then
        have sudo || die "to install $* this must run as root, or sudo must be there"
        root=(sudo)
    fi
    echo "installing $*"
    for attempt in 1 2; do
        if "${root[@]}" apt-get -q update >"$log" 2>&1 </dev/null &&
            "${root[@]}" env DEBIAN_FRONTEND=noninteractive \
                apt-get -q -y --no-install-recommends install "$@" >>"$log" 2>&1 </dev/null; then
            return 0
        fi
        echo "attempt $attempt to install $* failed"
        sleep "$((attempt == 1 ? 5 : 0))"
    done
    tail -n 30 "$log" >&2
    die "$* could not be installed"
}

prepare_programs() {
    local packages=()
    mapfile -t packages < <(missing_packages)
    if [ "${#packages[@]}" -gt 0 ]; then
        install_packages "${packages[@]}"
        mapfile -t packages < <(missing_packages)
        [ "${#packages[@]}" -eq 0 ] || die "installed, and still not found: ${packages[*]}"
    fi
    find_postgres

    have cargo || PATH="$PATH:$HOME/.cargo/bin"
    have cargo || die "cargo is missing: https://rustup.rs"
    if ! cargo fmt --version >/dev/null 2>&1 || ! cargo clippy --version >/dev/null 2>&1; then
        have rustup || die "cargo fmt or cargo clippy is missing, and there is no rustup to add them"
        rustup component add rustfmt clippy
    fi
}

# --- PostgreSQL ---

# PostgreSQL refuses to run as root.
as_owner() {
    if [ -z "$owner" ]; then
        "$@"
    elif have runuser; then
        runuser -u "$owner" -- "$@"
    elif have sudo; then
        sudo -u "$owner" -- "$@"
    else
        su -s /bin/sh "$owner" -c "$(printf '%q ' "$@")"
    fi
}

port_is_taken() {
    (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null
}

start_postgres() {
    local home="$folder/postgres" log="$folder/postgres.log" port attempt
    mkdir "$home"
    if [ "$(id -u)" -eq 0 ]; then
        owner=postgres
        id -u "$owner" >/dev/null 2>&1 || owner=nobody
        chown "$owner" "$home"
    fi
    cd "$home" # a folder that the owner can read
    # A language's order, as most servers have it: letters, digits and signs sort as they do not in SQLite.
    local order=(--no-locale)
    if "$binaries/initdb" --help | grep -q -- --locale-provider; then
        order=(--locale=C.UTF-8 --locale-provider=icu --icu-locale=en-US)
    fi
    as_owner "$binaries/initdb" --pgdata="$home/data" --auth=trust --username=postgres --encoding=UTF8 "${order[@]}" \
        --no-sync >"$log" 2>&1 </dev/null || { tail -n 30 "$log" >&2; die "initdb failed"; }
    for attempt in 1 2 3 4 5 6 7 8; do
        port="$((20000 + RANDOM % 10000))" # below the ports that the system gives to clients
        if port_is_taken "$port"; then continue; fi
        # no fsync: what the tests write is thrown away
        if as_owner "$binaries/pg_ctl" --pgdata="$home/data" --log="$home/server.log" --wait --timeout=60 \
            --options="-c listen_addresses=127.0.0.1 -c port=$port -c unix_socket_directories='$home' -c fsync=off -c max_connections=300" \
            start >>"$log" 2>&1 </dev/null; then
            cd "$OLDPWD"
            export COUNTERSIGN_TEST_POSTGRES="postgres://postgres@127.0.0.1:$port/postgres"
            echo "PostgreSQL: $("$binaries/initdb" --version), 127.0.0.1:$port"
            return 0
        fi
        echo "attempt $attempt to start PostgreSQL failed"
    done
    tail -n 30 "$log" "$home/server.log" >&2 || true
    die "PostgreSQL did not start"
}

stop_postgres() {
    local data="$folder/postgres/data"
    [ -f "$data/postmaster.pid" ] || return 0
    (cd "$folder/postgres" && as_owner "$binaries/pg_ctl" --pgdata="$data" --mode=immediate --wait --timeout=30 stop) \
        >/dev/null 2>&1 </dev/null || kill -KILL "$(head -n 1 "$data/postmaster.pid")" 2>/dev/null || true
}

# --- the end ---

# Drivers and browsers that a test left behind: those that were started with our folder for temporary files.
stop_browsers() {
    local process
    for process in /proc/[0-9]*; do
        case "$(cat "$process/comm" 2>/dev/null || true)" in
            chromedriver | chrom*) ;;
            *) continue ;;
        esac
        if tr '\0' '\n' 2>/dev/null <"$process/environ" | grep -qxF "TMPDIR=$folder/tmp"; then
            echo "left behind: $(cat "$process/comm" 2>/dev/null) (${process#/proc/})" >&2
            kill -KILL "${process#/proc/}" 2>/dev/null || true
        fi
    done
}

clean_up() {
    local status=$?
    trap - EXIT INT TERM HUP
    set +e
    stop_browsers
    stop_postgres
    rm -rf "$folder"
    exit "$status"
}

# --- the run ---

# The fuzzer's parsers are built by a script of their own, and no part of this crate.
formatted() {
    cargo fmt --check && rustfmt --edition 2024 --check tests/fuzz/parsers.rs
}

run_tests() {
    TMPDIR="$folder/tmp" cargo test --locked --no-fail-fast 2>&1 | tee "$folder/tests.log"
}

# The API and its races once more, on the other database.
run_tests_on_postgres() {
    TMPDIR="$folder/tmp" COUNTERSIGN_TEST_DATABASE=postgres cargo test --locked --no-fail-fast --test api 2>&1 |
        tee -a "$folder/tests.log"
}

# settings of the shell are not those of the tests
for name in "${!COUNTERSIGN_@}"; do unset "$name"; done
export COUNTERSIGN_TEST_BROWSER="$browser"
[ ! -d ../shared/vectors ] || export COUNTERSIGN_TEST_VECTORS=1

folder="$(mktemp -d /tmp/countersign-tests.XXXXXX)"
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
trap 'exit 129' HUP
chmod 755 "$folder"
mkdir "$folder/tmp"

printf '=== programs ===\n'
prepare_programs
start_postgres

step "format" formatted || true
step "lints" cargo clippy --all-targets --locked -- -D warnings || true
step "lints with traces" cargo clippy --lib --bins --features otlp --locked -- -D warnings || true
step "build" cargo test --locked --no-run || finish
step "tests" run_tests || true
step "tests of the API on PostgreSQL" run_tests_on_postgres || true
step "documentation" bash tests/documentation.sh || true
finish
