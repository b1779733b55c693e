# shellcheck shell=bash
# Copies the pure rooms and the model alone, so that building them again costs seconds. For scripts that stand beside this one.
#
#   pure_rooms FOLDER     a crate of the same name there, with those dependencies of this one that these rooms name; from the top
#                         of the repository

pure_rooms() {
    local line name section=""
    mkdir -p "$1/src"
    cp -r src/model src/policy src/methods src/vault src/token.rs src/clock.rs "$1/src/"
    cp Cargo.lock README.md "$1/"
    printf '#![allow(missing_docs)]\npub mod clock;\npub mod methods;\npub mod model;\npub mod policy;\npub mod token;\npub mod vault;\n' >"$1/src/lib.rs"
    while IFS= read -r line; do
        [[ "$line" != \[* ]] || section="$line"
        case "$section" in
            "[[bench]]" | "[features]") continue ;;
            *dependencies\])
                name="${line%% =*}"
                if [[ "$line" == *" = "* && "$line" != \#* ]] && ! grep -rqw "${name//-/_}" "$1/src"; then continue; fi
                ;;
        esac
        [[ "$line" == default-run* ]] || printf '%s\n' "$line"
    done <Cargo.toml >"$1/Cargo.toml"
}
