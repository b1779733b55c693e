# shellcheck shell=bash
# Copies the pure rooms and the model alone, so that building them again costs seconds. For scripts that stand beside this one.
#
#   pure_rooms FOLDER     a crate of the same name there, with the dependencies of this one; from the top of the repository

pure_rooms() {
    mkdir -p "$1/src"
    cp -r src/model src/policy src/methods src/vault src/token.rs src/clock.rs "$1/src/"
    cp Cargo.lock README.md "$1/"
    sed -e '/^\[\[bench\]\]/,/^$/d' -e '/^default-run/d' Cargo.toml >"$1/Cargo.toml"
    printf '#![allow(missing_docs)]\npub mod clock;\npub mod methods;\npub mod model;\npub mod policy;\npub mod token;\npub mod vault;\n' >"$1/src/lib.rs"
}
